"""Weights as a chip with few bits holds them."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, cholesky


def round_weights(weights: np.ndarray, bits: int) -> np.ndarray:
    """Round each row of W to integers of `bits` bits times the row's own scale.

    Parameters
    ----------
    weights : ndarray, shape (..., rows, columns)
    bits : int
        Sign included; 0 leaves the weights as they are.
    """
    if bits == 0:
        return weights
    scale = _scales(weights, bits)
    return np.asarray(np.clip(np.rint(weights / scale), -_largest(bits), _largest(bits)) * scale)


def round_and_refit(weights: np.ndarray, bits: int, products: np.ndarray) -> np.ndarray:
    """Round one column after the other, and let the rest make up for it each time.

    What rounding one weight changes in the outputs is fitted again by the weights that are still
    free ("optimal brain surgery": Hassibi, Stork 1993; as a pass over the columns: Frantar et al.
    2022, "GPTQ"), where :func:`round_weights` lets all errors add up. The largest weight of a row
    keeps its value, so that :func:`round_weights` gives the result back as it is.

    Parameters
    ----------
    weights : ndarray, shape (rows, columns)
        The least-squares map.
    bits : int
        Sign included; not 0.
    products : ndarray, shape (columns, columns)
        Sums of products of the features that the columns weigh, with the regularisation; positive
        definite.

    Returns
    -------
    ndarray, shape (rows, columns)
    """
    largest, scale = _largest(bits), _scales(weights, bits)[:, 0]
    # The features that matter most come first, while there is most left to make up for them.
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


def _largest(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


def _scales(weights: np.ndarray, bits: int) -> np.ndarray:
    scale = np.abs(weights).max(axis=-1, keepdims=True) / _largest(bits)
    return np.asarray(np.where(scale == 0.0, 1.0, scale))
