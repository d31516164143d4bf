"""Numbers and findings in words: one way to write a percentage, a count, a size, a verdict.

How many of a batch of virtual chips would do, in numbers and in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from lmu_deploy.fidelity.measures.statistics import wilson
from lmu_deploy.fidelity.schema import AgainstReference, Equality, Metric, TargetFidelity
from lmu_deploy.report.robustness_file import CALIBRATED, UNCALIBRATED, Robustness, YieldStudy

SPACE = "\u202f"
MINUS = "\u2212"
NOTHING = "\u2013"
TIMES = "\u00d7"
SIGNIFICANT = 0.05
PRACTICALLY_EQUAL = 0.01


def metric_value(name: str, value: float) -> str:
    """Write an accuracy as a percentage, an NRMSE with three significant digits.

    Two decimals of a percentage: one answer of ten thousand has to show.
    """
    return f"{100 * value:.2f}{SPACE}%" if name == "accuracy" else significant(value)


def metric_interval(metric: Metric) -> str:
    """Write the 95 % interval, or a dash."""
    if metric.ci95 is None:
        return NOTHING
    low, high = metric.ci95
    if metric.name == "accuracy":
        return f"{100 * low:.1f} to {100 * high:.1f}{SPACE}%"
    return f"{significant(low)} to {significant(high)}"


def metric_difference(name: str, difference: float) -> str:
    """Write target minus reference, with its sign: percentage points, or NRMSE."""
    if name == "accuracy":
        return f"{_signed(f'{100 * difference:+.2f}')} points"
    return _signed(f"{difference:+.2g}") if difference else "0"


def _signed(text: str) -> str:
    return text.replace("-", MINUS) if float(text) else text.lstrip("+-")


def significant(value: float, digits: int = 3) -> str:
    """Write a number with a few significant digits; very small ones as powers of ten."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}·10{superscript(int(exponent))}".replace("-", MINUS)
    text = f"{value:#.{digits}g}"
    return (text.rstrip(".") if "e" not in text else f"{value:,.0f}").replace("-", MINUS)


def superscript(exponent: int) -> str:
    """Write an exponent in superscript digits."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def count(value: float) -> str:
    """Write a count: exact below a million, thousands set apart; else in millions and so on."""
    for limit, factor, unit in ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M")):
        if abs(value) >= limit:
            return f"{value / factor:.2f}{SPACE}{unit}"
    exact = float(value).is_integer() or abs(value) >= 1000
    return f"{value:,.0f}" if exact else significant(value)


def size(n_bytes: int) -> str:
    """Write a size in bytes, kB or MB (powers of ten)."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f}{SPACE}{unit}"
    return f"{n_bytes}{SPACE}B"


def seconds(value: float) -> str:
    """Write a time."""
    if value < 1:
        return f"{1000 * value:.0f}{SPACE}ms"
    return f"{value:.1f}{SPACE}s" if value < 120 else f"{value / 60:.1f}{SPACE}min"


def quantity(value: float, unit: str) -> str:
    """Write an amount with two significant digits and the prefix that suits it: 3.4 nJ."""
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if value >= 0.9995 * factor:
            return f"{float(f'{value / factor:.2g}'):,g}{SPACE}{prefix}{unit}"
    return f"{significant(value / 1e-12, 2)}{SPACE}p{unit}" if value else f"0{SPACE}{unit}"


def quantities(interval: tuple[float, float], unit: str) -> str:
    """Write a range of amounts; one amount where the two are written alike."""
    low, high = (quantity(value, unit) for value in interval)
    return low if low == high else f"{low} to {high}"


def share(value: float | None) -> str:
    """Write a part of a whole as a percentage, which may be negative or too small for a digit."""
    if value is None:
        return NOTHING
    if 0 < value < 0.0005:
        return f"<{SPACE}0.1{SPACE}%"
    return f"{_signed(f'{100 * value:.1f}')}{SPACE}%"


def setting(value: Any) -> str:
    """Write one setting of a target."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:.3g}"
    if isinstance(value, list):
        return " ".join(setting(item) for item in value)
    return "none" if value is None else str(value)


def readable_date(date: str) -> str:
    """Turn 2026-01-02T03:04:05+00:00 into 2026-01-02 03:04 UTC; other forms stay."""
    if date.endswith("+00:00") and date[10:11] == "T":
        return f"{date[:10]} {date[11:16]} UTC"
    return date


def plural(number: int, noun: str) -> str:
    """Write a number and its noun: 1 sample, 2 samples."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def verdict(found: TargetFidelity) -> tuple[str, str]:
    """Say in a few words how a target stands to float, and which sign goes with it.

    A network that does not fit its chip is no good there, however well it answers.

    Returns
    -------
    words : str
    tone : {"same", "close", "worse", "better", "unknown"}
    """
    words, tone = _standing(found)
    if found.fit is None:
        return words, tone
    if found.fit.violations:
        return f"does not fit its chip; {words}", "worse"
    return f"{words}; fits its chip", tone


def _standing(found: TargetFidelity) -> tuple[str, str]:
    against = found.reference
    if against is None:
        return "no float reference", "unknown"
    if found.metric.name == "accuracy":
        if against.flips == 0:
            return f"every answer as in float, on {plural(found.samples, 'sample')}", "same"
        changed = against.p_value is not None and against.p_value < SIGNIFICANT
    elif against.difference_ci95 is None:
        return "too few samples to tell", "unknown"
    else:
        low, high = against.difference_ci95
        small = abs(against.difference) <= PRACTICALLY_EQUAL * against.value
        if small:
            return "within 1 % of float", "close"
        changed = low > 0 or high < 0
    if not changed:
        return "no significant difference from float", "close"
    worse = (against.difference < 0) == (found.metric.name == "accuracy")
    return ("worse than float", "worse") if worse else ("better than float", "better")


def sentence(name: str, found: TargetFidelity) -> str:
    """Say in one plain sentence what became of the metric on a target."""
    metric, against = found.metric, found.reference
    value = metric_value(metric.name, metric.value)
    interval = "" if metric.ci95 is None else f" (95{SPACE}% interval {metric_interval(metric)})"
    what = f"{name} answers {value} right"
    if metric.name != "accuracy":
        what = f"{name} reaches an NRMSE of {value}"
    if against is None:
        return f"{what}{interval} on {plural(found.samples, 'sample')}."
    theirs = metric_value(metric.name, against.value)
    return (
        f"{what}{interval} against {theirs} in float on the same "
        f"{plural(found.samples, 'sample')}; {_changes(against)}."
    )


def _changes(against: AgainstReference) -> str:
    if against.flips is None:
        away = NOTHING if against.deviation is None else significant(against.deviation)
        return f"its outputs are {away} (NRMSE) from float's"
    if against.flips == 0:
        return "no answer differs"
    verb = "differs" if against.flips == 1 else "differ"
    parts = [f"{against.lost} lost" if against.lost else ""]
    parts += [f"{against.gained} gained" if against.gained else ""]
    detail = ", ".join(part for part in parts if part) or "wrong in both"
    test = "" if against.p_value is None else f"; McNemar's test: {p_value(against.p_value)}"
    return f"{plural(against.flips, 'answer')} {verb} ({detail}{test})"


def p_value(value: float) -> str:
    """Write the p-value of a test."""
    if value < 0.001:
        return f"p{SPACE}<{SPACE}0.001"
    return f"p{SPACE}={SPACE}{value:.3f}" if value < 0.1 else f"p{SPACE}={SPACE}{value:.2f}"


def equality(found: Equality) -> str:
    """Say whether recorded integers equal those of another target."""
    where = f"{plural(found.samples, 'sample')}, {plural(found.steps, 'step')}"
    integers = f"{found.values:,} integers of {where}"
    if found.compared:
        integers += f", all of {listed(found.compared)}"
    if found.equal:
        sentence = f"Equal to {found.target} bit for bit: {integers}."
    elif not found.values:
        return f"Cannot be compared with {found.target}: {found.first}."
    else:
        sentence = (
            f"Differs from {found.target} in {found.different:,} of {integers}; first at "
            f"{found.first}."
        )
    if found.apart:
        apart = listed(found.apart)
        sentence += f" Not compared, for the host computes it in floats: {apart}."
    return sentence


def listed(names: Sequence[str]) -> str:
    """Write names with commas and an "and"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


ACCURACY_LOSS = 0.01
NRMSE_GROWTH = 1.1
"""What a chip may lose: a point of accuracy against float, or a tenth of a perfect chip's error."""

METHODS = {UNCALIBRATED: "before calibration", CALIBRATED: "after calibration"}


def on_many_chips(found: Robustness, name: str, target: TargetFidelity) -> list[str]:
    """Say beside a target how many chips of its profile would do."""
    if target.fit is None or name != "brian2":
        return []
    return [
        good(study, CALIBRATED) for study in found.yields if study.profile == target.fit.profile
    ]


def reached_by(study: YieldStudy, method: str, share: float) -> float:
    """Give the metric that at least this share of the chips reaches or betters."""
    ordered = sorted(study.values[method], reverse=study.metric == "accuracy")
    return ordered[max(ceil(round(share * len(ordered), 9)), 1) - 1]


def good_chips(study: YieldStudy, method: str) -> int:
    """Count the chips that lose no more than is allowed."""
    values = np.asarray(study.values[method])
    if study.metric == "accuracy":
        # Accuracies are multiples of a sample: rounding in the last digit must decide nothing.
        return int((values >= study.reference - ACCURACY_LOSS - 1e-9).sum())
    return int((values <= NRMSE_GROWTH * study.ideal).sum())


def good(study: YieldStudy, method: str) -> str:
    """Say in a sentence how many chips would do, and what that says of all such chips."""
    enough, chips = good_chips(study, method), len(study.values[method])
    low, high = wilson(enough, chips)
    allowed = "are at most 1 point below float"
    if study.metric == "nrmse":
        allowed = f"have at most {NRMSE_GROWTH:g} times the error of a perfect chip"
    return (
        f"{enough:,} of {plural(chips, 'virtual chip')} {allowed} {METHODS[method]} "
        f"(95{SPACE}% interval of such chips {100 * low:.1f} to {100 * high:.1f}{SPACE}%)."
    )
