"""Target `lava`: Runs of integer networks by way of a folder and a worker that imports Lava.

A network may need several runs of Lava, called stages. Between two of them the host computes its
nodes on whole sequences. It reads messages of earlier stages, and sends messages that enter the
next one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmu_deploy.core.integer.graph import (
    check_frames,
    edges,
    host_sentence,
    latency,
    levels,
    sources,
    taken_frames,
)
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs, check_number
from targets.base import Run, States, check_supported, flat_frames
from targets.host import encoded, host_values
from targets.lava import records, supervisor
from targets.lava.compat import lava_settings, lava_version
from targets.lava.plan import Plan, make_plan
from targets.lava.records import Record
from targets.lava.schedule import frame_rates, stage_count

_NOTE = "simulated by Lava in fixed point, not run on a chip"


class Case:
    """A network, its inputs, and everything that is known of the run so far.

    Parameters
    ----------
    network : IntegerNetwork
    inputs : ndarray, shape (samples, steps, n_in)
        Real numbers.
    record : bool
        Whether the states of all populations are recorded.

    Attributes
    ----------
    stages : int
        Number of runs of Lava.
    """

    def __init__(self, network: IntegerNetwork, inputs: np.ndarray, record: bool) -> None:
        self.network, self.record = network, record
        self.samples, self.steps, _ = inputs.shape
        self.stages = stage_count(network)
        self._levels, self._sources = levels(network), sources(network)
        self._plans: list[Plan] = []
        self._records: dict[Place, Record] = {}
        self._messages: dict[Place, np.ndarray] = {}
        self._limited: dict[str, int] = {}
        self._reals = {network.input.place: network.input.scaled(inputs)}
        if network.input.place in self._sources:
            self._encode(network.input, self._reals[network.input.place])
        self._run_host(0)

    @property
    def stage(self) -> int:
        """The stage that comes next."""
        return len(self._plans)

    def plan(self) -> Plan:
        """Return the plan of the stage that comes next."""
        return make_plan(self.network, self.samples, self.steps, self.stage)

    def played(self, plan: Plan) -> dict[Place, np.ndarray]:
        """Return the messages that enter a stage from outside."""
        return {group.place: self._messages[group.place] for group in plan.groups if group.replays}

    def recorded(self) -> set[Place]:
        """Return the populations whose states are recorded: the output in any case."""
        every = {p.place for p in self.network.on_chip} if self.record else set()
        return every | {self.network.output}

    def take(self, plan: Plan, found: dict[Place, Record]) -> None:
        """Take the records of a stage, and compute what the host does with them."""
        self._plans.append(plan)
        self._records |= found
        self._messages |= {p: r.messages for p, r in found.items() if r.messages is not None}
        self._run_host(self.stage)

    def _run_host(self, stage: int) -> None:
        """Compute the nodes on the host that come before a stage."""
        for host in self.network.on_host:
            if self._levels[host.place] == stage:
                values = host_values(self.network, host, self._reals, self._messages)
                self._reals[host.place] = values
                if host.message is not None:
                    self._encode(host, values)

    def _encode(self, source: Input | HostNodes, values: np.ndarray) -> None:
        """Turn real numbers into messages."""
        messages, self._limited[str(source.place)] = encoded(source, values)
        self._messages[source.place] = messages

    def make_run(self, seed: int, seconds: float, version: str) -> Run:
        """Build the Run once all stages are done.

        Parameters
        ----------
        seed : int
        seconds : float
            Wall time.
        version : str
            Version of lava-nc.
        """
        network, records = self.network, self._records.values()
        y = self._states_of(network.output)
        outputs = y * network.y_scale
        chip_steps = max((plan.timetable.chip_steps for plan in self._plans), default=self.steps)
        events = {place: counts for found in records for place, counts in found.events.items()}
        rasters = {place: raster for found in records for place, raster in found.rasters.items()}
        parts = {
            p.place: self._states_of(p.place)
            for p in network.populations
            if self.record and not isinstance(p, Input)
        }
        return Run(
            target="lava",
            outputs=outputs if network.return_sequences else outputs[:, -1],
            neurons={str(place): source.neurons for place, source in self._sources.items()},
            events={str(place): events[place] for place in self._sources},
            synops=sum(found.synops for found in records),
            saturations=self._limited | {p: n for r in records for p, n in r.saturations.items()},
            steps=self.steps,
            chip_steps=chip_steps,
            wall_seconds=seconds,
            seed=seed,
            states=States.of_integers(network, parts) if self.record else None,
            rasters={
                str(place): np.pad(raster, ((0, chip_steps - len(raster)), (0, 0)))
                for place, raster in rasters.items()
            },
            carried={place: n for found in records for place, n in found.carried.items()},
            notes=self._notes(),
            settings=self._settings(version),
        )

    def _states_of(self, place: Place) -> np.ndarray:
        if isinstance(self.network[place], HostNodes):
            return self._reals[place]
        states = self._records[place].states
        assert states is not None  # they were recorded
        return states

    def _notes(self) -> tuple[str, ...]:
        notes, late = [_NOTE], latency(self.network)
        if late:
            notes.append(f"the last output follows the last input by {late} steps: it looks ahead")
        sentence = host_sentence(self.network)
        return (*notes, *([] if sentence is None else [sentence]))

    def _settings(self, version: str) -> dict[str, Any]:
        on_host = [n.name for host in self.network.on_host for n in host.network.nodes]
        return {
            **lava_settings(version),
            "chip_steps_per_step": max((p.timetable.period for p in self._plans), default=1),
            "longest_delay": max((plan.longest_delay for plan in self._plans), default=0),
            "processes": sum(plan.processes for plan in self._plans),
            **({"nodes on the host": on_host} if on_host else {}),
        }


_SECONDS_TO_START, _SECONDS_PER_UPDATE = 2.0, 1.3e-3
"""CPU time of the start of Lava, and of one chip step of one process (a population)."""
_INT32_MAX = 2**31 - 1
_MANY = 2**30
"""Steps of a sequence so long that every population that can take several frames takes them."""


class TimeLimited:
    """Base of targets whose runs may take a limited time.

    Parameters
    ----------
    time_limit : float, optional
        Seconds after which a run is terminated; by default two minutes and a tenth of a second per
        chip step, at least forty times the usual duration.
    """

    in_own_process = True

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
        """Return sums that could exceed 32 bits, and populations whose frames never meet."""
        reasons, senders = [], sources(network)
        for edge in edges(network):
            slices = np.abs(edge.connection.slices.astype(np.int64))
            by_offset = slices.reshape(*slices.shape[:2], len(edge.offsets), -1)
            # Twice, because synapses hold twice each weight (see assembly.py), and a change is up
            # to twice as large as a message.
            factor = 4 if edge.connection.threshold else 2
            most = int(by_offset.sum(axis=3).max(initial=0))
            largest = factor * most * senders[edge.source].message.limit
            if largest > _INT32_MAX:
                reasons.append(
                    f"sums of {edge.place} can reach {largest}, and Lava adds in 32 bits "
                    f"(at most {_INT32_MAX}), so use narrower messages from {edge.source}"
                )
        for place in frame_rates(network, taken_frames(network, _MANY))[1]:
            reasons.append(
                f"{place} receives frames of different rates, whose delays would grow without "
                "end, so give all branches that meet there the same stride"
            )
        return reasons

    def estimated_seconds(self, network: IntegerNetwork, samples: int, steps: int) -> float:
        """Return about how long a run takes; see :class:`targets.base.Slow`."""
        plans = [make_plan(network, samples, steps, n) for n in range(stage_count(network))]
        updates = sum(len(plan.groups) * plan.timetable.span for plan in plans)
        return _SECONDS_TO_START * len(plans) + _SECONDS_PER_UPDATE * samples * updates

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
        cases = [(network, inputs)]
        return self.run_each(cases, record=record, seed=seed, progress=progress)[0]

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
        checked = [
            (network, check_inputs(flat_frames(given), network.n_in)) for network, given in cases
        ]
        for network, inputs in checked:
            check_frames(network, inputs.shape[1])
        version, start = lava_version(), time.perf_counter()
        prepared = [Case(network, inputs, record) for network, inputs in checked]
        shown = _Progress(prepared, progress)
        while waiting := [case for case in prepared if case.stage < case.stages]:
            self._run_stages(waiting, shown)
        shown.end()
        seconds = time.perf_counter() - start
        return [case.make_run(seed, seconds, version) for case in prepared]

    def _run_stages(self, cases: list[Case], shown: _Progress) -> None:
        """Run the next stage of each of some cases, all in one interpreter."""
        plans = [case.plan() for case in cases]
        with supervisor.temporary_folder() as folder:
            places = [records.case_folder(folder, number) for number in range(len(cases))]
            for place, case, plan in zip(places, cases, plans, strict=True):
                supervisor.prepare(
                    place, case.network, plan, case.stage, case.played(plan), case.recorded()
                )
            limit = self.seconds(
                *(part.timetable.total for part in plans for _ in part.connected())
            )
            supervisor.supervise(folder, limit, shown.show)
            for place, case, plan in zip(places, cases, plans, strict=True):
                counted = [group for group in plan.groups if group.counted]
                case.take(plan, {group.place: records.read(place, group) for group in counted})
        shown.add(sum(case.samples * case.steps for case in cases))


class _Progress:
    """Reports samples of all networks; each has as many parts as its network has stages."""

    def __init__(self, cases: list[Case], progress: Progress | None) -> None:
        self._progress = progress
        self._samples = sum(case.samples for case in cases)
        self._all = sum(case.samples * case.steps * case.stages for case in cases)
        self._before = 0

    def add(self, steps: int) -> None:
        """Count the steps of a session that has ended."""
        self._before += steps

    def show(self, steps: int) -> None:
        """Report a number of steps of the current session."""
        if self._progress:
            done = (self._before + steps) * self._samples // max(self._all, 1)
            self._progress(done, self._samples)

    def end(self) -> None:
        """Report all samples."""
        if self._progress:
            self._progress(self._samples, self._samples)
