import hashlib

import numpy as np
import pytest

from lmu_deploy.tasks import digits
from lmu_deploy.tasks.base import PixelSplit, get_task

pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")


def _rows(split):
    return {sample.tobytes() for sample in split.inputs}


def test_shapes_and_sizes():
    task = get_task("digits")
    data = task.load()
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    assert sizes == [1258, 180, 359]
    for split in (data.train, data.validation, data.test):
        assert split.inputs.shape[1:] == (task.steps, task.n_in) == (8, 8)
        assert split.inputs.dtype == np.float32
        assert split.targets.dtype == np.int64
        assert split.inputs.min() == 0.0
        assert split.inputs.max() == 1.0
        assert set(split.targets) == set(range(task.n_out))


def test_parts_contain_every_digit_once():
    images, labels = digits.read_digits()
    data = get_task("digits").load()
    parts = (data.train, data.validation, data.test)
    joined = np.concatenate([split.inputs for split in parts])
    assert sorted(x.tobytes() for x in joined) == sorted(x.tobytes() for x in images)
    assert sum(np.bincount(s.targets) for s in parts).tolist() == np.bincount(labels).tolist()


def test_no_image_is_in_two_parts():
    data = get_task("digits").load()
    assert not _rows(data.train) & _rows(data.test)
    assert not _rows(data.train) & _rows(data.validation)
    assert not _rows(data.validation) & _rows(data.test)


def test_test_part_is_stratified_a_fifth():
    _, labels = digits.read_digits()
    test = get_task("digits").load().test
    np.testing.assert_allclose(np.bincount(test.targets), 0.2 * np.bincount(labels), atol=0.5)


def test_step_shows_a_row_top_first():
    images, labels = digits.read_digits()
    data = get_task("digits").load()
    where = next(i for i, x in enumerate(images) if np.array_equal(x, data.test.inputs[0]))
    assert labels[where] == data.test.targets[0]
    np.testing.assert_array_equal(data.test.inputs[0][0], images[where][0, :])


def test_test_part_is_fixed():
    test = get_task("digits").load().test
    pixels = np.rint(test.inputs * 16).astype(np.uint8)
    digest = hashlib.sha256(pixels.tobytes() + test.targets.astype(np.uint8).tobytes()).hexdigest()
    assert digest == "e6e0c11bc22dd65ab54c742833ab1e0509b023d20db958a850437fbd7a19a913"


def test_same_digits_in_the_same_split():
    rows, permuted = get_task("digits").load(), get_task("psdigits").load()
    for name in ("train", "validation", "test"):
        image, sequence = getattr(rows, name), getattr(permuted, name)
        np.testing.assert_array_equal(image.targets, sequence.targets)
        flat = image.inputs.reshape(len(image), 64, 1)
        np.testing.assert_array_equal(flat[:, digits.permutation()], sequence.inputs)


def test_permutation_is_fixed_and_complete():
    order = digits.permutation()
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


@pytest.mark.parametrize("task", ["digits", "psdigits"])
def test_splits_with_other_inputs_hold_these(task):
    split = get_task(task).load().test
    order = np.arange(len(split))
    found = split.changed(inputs=-split.inputs, order=order)
    np.testing.assert_array_equal(found.inputs, -split.inputs)
    np.testing.assert_array_equal(found.batch(np.array([5, 2]))[0], -split.inputs[[5, 2]])
    np.testing.assert_array_equal(found.taken(slice(3)).inputs, -split.inputs[:3])
    np.testing.assert_array_equal(found.targets, split.targets)
    assert found.order is order
    assert split.order is None
