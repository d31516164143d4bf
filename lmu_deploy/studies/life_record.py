"""Schedules of calibrations, and the record of a study of the lifetime of chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.metrics import reached_by
from lmu_deploy.core.validation import check_integer
from lmu_deploy.studies.plot import Curve
from lmu_deploy.studies.records import read_fields

NEVER, ON_ERROR = "never", "on-error"
METHODS = ("full", "readout")
_UNITS = {"d": 1, "w": 7, "y": 365}
REACH = 0.95
_QUANTILES = {"worst chip": 1.0, "95 % reach": REACH, "median": 0.5, "best chip": 0.0}


@dataclass(frozen=True)
class Schedule:
    """When chips are calibrated again, and how.

    Attributes
    ----------
    every : int
        Days between calibrations; 0 for never.
    on_error : bool
        Whether a chip is calibrated again when it has become worse; `every` is 0 then.
    method : {"full", "readout"}
    """

    every: int = 0
    on_error: bool = False
    method: str = "full"

    @classmethod
    def parse(cls, text: str, method: str = "full") -> Schedule:
        """Read "never", "on-error" or a time such as "30d".

        Raises
        ------
        InputError
            For any other text, or an unknown method.
        """
        if method not in METHODS:
            raise InputError(f"recalibration is {method!r}; choose one of {', '.join(METHODS)}.")
        if text == NEVER:
            return cls(method=method)
        if text == ON_ERROR:
            return cls(on_error=True, method=method)
        return cls(every=parse_age(text, least=1), method=method)

    def __str__(self) -> str:
        if not (self.every or self.on_error):
            return NEVER
        when = ON_ERROR if self.on_error else f"{self.every}d"
        return when if self.method == "full" else f"{when}, {self.method} only"

    def last(self, day: int) -> int:
        """Return the day of the last calibration before or at a day, apart from on-error."""
        return day // self.every * self.every if self.every else 0


def parse_age(text: str, least: int = 0) -> int:
    """Read a time such as "30d", "2w" or "1y" in days.

    Raises
    ------
    InputError
        When it is none, or shorter than `least`.
    """
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _UNITS or len(number) > 5:
        raise InputError(f"{text[:40]!r} is no time; give days, weeks or years: 30d, 2w or 1y.")
    return check_integer("time in days", int(number) * _UNITS[unit], least, 36_500)


def parse_temperatures(text: str) -> list[float]:
    """Read temperatures with commas between.

    Raises
    ------
    InputError
        When one is no number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"temperatures are {text[:40]!r}; give degrees Celsius with commas between: 0,25,60."
        ) from error


@dataclass(frozen=True)
class Lifetime:
    """Metric of a task on every chip, over age and temperature.

    Attributes
    ----------
    network : str
        Fingerprint of the float network.
    task, metric, profile : str
    samples : int
    settings : mapping
        Seed and options of every chip.
    drift : mapping of str to float
        Figures of drift and temperature.
    reference : float
        Metric of the float network.
    chips : tuple of int
        Seeds.
    new : tuple of float
        Metric of each chip when it is new, at the reference temperature.
    schedule, keep : str, float
        The schedule, and what a chip may lose: points of accuracy, or a relative rise of an NRMSE
        in percent.
    points : tuple of mapping
        `age` (days), `temperature` (degrees Celsius), `values` (metric of each chip).
    recalibrations : tuple of int
        Number of calibrations of each chip until the last age, apart from the first.
    kept_by : mapping, optional
        `every` (days) of the fewest calibrations with which 95 % of the chips lose at most `keep`
        at the last age, just before the next one and at any temperature; 0 if none is needed until
        then, None if not even daily ones suffice. `tried` lists (days, loss that 95 % of the chips
        do not exceed).
    trials : tuple of mapping
        For each interval that was tried `every` (days), and `chips`: the metric at each
        temperature, by the seed of a chip.
    inputs : str
        Hash of everything on which these depend; empty in records of early versions.
    """

    network: str
    task: str
    metric: str
    profile: str
    samples: int
    settings: Mapping[str, Any]
    drift: Mapping[str, float]
    reference: float
    chips: tuple[int, ...]
    new: tuple[float, ...]
    schedule: str
    keep: float
    points: tuple[Mapping[str, Any], ...]
    recalibrations: tuple[int, ...]
    kept_by: Mapping[str, Any] | None = None
    trials: tuple[Mapping[str, Any], ...] = ()
    inputs: str = ""

    def with_chips(self, other: Lifetime) -> Lifetime:
        """Return a record with the chips of another record of the study added, each once."""
        place = {chip: (of, n) for of in (other, self) for n, chip in enumerate(of.chips)}
        order = [place[chip] for chip in sorted(place)]
        points = tuple(
            {**point, "values": [of.points[number]["values"][n] for of, n in order]}
            for number, point in enumerate(self.points)
        )
        return replace(
            self,
            chips=tuple(sorted(place)),
            new=tuple(of.new[n] for of, n in order),
            points=points,
            recalibrations=tuple(of.recalibrations[n] for of, n in order),
        )

    def only(self, seeds: Sequence[int]) -> Lifetime:
        """Return a record of those of its chips that have one of these seeds."""
        kept = [n for n, chip in enumerate(self.chips) if chip in set(seeds)]
        points = tuple(
            {**point, "values": [point["values"][n] for n in kept]} for point in self.points
        )
        return replace(
            self,
            chips=tuple(self.chips[n] for n in kept),
            new=tuple(self.new[n] for n in kept),
            points=points,
            recalibrations=tuple(self.recalibrations[n] for n in kept),
            kept_by=None,
        )

    def with_trial(self, every: int, values: Mapping[int, Sequence[float]]) -> Lifetime:
        """Return a record with results of chips that are calibrated at an interval added.

        Parameters
        ----------
        every : int
            Days; 0 for never.
        values : mapping of int to sequence of float
            Metric of a chip at each temperature, just before the next calibration.
        """
        known = {str(chip): list(of) for chip, of in values.items()}
        merged = {**self.trial(every), **known}
        others = tuple(one for one in self.trials if one["every"] != every)
        return replace(self, trials=(*others, {"every": every, "chips": merged}))

    def trial(self, every: int) -> dict[str, list[float]]:
        """Return the results of chips that are calibrated at an interval, by their seeds."""
        return next((dict(one["chips"]) for one in self.trials if one["every"] == every), {})

    def lost_at(self, every: int, share: float = REACH) -> float:
        """Return the loss that a share of the chips does not exceed at any temperature."""
        trial = self.trial(every)
        by_chip = np.array([trial[str(chip)] for chip in self.chips])
        return max(self.lost_by(values, share) for values in by_chip.T)

    def lost_by(self, values: Sequence[float], share: float = REACH) -> float:
        """Return the loss of one of the chips that a share of them does not exceed."""
        return float(reached_by(self.losses(values).tolist(), share, "nrmse"))

    def reached_by(self, values: Sequence[float], share: float) -> float:
        """Return the metric that at least this fraction (0 to 1) of the chips reaches."""
        return float(reached_by(values, share, self.metric))

    def losses(self, values: Sequence[float]) -> np.ndarray:
        """Return what each chip has lost since it was new, in the units of `keep`."""
        return loss_of(self.metric, np.asarray(self.new), np.asarray(values))

    def table(self) -> str:
        """Return a Markdown table: quantiles over chips for each age and temperature."""
        lines = [
            f"| age | temperature | {' | '.join(_QUANTILES)} | chips within {self.keep:g} |",
            "|--:|--:|" + "--:|" * (len(_QUANTILES) + 1),
        ]
        for point in ({"age": 0, "temperature": self._warmth, "values": self.new}, *self.points):
            cells = [f"{self.reached_by(point['values'], q):.4f}" for q in _QUANTILES.values()]
            within = np.count_nonzero(self.losses(point["values"]) <= self.keep + 1e-9)
            lines.append(
                f"| {point['age']}d | {point['temperature']:g} °C | {' | '.join(cells)} | "
                f"{within} of {len(self.chips)} |"
            )
        return "\n".join(lines)

    @property
    def _warmth(self) -> float:
        return self.drift["reference_temperature"]

    def verdict(self) -> str:
        """Return sentences about the schedule, and the fewest calibrations that suffice."""
        unit = "points" if self.metric == "accuracy" else "percent"
        text = (
            f"{self.task}, {len(self.chips)} chips of {self.profile}, {self.samples} samples, "
            f"{self.metric}: float {self.reference:.4f}; recalibration {self.schedule}, "
            f"{np.mean(self.recalibrations):.1f} times a chip."
        )
        if self.kept_by is None:
            return text
        every = self.kept_by["every"]
        wanted = f"95 % of the chips within {self.keep:g} {unit} of what they were when new"
        if every is None:
            return f"{text} Not even daily calibrations keep {wanted}."
        if every == 0:
            last = max(point["age"] for point in self.points)
            return f"{text} Without any calibration until day {last} the study has {wanted}."
        return f"{text} Calibrations every {every} days keep {wanted}; longer intervals do not."

    def curves(self) -> list[Curve]:
        """Return the curves of the median and of what 95 % reach, for each temperature."""
        found = []
        for warmth in sorted({point["temperature"] for point in self.points}):
            points = [point for point in self.points if point["temperature"] == warmth]
            ages = [float(point["age"]) for point in points]
            for name, share in (("median", 0.5), ("95 % reach", REACH)):
                values = [self.reached_by(point["values"], share) for point in points]
                found.append(Curve(f"{warmth:g} °C, {name}", ages, values, share != REACH))
        return found


def load_lifetime(path: Path | str) -> Lifetime:
    """Read the record of a study of lifetimes.

    Raises
    ------
    InputError
        If there is no such file, or it is not a record.
    """
    wrong = f"{path} is no record of lifetimes; give a file that lmu-deploy yield --age wrote."
    read = read_fields(path, Lifetime, wrong)
    lists = ("chips", "new", "points", "recalibrations", "trials")
    if not all(isinstance(read.get(name, []), list) for name in lists):
        raise InputError(wrong)
    found = Lifetime(**{**read, **{name: tuple(read.get(name, ())) for name in lists}})
    columns = [found.new, found.recalibrations]
    try:
        columns += [point["values"] for point in found.points]
        columns += [of for one in found.trials for of in (*one["chips"].values(), [one["every"]])]
        whole = all(isinstance(v, (int, float)) for column in columns for v in column)
        lengths = {len(column) for column in columns[: 2 + len(found.points)]}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(wrong) from error
    if not whole or lengths != {len(found.chips)}:
        raise InputError(wrong)
    return found


def loss_of(metric: str, new: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return points of accuracy, or percent of an NRMSE, that were lost."""
    if metric == "accuracy":
        return np.asarray(100.0 * (new - values))
    return np.asarray(100.0 * (values / new - 1.0))
