"""A network and its inputs on the way through all stages: the host's part, and the Run at the end.

Between two runs of Lava the host computes its nodes on whole sequences. What it reads are messages
of earlier stages, and what it sends are messages that enter the next one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lmu_deploy.core.integer.graph import host_sentence, latency, levels, sources
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Input
from targets.base import Run, States
from targets.host import encoded, host_values
from targets.lava.compat import lava_settings
from targets.lava.plan import Plan, make_plan
from targets.lava.records import Record
from targets.lava.schedule import stage_count

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
