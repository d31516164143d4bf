"""The target: from networks and real inputs to Runs, by way of a folder and a worker.

One network on its inputs: messages for Lava's processes, and the Run of what they recorded.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.integer.graph import edges, memory_basis, populations
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs, check_number
from targets.base import Run, States, check_supported
from targets.in_segments import run_in_segments
from targets.lava import records, supervisor
from targets.lava.compat import lava_version
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
        """Make the Run of what was recorded.

        Parameters
        ----------
        found : dict of str to Record
            By group, from :meth:`read`.
        record : bool
            Whether states were asked for.
        seed : int
        seconds : float
            On the clock.
        version : str
            Of lava-nc.
        """
        network, plan = self.network, self.plan
        y = found["readout"].states
        assert y is not None  # the readout's are always recorded
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
    """Give input messages ``sat(rint(real / scale))``, and how many were limited."""
    exact = np.rint(inputs / form.scale)
    limited = np.clip(exact, -form.limit, form.limit)
    return limited.astype(np.int64), int(np.count_nonzero(limited != exact))


def _saturations(found: Iterable[Record]) -> dict[str, int]:
    return {place: count for part in found for place, count in part.saturations.items()}


def _states(network: IntegerNetwork, found: dict[str, Record], y: np.ndarray) -> States:
    memories, hiddens = [], []
    for number, layer in network.on_chip:
        memories.append((found[f"layer{number}/memory"].states, layer.memory.state.scale))
        if layer.hidden is not None:
            hiddens.append((found[f"layer{number}/hidden"].states, layer.hidden.message.scale))
    m, m_scale = _side_by_side(memories, y.shape[:2])
    h, h_scale = _side_by_side(hiddens, y.shape[:2])
    basis = memory_basis(network)
    return States(m, h, y, m_scale, h_scale, network.chip_readout.output.scale, basis)


def _side_by_side(
    parts: Sequence[tuple[np.ndarray | None, float]], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Join states of several layers, and the scale of each of them."""
    arrays, scales = [np.zeros((*shape, 0), np.int32)], [np.zeros(0)]
    for array, scale in parts:
        assert array is not None  # it was asked for
        arrays.append(array)
        scales.append(np.full(array.shape[2], scale))
    return np.concatenate(arrays, axis=2), np.concatenate(scales)


def _settings(plan: Plan, version: str) -> dict[str, Any]:
    dense = sum(len(group.outlets) for group in plan.groups)
    neurons = sum(group.part is not None or group.name == "input" for group in plan.groups)
    return {
        "versions": {
            "lava-nc": version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "run_config": "Loihi2SimCfg(select_tag='fixed_pt')",
        "chip_steps_per_step": plan.timetable.period,
        "processes": dense + neurons,
    }


_INT32_MAX = 2**31 - 1


class LavaTarget:
    """Runs every IntegerNetwork whose sums fit the 32-bit integers of Lava's Dense.

    Parameters
    ----------
    time_limit : float, optional
        Seconds after which a run is given up; by default two minutes and a tenth of a second a
        chip step, some forty times what it takes.
    """

    name = "lava"
    accepts: tuple[type, ...] = (IntegerNetwork,)

    def __init__(self, time_limit: float | None = None) -> None:
        if time_limit is not None:
            time_limit = check_number("time limit", time_limit, 1.0, 1e7)
        self.time_limit = time_limit

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Name empty populations, and sums that could leave 32 bits."""
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
            Keep m, h and y of every step.
        seed : int
            Not used: nothing is random.
        progress : callable, optional
            Called with (samples done, samples in all).

        Raises
        ------
        InputError
            On inputs of another shape or with NaN, or a network that cannot run here.
        MissingDependencyError
            When Lava is absent.
        RunError
            When Lava failed, died, or passed the time limit.
        """
        case = network, inputs
        if not isinstance(network, IntegerNetwork) or not network.on_host:
            return self.run_each([case], record=record, seed=seed, progress=progress)[0]
        check_supported(self, network)
        return run_in_segments(
            network,
            check_inputs(inputs, network.n_in),
            lambda part, x, kept, told: self.run(part, x, record=kept, seed=seed, progress=told),
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
        """Run several networks in one interpreter, whose start is most of a short run's time.

        Parameters
        ----------
        cases : sequence of (IntegerNetwork, ndarray of shape (samples, steps, n_in))
        record, seed, progress
            As those of :meth:`run`; progress counts the samples of all networks together.

        Returns
        -------
        runs : list of Run
            The wall seconds of each are those of all together.

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
            supervisor.supervise(folder, self._seconds(prepared), show)
            found = [case.read(place) for place, case in zip(places, prepared, strict=True)]
        if progress:
            progress(samples, samples)
        seconds = time.perf_counter() - start
        return [
            case.make_run(part, record, seed, seconds, version)
            for case, part in zip(prepared, found, strict=True)
        ]

    def _seconds(self, cases: Sequence[Case]) -> float:
        generous = sum(120.0 + 0.1 * case.plan.timetable.total for case in cases)
        return generous if self.time_limit is None else self.time_limit


def _samples_done(cases: Sequence[Case], steps_done: int) -> int:
    """Count whole samples among the steps that are done, case by case."""
    samples = 0
    for case in cases:
        table = case.plan.timetable
        here = min(steps_done, table.samples * table.steps)
        samples, steps_done = samples + here // table.steps, steps_done - here
    return samples
