"""Target `integer`: runs of the bit-exact simulator, of test sets or step by step as data arrive.

A test set is cut into tiles of samples. A tile is run from its first step to its last, several
tiles in parallel. Tiles share only the arrays of results, of which each has its own part, and sums
of integers, so that threads do not change the results. Each thread has its own machine, because a
machine overwrites its buffers at every step.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass
from itertools import pairwise
from queue import SimpleQueue
from threading import Event

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import check_frames, frame_counts, host_sentence, latency
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_array, check_choice
from targets.base import Run, States, checked_inputs
from targets.integer.components import Produced, State
from targets.integer.engine import ENGINES, choose_engine, float64_objections
from targets.integer.machine import Machine

_BATCH = 256


class IntegerTarget:
    """Run integer networks as docs/reference/integer-semantics.md specifies.

    Parameters
    ----------
    engine : {"auto", "numpy", "torch", "numba"}
        Array library; all produce the same integers. See engine.py.
    """

    name = "integer"
    accepts: tuple[type, ...] = (IntegerNetwork,)

    def __init__(self, engine: str = "auto") -> None:
        self._engine = check_choice("engine", engine, ENGINES)

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Return the connections whose sums float64 cannot represent exactly."""
        return float64_objections(network)

    def run(
        self,
        network: IntegerNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run a set of inputs; see :class:`targets.base.Target`. `seed` is not used."""
        inputs = checked_inputs(self, network, inputs)
        start = time.perf_counter()
        sample_steps = inputs.shape[0] * inputs.shape[1]
        engine = choose_engine(network, self._engine, sample_steps)
        tiles = cut(len(inputs), _BATCH, engine.threads)
        machines = [Machine(network, engine) for _ in range(min(engine.threads, len(tiles)))]
        collector = Collector(machines[0], inputs.shape, record)
        run_tiles(machines, tiles, inputs, collector, progress)
        return collector.run(self.name, seed, time.perf_counter() - start)


@dataclass(frozen=True)
class Stream:
    """State of :func:`step` between calls: a network on an engine, and its state."""

    machine: Machine
    state: State

    @property
    def memories(self) -> list[np.ndarray]:
        """States of every memory, shape (samples, states)."""
        machine, own = self.machine, self.state.own
        places = [memory.place for memory in machine.network.memories]
        found = [machine.rules[place].recorded(own[place], None) for place in places]
        return [np.asarray(machine.engine.numpy(states)) for states in found]


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
        Output; ``y * network.y_scale`` is the real value. Where the host computes it, real
        numbers. A network that looks ahead or has a stride returns an array of shape
        (frames, samples, n_out) with the frames that are ready, which may be none.
    stream : Stream
        For the next step; the given one is not changed.

    Raises
    ------
    InputError
        On inputs of another shape or with NaN, or a stream of another network.
    """
    x = check_array("input", np.asarray(x, dtype=np.float64), (None, network.n_in))
    if stream is None:
        machine = Machine(network, choose_engine(network, engine))
        stream = Stream(machine, machine.start(len(x)))
    elif stream.machine.network is not network:
        raise InputError("the stream belongs to another network; start a new one with None.")
    check_array("input", x, (stream.state.batch, network.n_in))
    machine, state = stream.machine, stream.state.copy(stream.machine)
    y = _fed(machine, state, x[None], end=False)
    return (y[0] if len(y) == 1 else y), Stream(machine, state.copy(machine))


def finish(stream: Stream) -> np.ndarray:
    """End the sequences of a stream; return the frames of the output that remain.

    These are the answer of a reduction over time, and frames that wait for later steps.

    Returns
    -------
    y : ndarray, shape (frames, samples, n_out)
        As from :func:`step`; often without frames.
    """
    machine, state = stream.machine, stream.state.copy(stream.machine)
    return _fed(machine, state, np.zeros((0, state.batch, machine.network.n_in)), end=True)


def _fed(machine: Machine, state: State, x: np.ndarray, end: bool) -> np.ndarray:
    """Feed steps; return the frames of the output, (frames, samples, n_out)."""
    found = machine.feed(state, x, end)
    frames = [machine.output(part) for part in found.get(machine.network.output, [])]
    none = np.zeros((0, state.batch, machine.network.n_out), np.int64)
    return np.concatenate(frames) if frames else none


class Collector:
    """Collect the frames of all batches, and build the Run.

    Parameters
    ----------
    machine : Machine
    shape : (samples, steps, n_in)
    record : bool
        Keep the states of every frame.
    """

    def __init__(self, machine: Machine, shape: tuple[int, ...], record: bool) -> None:
        self._machine, self._network, self.record = machine, machine.network, record
        self._samples, self._steps, _ = shape
        network = self._network
        check_frames(network, self._steps)
        self._frames = frame_counts(network, self._steps)
        self._last_only = not (record or network.return_sequences)
        y_frames = 1 if self._last_only else self._frames[network.output]
        self._y = self._room(network.output, y_frames)
        self._parts = {
            p.place: self._room(p.place, self._frames[p.place])
            for p in network.populations
            if record and p.place not in (network.output, network.input.place)
        }
        self._events = {
            key: np.zeros((self._frames[network[key[0]].place], self._samples), np.int64)
            for key in machine.senders
        }
        self._rasters = {
            place: np.zeros((self._frames[network[place].place], source.neurons), np.uint8)
            for place, source in machine.sources.items()
        }
        self._synops = 0
        self._saturations: dict[str, int] = defaultdict(int)

    def _room(self, place: Place, frames: int) -> np.ndarray:
        population = self._network[place]
        kind = np.float64 if isinstance(population, HostNodes) else np.int32
        return np.zeros((self._samples, frames, population.size), kind)

    def take(self, tile: slice, found: Mapping[Place, list[Produced]]) -> int:
        """Store new frames of one batch; return their synaptic operations."""
        synops = 0
        for place, parts in found.items():
            for produced in parts:
                synops += self._count(tile, produced)
                if place == self._network.output:
                    self._store_output(tile, produced)
                elif place in self._parts:
                    values = self._machine.numpy(produced.values)
                    frames = slice(produced.first, produced.first + len(values))
                    self._parts[place][tile, frames] = values.swapaxes(0, 1)
        return synops

    def _count(self, tile: slice, produced: Produced) -> int:
        """Count the events of new frames, and draw those of the first sample."""
        total = 0
        for key, sent in produced.sent.items():
            senders = self._machine.senders[key]
            frames, batch, neurons = sent.shape
            for phase, sender in enumerate(senders):
                first = (phase - produced.first) % len(senders)
                some = sent[first :: len(senders)]
                if len(some):
                    events, synops = sender.tally(some.reshape(len(some) * batch, neurons))
                    at = slice(produced.first + first, produced.first + frames, len(senders))
                    self._events[key][at, tile] = events.reshape(len(some), batch)
                    total += synops
            if tile.start == 0:
                of_first = self._machine.numpy(sent)[:, 0]
                times = of_first.clip(0, 255) if self._inside(key[0]) else of_first != 0
                at = slice(produced.first, produced.first + frames)
                self._rasters[key[0]][at] += times.astype(np.uint8)
        return total

    def _inside(self, place: Place) -> bool:
        """Return whether a source is the terms of a series, which send several times a step."""
        return self._network[place].place != place

    def _store_output(self, tile: slice, produced: Produced) -> None:
        values = self._machine.output(produced)
        if not self._last_only:
            frames = slice(produced.first, produced.first + len(values))
            self._y[tile, frames] = values.swapaxes(0, 1)
        elif produced.first + len(values) == self._frames[self._network.output]:
            self._y[tile, 0] = values[-1]

    def close(self, synops: int, state: State) -> None:
        """Add the counts of a finished batch."""
        self._synops += synops
        for place, count in state.saturations.items():
            self._saturations[place] += count

    def run(self, target: str, seed: int, wall_seconds: float) -> Run:
        """Build the Run."""
        network, machine = self._network, self._machine
        outputs = self._y * network.y_scale
        sentence = host_sentence(network)
        settings: dict[str, object] = {"engine": machine.engine.name}
        if network.on_host:
            settings["nodes on the host"] = [
                n.name for h in network.on_host for n in h.network.nodes
            ]
        return Run(
            target=target,
            outputs=outputs if network.return_sequences else outputs[:, -1],
            neurons={str(place): source.neurons for place, source in machine.sources.items()},
            events=self._events_of_sources(),
            synops=self._synops,
            saturations={place: self._saturations[place] for place in machine.places()},
            steps=self._steps,
            chip_steps=self._steps + latency(network),
            wall_seconds=wall_seconds,
            seed=seed,
            states=self._states(),
            rasters={str(place): raster for place, raster in self._rasters.items()},
            carried=self._carried(),
            notes=() if sentence is None else (sentence,),
            settings=settings,
        )

    def _events_of_sources(self) -> dict[str, np.ndarray]:
        """Sum the events of all outlets of each source; shape (samples, frames)."""
        found: dict[Place, np.ndarray] = {}
        for (place, _), events in self._events.items():
            found[place] = found[place] + events.T if place in found else events.T
        return {str(place): found[place] for place in self._machine.sources}

    def _carried(self) -> dict[str, int]:
        return {
            place: int(events.sum())
            for key, events in self._events.items()
            for place in self._machine.places_of[key]
        }

    def _states(self) -> States | None:
        if not self.record:
            return None
        return States.of_integers(self._network, {**self._parts, self._network.output: self._y})


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
    parts = work.side_by_side(machines, tiles) if several else work.in_turn(machines[0], tiles)
    for tile, synops, state in parts:
        collector.close(synops, state)
        done += tile.stop - tile.start
        if progress:
            progress(done, len(inputs))


Done = tuple[slice, int, State]
"""A tile, its synaptic operations, and its last state."""


class _Work:
    """Run tiles in this thread or in several."""

    def __init__(self, inputs: np.ndarray, collector: Collector) -> None:
        self._inputs, self._collector, self._stopped = inputs, collector, Event()

    def in_turn(self, machine: Machine, tiles: list[slice]) -> Iterator[Done]:
        """Run tiles one after the other; yield each when it ends."""
        for tile in tiles:
            yield self._run(machine, tile)

    def side_by_side(self, machines: list[Machine], tiles: list[slice]) -> Iterator[Done]:
        """Run tiles in threads; yield each when it ends."""
        idle: SimpleQueue[Machine] = SimpleQueue()
        for machine in machines:
            idle.put(machine)

        def run(tile: slice) -> Done:
            machine = idle.get()
            try:
                return self._run(machine, tile)
            finally:
                idle.put(machine)

        with machines[0].engine.pool(len(machines)) as pool:
            try:
                for future in as_completed([pool.submit(run, tile) for tile in tiles]):
                    yield future.result()
            finally:  # otherwise an interrupted run would wait for its threads
                self._stopped.set()

    def _run(self, machine: Machine, tile: slice) -> Done:
        batch, synops = tile.stop - tile.start, 0
        state = machine.start(batch)
        steps, at_once = self._inputs.shape[1], machine.frames_at_once(batch)
        for first in range(0, steps, at_once):
            if self._stopped.is_set():
                break
            stop = min(first + at_once, steps)
            x = self._inputs[tile, first:stop].swapaxes(0, 1)
            found = machine.feed(state, x, stop == steps, self._collector.record)
            synops += self._collector.take(tile, found)
        return tile, synops, state
