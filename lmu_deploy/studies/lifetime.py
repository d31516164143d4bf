"""Lifetime of analog chips: the results of one network over age and temperature.

Every chip is calibrated when it is new, at the reference temperature of its profile. It drifts,
warms up and loses neurons (:mod:`converters.spiking.populations`), and is calibrated again by a
schedule: never, after every so many days, or when its result on training data has become worse. A
full calibration is that of `spike`, through the device interface, on the chip as it then is. The
calibration of the readout is cheap: it forces no state, and fits only the readout of the host to
what the chip's own states or hidden units are in ordinary operation.

Chips run in batches, in this process or on the workers of a cluster, and the record is written
after each of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from converters.options import SpikeOptions
from converters.spiking import spike_chips
from converters.spiking.populations import ChipLife, Drift
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint, write_text
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.progress import Progress, progress_bar
from lmu_deploy.core.reference import has_hidden, run_reference
from lmu_deploy.core.validation import check_integer, check_number
from lmu_deploy.fidelity.attribution.chips import Chips
from lmu_deploy.hardware.profile import AnalogProfile, load_profile
from lmu_deploy.studies.chip_yield import cluster_for, hash_of
from lmu_deploy.studies.life_record import (
    NEVER,
    Lifetime,
    Schedule,
    load_lifetime,
    loss_of,
    parse_age,
)
from lmu_deploy.studies.plot import write_curves
from lmu_deploy.studies.workers import Call, Spread
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.dataset import TaskLike
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for
from targets.base import Run

INTERVALS = (365, 180, 90, 30, 7, 1)
"""Days between calibrations that are tried, the longest first."""
_RIDGE = 1e-3
_MONITORED = 100
"""Training samples on which a chip is watched, for the schedule on-error."""
_CHIPS_AT_ONCE = 5
"""Largest number of chips that run together before the record is written."""


def lifetime_of_chips(
    network: Network | Path | str,
    options: SpikeOptions,
    *,
    ages: Sequence[str],
    temperatures: Sequence[float] | None = None,
    recalibrate: str = NEVER,
    recalibration: str = "full",
    keep: float = 2.0,
    search: bool = True,
    profile: str | AnalogProfile = "generic-analog",
    task: TaskLike | None = None,
    chips: int = 20,
    first_chip: int = 0,
    limit: int | None = None,
    out: Path | str | None = None,
    plot: Path | str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
) -> Lifetime:
    """Judge a network on virtual chips over their lives, with options in one object.

    :func:`lmu_deploy.chip_lifetime` describes the parameters and the errors.
    """
    chips = check_integer("chips", chips, 1, 10_000)
    first_chip = check_integer("first_chip", first_chip, 0, 2**31)
    keep = check_number("keep", keep, 0.0, 1000.0)
    schedule = Schedule.parse(recalibrate, recalibration)
    days = sorted({parse_age(age) for age in ages})
    if not days:
        raise InputError("there is no age; give some, such as 1d,30d,365d.")
    for file in (out, plot):
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise InputError(f"cannot write {file}: no such folder; give a folder that exists.")
    drift = drift_of(profile)
    warmths = [drift.reference_temperature] if temperatures is None else list(temperatures)
    from lmu_deploy.studies.graph_lifetime import study_of  # which needs this module

    study, given, options = study_of(load_float(network, "yield"), options)
    build = partial(
        study,
        given,
        task_for(given, task),
        profile,
        limit,
        options,
        drift,
        keep,
        days=tuple(days),
        warmths=tuple(warmths),
        schedule=schedule,
    )
    seeds = range(first_chip, first_chip + chips)
    with ExitStack() as opened, progress_bar("lifetime", "chips") as progress:
        cluster = cluster_for(scheduler, workers)
        if cluster is not None:
            opened.enter_context(cluster)
        found = follow(Spread(build, cluster), seeds, search, out, progress)
    if plot is not None:
        write_curves(found.curves(), (found.metric, "age, days"), found.verdict(), Path(plot))
    return found


def follow(
    spread: Spread[LifetimeStudy],
    seeds: Sequence[int],
    search: bool,
    out: Path | str | None = None,
    progress: Progress | None = None,
) -> Lifetime:
    """Follow chips through their lives, and search the fewest calibrations that suffice.

    Parameters
    ----------
    spread : Spread of LifetimeStudy
    seeds : sequence of int
        Of the chips.
    search : bool
    out : path, optional
        The record, which is written after every batch. Chips that it holds are not run again.
    progress : callable, optional
        Called with (chips done, chips in total); an interval of the search counts its chips again.

    Raises
    ------
    InputError
        If `out` is the record of another study.
    """
    study = spread.study
    found = study.start(out, seeds)
    missing = [chip for chip in seeds if chip not in found.chips]
    tally = _Tally(len(missing), progress)
    for call, batch in spread.run(_calls("lives_of", missing, spread.size)):
        found = found.with_chips(replace(found, **batch))
        _write(found, out)
        tally.add(len(call.arguments[0]))
    if not search:
        return found
    tried: list[list[float]] = []
    for every in (0, *(each for each in INTERVALS if each < study.days[-1])):
        missing = [chip for chip in found.chips if str(chip) not in found.trial(every)]
        tally.total += len(missing)
        for call, values in spread.run(_calls("spaced", missing, spread.size, every)):
            found = found.with_trial(every, dict(zip(call.arguments[0], values, strict=True)))
            _write(found, out)
            tally.add(len(call.arguments[0]))
        tried.append([float(every), found.lost_at(every)])
        if tried[-1][1] <= study.keep + 1e-9:
            break
    kept = tried[-1][1] <= study.keep + 1e-9
    found = replace(found, kept_by={"every": int(tried[-1][0]) if kept else None, "tried": tried})
    _write(found, out)
    return found


def _calls(method: str, chips: Sequence[int], workers: int, *others: Any) -> list[Call]:
    """Return a call for each batch of chips, at least one for a worker."""
    together = max(1, min(_CHIPS_AT_ONCE, ceil(len(chips) / workers)))
    batches = [tuple(chips[n : n + together]) for n in range(0, len(chips), together)]
    return [Call(method, (batch, *others)) for batch in batches]


def _write(found: Lifetime, out: Path | str | None) -> None:
    if out is not None:
        write_text(out, json.dumps(asdict(found), indent=1, allow_nan=False) + "\n")


@dataclass
class _Tally:
    """Chips that are done, of a number that a search raises."""

    total: int
    progress: Progress | None
    done: int = 0

    def add(self, chips: int) -> None:
        self.done += chips
        if self.progress:
            self.progress(self.done, self.total)


def drift_of(profile: str | AnalogProfile) -> Drift:
    """Return the drift of an analog profile.

    Raises
    ------
    InputError
        When the profile has no such section.
    """
    chip = load_profile(profile, "analog")
    assert isinstance(chip, AnalogProfile)
    if chip.drift is None:
        raise InputError(
            f"profile {chip.name} has no section drift, so its chips do not age; add the section, "
            "or choose another profile."
        )
    return Drift(**chip.drift.values())


@dataclass(frozen=True)
class _Corrected:
    """A calibrated network, and the readout that was fitted for it later, if any."""

    network: Any
    readout: np.ndarray | None = None


class LifetimeStudy:
    """Data and options of all chips; chips that are calibrated when new serve several schedules.

    Parameters
    ----------
    network : LMUNetwork
        A Network for :class:`lmu_deploy.studies.graph_lifetime.GraphLifetimeStudy`.
    task : Task
    profile : str or AnalogProfile
    limit : int or None
        Number of test samples.
    options : SpikeOptions
    drift : Drift
    keep : float
        See :class:`lmu_deploy.studies.life_record.Lifetime`.
    days : sequence of int
        Ages, rising.
    warmths : sequence of float
        Temperatures, degrees Celsius.
    schedule : Schedule
    """

    def __init__(
        self,
        network: LMUNetwork | Network,
        task: Task,
        profile: str | AnalogProfile,
        limit: int | None,
        options: SpikeOptions,
        drift: Drift,
        keep: float,
        *,
        days: Sequence[int],
        warmths: Sequence[float],
        schedule: Schedule,
    ) -> None:
        data = task.load()
        self.network: Any = network
        self.task, self.profile, self.options = task, profile, options
        self.split: Split = limited(data.test, limit)
        self.known = limited(data.train, CALIBRATION_SAMPLES).inputs
        self.watched = limited(data.train, _MONITORED)
        self.drift, self.keep = drift, keep
        self.days, self.warmths, self.schedule = days, warmths, schedule
        self._new: dict[tuple[int, ...], list[Any]] = {}
        self.prepare()
        self.inputs = hash_of(
            network,
            profile,
            options,
            (self.known, self.watched.targets, self.split.inputs, self.split.targets),
            days=list(days),
            temperatures=list(warmths),
            schedule=str(schedule),
            keep=keep,
        )

    def prepare(self) -> None:
        """Set up what a calibration of the readout alone needs."""
        network, last = self.network, self.network.layers[-1]
        self.features = last.n_out if has_hidden(last) else 0
        self.ordinary = self.known[: self.options.calibration_samples]
        self.truth = self.float_outputs(self.ordinary)
        bias = network.readout.bias
        last_row = np.zeros(network.n_out) if bias is None else bias
        self.own_readout = np.vstack([network.readout.kernel, last_row]).astype(np.float64)

    def float_outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs of the float network."""
        return run_reference(self.network, inputs).outputs

    def start(self, out: Path | str | None, seeds: Sequence[int]) -> Lifetime:
        """Return the record of an earlier run with these chips, or one without chips.

        Raises
        ------
        InputError
            If the file is the record of another study.
        """
        where = [(day, warmth) for day in self.days for warmth in self.warmths]
        empty = Lifetime(
            network=fingerprint(self.network),
            task=self.task.name,
            metric=self.task.metric,
            profile=load_profile(self.profile, "analog").name,
            samples=len(self.split),
            settings=json.loads(json.dumps({**self.options.changed(), "seed": self.options.seed})),
            drift=asdict(self.drift),
            reference=self.task.score(self.float_outputs(self.split.inputs), self.split.targets),
            chips=(),
            new=(),
            schedule=str(self.schedule),
            keep=self.keep,
            points=tuple(
                {"age": day, "temperature": warmth, "values": []} for day, warmth in where
            ),
            recalibrations=(),
            inputs=self.inputs,
        )
        if out is None or not Path(out).exists():
            return empty
        found = load_lifetime(out)
        if found.inputs != self.inputs:
            raise InputError(
                f"{out} is the record of a study with another network, data, options, ages or "
                "schedule; use another file."
            )
        return found.only(seeds)

    def lives_of(self, seeds: Sequence[int]) -> dict[str, Any]:
        """Follow chips through their lives.

        Returns
        -------
        dict
            `chips`, `new`, `points` and `recalibrations` of a record of these chips.
        """
        reference = self.drift.reference_temperature
        made = self._made(seeds)
        lives = [self.lives(chip) for chip in made]
        present = [_Corrected(chip) for chip in made]
        new = self._judged(present, lives, 0, reference, self.split)
        schedule, watched = self.schedule, new
        if schedule.on_error:
            watched = self._judged(present, lives, 0, reference, self.watched)
        counts, points, calibrated = np.zeros(len(made), int), [], 0
        for day in self.days:
            if (last := schedule.last(day)) > calibrated:
                counts += last // schedule.every - calibrated // schedule.every
                present = self._recalibrated(made, lives, last, schedule.method)
                calibrated = last
            if schedule.on_error:
                now = self._judged(present, lives, day, reference, self.watched)
                lost = loss_of(self.task.metric, watched, now)
                worse = [int(chip) for chip in np.flatnonzero(lost > self.keep)]
                if worse:
                    some, of_some = [made[chip] for chip in worse], [lives[chip] for chip in worse]
                    again = self._recalibrated(some, of_some, day, schedule.method)
                    for chip, one in zip(worse, again, strict=True):
                        present[chip] = one
                    counts[worse] += 1
            for warmth in self.warmths:
                values = self._judged(present, lives, day, warmth, self.split)
                points.append({"age": day, "temperature": warmth, "values": values.tolist()})
        return {
            "chips": tuple(seeds),
            "new": tuple(new.tolist()),
            "points": tuple(points),
            "recalibrations": tuple(counts.tolist()),
        }

    def spaced(self, seeds: Sequence[int], every: int) -> list[list[float]]:
        """Return the metric of each chip at each temperature, at the last age.

        The last full calibration was `every` days before, or the chips are as when new for 0.
        """
        made, day = self._made(seeds), self.days[-1]
        lives = [self.lives(chip) for chip in made]
        again = [_Corrected(chip) for chip in made]
        if every:
            again = self._recalibrated(made, lives, day - every, "full")
        warm = [self._judged(again, lives, day, warmth, self.split) for warmth in self.warmths]
        return [list(map(float, of_chip)) for of_chip in zip(*warm, strict=True)]

    def _made(self, seeds: Sequence[int]) -> list[Any]:
        if (key := tuple(seeds)) not in self._new:
            self._new[key] = self.new_chips(list(seeds))
        return self._new[key]

    def new_chips(self, seeds: Sequence[int]) -> list[Any]:
        """Return chips as they are calibrated when new."""
        return list(spike_chips(self.network, self.known, self.profile, seeds, self.options))

    def lives(self, chip: Any) -> list[ChipLife | None]:
        """Return the life of each place of a chip with neurons."""
        return [
            None
            if memory is None
            else ChipLife(memory.populations, self.drift, [chip.device.seed, number, 10])
            for number, memory in enumerate(chip.memories)
        ]

    def aged(self, network: Any, lives: list[ChipLife | None], day: int, warmth: float) -> Any:
        """Return a network on its chip at an age and a temperature, its weights unchanged."""
        memories = tuple(
            None
            if memory is None or life is None
            else replace(memory, populations=life.at(day, warmth))
            for memory, life in zip(network.memories, lives, strict=True)
        )
        return replace(network, memories=memories)

    def calibrated_again(self, chip: Any) -> Any:
        """Return a chip as it is now, with a full calibration."""
        return Chips(chip, self.known).recalibrated(chip)

    def run_chips(
        self, chips: Sequence[Any], inputs: np.ndarray, record: bool = False
    ) -> list[Run]:
        """Run chips that differ in their neurons and weights."""
        from targets.brian2 import Brian2Target

        return Brian2Target().run_chips(chips, inputs, record=record, seed=self.options.seed)

    def _recalibrated(
        self,
        made: Sequence[Any],
        lives: Sequence[list[ChipLife | None]],
        day: int,
        method: str,
    ) -> list[_Corrected]:
        """Calibrate chips of an age at the reference temperature."""
        warmth = self.drift.reference_temperature
        aged = [self.aged(c, of, day, warmth) for c, of in zip(made, lives, strict=True)]
        if method == "full":
            return [_Corrected(self.calibrated_again(chip)) for chip in aged]
        steps = slice(None) if self.network.return_sequences else slice(-1, None)
        wanted = self.truth.reshape(len(self.ordinary), -1, self.network.n_out)
        found = []
        for chip, features in zip(made, self._features(aged, self.ordinary), strict=True):
            rows = _with_one(features[:, steps].reshape(-1, features.shape[2]))
            found.append(_Corrected(chip, _ridge(rows, wanted.reshape(len(rows), -1))))
        return found

    def _judged(
        self,
        present: Sequence[_Corrected],
        lives: Sequence[list[ChipLife | None]],
        day: int,
        warmth: float,
        split: Split,
    ) -> np.ndarray:
        """Return the metric of each chip at an age and a temperature."""
        aged = [
            self.aged(one.network, of, day, warmth) for one, of in zip(present, lives, strict=True)
        ]
        if all(one.readout is None for one in present):
            runs = self.run_chips(aged, split.inputs)
            return np.array([self.task.score(run.outputs, split.targets) for run in runs])
        scores = []
        for one, features in zip(present, self._features(aged, split.inputs), strict=True):
            readout = self.own_readout if one.readout is None else one.readout
            y = _with_one(features) @ readout
            outputs = y if self.network.return_sequences else y[:, -1]
            scores.append(self.task.score(outputs, split.targets))
        return np.array(scores)

    def _features(self, aged: Sequence[Any], inputs: np.ndarray) -> list[np.ndarray]:
        """Run chips freely; return what their readouts receive, (samples, steps, features)."""
        found = []
        for run in self.run_chips(aged, inputs, record=True):
            assert run.states is not None
            states = run.states.h if self.features else run.states.m
            width = self.features or self.network.layers[-1].n_out
            found.append(states[:, :, -width:])
        return found


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((*features.shape[:-1], 1))], axis=-1)


def _ridge(features: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    squares = features.T @ features
    squares += _RIDGE * np.trace(squares) / len(squares) * np.eye(len(squares))
    return np.linalg.solve(squares, features.T @ wanted)
