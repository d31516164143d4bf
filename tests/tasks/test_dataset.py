"""Dataset: arrays, files and built-in tasks as one object."""

import numpy as np
import pytest

import lmu_deploy as ld
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.loading import load
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.dataset import Dataset, find_task, load_task
from lmu_deploy.tasks.selection import task_for


@pytest.fixture
def arrays(rng):
    x = rng.normal(size=(30, 6, 2))
    return x, np.arange(30) % 3, x[:9], np.arange(9) % 3


def test_arrays_become_three_parts(arrays):
    data = Dataset(*arrays)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [27, 3, 9]
    np.testing.assert_array_equal(data.train.x, arrays[0][:27].astype(np.float32))
    np.testing.assert_array_equal(data.validation.y, arrays[1][27:])
    assert data.test.y.dtype == np.int64
    assert (data.task.n_in, data.task.n_out, data.task.steps) == (2, 3, 6)


def test_parts_are_those_of_a_file_with_the_same_arrays(arrays, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))
    stored, given = load_task(path), Dataset(*arrays)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(stored, part).x, getattr(given, part).x)
        np.testing.assert_array_equal(getattr(stored, part).y, getattr(given, part).y)


def test_lists_and_signals_are_taken_too(rng):
    x, y = rng.normal(size=(12, 5, 1)), rng.normal(size=(12, 5, 2))
    data = Dataset(list(x), list(y), x.tolist(), y.tolist(), name="signals")
    assert data.task.kind == "regression"
    assert data.task.n_out == 2
    assert repr(data) == "Dataset('signals', regression, 5 steps of 1 input, 2 outputs)"


def test_built_in_task_is_loaded_when_it_is_used():
    data = ld.load_task("digits")
    assert repr(data) == "Dataset('digits', classification, 8 steps of 8 inputs, 10 outputs)"
    assert data.train is get_task("digits").load().train
    assert data.test.x.shape[1:] == (8, 8)


def test_sequences_of_different_lengths_are_rejected(arrays):
    x, *others = arrays
    with pytest.raises(InputError, match=r"x_train holds sequences of 4 to 6 steps"):
        Dataset([x[0], x[1][:4]], *others)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (0, np.zeros((3, 4)), "x_train"),
        (0, np.full((30, 6, 2), np.nan), "x_train"),
        (0, [[["a"]]] * 30, "x_train"),
        (1, -np.ones(30, dtype=int), "negative classes"),
        (2, np.zeros((9, 5, 2)), "the two must be equal"),
        (3, np.zeros((9, 6, 1)), "must both be"),
        (3, np.zeros(8, dtype=int), "y_test"),
    ],
)
def test_arrays_that_do_not_fit_are_rejected(arrays, part, value, message):
    given = list(arrays)
    given[part] = value
    with pytest.raises(InputError, match=message):
        Dataset(*given)


def test_every_way_to_name_data_leads_to_one_task():
    task = get_task("digits")
    for way in ("digits", task, load_task("digits")):
        assert find_task(way) is task


def test_network_takes_data_of_its_own_shape(arrays):
    network = load("examples/models/digits.safetensors")
    own = Dataset(np.zeros((20, 8, 8)), np.arange(20) % 4, np.zeros((2, 8, 8)), [0, 1])
    assert task_for(network, own) is own.task  # fewer classes than the network has outputs
    with pytest.raises(InputError, match="task dataset has 2 inputs and 3 outputs"):
        task_for(network, Dataset(*arrays))
