"""Tasks `smnist`, `psmnist`, `psmnist-nru`: MNIST digits pixel by pixel, 784 steps.

- `smnist`: row by row, top first; the first 50,000 training images train, the last 10,000 validate.
- `psmnist`: the same split, the pixels in the order RandomState(0).permutation(784) (as in the
  example of keras-lmu).
- `psmnist-nru`: the split and order on which Voelker, Kajic, Eliasmith (2019) measured 97.15 %,
  taken over from Chandar et al. (2019, Non-saturating Recurrent Units): a RandomState(50) first
  shuffles the training images, then the pixels.

Brightness is 0 to 1 (pixel / 255); the test part is the published one of 10,000 images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from lmu_deploy.tasks.base import Task, TaskData
from lmu_deploy.tasks.mnist_files import read_mnist
from lmu_deploy.tasks.pixels import PixelSplit

TRAINING, KEPT, PIXELS, WHITE = 60_000, 50_000, 784, 255

Order = tuple[np.ndarray, np.ndarray]


def sequential_order() -> Order:
    """Give the order of training images, shape (60000,), and pixels, shape (784,): as stored."""
    return np.arange(TRAINING), np.arange(PIXELS)


def permuted_order() -> Order:
    """Images as stored, pixels in the order of keras-lmu's example."""
    rng = np.random.RandomState(0)
    return np.arange(TRAINING), rng.permutation(PIXELS)


def nru_order() -> Order:
    """Images and pixels in the order of the paper's measurement, drawn one after the other."""
    rng = np.random.RandomState(50)
    images = rng.permutation(TRAINING)
    return images, rng.permutation(PIXELS)


def _task(name: str, order: Callable[[], Order]) -> Task:
    @lru_cache(maxsize=1)
    def load() -> TaskData:
        images, pixels = order()
        train_images, train_labels, test_images, test_labels = read_mnist()
        shown = np.ascontiguousarray(train_images[images][:, pixels])
        labels = train_labels[images]
        return TaskData(
            train=PixelSplit(shown[:KEPT], labels[:KEPT], WHITE),
            validation=PixelSplit(shown[KEPT:], labels[KEPT:], WHITE),
            test=PixelSplit(np.ascontiguousarray(test_images[:, pixels]), test_labels, WHITE),
        )

    return Task(name, "classification", n_in=1, n_out=10, steps=PIXELS, load=load)


SMNIST = _task("smnist", sequential_order)
PSMNIST = _task("psmnist", permuted_order)
PSMNIST_NRU = _task("psmnist-nru", nru_order)
