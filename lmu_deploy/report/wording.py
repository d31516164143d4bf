"""Formatting of numbers and findings: percentages, counts, sizes, verdicts, yield of chips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmu_deploy.fidelity.gate import judged
from lmu_deploy.fidelity.measures.statistics import wilson
from lmu_deploy.fidelity.schema import (
    AgainstReference,
    Attribution,
    Cause,
    Equality,
    Metric,
    Specification,
    TargetFidelity,
)
from lmu_deploy.report.robustness_file import CALIBRATED, UNCALIBRATED, Robustness, YieldStudy

SPACE = "\u202f"
MINUS = "\u2212"
NOTHING = "\u2013"
TIMES = "\u00d7"


def metric_value(name: str, value: float) -> str:
    """Format an accuracy as a percentage, an NRMSE with three significant digits.

    Percentages have two decimals, so that one prediction of ten thousand is visible.
    """
    return f"{100 * value:.2f}{SPACE}%" if name == "accuracy" else significant(value)


def metric_interval(metric: Metric) -> str:
    """Format the 95 % interval, or return a dash when there is none."""
    if metric.ci95 is None:
        return NOTHING
    low, high = metric.ci95
    if metric.name == "accuracy":
        return f"{100 * low:.1f} to {100 * high:.1f}{SPACE}%"
    return f"{significant(low)} to {significant(high)}"


def metric_difference(name: str, difference: float) -> str:
    """Format target minus reference with its sign, in percentage points or as NRMSE."""
    if name == "accuracy":
        return f"{_signed(f'{100 * difference:+.2f}')} points"
    return _signed(f"{difference:+.2g}") if difference else "0"


def _signed(text: str) -> str:
    return text.replace("-", MINUS) if float(text) else text.lstrip("+-")


def significant(value: float, digits: int = 3) -> str:
    """Format a number with a few significant digits; very small numbers get a power of ten."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}·10{superscript(int(exponent))}".replace("-", MINUS)
    text = f"{value:#.{digits}g}"
    return (text.rstrip(".") if "e" not in text else f"{value:,.0f}").replace("-", MINUS)


def superscript(exponent: int) -> str:
    """Format an exponent in superscript digits."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def count(value: float) -> str:
    """Format a count: exact below a million, else in units of 10^6 (M), 10^9 (G) or 10^12 (T)."""
    for limit, factor, unit in ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M")):
        if abs(value) >= limit:
            return f"{value / factor:.2f}{SPACE}{unit}"
    exact = float(value).is_integer() or abs(value) >= 1000
    return f"{value:,.0f}" if exact else significant(value)


def size(n_bytes: int) -> str:
    """Format a size in bytes, kB, MB or GB (powers of ten)."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f}{SPACE}{unit}"
    return f"{n_bytes}{SPACE}B"


def seconds(value: float) -> str:
    """Format a time in ms, s or min."""
    if value < 1:
        return f"{1000 * value:.0f}{SPACE}ms"
    return f"{value:.1f}{SPACE}s" if value < 120 else f"{value / 60:.1f}{SPACE}min"


def quantity(value: float, unit: str) -> str:
    """Format a quantity with two significant digits and an SI prefix, such as 3.4 nJ."""
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if value >= 0.9995 * factor:
            return f"{float(f'{value / factor:.2g}'):,g}{SPACE}{prefix}{unit}"
    return f"{significant(value / 1e-12, 2)}{SPACE}p{unit}" if value else f"0{SPACE}{unit}"


def quantities(interval: tuple[float, float], unit: str) -> str:
    """Format a range of quantities; one quantity when both ends have the same text."""
    low, high = (quantity(value, unit) for value in interval)
    return low if low == high else f"{low} to {high}"


def share(value: float | None) -> str:
    """Format a share as a percentage; it may be negative, or too small to show a digit."""
    if value is None:
        return NOTHING
    if 0 < value < 0.0005:
        return f"<{SPACE}0.1{SPACE}%"
    return f"{_signed(f'{100 * value:.1f}')}{SPACE}%"


def setting(value: Any) -> str:
    """Format one setting of a target."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:.3g}"
    if isinstance(value, list):
        return " ".join(setting(item) for item in value)
    return "none" if value is None else str(value)


def readable_date(date: str) -> str:
    """Format 2026-01-02T03:04:05+00:00 as 2026-01-02 03:04 UTC; return other forms unchanged."""
    if date.endswith("+00:00") and date[10:11] == "T":
        return f"{date[:10]} {date[11:16]} UTC"
    return date


def plural(number: int, noun: str) -> str:
    """Format a number and its noun: 1 sample, 2 samples."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def verdict(found: TargetFidelity) -> tuple[str, str]:
    """Summarize how a target compares with the specification and with float.

    A network that violates the limits of its chip always counts as worse, and so does a target that
    differs from the specification.

    Returns
    -------
    words : str
        A few words for the headline.
    tone : {"same", "worse", "better", "unknown"}
        Selects the sign and the color of the headline.
    """
    tone, words = judged(found)
    if found.fit is None:
        return words, tone
    if found.fit.violations:
        return f"does not fit its chip; {words}", "worse"
    return f"{words}; fits its chip", tone


def sentence(name: str, found: TargetFidelity) -> str:
    """Describe the metric of a target and of float in plain sentences."""
    metric, against = found.metric, found.reference
    value = metric_value(metric.name, metric.value)
    interval = "" if metric.ci95 is None else f" (95{SPACE}% interval {metric_interval(metric)})"
    what = "an accuracy" if metric.name == "accuracy" else "an NRMSE"
    reaches = f"{name} reaches {what} of {value}{interval}"
    if against is None:
        return f"{reaches} on {plural(found.samples, 'sample')}.{_worst_output(metric)}"
    theirs = metric_value(metric.name, against.value)
    return (
        f"{reaches}; float reaches {theirs} on the same {plural(found.samples, 'sample')}. "
        f"{_changes(against)}.{_worst_output(metric)}"
    )


def _worst_output(metric: Metric) -> str:
    """Name the output with the largest NRMSE, and the mean, where there are several outputs."""
    outputs = metric.by_output or ()
    known = {k: value for k, value in enumerate(outputs) if value is not None}
    if not known:
        return ""
    worst = max(known, key=lambda k: known[k])
    mean = sum(known.values()) / len(known)
    return (
        f" The worst of its {len(outputs)} outputs is output {worst} with an NRMSE of "
        f"{significant(known[worst])}; their mean is {significant(mean)}."
    )


def _changes(against: AgainstReference) -> str:
    if against.flips is None:
        away = NOTHING if against.deviation is None else significant(against.deviation)
        return f"Its outputs deviate from those of float by an NRMSE of {away}"
    if against.flips == 0:
        return "All predictions are the same as in float"
    verb = "differs" if against.flips == 1 else "differ"
    parts = [f"{against.lost} lost" if against.lost else ""]
    parts += [f"{against.gained} gained" if against.gained else ""]
    detail = ", ".join(part for part in parts if part) or "incorrect in both"
    test = "" if against.p_value is None else f"; McNemar's test: {p_value(against.p_value)}"
    return f"{plural(against.flips, 'prediction')} {verb} from float ({detail}{test})"


def p_value(value: float) -> str:
    """Format the p-value of a test."""
    if value < 0.001:
        return f"p{SPACE}<{SPACE}0.001"
    return f"p{SPACE}={SPACE}{value:.3f}" if value < 0.1 else f"p{SPACE}={SPACE}{value:.2f}"


def equality(found: Equality) -> str:
    """Describe whether the recorded integers equal those of another target."""
    if not found.equal and not found.values:
        return (
            f"The recorded states cannot be compared with those of {found.target}: {found.first}."
        )
    where = f"{plural(found.samples, 'sample')}, {plural(found.steps, 'step')}"
    if found.compared:
        where += f"; {listed(found.compared)}"
    integers = f"{found.values:,} recorded integers ({where})"
    if found.equal:
        sentence = f"The results are bit-identical to {found.target} in all {integers}."
    else:
        sentence = (
            f"The results differ from {found.target} in {found.different:,} of {integers}. "
            f"The first difference is {found.first}."
        )
    if found.on_host:
        sentence += f" The host computes {listed(found.on_host)} in floats; these are not compared."
    return sentence


def specification(found: Specification) -> list[str]:
    """Describe how recorded values compare with the specification, and what explains it."""
    if found.false_alarms is not None:
        return _replayed_chip(found, found.false_alarms)
    integers = f"{found.values:,} recorded integers of {plural(found.samples, 'sample')}"
    if found.equal:
        return [f"All {integers} are those of the specification.", *found.faults]
    sentences = [f"{found.different:,} of {integers} differ from the specification."]
    if found.first is not None:
        at = found.first
        sentences.append(
            f"The first error is made by neuron {at.neuron} of {at.population} at step {at.step} "
            f"of sample {at.sample}: {at.recorded:,} instead of {at.predicted:,}."
        )
    return sentences + found.faults


def _replayed_chip(found: Specification, rate: float) -> list[str]:
    """Describe a statistical replay of an analog chip."""
    where = f"of {plural(found.replayed, 'sample')}"
    alarms = f"false-alarm rate {100 * rate:g}{SPACE}%"
    if found.equal:
        return [
            f"In a replay {where}, no state or spike count deviates from what the chip's file "
            f"predicts from the state before ({alarms}).",
            *found.blind,
        ]
    if not found.residuals:
        return [
            f"In a replay {where}, the states follow the chip's file ({alarms}).",
            *found.faults,
        ]
    return [
        f"In a replay {where}, {plural(found.residuals, 'statistic')} of states and spikes deviate "
        f"from what the chip's file predicts from the state before ({alarms}).",
        *found.faults,
    ]


def listed(names: Sequence[str]) -> str:
    """Join names with commas and an "and"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def over(found: Attribution) -> str:
    """Return what the intervals of the parts are over."""
    return f"{found.parts_chips} chips" if (found.parts_chips or 1) > 1 else "samples"


def uncertain(found: Attribution) -> list[str]:
    """Say which parts may be as large as the largest, and which may be zero."""
    if not found.parts:
        return []
    interval, ranked = f"90{SPACE}% interval over {over(found)}", list(found.parts.items())
    first, (_, low, _) = ranked[0]
    named = {name for cause in found.causes for name in _parts_of(found, cause)}
    zero = [name for name, (_, low, high) in ranked if low is None or low <= 0.0 <= (high or 0.0)]
    unnamed, sentences = [name for name in zero if name not in named], []
    if first in zero and not named:
        why = f"the {interval} of each part contains zero"
        why = f"there is no {interval}" if low is None else why
        return [f"No source of error is named as a cause, because {why}."]
    if found.parts_tied and first not in zero:
        names = listed([first, *found.parts_tied])
        which = f"The order of {names}"
        if found.parts_orders == 1:
            which = f"Which of {names} adds most"
        sentences.append(
            f"{which} is uncertain: the {interval} of the difference between their parts of the "
            "squared output error contains zero."
        )
    if unnamed and low is not None:
        names, one = listed(unnamed), len(unnamed) == 1
        sentences.append(
            f"{names[0].upper()}{names[1:]} {'is' if one else 'are'} not named as "
            f"{'a cause' if one else 'causes'}, because the {interval} of "
            f"{'its' if one else 'each'} part contains zero."
        )
    return sentences


def with_interval(found: Attribution, cause: Cause) -> str:
    """Return the part of a cause with its interval in brackets, or nothing if it is unknown."""
    parts = _parts_of(found, cause)
    if len(parts) != 1:
        return ""
    ((part, low, high),) = parts.values()
    by = "part" if found.parts_orders == 1 else "part by Shapley"
    ends = "" if low is None or high is None else f", {share(low)} to {share(high)} at 90{SPACE}%"
    return f" ({by} {share(part)}{ends}, over {over(found)})"


def _parts_of(
    found: Attribution, cause: Cause
) -> dict[str, tuple[float, float | None, float | None]]:
    """Return the parts of the source of a cause."""
    source, own = cause.source, f" of {cause.place}"
    given = found.parts
    parts = {n: p for n, p in given.items() if n in (source, source + own) or n.endswith(own)}
    return parts or {n: p for n, p in given.items() if n.startswith(f"{source} of ")}


ACCURACY_LOSS = 0.01
NRMSE_GROWTH = 1.1
"""Largest accepted loss of a chip: one point of accuracy, or 1.1 times the ideal NRMSE."""

METHODS = {UNCALIBRATED: "before calibration", CALIBRATED: "after calibration"}


def on_many_chips(found: Robustness, name: str, target: TargetFidelity) -> list[str]:
    """Describe the yield of the chip profile that a target used, for its verdict."""
    if target.fit is None or name != "brian2":
        return []
    return [
        good(study, CALIBRATED) for study in found.yields if study.profile == target.fit.profile
    ]


def good_chips(study: YieldStudy, method: str) -> int:
    """Count the chips whose loss is acceptable."""
    values = np.asarray(study.values[method])
    if study.metric == "accuracy":
        # Accuracies are multiples of 1/samples: a rounding error in the last digit must not decide.
        return int((values >= study.reference - ACCURACY_LOSS - 1e-9).sum())
    return int((values <= NRMSE_GROWTH * study.ideal).sum())


def good(study: YieldStudy, method: str) -> str:
    """Describe how many chips have an acceptable loss, with the interval of this yield."""
    enough, chips = good_chips(study, method), len(study.values[method])
    low, high = wilson(enough, chips)
    allowed = "are at most 1 point below float"
    if study.metric == "nrmse":
        allowed = f"have at most {NRMSE_GROWTH:g} times the NRMSE of an ideal chip"
    return (
        f"{enough:,} of {plural(chips, 'virtual chip')} {allowed} {METHODS[method]} "
        f"(95{SPACE}% interval of the yield: {100 * low:.1f} to {100 * high:.1f}{SPACE}%)."
    )
