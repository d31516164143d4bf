import numpy as np
import pytest

from lmu_deploy.tasks import psdigits
from lmu_deploy.tasks.base import PixelSplit, get_task

pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")


def test_same_digits_in_the_same_split():
    rows, permuted = get_task("digits").load(), get_task("psdigits").load()
    for name in ("train", "validation", "test"):
        image, sequence = getattr(rows, name), getattr(permuted, name)
        np.testing.assert_array_equal(image.targets, sequence.targets)
        flat = image.inputs.reshape(len(image), 64, 1)
        np.testing.assert_array_equal(flat[:, psdigits.permutation()], sequence.inputs)


def test_permutation_is_fixed_and_complete():
    order = psdigits.permutation()
    np.testing.assert_array_equal(np.sort(order), np.arange(64))
    assert order[:8].tolist() == [45, 29, 43, 61, 34, 33, 31, 40]
    assert not np.array_equal(order, np.arange(64))


def test_batches_are_the_floats_of_the_whole():
    split = get_task("psdigits").load().test
    assert isinstance(split, PixelSplit)
    assert split.pixels.dtype == np.uint8
    inputs, targets = split.batch(np.array([5, 2]))
    np.testing.assert_array_equal(inputs, split.inputs[[5, 2]])
    np.testing.assert_array_equal(targets, split.targets[[5, 2]])
    assert inputs.dtype == np.float32
    assert split.inputs.max() == 1.0


def test_pixels_divide_by_white():
    split = PixelSplit(np.array([[0, 51, 255]], np.uint8), np.array([1]), white=255)
    np.testing.assert_allclose(split.inputs[0, :, 0], [0.0, 0.2, 1.0])
    assert len(split) == 1
