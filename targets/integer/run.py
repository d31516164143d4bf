"""Runs of the integer simulator: a test set in tiles of samples, or step by step as data arrive.

A tile is run from its first step to its last, several tiles in parallel. Tiles share only the
arrays of results, of which each has its own part, and sums of integers, so that threads do not
change the results. Each thread has a machine of its own, because a machine overwrites its buffers
at every step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from itertools import pairwise
from queue import SimpleQueue
from threading import Event
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.segments import ChipSegment, segments
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_array
from targets.base import Run, States
from targets.host import HostSteps
from targets.integer.engine import choose_engine
from targets.integer.machine import Machine, State


@dataclass(frozen=True)
class Stream:
    """State of :func:`step` between calls: a network on an engine, and its state.

    A network that is partly on the host has a stream for each of its segments, in `parts`;
    `machine` and `state` are then those of the first segment on the chip.
    """

    machine: Machine
    state: State
    parts: tuple[Stream | HostSteps, ...] = ()
    network: IntegerNetwork | None = None


def step(
    network: IntegerNetwork, x: np.ndarray, stream: Stream | None = None, engine: str = "numpy"
) -> tuple[np.ndarray, Stream]:
    """Run one step of a network.

    Parameters
    ----------
    network : IntegerNetwork
    x : ndarray, shape (samples, n_in)
        Real inputs of the step.
    stream : Stream, optional
        Returned by the call for the previous step; None for the first step.
    engine : {"numpy", "torch", "numba", "auto"}
        Engine of a new stream.

    Returns
    -------
    y : ndarray, shape (samples, n_out), int64
        Output; ``y * network.readout.output.scale`` is the real value. Where the readout is on
        the host, real numbers.
    stream : Stream
        For the next step; the given one is not changed.

    Raises
    ------
    InputError
        On inputs of another shape or with NaN, or a stream of another network.
    """
    x = check_array("input", np.asarray(x, dtype=np.float64), (None, network.n_in))
    if stream is None:
        stream = _start(network, len(x), engine)
    elif (stream.network or stream.machine.network) is not network:
        raise InputError("the stream belongs to another network; start a new one with None.")
    check_array("input", x, (len(stream.state.m[0]), network.n_in))
    if not stream.parts:
        return _advance(stream, x)
    signal = x
    parts: list[Stream | HostSteps] = []
    for part in stream.parts:
        if isinstance(part, HostSteps):
            host = part.copy()
            signal = host.advance(signal)
            parts.append(host)
            continue
        signal, after = _advance(part, signal)
        parts.append(after)
        if part is not stream.parts[-1]:  # the real values of the messages
            signal = signal * part.machine.network.chip_readout.output.scale
    return signal, _together(network, tuple(parts))


def _start(network: IntegerNetwork, samples: int, engine: str) -> Stream:
    if not network.on_host:
        machine = Machine(network, choose_engine(network, engine))
        return Stream(machine, machine.start(samples))
    parts = tuple(
        _start(part.network, samples, engine)
        if isinstance(part, ChipSegment)
        else HostSteps(part, samples)
        for part in segments(network)
    )
    return _together(network, parts)


def _together(network: IntegerNetwork, parts: tuple[Stream | HostSteps, ...]) -> Stream:
    first = next(part for part in parts if isinstance(part, Stream))
    return Stream(first.machine, first.state, parts, network)


def _advance(stream: Stream, x: np.ndarray) -> tuple[np.ndarray, Stream]:
    """Advance a network that is all on the chip."""
    machine = stream.machine
    state = stream.state.copy(machine.engine)
    y = machine.engine.numpy(machine.advance(state, x))
    return y.astype(np.int64), Stream(machine, state.copy(machine.engine))


class Collector:
    """Collect the steps of all batches, and build the Run.

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
        """Store one step of one batch."""
        numpy, senders = self._machine.engine.numpy, self._machine.senders
        for key, sent in state.sent.items():
            self._events[key][t, batch], synops = senders[key].tally(sent)
            state.synops += synops
            if batch.start == 0:
                self._draw_raster(key[0], t, np.asarray(sent[0]))
        if self._every_step or t == self._steps - 1:
            self._y[batch, t if self._every_step else 0] = numpy(y)
        if self._m is not None and self._h is not None:
            self._m[batch, t] = np.concatenate([numpy(m) for m in state.m], axis=1)
            if self._hiddens:
                hidden = [numpy(state.messages[name]) for name in self._hiddens]
                self._h[batch, t] = np.concatenate(hidden, axis=1)

    def _draw_raster(self, name: str, t: int, sent: np.ndarray) -> None:
        """Store the events of the first sample in the raster."""
        times = sent.clip(max=255) if name.endswith("/series") else sent != 0
        self._rasters[name][t] += times.astype(np.uint8)

    def close(self, state: State) -> None:
        """Add the counts of a finished batch."""
        self._synops += state.synops
        for place, count in state.saturations.items():
            self._saturations[place] += count

    def run(self, target: str, seed: int, wall_seconds: float) -> Run:
        """Build the Run."""
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
        """Sum the events of all outlets of each population; shape (samples, steps)."""
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
        return States.of_integers(self._network, self._m, self._h, self._y)


_STEPS_ENCODED = 1024
"""Number of steps whose inputs are encoded at once."""


def cut(samples: int, largest: int, threads: int) -> list[slice]:
    """Divide samples into tiles of nearly equal size, at least one per thread."""
    tiles = max(-(-samples // largest), min(threads, samples))
    return [slice(*ends) for ends in pairwise(samples * n // tiles for n in range(tiles + 1))]


def run_tiles(
    machines: list[Machine],
    tiles: list[slice],
    inputs: np.ndarray,
    collector: Collector,
    progress: Progress | None,
) -> None:
    """Run all tiles, in parallel on all machines.

    Parameters
    ----------
    machines : list of Machine
        Of one network, one for each thread.
    tiles : list of slice
        Samples of each tile.
    inputs : ndarray, shape (samples, steps, n_in)
    collector : Collector
    progress : callable, optional
        Called with (samples done, in total), always in this thread.
    """
    done, work = 0, _Work(inputs, collector)
    several = len(machines) > 1
    states = work.side_by_side(machines, tiles) if several else work.in_turn(machines[0], tiles)
    for tile, state in states:
        collector.close(state)
        done += tile.stop - tile.start
        if progress:
            progress(done, len(inputs))


class _Work:
    """Run tiles in this thread or in several."""

    def __init__(self, inputs: np.ndarray, collector: Collector) -> None:
        self._inputs, self._collector, self._stopped = inputs, collector, Event()

    def in_turn(self, machine: Machine, tiles: list[slice]) -> Iterator[tuple[slice, State]]:
        """Run tiles one after the other; yield each with its last state."""
        for tile in tiles:
            yield tile, self._run(machine, tile)

    def side_by_side(
        self, machines: list[Machine], tiles: list[slice]
    ) -> Iterator[tuple[slice, State]]:
        """Run tiles in threads; yield each with its last state when it ends."""
        idle: SimpleQueue[Machine] = SimpleQueue()
        for machine in machines:
            idle.put(machine)

        def run(tile: slice) -> tuple[slice, State]:
            machine = idle.get()
            try:
                return tile, self._run(machine, tile)
            finally:
                idle.put(machine)

        with machines[0].engine.pool(len(machines)) as pool:
            try:
                for future in as_completed([pool.submit(run, tile) for tile in tiles]):
                    yield future.result()
            finally:  # otherwise an interrupted run would wait for its threads
                self._stopped.set()

    def _run(self, machine: Machine, tile: slice) -> State:
        state = machine.start(tile.stop - tile.start)
        steps = self._inputs.shape[1]
        for first in range(0, steps, _STEPS_ENCODED):
            block = range(first, min(first + _STEPS_ENCODED, steps))
            x = self._inputs[tile, first : block.stop].swapaxes(0, 1)
            for t, messages in zip(block, machine.encode(state, x), strict=True):
                if self._stopped.is_set():
                    return state
                self._collector.take(tile, t, machine.receive(state, messages), state)
        return state
