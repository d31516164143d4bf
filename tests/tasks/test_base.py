import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.tasks.base import Split, Task, TaskData, get_task, stratified_parts, task_names


def test_unknown_task_error_lists_names():
    with pytest.raises(InputError) as caught:
        get_task("digit")
    assert all(name in str(caught.value) for name in task_names())


def test_task_names_match():
    for name in task_names():
        task = get_task(name)
        assert task.name == name
        assert task.metric == {"classification": "accuracy", "regression": "nrmse"}[task.kind]


def test_regression_has_targets_at_every_step():
    assert Task("t", "regression", 1, 1, 3, load=lambda: None).every_step
    assert not Task("t", "classification", 1, 2, 3, load=lambda: None).every_step


def _data(targets):
    split = Split(np.arange(40, dtype=np.float32).reshape(4, 5, 2), targets)
    return TaskData(split, split, split)


def test_signals_and_targets_are_shortened_together():
    short = _data(np.arange(20.0).reshape(4, 5, 1)).shortened(steps=3, samples=2)
    for split in (short.train, short.validation, short.test):
        assert len(split) == 2
        assert split.inputs.shape == (2, 3, 2)
        np.testing.assert_array_equal(split.targets[1, :, 0], [5.0, 6.0, 7.0])


def test_sequences_with_one_target_are_not_shortened():
    with pytest.raises(InputError, match="5 steps"):
        _data(np.zeros(4, int)).shortened(steps=3)


def test_stratified_parts_keep_proportions_and_all_samples():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    parts = stratified_parts(labels, (0.2, 0.1), seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(160))
    assert [np.bincount(labels[p]).tolist() for p in parts] == [
        [20, 10, 2],
        [10, 5, 1],
        [70, 35, 7],
    ]


def test_seed_changes_the_split():
    labels = np.repeat([0, 1], 50)
    one, same, other = (stratified_parts(labels, (0.5,), seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
