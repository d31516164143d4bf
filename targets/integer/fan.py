r"""Every connection that leaves one population, as one exact matrix product.

In: the messages of a batch. Out: the drive of each connection,
:math:`D = \sum_k ms(sat(W_k X), g_k, s_k)`. The gains stand in the matrix: its columns are
:math:`W_k g_k 2^{-s_k}`, so that :math:`ms(a, g, s) = \lfloor a g 2^{-s} + 1/2 \rfloor` is a
product, a sum and a floor. That is exact while all sums, in units of :math:`2^{-s}`, stay below
2^53, which the constructor proves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import Connection, largest

EXACT_FLOAT64 = 2**53


class Fan:
    """The synapses that leave a population.

    Parameters
    ----------
    connections : mapping of place to Connection
        All with as many inputs as the population has neurons.
    limit : int
        Largest magnitude of a message.

    Attributes
    ----------
    fan_out : ndarray, shape (n,), int64
        Synapses that leave each neuron.
    """

    def __init__(self, connections: Mapping[str, Connection], limit: int) -> None:
        for place, connection in connections.items():
            if reason := inexact(place, connection, limit):
                raise InputError(f"target integer cannot run this network: {reason}.")
        rows = [c.slices.reshape(-1, c.n_in) for c in connections.values()]
        weights = np.concatenate(rows).astype(np.float64)
        multiplier, shift, accumulator = (
            np.concatenate([part(c) for c in connections.values()])
            for part in (
                lambda c: c.multiplier.ravel().astype(np.float64),
                lambda c: c.shift.ravel(),
                lambda c: np.full(c.multiplier.size, float(largest(c.accumulator_bits))),
            )
        )
        gain = multiplier * np.exp2(-shift.astype(np.float64))
        self._matrix = np.ascontiguousarray((weights * gain[:, None]).T)
        self._half = np.where(shift > 0, 0.5, 0.0)
        self._limit = accumulator * gain
        self._cannot_saturate = bool((np.abs(weights).sum(axis=1) * limit <= accumulator).all())
        self._columns: dict[str, list[slice]] = {}
        start = 0
        for place, connection in connections.items():
            n_slices, n_out, _ = connection.slices.shape
            self._columns[place] = [
                slice(start + k * n_out, start + (k + 1) * n_out) for k in range(n_slices)
            ]
            start += n_slices * n_out
        fan_out = np.sum([c.fan_out for c in connections.values()], axis=0)
        self.fan_out: np.ndarray = np.asarray(fan_out, dtype=np.int64)
        self._tally = np.column_stack([np.ones(len(self.fan_out)), self.fan_out])

    @property
    def places(self) -> list[str]:
        """Names of the connections' accumulators."""
        return [
            f"{p}/slice{k}" for p, columns in self._columns.items() for k in range(len(columns))
        ]

    def deliver(self, messages: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Give the drive of every connection and count the sums that saturate.

        Parameters
        ----------
        messages : ndarray, shape (batch, n), float64 integers

        Returns
        -------
        drives : dict of place to ndarray, shape (batch, n_out), float64 integers
        saturations : dict of place to int
            Of the places that have some.
        """
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

    def tally(self, messages: np.ndarray) -> tuple[np.ndarray, int]:
        """Count messages that are not zero, for each sample, and the synapses that they meet."""
        counts = (messages != 0.0).astype(np.float64) @ self._tally
        return counts[:, 0], int(counts[:, 1].sum())

    def _saturate(self, sums: np.ndarray) -> dict[str, int]:
        """Limit the sums in place; give how many were, by place."""
        over = (sums.max(axis=0) > self._limit) | (sums.min(axis=0) < -self._limit)
        if not over.any():
            return {}
        beyond = np.abs(sums) > self._limit
        np.clip(sums, -self._limit, self._limit, out=sums)
        return {
            f"{place}/slice{number}": int(np.count_nonzero(beyond[:, column]))
            for place, columns in self._columns.items()
            for number, column in enumerate(columns)
        }


def inexact(place: str, connection: Connection, limit: int) -> str | None:
    """Say why float64 could not hold a connection's sums exactly, or None when it can."""
    weights = np.abs(connection.slices.astype(np.int64)).sum(axis=2)
    worst = int((weights * connection.multiplier).max(initial=0)) * limit
    if worst < EXACT_FLOAT64 // 2:
        return None
    return f"sums of {place} may need {worst.bit_length()} bits and float64 holds 53"
