"""Task `psdigits`: the 8x8 digits pixel by pixel in a fixed random order, 64 steps.

The analog of psMNIST for the digits of scikit-learn: neighboring pixels are far apart in time, so
that every pixel has to be remembered to the end. The split is that of task `digits`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lmu_deploy.tasks.base import PixelSplit, Task, TaskData
from lmu_deploy.tasks.digits import LARGEST_PIXEL, divide, read_digits

PERMUTATION_SEED = 0
_SIDE = 8


def permutation() -> np.ndarray:
    """Return the order of the pixels, shape (64,): step t shows pixel ``permutation()[t]``."""
    return np.random.RandomState(PERMUTATION_SEED).permutation(_SIDE**2)


@lru_cache(maxsize=1)
def load() -> TaskData:
    """Return the digits pixel by pixel: inputs (samples, 64, 1), targets (samples,)."""
    images, labels = read_digits()
    pixels = np.rint(images * LARGEST_PIXEL).astype(np.uint8).reshape(len(images), -1)
    data = divide(pixels[:, permutation()], labels)
    white = int(LARGEST_PIXEL)
    return TaskData(
        *(PixelSplit(s.inputs, s.targets, white) for s in (data.train, data.validation, data.test))
    )


TASK = Task("psdigits", "classification", n_in=1, n_out=10, steps=_SIDE**2, load=load)
