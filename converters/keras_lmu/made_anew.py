r"""The memory matrices as keras-lmu makes them whenever a model is loaded, without TensorFlow.

keras-lmu (0.4 to 0.9) lays A and B divided by theta, in float32, into one matrix and takes its
exponential by ``tf.linalg.expm``: scaling and squaring with a Padé approximant of order 3, 5 or 7
(Higham 2005, but with ``floor`` where he has ``ceil``, so that the norm may be up to twice the
bound). Done here in the same steps and the same order of sums, the result is the same to the bit
where TensorFlow runs on an x86-64 processor with AVX2 and the same size of first data cache.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from converters.keras_lmu.eigen_sums import block_length, fused_product, solve
from lmu_deploy.legendre import discretise, state_space

Array = np.ndarray
_SMALL, _MIDDLE, _LARGE = 0.4258730016922831, 1.880152677804762, 3.925724783138660
"""Norms up to which orders 3, 5 and 7 are taken."""
_PADE = {
    3: (120.0, 60.0, 12.0),
    5: (30240.0, 15120.0, 3360.0, 420.0, 30.0),
    7: (17297280.0, 8648640.0, 1995840.0, 277200.0, 25200.0, 1512.0, 56.0),
}
USUAL_CACHE = 32
"""KiB of the first data cache of most x86-64 processors."""
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def keras_matrices(
    order: int, theta: float, discretiser: str, trained: bool, cache_kib: int
) -> tuple[Array, Array]:
    """Make the matrices.

    Parameters
    ----------
    order : int
    theta : float
        Window length in steps; where it was trained, the inverse of what the file holds.
    discretiser : {"zoh", "euler"}
    trained : bool
        Whether theta was trained: Keras then multiplies by its inverse.
    cache_kib : int
        First data cache of the processor on which Keras runs, in KiB.

    Returns
    -------
    a_bar : ndarray of float32, shape (order, order)
    b_bar : ndarray of float32, shape (order,)
    """
    if discretiser != "zoh":
        a_bar, b_bar = discretise(order, theta, discretiser)
        return a_bar.astype(np.float32), b_bar.astype(np.float32)
    a, b = state_space(order)
    together = np.zeros((order + 1, order + 1), np.float32)
    together[:order, :order], together[order, :order] = a.T, b
    rate = np.float32(1.0 / theta)
    scaled = together * rate if trained else together / np.float32(theta)
    made = exponential(scaled, cache_kib)
    return np.ascontiguousarray(made[:order, :order].T), made[order, :order].copy()


def exponential(matrix: Array, cache_kib: int) -> Array:
    """Give the exponential of a square float32 matrix as ``tf.linalg.expm`` does on a CPU."""
    norm = np.float32(np.abs(matrix).sum(0).max())
    squarings = 0
    if norm < np.float32(_SMALL):
        u, v = _approximate(matrix, 3)
    elif norm < np.float32(_MIDDLE):
        u, v = _approximate(matrix, 5)
    else:
        squarings = max(int(np.floor(np.log(norm / np.float32(_LARGE)) / np.log(np.float32(2)))), 0)
        u, v = _approximate(matrix / np.float32(2**squarings), 7)
    made = solve(v - u, u + v, block_length(len(matrix), 1024 * cache_kib))
    for _ in range(squarings):
        made = fused_product(made, made)
    return made


def _approximate(matrix: Array, degree: int) -> tuple[Array, Array]:
    """Give the odd and the even part of a Padé approximant's numerator."""
    factors = [np.float32(factor) for factor in _PADE[degree]]
    square = fused_product(matrix, matrix)
    powers: list[Array] = [np.eye(len(matrix), dtype=np.float32), square]
    while len(powers) <= degree // 2:
        powers.append(fused_product(powers[-1], square))
    odd: Array = powers[-1]
    even: Array = factors[degree - 1] * powers[-1]
    for number in range(len(powers) - 2, -1, -1):
        odd = odd + factors[2 * number + 1] * powers[number]
        even = even + factors[2 * number] * powers[number]
    return fused_product(matrix, odd), even


@cache
def first_cache_kib() -> int:
    """Size of this processor's first data cache in KiB; the usual one where it is not told."""
    try:
        for index in sorted(_CACHES.glob("index*")):
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
            if level == "1" and kind != "Instruction" and size.endswith("K"):
                return int(size[:-1])
    except (OSError, ValueError):
        pass
    return USUAL_CACHE
