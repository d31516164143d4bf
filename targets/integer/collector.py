"""What a run of the twin keeps of each step: outputs, events and, if asked for, every state."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.wiring import memory_basis
from targets.base import Run, States
from targets.integer.machine import Machine, State


class Collector:
    """Takes each batch's steps and makes the Run of them.

    Parameters
    ----------
    machine : Machine
    shape : (samples, steps, n_in)
    record : bool
        Keep m, h and y of every step.
    """

    def __init__(self, machine: Machine, shape: tuple[int, ...], record: bool) -> None:
        self._machine, self._network = machine, machine.network
        samples, self._steps, _ = shape
        self._every_step = record or self._network.return_sequences
        n_y = self._network.n_out
        self._y = np.zeros((samples, self._steps if self._every_step else 1, n_y), np.int64)
        self._memories = [n for n in machine.populations if n.endswith("/memory")]
        self._hiddens = [n for n in machine.populations if n.endswith("/hidden")]
        n_m = sum(machine.populations[n] for n in self._memories)
        n_h = sum(machine.populations[n] for n in self._hiddens)
        self._m = np.zeros((samples, self._steps, n_m), np.int32) if record else None
        self._h = np.zeros((samples, self._steps, n_h), np.int32) if record else None
        self._events = {key: np.zeros((self._steps, samples), np.int64) for key in machine.senders}
        self._rasters = {
            name: np.zeros((self._steps, neurons), np.uint8)
            for name, neurons in machine.populations.items()
        }
        self._synops = 0
        self._saturations: dict[str, int] = defaultdict(int)

    def take(self, batch: slice, t: int, y: Any, state: State) -> None:
        """Keep one step of one batch."""
        numpy, senders = self._machine.engine.numpy, self._machine.senders
        for key, sent in state.sent.items():
            self._events[key][t, batch], synops = senders[key].tally(sent)
            state.synops += synops
            if batch.start == 0:
                self._draw(key[0], t, np.asarray(sent[0]))
        if self._every_step or t == self._steps - 1:
            self._y[batch, t if self._every_step else 0] = numpy(y)
        if self._m is not None and self._h is not None:
            self._m[batch, t] = np.concatenate([numpy(m) for m in state.m], axis=1)
            if self._hiddens:
                hidden = [numpy(state.messages[name]) for name in self._hiddens]
                self._h[batch, t] = np.concatenate(hidden, axis=1)

    def _draw(self, name: str, t: int, sent: np.ndarray) -> None:
        """Note what the first sample has sent, once or, in a series, several times."""
        times = sent.clip(max=255) if name.endswith("/series") else sent != 0
        self._rasters[name][t] += times.astype(np.uint8)

    def close(self, state: State) -> None:
        """Take over what a finished batch counted."""
        self._synops += state.synops
        for place, count in state.saturations.items():
            self._saturations[place] += count

    def run(self, target: str, seed: int, wall_seconds: float) -> Run:
        """Make the Run."""
        scale = self._network.chip_readout.output.scale
        outputs = self._y * scale
        return Run(
            target=target,
            outputs=outputs if self._network.return_sequences else outputs[:, -1],
            neurons=dict(self._machine.populations),
            events=self._population_events(),
            synops=self._synops,
            saturations={place: self._saturations[place] for place in self._machine.places()},
            steps=self._steps,
            chip_steps=self._steps,
            wall_seconds=wall_seconds,
            seed=seed,
            states=self._states(),
            rasters=self._rasters,
            carried=self._carried(),
            settings={"engine": self._machine.engine.name},
        )

    def _population_events(self) -> dict[str, np.ndarray]:
        """Add up the events of all outlets of a population; each (samples, steps)."""
        found: dict[str, np.ndarray] = {}
        for (name, _), events in self._events.items():
            found[name] = found[name] + events.T if name in found else events.T
        return {name: found[name] for name in self._machine.populations}

    def _carried(self) -> dict[str, int]:
        return {
            place: int(events.sum())
            for key, events in self._events.items()
            for place in self._machine.places_of[key]
        }

    def _states(self) -> States | None:
        if self._m is None or self._h is None:
            return None
        basis = memory_basis(self._network)
        return States(self._m, self._h, self._y, *scales(self._network), basis)


def scales(network: IntegerNetwork) -> tuple[np.ndarray, np.ndarray, float]:
    """Real values of one unit of each memory state, each hidden message, and the readout."""
    memories = [np.full(lay.memory.size, lay.memory.state.scale) for _, lay in network.on_chip]
    hiddens = [
        np.full(lay.hidden.units, lay.hidden.message.scale)
        for _, lay in network.on_chip
        if lay.hidden is not None
    ]
    return (
        np.concatenate(memories),
        np.concatenate(hiddens) if hiddens else np.zeros(0),
        network.chip_readout.output.scale,
    )
