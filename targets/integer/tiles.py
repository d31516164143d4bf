"""A test set in tiles of samples, each run from its first step to its last, several at a time.

Tiles have nothing in common but the arrays that their results go into, a part of them each, and
sums of integers: threads change nothing in what comes out. A thread has a machine of its own, for a
machine writes over its buffers at every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import as_completed
from itertools import pairwise
from queue import SimpleQueue
from threading import Event

import numpy as np

from targets.base import Progress
from targets.integer.collector import Collector
from targets.integer.machine import Machine, State

_STEPS_ENCODED = 1024
"""Steps whose inputs are encoded at once: many, for that is slow; not all of a long sequence."""


def cut(samples: int, largest: int, threads: int) -> list[slice]:
    """Cut samples into tiles of about one size, none too large, and one or more for each thread."""
    tiles = max(-(-samples // largest), min(threads, samples))
    return [slice(*ends) for ends in pairwise(samples * n // tiles for n in range(tiles + 1))]


def run_tiles(
    machines: list[Machine],
    tiles: list[slice],
    inputs: np.ndarray,
    collector: Collector,
    progress: Progress | None,
) -> None:
    """Run all tiles, as many at a time as there are machines.

    Parameters
    ----------
    machines : list of Machine
        Of one network, one for each thread.
    tiles : list of slice
        Samples of each.
    inputs : ndarray, shape (samples, steps, n_in)
    collector : Collector
    progress : callable, optional
        Called with (samples done, in all), always in this thread.
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
    """What is done with a tile, here or in threads."""

    def __init__(self, inputs: np.ndarray, collector: Collector) -> None:
        self._inputs, self._collector, self._stopped = inputs, collector, Event()

    def in_turn(self, machine: Machine, tiles: list[slice]) -> Iterator[tuple[slice, State]]:
        """Run one after the other; give each with its last state."""
        for tile in tiles:
            yield tile, self._run(machine, tile)

    def side_by_side(
        self, machines: list[Machine], tiles: list[slice]
    ) -> Iterator[tuple[slice, State]]:
        """Run in threads; give each with its last state, as they end."""
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
            finally:  # a thread that goes on would keep an interrupted run waiting
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
