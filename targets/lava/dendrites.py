"""The receiving end of a population's connections: hold, saturate, scale and add up."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from targets.lava.arithmetic import multiply_shift, saturate
from targets.lava.plan import Link


class Dendrite:
    """The accumulators of one connection, one for each slice and neuron.

    Parameters
    ----------
    link : Link
    """

    def __init__(self, link: Link) -> None:
        connection = link.wire.connection
        self._bits = connection.accumulator_bits
        self._multiplier = connection.multiplier.astype(np.int64)
        self._shift = connection.shift.astype(np.int64)
        silence = np.zeros(self._multiplier.shape, dtype=np.int64)
        self._held = deque([silence] * link.delay)

    @property
    def slices(self) -> int:
        """Number of accumulators of each neuron."""
        return len(self._multiplier)

    def receive(self, arriving: Sequence[np.ndarray]) -> np.ndarray:
        """Take what arrives at this chip step; give what is due, shape (slices, neurons), int64."""
        self._held.append(np.stack(arriving).astype(np.int64))
        return self._held.popleft()

    def drive(self, sums: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """D of docs/integer-semantics.md, and how often each slice's accumulators saturated."""
        limited = [saturate(row, self._bits) for row in sums]
        accumulators = np.stack([row for row, _ in limited])
        scaled = multiply_shift(accumulators, self._multiplier, self._shift)
        return scaled.sum(axis=0), [changed for _, changed in limited]
