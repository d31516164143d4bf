r"""The memory matrices of a network imported from keras-lmu.

keras-lmu stores none: it computes them in float32 whenever a model is loaded, at order 256 with an
error of 2e-5, which moves logits by some 1e-4 (docs/results/keras-oracle.md). By default an
imported network has the exact matrices of the equations, so that one file gives one network on
every machine. Option ``keras`` computes them as Keras does, operation by operation
(:func:`keras_matrices`, without TensorFlow), which depends on the size of the processor's first
data cache. A file gives those that Keras computed elsewhere: `examples/save_keras_matrices.py`
writes one where Keras runs, with arrays ``LAYER/A`` (order, order) and ``LAYER/B`` (1, order), both
transposed, as Keras stores them.

keras-lmu (0.4 to 0.9) puts A and B divided by theta, in float32, into one matrix and takes its
exponential by ``tf.linalg.expm``: scaling and squaring with a Padé approximant of order 3, 5 or 7
(Higham 2005, but with ``floor`` where he has ``ceil``, so that the norm may be up to twice the
bound). The functions here take the same steps with the same order of summation, so the result is
bit-identical where TensorFlow runs on an x86-64 processor with AVX-512 and the same size of first
data cache.

Rounding makes a sum depend on the order of its terms. Two libraries do TensorFlow's work on a CPU,
each with a fixed order:

- Products of matrices run in oneDNN, which adds :math:`a_{ik} b_{kj}` to one accumulator for k = 0,
  1, 2, ..., each by a fused multiply-add (one rounding per term).
- Systems are solved by Eigen's blocked LU decomposition of row-major matrices, which TensorFlow's
  wheels compile for AVX without fused multiply-adds (two roundings per term). Its products run over
  blocks of terms, and in the last columns and rows over interleaved ones (Eigen 3.4 and later:
  PartialPivLU.h, TriangularSolverMatrix.h, GeneralBlockPanelKernel.h).

Only the length of Eigen's blocks depends on the processor, through the size of its first cache.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from converters.sandbox import process
from converters.sandbox.process import check_file
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import DAMAGED
from lmu_deploy.core.legendre import discretize, state_space
from lmu_deploy.core.network import Memory
from lmu_deploy.core.validation import check_array, check_integer

TOLERANCE = 1e-3
MOST_WORK = 512**3
"""Sum of cubed orders beyond which computing matrices as Keras does takes too long (5 s)."""
Matrices = dict[str, np.ndarray]


class MemoryMatrices:
    """The memory matrices of all layers of one network.

    Parameters
    ----------
    choice : str or path
        "exact" (those of the equations), "keras" (as keras-lmu computes them on this machine's
        processor), "keras:KIB" (on one with a first data cache of that many KiB), or the path of
        an `.npz` file.

    Attributes
    ----------
    note : str
        The choice in words, for `provenance`.
    used : bool
        Whether a memory took its matrices from here.

    Raises
    ------
    InputError
        When there is no such file, or it cannot be read.
    """

    def __init__(self, choice: Path | str = "exact") -> None:
        text = str(choice)
        self.used = False
        self._cache_kib = 0
        self._from_file: Matrices | None = None
        self._work = 0
        if text == "exact":
            self.note = "exact"
        elif found := re.fullmatch(r"keras(?::(\d{1,4}))?", text):
            self._cache_kib = _cache_kib(found.group(1))
            self.note = (
                f"as keras-lmu computes them on a processor with {self._cache_kib} KiB of L1"
            )
        else:
            self._from_file = read_matrices(choice)
            self.note = f"from {Path(choice).name}"

    def put_into(self, memory: Memory, name: str, theta_trained: bool) -> Memory:
        """Return the memory of a layer with the chosen matrices in place of its exact ones.

        Raises
        ------
        InputError
            When a file has none for the layer, or they differ by more than rounding.
        """
        self.used = True
        if self._from_file is not None:
            return with_matrices(memory, name, self._from_file)
        if not self._cache_kib:
            return memory
        self._work += memory.order**3
        if self._work > MOST_WORK:
            self.note += f"; exact in layer {name!r}, where that takes too long"
            return memory
        a_bar, b_bar = keras_matrices(
            memory.order, memory.theta, memory.discretizer, theta_trained, self._cache_kib
        )
        return replace(memory, a_bar=a_bar, b_bar=b_bar)


def _cache_kib(text: str | None) -> int:
    """Return the size of the first data cache as the user gave it, or that of this processor."""
    if text is not None:
        return check_integer("cache", int(text), 1, 9999)
    return first_cache_kib()


def read_matrices(path: Path | str) -> Matrices:
    """Read the arrays of an `.npz` file.

    Raises
    ------
    InputError
        When there is no such file, it is damaged, or it is larger than weights may be.
    """
    path = check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > process.ARRAY_BYTES:
                raise InputError(f"{path} unpacks to more than {process.ARRAY_BYTES} bytes.")
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except DAMAGED as error:
        raise InputError(
            f"{path} is no readable .npz file ({type(error).__name__}); save it again."
        ) from error


def with_matrices(memory: Memory, name: str, matrices: Matrices) -> Memory:
    """Return the memory of a layer with matrices that Keras computed in place of its exact ones.

    Raises
    ------
    InputError
        When a matrix of the layer is missing or differs from the exact one by more than rounding.
    """
    if missing := [key for key in (f"{name}/A", f"{name}/B") if key not in matrices]:
        raise InputError(f"the file of matrices has no {missing[0]}; save it from this model")
    a_bar = check_array("matrix A", matrices[f"{name}/A"], (memory.order, memory.order)).T
    b_bar = check_array("matrix B", matrices[f"{name}/B"], (1, memory.order))[0]
    distance = np.linalg.norm(a_bar - memory.a_bar) / np.linalg.norm(memory.a_bar)
    if distance > TOLERANCE:
        raise InputError(
            f"matrix A differs from that of the model's order and theta by {distance:.1g} of its "
            f"norm, more than {TOLERANCE:g}; save it from this model"
        )
    a_bar, b_bar = np.ascontiguousarray(a_bar), np.ascontiguousarray(b_bar)
    return replace(memory, a_bar=a_bar, b_bar=b_bar)


Array = np.ndarray
_PANEL = 16
"""Rows that Eigen's triangular solver takes at a time, and columns that its product keeps in
registers at full width; the remaining columns are taken by halves and quarters of that."""
_UNBLOCKED = 16
_SMALL_PRODUCT = 20
_STEP = 8


def fused_product(a: Array, b: Array) -> Array:
    """Multiply two matrices as oneDNN does.

    A float32 product is exact in float64, so a sum in float64 rounded to float32 is a fused
    multiply-add. Two successive roundings differ from one in about 10^-9 of all cases.

    Parameters
    ----------
    a : ndarray of float32, shape (rows, terms)
    b : ndarray of float32, shape (terms, columns)

    Returns
    -------
    product : ndarray of float32, shape (rows, columns)
    """
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    total = np.zeros((len(a), b.shape[1]), np.float32)
    term = np.empty(total.shape)
    for k in range(len(b)):
        np.multiply(wide_a[:, k : k + 1], wide_b[k], out=term)
        np.add(term, total, out=term)
        total[...] = term
    return total


def solve(matrix: Array, right: Array, block: int) -> Array:
    """Solve ``matrix @ x = right`` as Eigen's PartialPivLU does.

    Parameters
    ----------
    matrix : ndarray of float32, shape (n, n)
    right : ndarray of float32, shape (n, columns)
    block : int
        Terms summed in one accumulator; see :func:`block_length`.

    Returns
    -------
    x : ndarray of float32, shape (n, columns)
    """
    factors, x = matrix.copy(), right.copy()
    for row, pivot in enumerate(_decompose(factors, len(factors))):
        _exchange(x, row, pivot)
    _solve_lower(factors, x, block)
    _solve_upper(factors, x, block)
    return x


def block_length(terms: int, cache_bytes: int) -> int:
    """Return how many terms Eigen's triangular solver (float32, AVX) sums in one accumulator.

    A panel of that many terms fits into the processor's first data cache, and all blocks have
    nearly the same length.
    """
    most = max((cache_bytes - 256) // 320 // _STEP * _STEP, 1)
    if terms <= most:
        return terms
    left = terms % most
    if left == 0:
        return most
    return most - _STEP * ((most - 1 - left) // (_STEP * (terms // most + 1)))


def _decompose(a: Array, widest: int) -> list[int]:
    """Decompose `a` (rows, columns) in place into L and U; return the pivot of each row."""
    rows, columns = a.shape
    if columns <= _UNBLOCKED:
        return _decompose_unblocked(a)
    size = min(max(columns // 8 // 16 * 16, 8), widest)
    pivots: list[int] = []
    for k in range(0, columns, size):
        end = min(k + size, columns)
        for row, pivot in enumerate(_decompose(a[k:, k:end], _UNBLOCKED), start=k):
            pivots.append(pivot + k)
            _exchange(a[:, :k], row, pivot + k)
            _exchange(a[:, end:], row, pivot + k)
        if end < columns:
            _solve_lower(a[k:end, k:end], a[k:end, end:], size)
            small = rows - k + columns - end < _SMALL_PRODUCT
            product = _sum if small else _product
            a[end:, end:] -= product(a[end:, k:end], a[k:end, end:])
    return pivots


def _decompose_unblocked(a: Array) -> list[int]:
    pivots = []
    for k in range(a.shape[1]):
        pivots.append(k + int(np.argmax(np.abs(a[k:, k]))))
        _exchange(a, k, pivots[-1])
        a[k + 1 :, k] /= a[k, k]
        a[k + 1 :, k + 1 :] -= a[k + 1 :, k : k + 1] * a[k, k + 1 :]
    return pivots


def _exchange(a: Array, row: int, other: int) -> None:
    if row != other:
        a[[row, other]] = a[[other, row]]


def _solve_lower(factors: Array, x: Array, block: int) -> None:
    """Solve with the unit lower triangle, x in place: panels within blocks, first to last."""
    n = len(factors)
    for start in range(0, n, block):
        end = min(start + block, n)
        for first in range(start, end, _PANEL):
            after = min(first + _PANEL, end)
            if first > start:
                x[first:after] -= _product(factors[first:after, start:first], x[start:first])
            for row in range(first, after):
                for known in range(first, row):
                    x[row] -= x[known] * factors[row, known]
        if end < n:
            x[end:] -= _product(factors[end:, start:end], x[start:end])


def _solve_upper(factors: Array, x: Array, block: int) -> None:
    """Solve with the upper triangle, x in place: panels within blocks, last to first."""
    end = len(factors)
    while end > 0:
        start = max(end - block, 0)
        after = end
        while after > start:
            first = start + (after - start - 1) // _PANEL * _PANEL
            if after < end:
                x[first:after] -= _product(factors[first:after, after:end], x[after:end])
            for row in range(after - 1, first - 1, -1):
                for known in range(row + 1, after):
                    x[row] -= x[known] * factors[row, known]
                x[row] *= np.float32(1.0) / factors[row, row]
            after = first
        if start > 0:
            x[:start] -= _product(factors[:start, start:end], x[start:end])
        end = start


def _product(a: Array, b: Array) -> Array:
    """Multiply as Eigen's kernel does: columns in groups of 16, then 8 and 4, then singly.

    Rows beyond a multiple of four are summed in order in every column.
    """
    rows, columns = len(a) // 4 * 4, b.shape[1]
    full, halves = columns // _PANEL * _PANEL, columns // 4 * 4
    total = _sum(a, b)
    if rows and full < halves:
        total[:rows, full:halves] = _sum_by_twos(a[:rows], b[:, full:halves])
    if rows and halves < columns:
        total[:rows, halves:] = _sum_by_eights(a[:rows], b[:, halves:])
    return total


def _sum(a: Array, b: Array) -> Array:
    """Sum the terms in order."""
    return _add(np.zeros((len(a), b.shape[1]), np.float32), a, b)


def _sum_by_twos(a: Array, b: Array) -> Array:
    """Sum even and odd terms separately, then add the terms beyond a multiple of eight."""
    whole = len(b) // _STEP * _STEP
    total = _sum(a[:, 0:whole:2], b[0:whole:2]) + _sum(a[:, 1:whole:2], b[1:whole:2])
    return _add(total, a[:, whole:], b[whole:])


def _sum_by_eights(a: Array, b: Array) -> Array:
    """Sum terms into eight accumulators in turn, then add the accumulators in pairs."""
    whole, pairs = len(b) // _STEP * _STEP, len(b) // 2 * 2
    halves = []
    for lane in (0, 1):
        parts = [
            _sum(a[:, 2 * part + lane : whole : _STEP], b[2 * part + lane : whole : _STEP])
            for part in range(4)
        ]
        total = (parts[0] + parts[1]) + (parts[2] + parts[3])
        halves.append(_add(total, a[:, whole + lane : pairs : 2], b[whole + lane : pairs : 2]))
    return _add(halves[0] + halves[1], a[:, pairs:], b[pairs:])


def _add(total: Array, a: Array, b: Array) -> Array:
    for k in range(len(b)):
        total += a[:, k : k + 1] * b[k]
    return total


_SMALL, _MIDDLE, _LARGE = 0.4258730016922831, 1.880152677804762, 3.925724783138660
"""Norms up to which the approximants of orders 3, 5 and 7 are used."""
_PADE = {
    3: (120.0, 60.0, 12.0),
    5: (30240.0, 15120.0, 3360.0, 420.0, 30.0),
    7: (17297280.0, 8648640.0, 1995840.0, 277200.0, 25200.0, 1512.0, 56.0),
}
USUAL_CACHE = 32
"""KiB of the first data cache of most x86-64 processors."""
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def keras_matrices(
    order: int, theta: float, discretizer: str, trained: bool, cache_kib: int
) -> tuple[Array, Array]:
    """Compute the discrete memory matrices as keras-lmu does.

    Parameters
    ----------
    order : int
    theta : float
        Window length in steps; where it was trained, the inverse of the value in the file.
    discretizer : {"zoh", "euler"}
    trained : bool
        Whether theta was trained: Keras then multiplies by its inverse.
    cache_kib : int
        First data cache of the processor on which Keras runs, in KiB.

    Returns
    -------
    a_bar : ndarray of float32, shape (order, order)
    b_bar : ndarray of float32, shape (order,)
    """
    if discretizer != "zoh":
        a_bar, b_bar = discretize(order, theta, discretizer)
        return a_bar.astype(np.float32), b_bar.astype(np.float32)
    a, b = state_space(order)
    together = np.zeros((order + 1, order + 1), np.float32)
    together[:order, :order], together[order, :order] = a.T, b
    rate = np.float32(1.0 / theta)
    scaled = together * rate if trained else together / np.float32(theta)
    result = exponential(scaled, cache_kib)
    return np.ascontiguousarray(result[:order, :order].T), result[order, :order].copy()


def exponential(matrix: Array, cache_kib: int) -> Array:
    """Compute the exponential of a square float32 matrix as ``tf.linalg.expm`` does on a CPU."""
    norm = np.float32(np.abs(matrix).sum(0).max())
    squarings = 0
    if norm < np.float32(_SMALL):
        u, v = _approximate(matrix, 3)
    elif norm < np.float32(_MIDDLE):
        u, v = _approximate(matrix, 5)
    else:
        squarings = max(int(np.floor(np.log(norm / np.float32(_LARGE)) / np.log(np.float32(2)))), 0)
        u, v = _approximate(matrix / np.float32(2**squarings), 7)
    result = solve(v - u, u + v, block_length(len(matrix), 1024 * cache_kib))
    for _ in range(squarings):
        result = fused_product(result, result)
    return result


def _approximate(matrix: Array, degree: int) -> tuple[Array, Array]:
    """Return the odd and the even part of a Padé approximant's numerator."""
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
    """Return the size of this processor's first data cache in KiB, or 32 if it is unknown."""
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
