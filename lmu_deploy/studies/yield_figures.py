"""What a yield study found, as a record that can be kept, added to, and shown.

A study is what all its chips have in common; records of the same study can be put together, so
that a hundred chips may be judged in parts, on several days or machines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.options import SpikeOptions
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import write_text

METHODS = ("none", "dynamic")
_SHARES = {
    "worst chip": 1.0,
    "95 % reach": 0.95,
    "median": 0.5,
    "5 % reach": 0.05,
    "best chip": 0.0,
}
_STUDY = ("network", "task", "metric", "profile", "samples", "steps", "settings")
"""What all chips of a study have in common."""
_BINS, _WIDEST = 12, 50


def _empty() -> dict[str, list[float]]:
    return {method: [] for method in METHODS}


@dataclass(frozen=True)
class ChipYield:
    """The task's metric on every chip.

    Attributes
    ----------
    network : str
        Fingerprint of the float network.
    task, metric : str
        The metric is accuracy (more is better) or nrmse (less is better).
    profile : str
    samples, steps : int
        Of the test data that each chip was judged on.
    settings : mapping
        Seed and options that every chip was made with.
    reference, ideal : float
        The metric of the float network, and of a calibrated chip without mismatch, noise and
        rounded weights.
    chips : list of int
        Seeds, in rising order.
    values, spikes : mapping of calibration to list of float
        The metric, and the spikes of a sample, of each chip.
    """

    network: str
    task: str
    metric: str
    profile: str
    samples: int
    steps: int
    settings: Mapping[str, Any]
    reference: float
    ideal: float
    chips: list[int] = field(default_factory=list)
    values: Mapping[str, list[float]] = field(default_factory=_empty)
    spikes: Mapping[str, list[float]] = field(default_factory=_empty)

    def reached_by(self, method: str, share: float) -> float:
        """Give the metric that this share (0 to 1) of the chips reaches or betters."""
        worst_first = 1.0 - share if self.metric == "accuracy" else share
        return float(np.quantile(self.values[method], worst_first))

    @property
    def study(self) -> dict[str, Any]:
        """What a record must have in common with one that its chips are added to."""
        return {name: getattr(self, name) for name in _STUDY}

    def with_chips(self, other: ChipYield) -> ChipYield:
        """Add the chips of another record of the same study; one that both have counts once."""
        place = {chip: (of, n) for of in (other, self) for n, chip in enumerate(of.chips)}
        order = [place[chip] for chip in sorted(place)]
        return replace(
            self,
            chips=sorted(place),
            values={m: [of.values[m][n] for of, n in order] for m in METHODS},
            spikes={m: [of.spikes[m][n] for of, n in order] for m in METHODS},
        )


def check_study(found: ChipYield, study: Mapping[str, Any], place: Path | str) -> None:
    """Refuse a record whose chips were judged otherwise.

    Raises
    ------
    InputError
        Naming the first thing that differs.
    """
    for name, theirs in found.study.items():
        same = theirs == study[name]
        if name == "settings" and not same:
            same = _options(theirs) == _options(study[name])
        if not same:
            raise InputError(
                f"the chips in {place} were judged with {name} {theirs}, and {study[name]} is "
                "asked for; ask for what they were judged with, or name another file."
            )


def _options(settings: Mapping[str, Any]) -> SpikeOptions | None:
    """Return the options of a study; None if an earlier version had others."""
    try:
        return SpikeOptions.build(settings)
    except InputError:
        return None


def save_yield(found: ChipYield, path: Path | str) -> None:
    """Write a record as JSON."""
    write_text(path, json.dumps(asdict(found), indent=1, allow_nan=False) + "\n")


def load_yield(path: Path | str) -> ChipYield:
    """Read what :func:`save_yield` wrote.

    Raises
    ------
    InputError
        When there is no such file, or it holds something else.
    """
    wrong = f"{path} holds no record of a yield study; give a file that lmu-deploy yield wrote."
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(wrong) from error
    if not isinstance(read, dict) or set(read) != {f.name for f in fields(ChipYield)}:
        raise InputError(wrong)
    found = ChipYield(**read)
    if not _is_whole(found):
        raise InputError(wrong)
    return found


def _is_whole(found: ChipYield) -> bool:
    """Whether every chip has a number of each kind."""
    columns: list[Any] = []
    for of_method in (found.values, found.spikes):
        if not isinstance(of_method, dict) or set(of_method) != set(METHODS):
            return False
        columns += of_method.values()
    if not all(isinstance(column, list) for column in (found.chips, *columns)):
        return False
    numbers = [found.reference, found.ideal, *found.chips, *(v for c in columns for v in c)]
    return all(len(column) == len(found.chips) for column in columns) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers
    )


def verdict(found: ChipYield) -> str:
    """Say how far the worst twentieth of calibrated chips is from the ideal device."""
    reached = found.reached_by("dynamic", 0.95)
    if found.metric == "accuracy":
        distance = f"{100.0 * (found.ideal - reached):.2f} points below"
    else:
        distance = f"{100.0 * (reached / found.ideal - 1.0):.1f} % above"
    return (
        f"{found.task}, {len(found.chips)} chips of {found.profile}, {found.samples} samples of "
        f"{found.steps} steps, {found.metric}: float {found.reference:.4f}, ideal device "
        f"{found.ideal:.4f}; 95 % of the calibrated chips reach {reached:.4f}, {distance} the "
        "ideal device."
    )


def table(found: ChipYield) -> str:
    """Lay the distribution out as a Markdown table: the metric that a share of chips reaches."""
    lines = [
        f"| calibration | {' | '.join(_SHARES)} | spikes a sample |",
        "|---|" + "--:|" * (len(_SHARES) + 1),
    ]
    for method in METHODS:
        cells = [f"{found.reached_by(method, share):.4f}" for share in _SHARES.values()]
        spikes = f"{np.mean(found.spikes[method]):,.0f}"
        lines.append(f"| {method} | {' | '.join(cells)} | {spikes} |")
    return "\n".join(lines)


def histogram(found: ChipYield) -> str:
    """Draw both distributions in text, a line for each bin of the same edges."""
    edges = np.histogram_bin_edges(np.concatenate(list(found.values.values())), _BINS)
    lines = []
    for method in METHODS:
        counts = np.histogram(found.values[method], edges)[0]
        lines.append(f"{method}:")
        lines += _bars(edges, counts, max(1.0, len(found.chips) / _WIDEST))
    return "\n".join(lines)


def _bars(edges: np.ndarray, counts: Sequence[int] | np.ndarray, chips_each: float) -> list[str]:
    return [
        f"    {low:.4f} to {high:.4f} {count:>4} {'#' * int(np.ceil(count / chips_each))}".rstrip()
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
