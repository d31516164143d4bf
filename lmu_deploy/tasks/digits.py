"""Task `digits`: handwritten digits of 8x8 pixels, read row by row.

1,797 real digits bundled with scikit-learn (E. Alpaydin, C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI 1998; its test part), pixels 0 to 16 divided by 16. Each step shows one
row of eight pixels, top first; the answer is asked after the eighth. Test is a stratified 20 %,
validation a stratified 10 %, both fixed by a seed.

Dividing labeled samples so that every part holds the classes in the same proportion.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lmu_deploy.core.errors import MissingDependencyError
from lmu_deploy.tasks.base import Split, Task, TaskData


def stratified_parts(labels: np.ndarray, shares: tuple[float, ...], seed: int) -> list[np.ndarray]:
    """Divide samples at random, class by class.

    Parameters
    ----------
    labels : ndarray of int, shape (samples,)
    shares : tuple of float
        Share of each part but the last, which takes the rest.
    seed : int
        Of NumPy's legacy generator, whose stream is frozen for good.

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
    """Read the bundled digits.

    Returns
    -------
    images : ndarray, shape (1797, 8, 8), float32
        Brightness from 0 to 1.
    labels : ndarray, shape (1797,), int64

    Raises
    ------
    MissingDependencyError
        When scikit-learn, which bundles the data, is absent.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            "the digits come with scikit-learn, which is not installed; "
            "run: pip install 'lmu-deploy[train]'"
        ) from error
    bundle = load_digits()
    return (bundle.images / LARGEST_PIXEL).astype(np.float32), bundle.target.astype(np.int64)


def divide(inputs: np.ndarray, labels: np.ndarray) -> TaskData:
    """Make the three parts, the same ones for every way of presenting the digits.

    Parameters
    ----------
    inputs : ndarray, shape (1797, steps, n_in)
    labels : ndarray, shape (1797,)
    """
    test, validation, train = stratified_parts(labels, (TEST_SHARE, VALIDATION_SHARE), SPLIT_SEED)
    return TaskData(*(Split(inputs[part], labels[part]) for part in (train, validation, test)))


@lru_cache(maxsize=1)
def load() -> TaskData:
    """Give the digits row by row: inputs (samples, 8, 8), targets (samples,)."""
    return divide(*read_digits())


TASK = Task("digits", "classification", n_in=8, n_out=10, steps=8, load=load)
