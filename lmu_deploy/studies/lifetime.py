"""Lifetime of analog chips: the results of one network over age and temperature.

Every chip is calibrated when it is new, at the reference temperature of its profile. It drifts,
warms up and loses neurons (:mod:`converters.spiking.populations`), and is calibrated again by a
schedule: never, after every so many days, or when its result on training data has become worse. A
full calibration is that of `spike`, through the device interface, on the chip as it then is. The
calibration of the readout is cheap: it forces no state, and fits only the readout of the host to
what the chip's own states or hidden units are in ordinary operation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.options import SpikeOptions
from converters.spiking import spike_chips
from converters.spiking.populations import ChipLife, Drift
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint, write_text
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.progress import Progress, progress_bar
from lmu_deploy.core.reference import has_hidden, run_reference
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.validation import check_integer, check_number
from lmu_deploy.fidelity.attribution.chips import Chips
from lmu_deploy.hardware.profile import AnalogProfile, load_profile
from lmu_deploy.studies.life_record import (
    NEVER,
    REACH,
    Lifetime,
    Schedule,
    loss_of,
    parse_age,
)
from lmu_deploy.studies.plot import write_curves
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.dataset import TaskLike
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for

INTERVALS = (365, 180, 90, 30, 7, 1)
"""Days between calibrations that are tried, the longest first."""
_RIDGE = 1e-3
_MONITORED = 100
"""Training samples on which a chip is watched, for the schedule on-error."""


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
    if options.units == "chip":
        raise InputError("a lifetime study has hidden units on the host; leave out units.")
    for file in (out, plot):
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise InputError(f"cannot write {file}: no such folder; give a folder that exists.")
    drift = drift_of(profile)
    layers = as_layers(load_float(network, "yield"), "yield")
    study = LifetimeStudy(
        layers, task_for(layers, task), profile, limit, options.replace(units="host"), drift, keep
    )
    warmths = [drift.reference_temperature] if temperatures is None else list(temperatures)
    seeds = range(first_chip, first_chip + chips)
    with progress_bar("lifetime", "chips") as progress:
        found = study.run(seeds, days, warmths, schedule, search, progress)
    if out is not None:
        write_text(out, json.dumps(asdict(found), indent=1, allow_nan=False) + "\n")
    if plot is not None:
        write_curves(found.curves(), (found.metric, "age, days"), found.verdict(), Path(plot))
    return found


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

    network: SpikingNetwork
    readout: np.ndarray | None = None


class LifetimeStudy:
    """Data and options of all chips; chips that are calibrated when new serve several schedules.

    Parameters
    ----------
    network : LMUNetwork
    task : Task
    profile : str or AnalogProfile
    limit : int or None
        Number of test samples.
    options : SpikeOptions
    drift : Drift
    keep : float
        See :class:`lmu_deploy.studies.life_record.Lifetime`.
    """

    def __init__(
        self,
        network: LMUNetwork,
        task: Task,
        profile: str | AnalogProfile,
        limit: int | None,
        options: SpikeOptions,
        drift: Drift,
        keep: float,
    ) -> None:
        data = task.load()
        self.network, self.task, self.profile, self.options = network, task, profile, options
        self.split: Split = limited(data.test, limit)
        self.known = limited(data.train, CALIBRATION_SAMPLES).inputs
        self.watched = limited(data.train, _MONITORED)
        self.drift, self.keep = drift, keep
        last = network.layers[-1]
        self.features = last.n_out if has_hidden(last) else 0
        self.ordinary = self.known[: options.calibration_samples]
        self.truth = run_reference(network, self.ordinary).outputs
        bias = network.readout.bias
        last_row = np.zeros(network.n_out) if bias is None else bias
        self._new: dict[tuple[int, ...], tuple[list[SpikingNetwork], np.ndarray]] = {}
        self.own_readout = np.vstack([network.readout.kernel, last_row]).astype(np.float64)

    def run(
        self,
        seeds: Sequence[int],
        days: Sequence[int],
        warmths: Sequence[float],
        schedule: Schedule,
        search: bool,
        progress: Progress | None = None,
    ) -> Lifetime:
        """Follow chips through their lives.

        Parameters
        ----------
        seeds : sequence of int
            Of the chips.
        days : sequence of int
            Ages, rising.
        warmths : sequence of float
            Temperatures, degrees Celsius.
        schedule : Schedule
        search : bool
            Find the fewest calibrations that suffice.
        progress : callable, optional
            Called with (ages done, ages in total).
        """
        reference = self.drift.reference_temperature
        if (key := tuple(seeds)) not in self._new:
            fresh = spike_chips(self.network, self.known, self.profile, list(seeds), self.options)
            of_fresh = [self._lives(chip) for chip in fresh]
            first = [_Corrected(chip) for chip in fresh]
            self._new[key] = fresh, self._judged(first, of_fresh, 0, reference, self.split)
        made, new = self._new[key]
        lives = [self._lives(chip) for chip in made]
        present = [_Corrected(chip) for chip in made]
        watched = new
        if schedule.on_error:
            watched = self._judged(present, lives, 0, reference, self.watched)
        counts, points, calibrated = np.zeros(len(made), int), [], 0
        for number, day in enumerate(days):
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
            for warmth in warmths:
                values = self._judged(present, lives, day, warmth, self.split)
                points.append({"age": day, "temperature": warmth, "values": values.tolist()})
            if progress:
                progress(number + 1, len(days) + 1)
        found = Lifetime(
            network=fingerprint(self.network),
            task=self.task.name,
            metric=self.task.metric,
            profile=load_profile(self.profile, "analog").name,
            samples=len(self.split),
            settings=json.loads(json.dumps({**self.options.changed(), "seed": self.options.seed})),
            drift=asdict(self.drift),
            reference=self.task.score(
                run_reference(self.network, self.split.inputs).outputs, self.split.targets
            ),
            chips=tuple(seeds),
            new=tuple(new.tolist()),
            schedule=str(schedule),
            keep=self.keep,
            points=tuple(points),
            recalibrations=tuple(counts.tolist()),
        )
        if search:
            found = replace(found, kept_by=self._search(found, made, lives, days[-1], warmths))
        if progress:
            progress(len(days) + 1, len(days) + 1)
        return found

    def _search(
        self,
        found: Lifetime,
        made: Sequence[SpikingNetwork],
        lives: Sequence[list[ChipLife | None]],
        day: int,
        warmths: Sequence[float],
    ) -> dict[str, Any]:
        """Find the longest interval of full calibrations that keeps the metric."""
        tried: list[list[float]] = []
        for every in (0, *(each for each in INTERVALS if each < day)):
            again = (
                self._recalibrated(made, lives, day - every, "full")
                if every
                else [_Corrected(chip) for chip in made]
            )
            losses = [
                found.losses(self._judged(again, lives, day, warmth, self.split).tolist())
                for warmth in warmths
            ]
            worst = float(max(np.quantile(loss, REACH) for loss in losses))
            tried.append([float(every), worst])
            if worst <= self.keep + 1e-9:
                return {"every": every, "tried": tried}
        return {"every": None, "tried": tried}

    def _lives(self, chip: SpikingNetwork) -> list[ChipLife | None]:
        return [
            None
            if memory is None
            else ChipLife(memory.populations, self.drift, [chip.device.seed, number, 10])
            for number, memory in enumerate(chip.memories)
        ]

    @staticmethod
    def _aged(
        network: SpikingNetwork, lives: list[ChipLife | None], day: int, warmth: float
    ) -> SpikingNetwork:
        """Return a network on its chip at an age and a temperature, its weights unchanged."""
        memories = tuple(
            None
            if memory is None or life is None
            else replace(memory, populations=life.at(day, warmth))
            for memory, life in zip(network.memories, lives, strict=True)
        )
        return replace(network, memories=memories)

    def _recalibrated(
        self,
        made: Sequence[SpikingNetwork],
        lives: Sequence[list[ChipLife | None]],
        day: int,
        method: str,
    ) -> list[_Corrected]:
        """Calibrate chips of an age at the reference temperature."""
        warmth = self.drift.reference_temperature
        aged = [self._aged(c, of, day, warmth) for c, of in zip(made, lives, strict=True)]
        if method == "full":
            return [_Corrected(Chips(chip, self.known).recalibrated(chip)) for chip in aged]
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
        from targets.brian2 import Brian2Target

        aged = [
            self._aged(one.network, of, day, warmth) for one, of in zip(present, lives, strict=True)
        ]
        if all(one.readout is None for one in present):
            runs = Brian2Target().run_chips(aged, split.inputs, seed=self.options.seed)
            return np.array([self.task.score(run.outputs, split.targets) for run in runs])
        scores = []
        for one, features in zip(present, self._features(aged, split.inputs), strict=True):
            readout = self.own_readout if one.readout is None else one.readout
            y = _with_one(features) @ readout
            outputs = y if self.network.return_sequences else y[:, -1]
            scores.append(self.task.score(outputs, split.targets))
        return np.array(scores)

    def _features(self, aged: Sequence[SpikingNetwork], inputs: np.ndarray) -> list[np.ndarray]:
        """Run chips freely; return what their readouts receive, (samples, steps, features)."""
        from targets.brian2 import Brian2Target

        runs = Brian2Target().run_chips(aged, inputs, record=True, seed=self.options.seed)
        found = []
        for run in runs:
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
