"""How the matrix at one place of a network becomes a connection; the same again for new weights.

A training that has to know what a chip will make of its weights rounds them anew at every step, in
the formats and to the widths that the quantiser found once. Both call :meth:`Rounding.connection`,
so what was trained and what is deployed cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.quantise.slices import connect
from lmu_deploy.integer_network import Connection


@dataclass(frozen=True)
class Rounding:
    """From a real matrix on the signal that a float network has there to a Connection.

    Attributes
    ----------
    source, target : float
        Real value of one unit of the messages that come in, and of what they drive.
    slices, weight_bits, accumulator_bits : int
    scales : {"power-of-two", "free"}
    basis : ndarray, shape (n, neurons), or None
        From what messages stand for to the signal that the matrix expects.
    coarser : ndarray, shape (n_out,), or int
        Halvings of rows whose sums would be too wide.
    """

    source: float
    target: float
    slices: int
    weight_bits: int
    accumulator_bits: int
    scales: str
    basis: np.ndarray | None = None
    coarser: np.ndarray | int = 0

    def connection(self, matrix: np.ndarray) -> Connection:
        """Round a matrix, shape (n_out, n)."""
        units = matrix.astype(np.float64)
        if self.basis is not None:
            units = units @ self.basis
        return connect(
            units * (self.source / self.target),
            slices=self.slices,
            weight_bits=self.weight_bits,
            accumulator_bits=self.accumulator_bits,
            scales=self.scales,
            coarser=self.coarser,
        )

    def real(self, matrix: np.ndarray) -> np.ndarray:
        """Give what the rounded matrix stands for; shape (n_out, neurons)."""
        return real_matrix(self.connection(matrix), self.source, self.target)


def real_matrix(connection: Connection, source: float, target: float) -> np.ndarray:
    """Give the matrix that a connection stands for, from units of `source` and `target`."""
    gain = connection.multiplier * np.exp2(-connection.shift.astype(np.float64))
    units = np.einsum("koi,ko->oi", connection.slices.astype(np.float64), gain)
    return units * (target / source)
