"""Tasks `digits` and `psdigits`: handwritten digits of 8x8 pixels, by rows or by pixels.

1,797 digits included in scikit-learn (E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten
Digits", UCI 1998; its test part), with pixels from 0 to 16 divided by 16. The test part is a
stratified 20 % and the validation part a stratified 10 %, both fixed by a seed; the target is the
class after the last step.

- `digits`: each step shows one row of eight pixels, top first.
- `psdigits`: each step shows one pixel, in a fixed random order. Neighboring pixels are far apart
  in time, so that every pixel has to be remembered to the end, as in psMNIST.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lmu_deploy.core.errors import MissingDependencyError
from lmu_deploy.tasks.base import PixelSplit, Split, Task, TaskData, stratified_parts

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


PERMUTATION_SEED = 0
_SIDE = 8


def permutation() -> np.ndarray:
    """Return the order of the pixels, shape (64,): step t shows pixel ``permutation()[t]``."""
    return np.random.RandomState(PERMUTATION_SEED).permutation(_SIDE**2)


@lru_cache(maxsize=1)
def load_permuted() -> TaskData:
    """Return the digits pixel by pixel: inputs (samples, 64, 1), targets (samples,)."""
    images, labels = read_digits()
    pixels = np.rint(images * LARGEST_PIXEL).astype(np.uint8).reshape(len(images), -1)
    data = divide(pixels[:, permutation()], labels)
    white = int(LARGEST_PIXEL)
    return TaskData(
        *(PixelSplit(s.inputs, s.targets, white) for s in (data.train, data.validation, data.test))
    )


PERMUTED = Task("psdigits", "classification", n_in=1, n_out=10, steps=_SIDE**2, load=load_permuted)
