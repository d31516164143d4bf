"""All slices of an outlet's connections, one above the other, so that one product serves all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.integer_network import Connection, largest


@dataclass(frozen=True)
class Stack:
    """The rows of all slices of all connections that leave an outlet.

    Attributes
    ----------
    weights : ndarray, shape (rows, n_in), int8
    multiplier, shift, half : ndarray, shape (rows,), int64
        A sum a becomes ``(a * multiplier + half) >> shift``; half is what rounds half up.
    accumulator : ndarray, shape (rows,), int64
        Largest magnitude that each sum is limited to.
    places : dict of str to list of slice
        Which rows are each connection's, a slice of weights each.
    """

    weights: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    half: np.ndarray
    accumulator: np.ndarray
    places: dict[str, list[slice]]

    @classmethod
    def of(cls, connections: Mapping[str, Connection]) -> Stack:
        """Stack connections, by place, that all have as many inputs."""
        links = list(connections.values())
        multiplier, shift = (
            np.concatenate([rows.ravel() for rows in each]).astype(np.int64)
            for each in ([c.multiplier for c in links], [c.shift for c in links])
        )
        limits = [np.full(c.multiplier.size, largest(c.accumulator_bits)) for c in links]
        return cls(
            np.concatenate([c.slices.reshape(-1, c.n_in) for c in links]),
            multiplier,
            shift,
            (np.int64(1) << shift) >> 1,
            np.concatenate(limits),
            _places(connections),
        )

    def may_saturate(self, limit: int) -> np.ndarray:
        """Which rows could reach their accumulator's limit, for messages of that magnitude."""
        weights = np.abs(self.weights.astype(np.int64)).sum(axis=1)
        return np.asarray(weights * limit > self.accumulator)

    def count(self, beyond: Any) -> dict[str, int]:
        """Count what went beyond its limit, (batch, rows), by the names of the accumulators."""
        return {
            f"{place}/slice{number}": int(beyond[:, rows].sum())
            for place, slices in self.places.items()
            for number, rows in enumerate(slices)
        }


def _places(connections: Mapping[str, Connection]) -> dict[str, list[slice]]:
    places, start = {}, 0
    for place, connection in connections.items():
        n_slices, n_out, _ = connection.slices.shape
        places[place] = [slice(start + k * n_out, start + (k + 1) * n_out) for k in range(n_slices)]
        start += n_slices * n_out
    return places
