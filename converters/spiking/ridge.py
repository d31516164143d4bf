"""Ridge regression from sums of products, and rounding of weights to few bits.

Features never need to be in memory all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky


class Products:
    """Running sums of the products of features and targets.

    Parameters
    ----------
    features, targets : int
        Number of columns.
    """

    def __init__(self, features: int, targets: int) -> None:
        self.rows = 0
        self.ff = np.zeros((features, features))
        self.ft = np.zeros((features, targets))
        self.tt = np.zeros(targets)

    def add(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Add rows; shapes (rows, features) and (rows, targets)."""
        self.rows += len(features)
        self.ff += features.T @ features
        self.ft += features.T @ targets
        self.tt += np.square(targets, dtype=np.float64).sum(axis=0)

    def penalized(self, ridge: float) -> np.ndarray:
        """Return the regularized matrix of the normal equations; positive definite."""
        unit = np.trace(self.ff) / len(self.ff)
        found = self.ff.copy()
        # Silent neurons, and sums of few rows, leave only rounding errors on the diagonal.
        found[np.diag_indices_from(found)] += max(ridge * unit, 1e-9 * unit, 1e-300)
        return found

    def relative_error(self, weights: np.ndarray) -> float:
        """Return the root mean square error of ``features @ weights``, relative to the targets."""
        return float(np.sqrt(self._squares(weights) / max(self.tt.sum(), 1e-300)))

    def mean_square_error(self, weights: np.ndarray) -> float:
        """Return the mean over rows of the squared error of ``features @ weights``."""
        return self._squares(weights) / max(self.rows, 1)

    def _squares(self, weights: np.ndarray) -> float:
        squares = self.tt - 2.0 * (self.ft * weights).sum(axis=0)
        squares = squares + (weights * (self.ff @ weights)).sum(axis=0)
        return max(float(squares.sum()), 0.0)


_BLOCK_ROWS = 1_000
"""Least number of rows whose products are summed at once."""


def blocks_of(
    rows: Iterator[tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield features and aims of several steps, shape (samples, rows, ...)."""
    block: list[tuple[np.ndarray, ...]] = []
    found = 0
    for step in rows:
        block.append(tuple(each.reshape(len(each), -1, each.shape[-1]).copy() for each in step))
        found += block[-1][0].shape[0] * block[-1][0].shape[1]
        if found >= _BLOCK_ROWS:
            yield _joined(block)
            block, found = [], 0
    if block:
        yield _joined(block)


def _joined(block: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray]:
    phi, aim = (np.concatenate(each, axis=1) for each in zip(*block, strict=True))
    return phi, aim


_SPECTRAL, _SPECTRAL_ONCE = 1_000, 500
"""Number of features up to which one eigendecomposition serves every regularization, or a single
one; a Cholesky factorization takes a fifteenth of its time."""


class Regression:
    """Ridge regression from sums of products, for several strengths of regularization.

    Parameters
    ----------
    train : Products
    most : int
        Largest number of features that a target may use; 0 for all.
    strengths : int
        Number of regularizations that will be fitted.
    """

    def __init__(self, train: Products, most: int = 0, strengths: int = 5) -> None:
        self.train, self.most = train, most
        self._spectrum: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        if len(train.ff) <= (_SPECTRAL if strengths > 1 else _SPECTRAL_ONCE) and not most:
            values, vectors = np.linalg.eigh(train.ff)
            self._spectrum = values, vectors, vectors.T @ train.ft

    def fit(self, ridge: float) -> np.ndarray:
        """Fit weights.

        Parameters
        ----------
        ridge : float
            Relative to the mean square of a feature. For many features it is multiplied by 10
            where rounding errors in the sums of products make the matrix indefinite.

        Returns
        -------
        ndarray, shape (features, targets)
            ``argmin |features @ w - targets|^2 + rows * ridge * mean_square * |w|^2``.
        """
        if self.most:
            matrix, targets = self.train.penalized(ridge), self.train.ft.T
            return np.stack([fit_sparse(matrix, one, self.most) for one in targets], axis=1)
        if self._spectrum is None:
            return self._factorized(ridge)
        values, vectors, rotated = self._spectrum
        unit = np.trace(self.train.ff) / len(values)
        floor = np.finfo(np.float64).eps * max(float(values[-1]), 1e-300)
        return np.asarray(vectors @ (rotated / np.maximum(values + ridge * unit, floor)[:, None]))

    def _factorized(self, ridge: float) -> np.ndarray:
        while True:
            matrix = self.train.penalized(ridge)
            try:
                factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
            except LinAlgError:
                ridge *= 10.0
                continue
            return np.asarray(cho_solve(factor, self.train.ft, check_finite=False))


def fit_sparse(matrix: np.ndarray, target: np.ndarray, most: int) -> np.ndarray:
    """Fit one target with few features, each chosen to reduce the squared error most.

    Forward selection by orthogonal least squares (Chen, Billings, Luo 1989, "Orthogonal least
    squares methods and their application to non-linear system identification"), which is a Cholesky
    factorization of the normal equations whose pivots the target chooses.

    Parameters
    ----------
    matrix : ndarray, shape (features, features)
        Regularized sums of products of features; positive definite.
    target : ndarray, shape (features,)
        Sums of products of features and target.
    most : int
        Number of features to choose.

    Returns
    -------
    ndarray, shape (features,)
        Least-squares weights of the chosen features, and zeros.
    """
    left, gain = np.diag(matrix).copy(), target.astype(np.float64)
    floor = 1e-12 * left
    columns = np.empty((min(most, len(target)), len(target)))
    free = np.ones(len(target), bool)
    for number, column in enumerate(columns):
        best = int(np.argmax(np.where(free, np.square(gain) / np.maximum(left, floor), -1.0)))
        free[best] = False
        column[:] = matrix[best] - columns[:number, best] @ columns[:number]
        column /= np.sqrt(max(left[best], floor[best]))
        gain -= column * (gain[best] / column[best])
        left -= np.square(column)
    chosen = np.flatnonzero(~free)
    found = np.zeros(len(target))
    found[chosen] = cho_solve(cho_factor(matrix[np.ix_(chosen, chosen)]), target[chosen])
    return found


def best_ridge(
    learned: Sequence[Products],
    held_out: Sequence[Products],
    ridges: Sequence[float],
    largest: float = np.inf,
    most: int = 0,
) -> tuple[float, list[np.ndarray]]:
    """Choose the regularization with the smallest held-out error, and return its maps.

    Regularizations are tried from the strongest on until a weight becomes larger than `largest`;
    where each costs a factorization, also until the error rises.

    Parameters
    ----------
    learned, held_out : sequence of Products
        One for each of several regressions of the same regularization.
    ridges : sequence of float
    largest : float
        Largest weight that can be stored; exceeded only if the strongest regularization does.
    most : int
        See :class:`Regression`.
    """
    regressions = [Regression(products, most) for products in learned]
    strongest, *weaker = sorted(ridges, reverse=True)
    best = strongest, [regression.fit(strongest) for regression in regressions]
    least = common_error(held_out, best[1])
    for ridge in weaker:
        maps = [regression.fit(ridge) for regression in regressions]
        error = common_error(held_out, maps)
        if max(np.abs(w).max() for w in maps) > largest:
            break
        if error < least:
            best, least = (ridge, maps), error
        elif len(learned[0].ff) > _SPECTRAL:
            break
    return best


def common_error(held_out: Sequence[Products], maps: Sequence[np.ndarray]) -> float:
    """Return the root mean square of the relative errors of several maps."""
    squares = [h.relative_error(w) ** 2 for h, w in zip(held_out, maps, strict=True)]
    return float(np.sqrt(np.mean(squares)))


def fit_few_rows(features: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """Fit weights for one strength where there are few rows and many features.

    The same regression as :func:`fit` by ``F^T (F F^T + penalty I)^-1 y``, whose cost is cubic in
    the rows instead of the features.

    Parameters
    ----------
    features : ndarray, shape (rows, features)
    targets : ndarray, shape (rows, targets)
    ridge : float
        Relative to the mean square of a feature.

    Returns
    -------
    ndarray, shape (features, targets)
        Zero where no feature ever differs from zero, such as those of a dead population.
    """
    if not np.any(features):
        return np.zeros((features.shape[1], targets.shape[1]))
    products = features @ features.T
    unit = np.trace(products) / features.shape[1]
    values, vectors = np.linalg.eigh(products)
    floor = np.finfo(np.float64).eps * max(float(values[-1]), 1e-300)
    inverted = vectors.T @ targets / np.maximum(values + ridge * unit, floor)[:, None]
    return np.asarray(features.T @ (vectors @ inverted))


def round_weights(weights: np.ndarray, bits: int) -> np.ndarray:
    """Round each row of W to integers of `bits` bits times the row's own scale.

    Parameters
    ----------
    weights : ndarray, shape (..., rows, columns)
    bits : int
        Including the sign; 0 does not round.
    """
    if bits == 0:
        return weights
    scale = _scales(weights, bits)
    return np.asarray(np.clip(np.rint(weights / scale), -_largest(bits), _largest(bits)) * scale)


def round_and_refit(weights: np.ndarray, bits: int, products: np.ndarray) -> np.ndarray:
    """Round one column after the other, and refit the remaining ones each time.

    The change of the outputs by rounding one weight is compensated by the weights that are still
    free ("optimal brain surgery": Hassibi, Stork 1993; as a pass over the columns: Frantar et al.
    2022, "GPTQ"), where the errors of :func:`round_weights` add up. The largest weight of a row
    keeps its value, so that :func:`round_weights` does not change the result.

    Parameters
    ----------
    weights : ndarray, shape (rows, columns)
        The least-squares map.
    bits : int
        Including the sign; not 0.
    products : ndarray, shape (columns, columns)
        Sums of products of the features that the columns weigh, with the regularization; positive
        definite.

    Returns
    -------
    ndarray, shape (rows, columns)
    """
    largest, scale = _largest(bits), _scales(weights, bits)[:, 0]
    # The most important features come first, while most weights are left to compensate for them.
    order = np.argsort(-np.diag(products), kind="stable")
    columns = len(order)
    inverse = cho_solve(
        (cholesky(products[np.ix_(order, order)], lower=True), True), np.eye(columns)
    )
    effects = cholesky(inverse)  # of a column's error on those after it
    left = weights[:, order].astype(np.float64)
    rows, fixed = np.arange(len(left)), np.abs(left).argmax(axis=1)
    ends = np.sign(left[rows, fixed]) * largest
    rounded = np.empty_like(left)
    for column in range(columns):
        steps = np.clip(np.rint(left[:, column] / scale), -largest, largest)
        steps = np.where(fixed == column, ends, steps)
        rounded[:, column] = steps * scale
        error = (left[:, column] - rounded[:, column]) / effects[column, column]
        left[:, column:] -= error[:, None] * effects[column, column:]
    found = np.empty_like(rounded)
    found[:, order] = rounded
    return found


def round_sparse(weights: np.ndarray, bits: int, products: np.ndarray) -> np.ndarray:
    """Do as :func:`round_and_refit` row by row, and leave zeros as they are."""
    found = np.zeros_like(weights)
    for row, rounded in zip(weights, found, strict=True):
        used = np.flatnonzero(row)
        if len(used):
            rounded[used] = round_and_refit(row[None, used], bits, products[np.ix_(used, used)])[0]
    return found


def _largest(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


def _scales(weights: np.ndarray, bits: int) -> np.ndarray:
    scale = np.abs(weights).max(axis=-1, keepdims=True) / _largest(bits)
    return np.asarray(np.where(scale == 0.0, 1.0, scale))
