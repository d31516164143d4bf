r"""Coordinates in which a memory's matrix is sparse and rounds well.

In the basis of orthonormal Legendre polynomials, :math:`n_i = m_i / \sqrt{2i+1}`, the continuous
matrix has entries :math:`\sqrt{(2i+1)(2j+1)}` times a sign, and its symmetric part has rank two
only (the signs at ij and ji add up to -2 for even i - j and to 0 for odd): it is nearly normal. An
orthogonal rotation to real Schur form (upper triangular, but for blocks of 2 x 2) or to Hessenberg
form (upper triangular, and one diagonal below) then makes half of its entries zero, and leaves
most of the others small (Golub, Van Loan, Matrix Computations, 2013, sections 7.4 and 7.6).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import hessenberg, schur

from lmu_deploy.network import LMULayer


@dataclass(frozen=True)
class Coordinates:
    """States n with m = basis @ n and n = inverse @ m.

    Attributes
    ----------
    recurrent : ndarray, shape (states, states)
        The memory's matrix less the identity, memory encoders folded in.
    basis, inverse : ndarray, shape (states, states)
    """

    recurrent: np.ndarray
    basis: np.ndarray
    inverse: np.ndarray

    def scaled(self, ranges: np.ndarray) -> Coordinates:
        """Give coordinates in which a state of 1 was one of `ranges`, shape (states,)."""
        return Coordinates(
            self.recurrent * ranges[None, :] / ranges[:, None],
            self.basis * ranges[None, :],
            self.inverse / ranges[:, None],
        )


def increment(layer: LMULayer) -> np.ndarray:
    """Recurrent matrix less the identity, memory encoders folded in; (states, states)."""
    memory = layer.memory
    a_bar = memory.a_bar.astype(np.float64) - np.eye(memory.order)
    matrix = np.kron(np.eye(memory.channels), a_bar)
    if layer.memory_encoders is not None:
        matrix += np.kron(layer.memory_encoders.T, memory.b_bar.astype(np.float64)[:, None])
    return matrix


def coordinates(layer: LMULayer, form: str) -> Coordinates:
    """Rotate a memory.

    Parameters
    ----------
    layer : LMULayer
        Memory encoders join the channels, which are then rotated together, else each by itself.
    form : {"schur", "hessenberg"}
    """
    memory = layer.memory
    copies = 1 if layer.memory_encoders is not None else memory.channels
    block = increment(layer)[: memory.size // copies, : memory.size // copies]
    weights = np.tile(np.sqrt(2.0 * np.arange(memory.order) + 1.0), memory.channels // copies)
    orthonormal = block * weights[None, :] / weights[:, None]
    if form == "schur":
        rotated, q = schur(orthonormal, output="real")
    else:
        rotated, q = hessenberg(orthonormal, calc_q=True)
    identity = np.eye(copies)
    return Coordinates(
        np.kron(identity, rotated),
        np.kron(identity, weights[:, None] * q),
        np.kron(identity, q.T / weights[None, :]),
    )
