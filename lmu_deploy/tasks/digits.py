"""Task `digits`: handwritten digits of 8x8 pixels, row by row.

1,797 digits included in scikit-learn (E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten
Digits", UCI 1998; its test part), with pixels from 0 to 16 divided by 16. Each step shows one row
of eight pixels, top first; the target is the class after the eighth. The test part is a stratified
20 % and the validation part a stratified 10 %, both fixed by a seed.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lmu_deploy.core.errors import MissingDependencyError
from lmu_deploy.tasks.base import Split, Task, TaskData


def stratified_parts(labels: np.ndarray, shares: tuple[float, ...], seed: int) -> list[np.ndarray]:
    """Split samples at random with equal class proportions in all parts.

    Parameters
    ----------
    labels : ndarray of int, shape (samples,)
    shares : tuple of float
        Fraction of each part except the last, which gets the remainder.
    seed : int
        Seed of NumPy's legacy generator, whose stream will not change.

    Returns
    -------
    parts : list of ndarray of int
        Sorted indices; every sample is in exactly one of the ``len(shares) + 1`` parts.
    """
    rng = np.random.RandomState(seed)
    bounds = np.cumsum(shares)
    members: list[list[np.ndarray]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(bounds * len(own)).astype(int)
        for part, chosen in zip(members, np.split(own, cuts), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in members]


SPLIT_SEED = 0
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
LARGEST_PIXEL = 16.0


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits of scikit-learn.

    Returns
    -------
    images : ndarray, shape (1797, 8, 8), float32
        Brightness from 0 to 1.
    labels : ndarray, shape (1797,), int64

    Raises
    ------
    MissingDependencyError
        When scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            "the digits are part of scikit-learn, which is not installed; "
            "run: pip install 'lmu-deploy[train]'"
        ) from error
    bundle = load_digits()
    return (bundle.images / LARGEST_PIXEL).astype(np.float32), bundle.target.astype(np.int64)


def divide(inputs: np.ndarray, labels: np.ndarray) -> TaskData:
    """Split the digits, identically for every way of presenting them.

    Parameters
    ----------
    inputs : ndarray, shape (1797, steps, n_in)
    labels : ndarray, shape (1797,)
    """
    test, validation, train = stratified_parts(labels, (TEST_SHARE, VALIDATION_SHARE), SPLIT_SEED)
    return TaskData(*(Split(inputs[part], labels[part]) for part in (train, validation, test)))


@lru_cache(maxsize=1)
def load() -> TaskData:
    """Return the digits row by row: inputs (samples, 8, 8), targets (samples,)."""
    return divide(*read_digits())


TASK = Task("digits", "classification", n_in=8, n_out=10, steps=8, load=load)
