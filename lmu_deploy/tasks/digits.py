"""Tasks of handwritten digits: `digits`, `psdigits`, `smnist`, `psmnist`, `psmnist-nru`.

**Digits of scikit-learn.** 1,797 digits of 8x8 pixels (E. Alpaydin, C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI 1998; its test part), with pixels from 0 to 16 divided by
16. The test part is a stratified 20 % and the validation part a stratified 10 %, both fixed by a
seed; the target is the class after the last step.

- `digits`: each step shows one row of eight pixels, top first.
- `psdigits`: each step shows one pixel, in a fixed random order. Neighboring pixels are far apart
  in time, so that every pixel has to be remembered to the end, as in psMNIST.

**MNIST**, pixel by pixel, 784 steps.

- `smnist`: row by row, top first; the first 50,000 training images are for training, the last
  10,000 for validation.
- `psmnist`: the same split, the pixels in the order RandomState(0).permutation(784) (as in the
  example of keras-lmu).
- `psmnist-nru`: the split and order on which Voelker, Kajic, Eliasmith (2019) measured 97.15 %,
  taken from Chandar et al. (2019, Non-saturating Recurrent Units): a RandomState(50) first
  shuffles the training images, then the pixels.

Inputs are pixel / 255; the test part is the published one of 10,000 images.

MNIST is Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits" (CC BY-SA 3.0).
Its four IDX files are read from ``$LMU_DEPLOY_DATA/mnist`` or from the user's cache, to which they
are downloaded otherwise. The uncompressed contents are verified by checksum.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from lmu_deploy.core.errors import InputError, MissingDependencyError
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


VARIABLE = "LMU_DEPLOY_DATA"
_SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"

# name: MD5 of the file as published, bytes when unpacked, SHA-256 when unpacked
_FILES = {
    "train-images-idx3-ubyte.gz": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte.gz": (
        "d53e105ee54ea40749a09fcbcd1e9432",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte.gz": (
        "9fb629c4189551a2d022fa330f9573f3",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "ec29112dd5afa0611ce80d1b7f02629c",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
_IMAGES_HEADER, _LABELS_HEADER = 16, 8


def read_mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the images and labels of MNIST.

    Returns
    -------
    train_images : ndarray, shape (60000, 784), uint8
        Row by row, 0 to 255, in the file's order.
    train_labels : ndarray, shape (60000,), int64
    test_images : ndarray, shape (10000, 784), uint8
    test_labels : ndarray, shape (10000,), int64

    Raises
    ------
    InputError
        When a file is missing and cannot be downloaded, or its contents are wrong.
    MissingDependencyError
        When a file must be downloaded and pooch is not installed.
    """
    parts = []
    for name in _FILES:
        content = np.frombuffer(_unpack(_find(name)), np.uint8)
        if "images" in name:
            parts.append(content[_IMAGES_HEADER:].reshape(-1, 784))
        else:
            parts.append(content[_LABELS_HEADER:].astype(np.int64))
    train_images, train_labels, test_images, test_labels = parts
    return train_images, train_labels, test_images, test_labels


def _find(name: str) -> Path:
    """Return the path of a file, in the folder of the environment variable if that is set."""
    folder = os.environ.get(VARIABLE)
    if folder:
        path = Path(folder) / "mnist" / name
        if not path.is_file():
            raise InputError(
                f"{path} is missing; put the four MNIST files ({', '.join(_FILES)}) into "
                f"{path.parent}, or unset {VARIABLE} to have them downloaded."
            )
        return path
    return _fetch(name)


def _fetch(name: str) -> Path:
    try:
        import pooch
    except ImportError as error:
        raise MissingDependencyError(
            "MNIST must be downloaded and pooch is not installed; "
            "run: pip install 'lmu-deploy[train]'"
        ) from error
    folder = Path(pooch.os_cache("lmu_deploy")) / "mnist"
    pooch.get_logger().setLevel("WARNING")
    try:
        found = pooch.retrieve(
            _SOURCE + name, known_hash=f"md5:{_FILES[name][0]}", fname=name, path=folder
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"MNIST could not be downloaded ({type(error).__name__}: {reason}); put the four files "
            f"({', '.join(_FILES)}) into a folder mnist and set {VARIABLE} to the folder above it."
        ) from error
    return Path(found)


def _unpack(path: Path) -> bytes:
    """Return the verified contents of a file; decompression stops at the published size."""
    _, size, digest = _FILES[path.name]
    try:
        with gzip.open(path, "rb") as file:
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is corrupt ({error}); replace it.") from error
    if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path} does not contain the published MNIST digits; replace it.")
    return content


TRAINING, TRAINED, PIXELS, WHITE = 60_000, 50_000, 784, 255

Order = tuple[np.ndarray, np.ndarray]


def sequential_order() -> Order:
    """Return the stored order of training images, shape (60000,), and pixels, shape (784,)."""
    return np.arange(TRAINING), np.arange(PIXELS)


def permuted_order() -> Order:
    """Return images in the stored order and pixels in the order of the example of keras-lmu."""
    rng = np.random.RandomState(0)
    return np.arange(TRAINING), rng.permutation(PIXELS)


def nru_order() -> Order:
    """Return images and pixels in the order used for the result of the paper."""
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
            train=PixelSplit(shown[:TRAINED], labels[:TRAINED], WHITE),
            validation=PixelSplit(shown[TRAINED:], labels[TRAINED:], WHITE),
            test=PixelSplit(np.ascontiguousarray(test_images[:, pixels]), test_labels, WHITE),
        )

    return Task(name, "classification", n_in=1, n_out=10, steps=PIXELS, load=load)


SMNIST = _task("smnist", sequential_order)
PSMNIST = _task("psmnist", permuted_order)
PSMNIST_NRU = _task("psmnist-nru", nru_order)
