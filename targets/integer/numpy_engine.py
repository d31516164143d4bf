r"""The engine in NumPy: integers held as float64, where every operation is exact.

The gains stand in the synaptic matrix: its columns are :math:`W_k g_k 2^{-s_k}`, so that
:math:`ms(a, g, s) = \lfloor a g 2^{-s} + 1/2 \rfloor` is a product, a sum and a floor. In units of
:math:`2^{-s}` all sums stay below 2^52, as bounds.py proves.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np

from lmu_deploy.integer_network import Connection, Format, IntegerHidden, SeriesMemory
from targets.integer.drives import ReadyDrive, ready_drives
from targets.integer.lines import by_lines, make_table
from targets.integer.series import Series
from targets.integer.stack import Stack


class NumpyEngine:
    """Arrays of float64; see :class:`targets.integer.engine.Engine`."""

    name = "numpy"

    threads = 1  # its products have threads of their own, all the rest is quickly done

    def pool(self, threads: int) -> AbstractContextManager[Executor]:
        """Give threads."""
        return ThreadPoolExecutor(threads)

    def zeros(self, batch: int, width: int) -> np.ndarray:
        """Make an array of zeros."""
        return np.zeros((batch, width))

    def array(self, values: np.ndarray) -> np.ndarray:
        """Take integers over."""
        return np.asarray(values, dtype=np.float64)

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """Give the array itself."""
        return values

    def copy(self, values: np.ndarray) -> np.ndarray:
        """Copy an array."""
        return values.copy()

    def encode(self, x: np.ndarray, message: Format) -> tuple[np.ndarray, int]:
        """Give input messages for real inputs, and how many were limited."""
        messages = np.rint(x / message.scale)
        return messages, self.saturate(messages, message.limit)

    def saturate(self, values: np.ndarray, limit: int) -> int:
        """Limit values in place; give how many that changed."""
        if not values.size or (values.max() <= limit and values.min() >= -limit):
            return 0
        limited = int(np.count_nonzero(np.abs(values) > limit))
        np.clip(values, -limit, limit, out=values)
        return limited

    def emit(
        self, m: np.ndarray, limit: int, shift: int, message_limit: int
    ) -> tuple[np.ndarray, int, int]:
        """Limit states in place, give their messages, and how many of each that changed."""
        limited = self.saturate(m, limit)
        messages = m * 2.0**-shift
        if shift > 0:
            messages += 0.5
            np.floor(messages, out=messages)
        return messages, limited, self.saturate(messages, message_limit)

    def silence(self, values: np.ndarray, threshold: int) -> None:
        """Set values of magnitude below a threshold to zero, in place."""
        values[np.abs(values) < threshold] = 0.0

    def fan(self, connections: Mapping[str, Connection], limit: int) -> NumpyFan:
        """Make the synapses of an outlet ready."""
        return NumpyFan(connections, limit)

    def sender(self, fan_out: np.ndarray) -> NumpySender:
        """Make ready to count the events of an outlet."""
        return NumpySender(fan_out)

    def activation(self, hidden: IntegerHidden) -> NumpyActivation:
        """Make an activation ready."""
        return NumpyActivation(hidden)

    def series(self, memory: SeriesMemory) -> Series:
        """Make a series memory ready."""
        return Series(memory)


class NumpyFan:
    """The synapses of an outlet, as one matrix product.

    Parameters
    ----------
    connections : mapping of place to Connection
        All with as many inputs as the population has neurons.
    limit : int
        Largest magnitude of a message.
    """

    def __init__(self, connections: Mapping[str, Connection], limit: int) -> None:
        self._stack = stack = Stack.of(connections)
        gain = stack.multiplier * np.exp2(-stack.shift.astype(np.float64))
        self._matrix = np.ascontiguousarray((stack.weights * gain[:, None]).T)
        self._half = np.where(stack.shift > 0, 0.5, 0.0)
        self._limit = stack.accumulator * gain
        self._may_saturate = bool(stack.may_saturate(limit).any())

    def deliver(self, messages: np.ndarray) -> dict[str, ReadyDrive]:
        """Give each connection's drive."""
        sums = messages @ self._matrix
        saturations = self._saturate(sums) if self._may_saturate else {}
        sums += self._half
        np.floor(sums, out=sums)
        return ready_drives(sums, self._stack.places, saturations, lasting=True)

    def _saturate(self, sums: np.ndarray) -> dict[str, int]:
        """Limit the sums in place; give how many were, by accumulator."""
        if not ((sums.max(axis=0) > self._limit) | (sums.min(axis=0) < -self._limit)).any():
            return {}
        beyond = np.abs(sums) > self._limit
        np.clip(sums, -self._limit, self._limit, out=sums)
        return self._stack.count(beyond)


class NumpySender:
    """Counts events by one product of what was sent with ones and fan-outs."""

    def __init__(self, fan_out: np.ndarray) -> None:
        self._tally = np.column_stack([np.ones(len(fan_out)), fan_out]).astype(np.float64)

    def tally(self, sent: np.ndarray) -> tuple[np.ndarray, int]:
        """Count nonzero entries of each sample, and the synapses that all of them meet."""
        counts = (sent != 0.0).astype(np.float64) @ self._tally
        return counts[:, 0], int(counts[:, 1].sum())


class NumpyActivation:
    """H = f(z) for whole batches, by table where there is one."""

    def __init__(self, hidden: IntegerHidden) -> None:
        self._hidden, self._table = hidden, make_table(hidden)
        if self._table is not None:
            self._values = self._table.values.astype(np.float64)

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        """Give H and how many of its entries the message's width limited."""
        table = self._table
        if table is None:
            return by_lines(self._hidden, z)
        limited = int(np.count_nonzero(z > table.last_unlimited))
        if table.odd:
            limited += int(np.count_nonzero(z < -table.last_unlimited))
        index = np.clip(z, table.least, table.greatest).astype(np.intp)
        index -= table.least
        return self._values[index], limited
