r"""How wide each dendritic accumulator has to be, and rows made coarser until they fit.

A sum :math:`\sum_j W_{kij} X_j` with messages limited to L is at most :math:`L \sum_j |W_{kij}|`:
if that fits, it is proven. Else the sums on the calibration are measured, and half a bit is added
for inputs that were not seen; an accumulator that is too narrow after all saturates and is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmu_deploy.integer_network import Connection

_UNSEEN_BITS = 0.5


@dataclass(frozen=True)
class Need:
    """Bits, sign included, that the sums of one slice need in its widest row.

    Attributes
    ----------
    slice : int
    bits : float
    proven : bool
        From bounds; else measured on the calibration, with a margin.
    """

    slice: int
    bits: float
    proven: bool

    @property
    def shown(self) -> str:
        """Bits to a tenth, rounded up: 24.02 bits must not read as the 24 that there are."""
        return f"{math.ceil(10.0 * self.bits) / 10.0:.1f}"

    def __str__(self) -> str:
        return f"{self.shown} bits, {'proven' if self.proven else 'measured'}"


def bits_of(magnitude: np.ndarray | float) -> np.ndarray:
    """Bits, sign included, that an integer of this magnitude needs."""
    return np.asarray(np.log2(np.asarray(magnitude, dtype=np.float64) + 1.0) + 1.0)


def row_bits(connection: Connection, limit: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits that each slice's sum needs in each row.

    Parameters
    ----------
    connection : Connection, (n_out, n_in)
    limit : int
        Largest magnitude of a message.
    rows : ndarray, shape (rows, n_in), float32
        Integer messages seen on the calibration.

    Returns
    -------
    bits : ndarray, shape (slices, n_out)
        From bounds if those fit in every row of the slice, else measured with a margin.
    proven : ndarray of bool, shape (slices, n_out)
    """
    weights = connection.slices.astype(np.float32)
    bits = bits_of(np.abs(weights).sum(axis=2, dtype=np.float64) * limit)
    proven = bits <= connection.accumulator_bits
    for number in np.flatnonzero(~proven.all(axis=1)):
        sums = np.abs(rows @ weights[number].T).max(axis=0, initial=0.0)
        bits[number] = np.minimum(bits[number], bits_of(sums) + _UNSEEN_BITS)
    return bits, proven


def fit(
    make: Callable[[np.ndarray], Connection], n_out: int, limit: int, rows: np.ndarray
) -> tuple[Connection, list[Need], np.ndarray]:
    """Make a connection whose accumulators are wide enough, if one halving of rows a slice does it.

    More would cost more than what it mends: a message of fewer bits then does better.

    Parameters
    ----------
    make : callable
        Gives the Connection for an array (n_out,) of halvings.
    n_out, limit : int
    rows : ndarray, shape (rows, n_in)

    Returns
    -------
    connection : Connection
    needs : list of Need
        One for each slice; the caller judges whether they are met.
    coarser : ndarray, shape (n_out,)
        The halvings with which `connection` was made.
    """
    coarser = np.zeros(n_out, dtype=np.int64)
    while True:
        connection = make(coarser)
        bits, proven = row_bits(connection, limit, rows)
        too_wide = (bits > connection.accumulator_bits).any(axis=0)
        if not too_wide.any() or coarser.max() == len(connection.slices):
            break
        coarser[too_wide] += 1
    needs = [
        Need(k, float(bits[k].max(initial=1.0)), bool(proven[k].all())) for k in range(len(bits))
    ]
    return connection, needs, coarser
