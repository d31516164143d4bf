"""Tasks that measure memory: `delay`, `capacity` and `copy`."""

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks import memory
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.memory import delayed, white_noise


def _parts(data):
    return data.train, data.validation, data.test


def test_white_noise_band_power_and_start():
    signals = white_noise(5, 1000, cycles=25, seed=0)
    spectrum = np.abs(np.fft.rfft(signals, axis=1))
    assert spectrum[:, 1:26].min() > 0.0
    np.testing.assert_allclose(spectrum[:, 26:], 0.0, atol=1e-9)
    np.testing.assert_allclose(np.sqrt(np.mean(signals**2, axis=1)), 0.5)
    np.testing.assert_array_equal(np.abs(signals).argmin(axis=1), 0)


def test_delayed_copies():
    signals = np.arange(1.0, 6.0)[None]
    copies = delayed(signals, np.array([0, 2, 5]))
    np.testing.assert_array_equal(copies[0, :, 0], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(copies[0, :, 1], [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(copies[0, :, 2], [0, 0, 0, 0, 0])


@pytest.mark.parametrize("name", ["capacity", "capacity-100", "delay", "delay-20"])
def test_targets_are_the_past_of_the_input(name):
    task = get_task(name)
    lags = memory.delays(task.steps * 2 // 5) if name.startswith("cap") else [task.steps // 4]
    for split in _parts(task.load()):
        assert split.inputs.shape[1:] == (task.steps, task.n_in)
        assert split.targets.shape[1:] == (task.steps, task.n_out)
        assert split.inputs.dtype == split.targets.dtype == np.float32
        for k, lag in enumerate(lags):
            late = split.inputs[:, : task.steps - lag, 0]
            np.testing.assert_array_equal(split.targets[:, lag:, k], late)


@pytest.mark.parametrize("name", ["capacity-100", "delay", "copy"])
def test_parts_are_disjoint_and_reproducible(name):
    task = get_task(name)
    parts = [s.inputs.reshape(len(s), -1) for s in _parts(task.load())]
    joined = np.concatenate(parts)
    assert len(np.unique(joined, axis=0)) == len(joined)
    get_task(name).load.cache_clear()
    again = [s.inputs.reshape(len(s), -1) for s in _parts(task.load())]
    np.testing.assert_array_equal(joined, np.concatenate(again))


@pytest.mark.parametrize("window", [100, 1000])
def test_legendre_memory_recalls_a_window_without_training(window):
    task = get_task(f"capacity-{window}") if window != 1000 else get_task("capacity")
    test = task.load().test.batch(slice(0, 4))
    outputs = run_reference(memory.untrained_network(window), test[0]).outputs
    assert task.score(outputs, test[1]) < 1.5 / window + 0.003
    few_states = run_reference(memory.untrained_network(window, order=12), test[0]).outputs
    assert task.score(few_states, test[1]) > 0.3


def test_copy_inputs_and_targets():
    task = get_task("copy-7")
    split = memory.make_copies(pause=7, samples=50, seed=3)
    assert split.inputs.shape == (50, task.steps, task.n_in) == (50, 27, 10)
    shown = split.inputs.argmax(axis=2)
    np.testing.assert_array_equal(split.inputs.sum(axis=2), 1.0)
    assert shown[:, :10].max() < memory.SYMBOLS
    np.testing.assert_array_equal(shown[:, :10], split.targets[:, 17:])
    np.testing.assert_array_equal(shown[:, 16], memory.SIGNAL)
    blank = np.delete(shown[:, 10:], 6, axis=1)
    np.testing.assert_array_equal(blank, memory.BLANK)


def test_copy_evaluates_only_the_last_steps():
    task = get_task("copy-7")
    split = memory.make_copies(pause=7, samples=50, seed=3)
    outputs = np.zeros((50, task.steps, task.n_out))
    answers = np.eye(task.n_out)[split.targets[:, 17:]]
    outputs[:, 17:] = answers
    outputs[:, :17, 5] = 1.0  # never asked for, so never wrong
    assert task.score(outputs, split.targets) == 1.0
    outputs[:, 17] = 1.0 - answers[:, 0]
    assert task.score(outputs, split.targets) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "name",
    ["capacity-24", "capacity-1000001", "copy-0", "delay-11", "digits-5", "delay-", "copy-1e3"],
)
def test_invalid_windows_are_rejected(name):
    with pytest.raises(InputError):
        get_task(name)


def test_default_window_has_the_plain_name():
    assert get_task("capacity-1000").name == "capacity"
    assert get_task("capacity-500").name == "capacity-500"
