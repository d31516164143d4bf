r"""The engine in NumPy: integers in float64, where every operation is exact.

The synaptic matrix includes the gains: its columns are :math:`W_k g_k 2^{-s_k}`, so that
:math:`ms(a, g, s) = \lfloor a g 2^{-s} + 1/2 \rfloor` is a product, a sum and a floor. In units of
:math:`2^{-s}` all sums stay below 2^52, as engine.py proves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.parts import Connection, Format, real_gains
from lmu_deploy.core.integer.populations import Pointwise
from targets.integer.operands import ReadyDrive, Stack, by_lines, make_table, ready_drives

SeriesStep = Callable[[Any, np.ndarray], tuple[Any, np.ndarray, dict[str, int]]]
"""From the state and the drive of a series to its next state, its messages and saturations."""


class SeriesSender:
    """Count the messages that a series sends to itself."""

    def __init__(self, series: Series) -> None:
        self._order = series.order

    def tally(self, sent: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the number of messages of each sample, and the synaptic operations of all."""
        events = np.asarray(sent).sum(axis=1, dtype=np.int64)
        return events, int(events.sum()) * self._order


def series_step(series: Series) -> SeriesStep:
    """Return the step of a series: the definition, in int64."""
    return series.update


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

    def _saturate(self, sums: np.ndarray) -> dict[str, dict[str, int]]:
        """Limit the sums in place; return the saturations by place and accumulator."""
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

    def __init__(self, hidden: Pointwise) -> None:
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

    threads = 1  # NumPy's products start threads themselves

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

    def room(self, *shape: int) -> np.ndarray:
        """Return an array to be filled."""
        return np.empty(shape)

    def side_by_side(self, signals: list[np.ndarray]) -> np.ndarray:
        """Concatenate along the last axis."""
        return np.concatenate(signals, axis=-1)

    fan, sender, activation = NumpyFan, NumpySender, NumpyActivation
    series, series_sender = staticmethod(series_step), SeriesSender
