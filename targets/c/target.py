"""Run an integer network as compiled C code, and read what every population computed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from converters.c.generator import generate
from converters.c.rules import Layout
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import (
    check_frames,
    event_outlets,
    frame_counts,
    latency,
    outlets,
    sources,
)
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.progress import Progress
from targets.base import Run, States, check_run
from targets.c.toolchain import CortexM4, Host, Toolchain

_SAMPLES_AT_ONCE = 64


class CTarget:
    """Run integer networks as C99 code, compiled for this machine."""

    name = "c"
    toolchain: Toolchain = Host()
    accepts: tuple[type, ...] = (IntegerNetwork,)
    in_own_process = True

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Return the nodes on the host, which have no integers."""
        return [
            f"node {node.name} ({node.operator.describe()}) runs on the host in float64"
            for host in network.on_host
            for node in host.network.nodes
        ]

    def run(
        self,
        network: IntegerNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Compile the network once and run all inputs; see :class:`targets.base.Target`."""
        inputs, seed = check_run(self, network, inputs, seed)
        check_frames(network, inputs.shape[1])
        start = time.perf_counter()
        source = generate(network, "network")
        with tempfile.TemporaryDirectory(prefix="lmu-deploy-c-") as folder:
            program = self.toolchain.compile(source, Path(folder))
            found = _Records(network, inputs.shape)
            for first in range(0, len(inputs), _SAMPLES_AT_ONCE):
                some = inputs[first : first + _SAMPLES_AT_ONCE]
                found.take(self.toolchain.execute(program, messages_of(network, some)), first)
                if progress:
                    progress(min(first + len(some), len(inputs)), len(inputs))
        settings = {
            "compiler": self.toolchain.version(),
            "flash_bytes": source.flash,
            "ram_bytes": source.ram,
        }
        return found.run(self.name, seed, time.perf_counter() - start, record, settings)


class CortexM4Target(CTarget):
    """Run integer networks as C99 code, compiled for a Cortex-M4 that QEMU emulates."""

    name = "cortex-m4"
    toolchain: Toolchain = CortexM4()


def messages_of(network: IntegerNetwork, inputs: np.ndarray) -> np.ndarray:
    """Return the messages that the network takes, int32."""
    entry = network.input
    if entry.tokens:
        if (inputs != np.rint(inputs)).any() or inputs.min() < 0 or inputs.max() >= entry.size:
            raise InputError(f"tokens must be whole numbers from 0 to {entry.size - 1}.")
        return inputs.astype(np.int32)
    limit = entry.message.limit
    units = np.rint(entry.scaled(inputs) / entry.message.scale)
    return np.clip(units, -limit, limit).astype(np.int32)


def _records(values: np.ndarray) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Yield kind, number, frame and values, shape (samples, size), of each record of a sample."""
    heads, at = values[0], 0
    while at < len(heads):
        kind, number, frame, size = heads[at : at + 4].tolist()
        yield kind, number, frame, values[:, at + 4 : at + 4 + size]
        at += 4 + size


def records_of(
    network: IntegerNetwork, shape: tuple[int, ...], values: np.ndarray
) -> dict[Place, np.ndarray]:
    """Return what a program recorded of each population for inputs (samples, steps, features)."""
    found = _Records(network, shape)
    found.take(values, 0)
    return found.parts


class _Records:
    """Collects what the program wrote."""

    def __init__(self, network: IntegerNetwork, shape: tuple[int, ...]) -> None:
        self._network, self._shape = network, shape
        self._frames = frame_counts(network, shape[1])
        self.parts = {
            p.place: np.zeros((shape[0], self._frames[p.place], p.size), np.int32)
            for p in network.populations
            if p.place != network.input.place
        }
        self._keys = list(Layout(network).depths)
        outlet_of = {(o.source, o.threshold): o for o in outlets(network)}
        self._outlets = [outlet_of[key] for key in self._keys]
        self._events = {
            place: np.zeros((shape[0], self._frames[place]), np.int64) for place, _ in self._keys
        }
        for p in network.populations:
            if isinstance(p, Series):
                self._events[p.inner] = np.zeros((shape[0], self._frames[p.place]), np.int64)
        self._synops, self._carried = 0, dict[str, int]()

    def take(self, values: np.ndarray, first: int) -> None:
        """Store the records of a batch, shape (samples, integers), that begins with `first`."""
        samples = slice(first, first + len(values))
        for kind, number, frame, record in _records(values):
            if kind == 0:
                self.parts[self._network.populations[number].place][samples, frame] = record
            elif kind == 1:
                self._count(number, samples, frame, record != 0)
            elif kind == 3:
                self._count_terms(number, samples, frame, np.count_nonzero(record, axis=1))

    def _count(self, number: int, samples: slice, frame: int, sent: np.ndarray) -> None:
        outlet, place = self._outlets[number], self._keys[number][0]
        self._events[place][samples, frame] += np.count_nonzero(sent, axis=1)
        by_neuron = np.count_nonzero(sent, axis=0)
        self._synops += int(by_neuron @ outlet.fan_out(frame % outlet.period))
        for edge in outlet.edges:
            self._carried[edge.place] = self._carried.get(edge.place, 0) + int(by_neuron.sum())

    def _count_terms(self, number: int, samples: slice, frame: int, events: np.ndarray) -> None:
        """Count messages that a series sends to itself."""
        series = self._network.populations[number]
        assert isinstance(series, Series)
        self._events[series.inner][samples, frame] += events
        self._synops += int(events.sum()) * series.order
        (edge,) = series.inner_edges
        self._carried[edge.place] = self._carried.get(edge.place, 0) + int(events.sum())

    def run(
        self, target: str, seed: int, seconds: float, record: bool, settings: dict[str, object]
    ) -> Run:
        """Build the Run."""
        network, (_, steps, _) = self._network, self._shape
        outputs = self.parts[network.output] * network.y_scale
        neurons: dict[Place, int] = {p: s.neurons for p, s in sources(network).items()}
        for outlet in event_outlets(network):
            if not outlet.edges and outlet.source not in self._events:
                sender = network[outlet.source]
                sent = sender.sent(self.parts[sender.place])
                self._events[outlet.source] = np.count_nonzero(sent, axis=2)
        return Run(
            target=target,
            outputs=outputs if network.return_sequences else outputs[:, -1],
            neurons={str(place): neurons[place] for place in self._events},
            events={str(place): events for place, events in self._events.items()},
            synops=self._synops,
            saturations={},
            steps=steps,
            chip_steps=steps + latency(network),
            wall_seconds=seconds,
            seed=seed,
            states=States.of_integers(network, self.parts) if record else None,
            carried=self._carried,
            notes=("The C code limits values without counting them.",),
            settings=settings,
        )
