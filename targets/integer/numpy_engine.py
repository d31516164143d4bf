r"""The engine in NumPy: integers in float64, where every operation is exact.

The synaptic matrix includes the gains: its columns are :math:`W_k g_k 2^{-s_k}`, so that
:math:`ms(a, g, s) = \lfloor a g 2^{-s} + 1/2 \rfloor` is a product, a sum and a floor. In units of
:math:`2^{-s}` all sums stay below 2^52, as engine.py proves.

A step of a series memory is computed in int64 by prefix sums. With :math:`S_{ij} = -1` above the
diagonal and :math:`(-1)^{i-j+1}` on and below it,

.. math:: (S v)_i = -\Big(\sum_{j>i} v_j + (-1)^i \sum_{j \le i} (-1)^j v_j\Big),

two running sums of O(order) instead of a product with a matrix of order squared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.integer.layers import IntegerHidden, SeriesMemory
from lmu_deploy.core.integer.parts import Connection, Format, largest, real_gains
from targets.integer.operands import ReadyDrive, Stack, by_lines, make_table, ready_drives


@dataclass(frozen=True)
class Advance:
    """Result of one step of a series memory.

    Attributes
    ----------
    m, message : ndarray, shape (batch, states)
    sent : ndarray, shape (batch, states)
        Number of messages that each neuron sent to the series itself.
    saturations : mapping of str to int
        By the last parts of the places, such as ``series/term``.
    """

    m: np.ndarray
    message: np.ndarray
    sent: np.ndarray
    saturations: Mapping[str, int]


class SeriesSender:
    """Count the messages that a series sends to itself."""

    def __init__(self, memory: SeriesMemory) -> None:
        self._order = memory.order

    def tally(self, sent: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the number of messages of each sample, and the synaptic operations of all."""
        events = sent.sum(axis=1, dtype=np.int64)
        return events, int(events.sum()) * self._order


class Series(SeriesSender):
    """A SeriesMemory in int64."""

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
            States and messages after the previous step; integers of any type.
        drive : ndarray, shape (batch, states)
            Drive from other populations and bias, before saturation.
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
        """Apply the matrix of signs and the gains G_k to every channel."""
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


class NumpyFan:
    """Synapses of an outlet as one matrix product.

    Parameters
    ----------
    connections : mapping of place to Connection
        All from one population.
    limit : int
        Largest magnitude of a message.
    """

    def __init__(self, connections: Mapping[str, Connection], limit: int) -> None:
        self._stack = stack = Stack.of(connections)
        gain = real_gains(stack.multiplier, stack.shift)
        self._matrix = np.ascontiguousarray((stack.weights * gain[:, None]).T)
        self._half = np.where(stack.shift > 0, 0.5, 0.0)
        self._limit = stack.accumulator * gain
        self._may_saturate = bool(stack.may_saturate(limit).any())

    def deliver(self, messages: np.ndarray) -> dict[str, ReadyDrive]:
        """Return each connection's drive, by place."""
        sums = messages @ self._matrix
        saturations = self._saturate(sums) if self._may_saturate else {}
        sums += self._half
        np.floor(sums, out=sums)
        return ready_drives(sums, self._stack.places, saturations, lasting=True)

    def _saturate(self, sums: np.ndarray) -> dict[str, int]:
        """Limit the sums in place; return the saturations by accumulator."""
        if not ((sums.max(axis=0) > self._limit) | (sums.min(axis=0) < -self._limit)).any():
            return {}
        beyond = np.abs(sums) > self._limit
        np.clip(sums, -self._limit, self._limit, out=sums)
        return self._stack.count(beyond)


class NumpySender:
    """Count events by one product of what was sent with ones and fan-outs."""

    def __init__(self, fan_out: np.ndarray) -> None:
        self._tally = np.column_stack([np.ones(len(fan_out)), fan_out]).astype(np.float64)

    def tally(self, sent: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the number of events of each sample, and the synaptic operations of all."""
        counts = (sent != 0.0).astype(np.float64) @ self._tally
        return counts[:, 0], int(counts[:, 1].sum())


class NumpyActivation:
    """H = f(z) of a batch, by a table where there is one."""

    def __init__(self, hidden: IntegerHidden) -> None:
        self._hidden, self._table = hidden, make_table(hidden)
        if self._table is not None:
            self._values = self._table.values.astype(np.float64)

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        """Return H and the number of saturated entries."""
        table = self._table
        if table is None:
            return by_lines(self._hidden, z)
        limited = table.count_limited(z, np.count_nonzero)
        index = np.clip(z, table.least, table.greatest).astype(np.intp)
        index -= table.least
        return self._values[index], limited


class NumpyEngine:
    """Arrays of float64; see :class:`targets.integer.engine.Engine`."""

    name = "numpy"

    threads = 1  # NumPy's products use threads of their own

    def pool(self, threads: int) -> AbstractContextManager[Executor]:
        """Return an executor."""
        return ThreadPoolExecutor(threads)

    def zeros(self, batch: int, width: int) -> np.ndarray:
        """Build an array of zeros."""
        return np.zeros((batch, width))

    def array(self, values: np.ndarray) -> np.ndarray:
        """Convert integers of NumPy."""
        return np.asarray(values, dtype=np.float64)

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """Return the array."""
        return values

    def copy(self, values: np.ndarray) -> np.ndarray:
        """Copy an array."""
        return values.copy()

    def encode(self, x: np.ndarray, message: Format) -> tuple[np.ndarray, int]:
        """Encode real inputs as messages; return them and the number of saturations."""
        messages = np.rint(x / message.scale)
        return messages, self.saturate(messages, message.limit)

    def saturate(self, values: np.ndarray, limit: int) -> int:
        """Limit values in place; return the number of saturations."""
        if not values.size or (values.max() <= limit and values.min() >= -limit):
            return 0
        limited = int(np.count_nonzero(np.abs(values) > limit))
        np.clip(values, -limit, limit, out=values)
        return limited

    def emit(
        self, m: np.ndarray, limit: int, shift: int, message_limit: int
    ) -> tuple[np.ndarray, int, int]:
        """Limit states in place; return their messages and the saturations of both."""
        limited = self.saturate(m, limit)
        messages = m * 2.0**-shift
        if shift > 0:
            messages += 0.5
            np.floor(messages, out=messages)
        return messages, limited, self.saturate(messages, message_limit)

    def suppress(self, values: np.ndarray, threshold: int) -> None:
        """Set values of magnitude below a threshold to zero, in place."""
        values[np.abs(values) < threshold] = 0.0

    fan, sender, activation, series = NumpyFan, NumpySender, NumpyActivation, Series
