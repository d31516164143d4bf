"""The receiving end of a population's connections: hold, add up, saturate and scale."""

from __future__ import annotations

from collections import deque

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
        self._rows = link.rows
        self._bits = connection.accumulator_bits
        self._multiplier = connection.multiplier.astype(np.int64)
        self._shift = connection.shift.astype(np.int64)
        self._of_changes = connection.threshold > 0
        silence = np.zeros(self._multiplier.shape, dtype=np.int64)
        self._sums = silence
        self._held = deque([silence] * link.delay)
        self.places = tuple(f"{link.wire.place}/slice{k}" for k in range(len(silence)))

    def receive(self, arriving: np.ndarray) -> np.ndarray:
        """Take what arrives at this chip step; give what is due.

        Parameters
        ----------
        arriving : ndarray, shape (rows of the Dense,)

        Returns
        -------
        due : ndarray, shape (slices, neurons), int64
        """
        self._held.append(arriving[self._rows].reshape(self._multiplier.shape).astype(np.int64))
        return self._held.popleft()

    def accumulate(self, due: np.ndarray, first: bool) -> tuple[np.ndarray, list[int]]:
        """Give a_k of docs/integer-semantics.md, and how often each slice's saturated.

        What is due are sums of messages, or of changes, which are added to those since the `first`
        step of the sample.
        """
        self._sums = due if first or not self._of_changes else self._sums + due
        limited = [saturate(row, self._bits) for row in self._sums]
        return np.stack([row for row, _ in limited]), [changed for _, changed in limited]

    def drive(self, accumulators: np.ndarray) -> np.ndarray:
        """Give D of docs/integer-semantics.md, shape (neurons,)."""
        scaled: np.ndarray = multiply_shift(accumulators, self._multiplier, self._shift).sum(axis=0)
        return scaled
