from collections import deque

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.tasks import mackey_glass
from lmu_deploy.tasks.base import Split, get_task


def _predicts_the_future(split, ahead=15):
    return np.array_equal(split.targets[:, :-ahead], split.inputs[:, ahead:])


@pytest.fixture(scope="module")
def short():
    return mackey_glass.make_data(steps=200, n_series=8)


def test_targets_lie_in_the_future_and_a_planted_swap_is_caught(short):
    for split in (short.train, short.validation, short.test):
        assert _predicts_the_future(split)
        assert not _predicts_the_future(Split(split.targets, split.inputs))


def test_equation_is_solved_as_written():
    rng = np.random.RandomState(5)
    histories = 1.2 + 0.2 * (rng.rand(2, 170) - 0.5)
    solved = mackey_glass.simulate(2, 60, seed=5)
    for history, series in zip(histories, solved, strict=True):
        past, x = deque(history), 1.2
        for step in range(60):
            for _ in range(10):
                delayed = past.popleft()
                past.append(x)
                x += 0.1 * (0.2 * delayed / (1 + delayed**10) - 0.1 * x)
            assert series[step] == pytest.approx(x, rel=1e-12)


def test_full_size_and_center():
    task = get_task("mackey-glass")
    data = task.load()
    assert [len(s) for s in (data.train, data.validation, data.test)] == [32, 32, 64]
    everything = np.concatenate([s.inputs for s in (data.train, data.validation, data.test)])
    assert everything.shape == (128, task.steps, task.n_in) == (128, 5000, 1)
    assert abs(everything.mean()) < 1e-3
    assert 0.2 < everything.std() < 0.23
    assert np.abs(everything).max() < 1.0


def test_no_series_is_in_two_parts():
    data = get_task("mackey-glass").load()
    parts = np.concatenate([s.inputs for s in (data.train, data.validation, data.test)])
    assert len(np.unique(parts[:, :50, 0], axis=0)) == 128


def test_trivial_predictors_fail():
    test = get_task("mackey-glass").load().test
    persistence = np.sqrt(np.mean((test.inputs - test.targets) ** 2) / np.mean(test.targets**2))
    assert 0.5 < persistence < 2.0


def test_short_runs_keep_the_name_and_the_shape():
    task = mackey_glass.short_task(steps=50, n_series=4)
    data = task.load()
    assert task.name == "mackey-glass"
    assert [s.inputs.shape for s in (data.train, data.validation, data.test)] == [
        (1, 50, 1),
        (1, 50, 1),
        (2, 50, 1),
    ]
    assert _predicts_the_future(data.test)


def test_seed_gives_the_same_series_and_another_gives_others(short):
    again = mackey_glass.make_data(steps=200, n_series=8)
    other = mackey_glass.make_data(steps=200, n_series=8, seed=1)
    np.testing.assert_array_equal(short.test.inputs, again.test.inputs)
    assert not np.allclose(short.test.inputs, other.test.inputs)


def test_too_few_series_are_rejected():
    with pytest.raises(InputError, match="n_series"):
        mackey_glass.make_data(n_series=3)
