r"""One step of a series memory in NumPy, in int64, by prefix sums: the form that others must equal.

With :math:`S_{ij} = -1` above the diagonal and :math:`(-1)^{i-j+1}` on and below it,

.. math:: (S v)_i = -\Big(\sum_{j>i} v_j + (-1)^i \sum_{j \le i} (-1)^j v_j\Big),

two running sums of O(order) instead of a matrix of order squared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmu_deploy.integer_network import Format, SeriesMemory, largest


@dataclass(frozen=True)
class Advance:
    """What a step made.

    Attributes
    ----------
    m, message : ndarray, shape (batch, states)
    sent : ndarray, shape (batch, states)
        How many messages each neuron sent to the series itself, those that the matrix of signs was
        applied to.
    saturations : mapping of str to int
        By the last parts of the places' names, such as ``series/term``.
    """

    m: np.ndarray
    message: np.ndarray
    sent: np.ndarray
    saturations: Mapping[str, int]


class SeriesSender:
    """Counts what a series sends to itself."""

    def __init__(self, memory: SeriesMemory) -> None:
        self._order = memory.order

    def tally(self, sent: np.ndarray) -> tuple[np.ndarray, int]:
        """Add up the messages of each sample, and the synapses that all of them meet."""
        events = sent.sum(axis=1, dtype=np.int64)
        return events, int(events.sum()) * self._order


class Series(SeriesSender):
    """A SeriesMemory made ready."""

    def __init__(self, memory: SeriesMemory) -> None:
        super().__init__(memory)
        self._memory = memory
        self._signs = np.where(np.arange(memory.order) % 2 == 0, 1, -1)
        self._multiplier = memory.multiplier.astype(np.int64)
        self._shift = memory.shift.astype(np.int64)
        self._half = (np.int64(1) << self._shift) >> 1

    def advance(self, m: np.ndarray, message: np.ndarray, drive: np.ndarray) -> Advance:
        """Advance by one sample step.

        Parameters
        ----------
        m, message : ndarray, shape (batch, states)
            State and messages after the step before; integers in any type.
        drive : ndarray, shape (batch, states)
            All that reaches the series from elsewhere, and the bias, unlimited.
        """
        memory, counts = self._memory, Counter[str]()
        state = memory.state
        c = _saturated(drive.astype(np.int64), state, "series/drive", counts)
        m, vector = m.astype(np.int64), message.astype(np.int64)
        sent = np.zeros(m.shape, np.int32)
        for _ in range(memory.substeps):
            sent += vector != 0
            term = _saturated(c + self._apply(0, vector, counts), state, "series/term", counts)
            m = _saturated(m + term, state, "memory/state", counts)
            for k in range(1, memory.terms):
                vector = _rounded_shift(term, int(memory.term_shift[k - 1]))
                vector = _saturated(vector, memory.message, "series/message", counts)
                sent += vector != 0
                term = _saturated(self._apply(k, vector, counts), state, "series/term", counts)
                m = _saturated(m + term, state, "memory/state", counts)
            vector = _rounded_shift(m, memory.message_shift)
            vector = _saturated(vector, memory.message, "memory/message", counts)
        return Advance(m, vector, sent, counts)

    def _apply(self, k: int, vector: np.ndarray, counts: Counter[str]) -> np.ndarray:
        """G_k, for every channel."""
        memory = self._memory
        v = vector.reshape(len(vector), memory.channels, memory.order)
        after = v.sum(axis=2, keepdims=True) - v.cumsum(axis=2)
        before = self._signs * (self._signs * v).cumsum(axis=2)
        limit = largest(memory.accumulator_bits)
        sums = _limited(-(after + before), limit, "series/recurrent/slice0", counts)
        driven = (sums * self._multiplier[k] + self._half[k]) >> self._shift[k]
        return driven.reshape(vector.shape)


def _rounded_shift(values: np.ndarray, shift: int) -> np.ndarray:
    return (values + ((1 << shift) >> 1)) >> shift


def _saturated(values: np.ndarray, to: Format, place: str, counts: Counter[str]) -> np.ndarray:
    return _limited(values, to.limit, place, counts)


def _limited(values: np.ndarray, limit: int, place: str, counts: Counter[str]) -> np.ndarray:
    limited = np.clip(values, -limit, limit)
    counts[place] += int(np.count_nonzero(limited != values))
    return limited
