"""Target `lava`: Runs of integer networks by way of a folder and a worker that imports Lava."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.integer.graph import edges, populations
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs, check_number
from targets.base import Run, States, check_supported
from targets.in_segments import run_in_segments
from targets.lava import records, supervisor
from targets.lava.compat import lava_settings, lava_version
from targets.lava.plan import Plan, make_plan
from targets.lava.records import Record

_NOTE = "simulated by Lava in fixed point, not run on a chip"


class Case:
    """A network, its input messages, and the plan for them.

    Parameters
    ----------
    network : IntegerNetwork
    inputs : ndarray, shape (samples, steps, n_in)
        Real numbers.
    """

    def __init__(self, network: IntegerNetwork, inputs: np.ndarray) -> None:
        self.network = network
        self.messages, self.limited = _to_messages(inputs, network.input)
        self.plan = make_plan(network, inputs.shape[0], inputs.shape[1])

    def read(self, place: Path) -> dict[str, Record]:
        """Read the records of all groups."""
        return {group.name: records.read(place, group) for group in self.plan.groups}

    def make_run(
        self, found: dict[str, Record], record: bool, seed: int, seconds: float, version: str
    ) -> Run:
        """Build the Run from the records.

        Parameters
        ----------
        found : dict of str to Record
            Records by group, from :meth:`read`.
        record : bool
            Whether states were requested.
        seed : int
        seconds : float
            Wall time.
        version : str
            Version of lava-nc.
        """
        network, plan = self.network, self.plan
        y = found["readout"].states
        assert y is not None  # those of the readout are always recorded
        outputs = y * network.chip_readout.output.scale
        senders = {group.name: found[group.name] for group in plan.senders}
        return Run(
            target="lava",
            outputs=outputs if network.return_sequences else outputs[:, -1],
            neurons={group.name: group.neurons for group in plan.senders},
            events={name: part.events for name, part in senders.items()},
            synops=sum(part.synops for part in senders.values()),
            saturations={"input": self.limited} | _saturations(found.values()),
            steps=plan.timetable.steps,
            chip_steps=plan.timetable.chip_steps,
            wall_seconds=seconds,
            seed=seed,
            states=_states(network, found, y) if record else None,
            rasters={name: part.raster for name, part in senders.items()},
            carried={place: n for part in senders.values() for place, n in part.carried.items()},
            notes=(_NOTE,),
            settings=_settings(plan, version),
        )


def _to_messages(inputs: np.ndarray, form: Format) -> tuple[np.ndarray, int]:
    """Return input messages ``sat(rint(real / scale))``, and the number of saturations."""
    exact = np.rint(inputs / form.scale)
    limited = np.clip(exact, -form.limit, form.limit)
    return limited.astype(np.int64), int(np.count_nonzero(limited != exact))


def _saturations(found: Iterable[Record]) -> dict[str, int]:
    return {place: count for part in found for place, count in part.saturations.items()}


def _states(network: IntegerNetwork, found: dict[str, Record], y: np.ndarray) -> States:
    memories = [found[f"layer{n}/memory"].states for n, _ in network.on_chip]
    hiddens = [
        found[f"layer{n}/hidden"].states for n, layer in network.on_chip if layer.hidden is not None
    ]
    m, h = (_side_by_side(parts, y.shape[:2]) for parts in (memories, hiddens))
    return States.of_integers(network, m, h, y)


def _side_by_side(parts: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
    """Concatenate the states of several layers."""
    arrays = [np.zeros((*shape, 0), np.int32)]
    for array in parts:
        assert array is not None  # they were recorded
        arrays.append(array)
    return np.concatenate(arrays, axis=2)


def _settings(plan: Plan, version: str) -> dict[str, Any]:
    dense = sum(len(group.outlets) for group in plan.groups)
    neurons = sum(group.part is not None or group.name == "input" for group in plan.groups)
    return {
        **lava_settings(version),
        "chip_steps_per_step": plan.timetable.period,
        "processes": dense + neurons,
    }


_INT32_MAX = 2**31 - 1


class TimeLimited:
    """Base of targets whose runs may take a limited time.

    Parameters
    ----------
    time_limit : float, optional
        Seconds after which a run is terminated; by default two minutes and a tenth of a second per
        chip step, at least forty times the usual duration.
    """

    def __init__(self, time_limit: float | None = None) -> None:
        if time_limit is not None:
            time_limit = check_number("time limit", time_limit, 1.0, 1e7)
        self.time_limit = time_limit

    def seconds(self, *chip_steps: int) -> float:
        """Return the time limit of jobs of that many chip steps each."""
        generous = sum(120.0 + 0.1 * steps for steps in chip_steps)
        return generous if self.time_limit is None else self.time_limit


class LavaTarget(TimeLimited):
    """Run integer networks whose sums fit the 32-bit integers of Lava's Dense."""

    name = "lava"
    accepts: tuple[type, ...] = (IntegerNetwork,)

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Return empty populations, and sums that could exceed 32 bits."""
        senders = populations(network)
        sizes = {name: sender.neurons for name, sender in senders.items()}
        sizes["readout"] = network.n_out
        reasons = [f"{name} has no neurons" for name, size in sizes.items() if size == 0]
        for edge in edges(network):
            weights = np.abs(edge.connection.slices.astype(np.int64)).sum(axis=2).max(initial=0)
            # Twice, because Dense holds twice each weight (see assembly.py), and a change is up to
            # twice as large as a message.
            factor = 4 if edge.connection.threshold else 2
            largest = factor * int(weights) * senders[edge.source].message.limit
            if largest > _INT32_MAX:
                reasons.append(
                    f"sums of {edge.place} can reach {largest}, and Dense adds in 32 bits "
                    f"(at most {_INT32_MAX}), so use narrower messages from {edge.source}"
                )
        return reasons

    def run(
        self,
        network: IntegerNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run all samples one after the other, from zero states each.

        Parameters
        ----------
        network : IntegerNetwork
        inputs : ndarray, shape (samples, steps, n_in)
            Real numbers.
        record : bool
            Record m, h and y of every step.
        seed : int
            Not used: nothing is random.
        progress : callable, optional
            Called with (samples done, samples in total).

        Raises
        ------
        InputError
            On inputs of another shape or with NaN, or a network that cannot run here.
        MissingDependencyError
            When Lava is not installed.
        RunError
            When Lava failed, died, or exceeded the time limit.
        """
        case = network, inputs
        if not isinstance(network, IntegerNetwork) or not network.on_host:
            return self.run_each([case], record=record, seed=seed, progress=progress)[0]
        check_supported(self, network)
        return run_in_segments(
            network,
            check_inputs(inputs, network.n_in),
            lambda part, x, recording, shown: self.run(
                part, x, record=recording, seed=seed, progress=shown
            ),
            record=record,
            progress=progress,
        )

    def run_each(
        self,
        cases: Sequence[tuple[IntegerNetwork, np.ndarray]],
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> list[Run]:
        """Run several networks in one interpreter, because its start dominates short runs.

        Parameters
        ----------
        cases : sequence of (IntegerNetwork, ndarray of shape (samples, steps, n_in))
        record, seed, progress
            As for :meth:`run`; progress counts the samples of all networks together.

        Returns
        -------
        runs : list of Run
            The wall seconds of each are those of all of them.

        Raises
        ------
        InputError, MissingDependencyError, RunError
            As :meth:`run`.
        """
        for network, _ in cases:
            check_supported(self, network)
        if any(network.on_host for network, _ in cases):
            return [self.run(*c, record=record, seed=seed, progress=progress) for c in cases]
        checked = [(network, check_inputs(given, network.n_in)) for network, given in cases]
        version, start = lava_version(), time.perf_counter()
        prepared = [Case(network, inputs) for network, inputs in checked]
        samples = sum(case.plan.timetable.samples for case in prepared)

        def show(steps_done: int) -> None:
            if progress:
                progress(_samples_done(prepared, steps_done), samples)

        with supervisor.temporary_folder() as folder:
            places = [records.case_folder(folder, number) for number in range(len(prepared))]
            for place, case in zip(places, prepared, strict=True):
                supervisor.prepare(place, case.network, case.messages, case.plan, record)
            limit = self.seconds(*(case.plan.timetable.total for case in prepared))
            supervisor.supervise(folder, limit, show)
            found = [case.read(place) for place, case in zip(places, prepared, strict=True)]
        if progress:
            progress(samples, samples)
        seconds = time.perf_counter() - start
        return [
            case.make_run(part, record, seed, seconds, version)
            for case, part in zip(prepared, found, strict=True)
        ]


def _samples_done(cases: Sequence[Case], steps_done: int) -> int:
    """Return the number of whole samples among the steps that are done, case by case."""
    samples = 0
    for case in cases:
        table = case.plan.timetable
        here = min(steps_done, table.samples * table.steps)
        samples, steps_done = samples + here // table.steps, steps_done - here
    return samples
