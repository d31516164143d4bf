r"""The engine in NumPy: integers held as float64, where every operation is exact.

The gains stand in the synaptic matrix: its columns are :math:`W_k g_k 2^{-s_k}`, so that
:math:`ms(a, g, s) = \lfloor a g 2^{-s} + 1/2 \rfloor` is a product, a sum and a floor. In units of
:math:`2^{-s}` all sums stay below 2^52, as bounds.py proves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmu_deploy.integer_network import Connection, Format, IntegerHidden, largest
from targets.integer.lines import by_lines, make_table


class NumpyEngine:
    """Arrays of float64; see :class:`targets.integer.engine.Engine`."""

    name = "numpy"

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

    def rounded_shift(self, values: np.ndarray, shift: int) -> np.ndarray:
        """Give ms(values, 1, shift)."""
        shifted = values * 2.0**-shift
        if shift > 0:
            shifted += 0.5
            np.floor(shifted, out=shifted)
        return shifted

    def saturate(self, values: np.ndarray, limit: int) -> int:
        """Limit values in place; give how many that changed."""
        if not values.size or (values.max() <= limit and values.min() >= -limit):
            return 0
        limited = int(np.count_nonzero(np.abs(values) > limit))
        np.clip(values, -limit, limit, out=values)
        return limited

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
        links = list(connections.values())
        weights = np.concatenate([c.slices.reshape(-1, c.n_in) for c in links]).astype(np.float64)
        multiplier = np.concatenate([c.multiplier.ravel() for c in links]).astype(np.float64)
        shift = np.concatenate([c.shift.ravel() for c in links])
        accumulator = np.concatenate(
            [np.full(c.multiplier.size, float(largest(c.accumulator_bits))) for c in links]
        )
        gain = multiplier * np.exp2(-shift.astype(np.float64))
        self._matrix = np.ascontiguousarray((weights * gain[:, None]).T)
        self._half = np.where(shift > 0, 0.5, 0.0)
        self._limit = accumulator * gain
        self._cannot_saturate = bool((np.abs(weights).sum(axis=1) * limit <= accumulator).all())
        self._columns = columns_of(connections)

    def deliver(self, messages: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Give each connection's drive and the saturations of its accumulators."""
        sums = messages @ self._matrix
        saturations = {} if self._cannot_saturate else self._saturate(sums)
        sums += self._half
        np.floor(sums, out=sums)
        drives = {}
        for place, (first, *others) in self._columns.items():
            drive = sums[:, first]
            for other in others:
                drive += sums[:, other]
            drives[place] = drive
        return drives, saturations

    def _saturate(self, sums: np.ndarray) -> dict[str, int]:
        """Limit the sums in place; give how many were, by place."""
        if not ((sums.max(axis=0) > self._limit) | (sums.min(axis=0) < -self._limit)).any():
            return {}
        beyond = np.abs(sums) > self._limit
        np.clip(sums, -self._limit, self._limit, out=sums)
        return {
            f"{place}/slice{number}": int(np.count_nonzero(beyond[:, column]))
            for place, columns in self._columns.items()
            for number, column in enumerate(columns)
        }


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


def columns_of(connections: Mapping[str, Connection]) -> dict[str, list[slice]]:
    """Where each slice of each connection stands when all their rows are stacked."""
    columns, start = {}, 0
    for place, connection in connections.items():
        n_slices, n_out, _ = connection.slices.shape
        columns[place] = [
            slice(start + k * n_out, start + (k + 1) * n_out) for k in range(n_slices)
        ]
        start += n_slices * n_out
    return columns
