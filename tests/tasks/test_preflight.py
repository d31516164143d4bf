"""Findings about data: each planted fault is found, with its remedy, and sound data have none."""

import time

import numpy as np
import pytest
from typer.testing import CliRunner

import lmu_deploy as ld
from lmu_deploy.cli import app
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.tasks.dataset import Dataset
from lmu_deploy.tasks.preflight import baseline, not_better, preflight


def waves(samples, rng):
    classes = np.arange(samples) % 2
    time = np.arange(40)[None, :, None]
    x = np.sin(2 * np.pi * (1 + classes)[:, None, None] * time / 40 + rng.random((samples, 1, 3)))
    return x + 0.1 * rng.normal(size=x.shape), np.array(["slow", "fast"])[classes]


@pytest.fixture
def arrays(rng):
    return [*waves(400, rng), *waves(60, rng)]


def found(*arrays, network=None, **options):
    return [str(each) for each in preflight(Dataset(*arrays, **options).task, network)]


def window(theta, order):
    layer = LMULayer(np.ones((3, 1)), None, None, None, Memory.legendre(order, theta), None)
    return Network.from_layers(LMUNetwork((layer,), Readout(np.ones((order, 2)), None), False))


def test_sound_data_have_no_finding(arrays):
    assert found(*arrays) == []
    assert found(*arrays, network=window(40.0, 12)) == []


def test_planted_faults_are_found_all_at_once(arrays):
    x, y, x_test, _ = arrays
    x, x_test = (np.concatenate([a, a[:, :, :1], 5 + 0 * a[:, :, :1]], axis=2) for a in (x, x_test))
    x[:, :, 1] *= 1000
    x[:, :, 2] += 350
    x_test[:7] = x[:7]
    said = found(x, y, x_test, np.full(60, "slow"))
    for words in (
        "the test samples lack 1 of 2 classes (fast); give samples of each class in each part.",
        "channel 4 never changes; leave it out.",
        "channels 0, 3 are the same; keep one of them.",
        "channel 1 is ",
        "the mean of channel 2 is ",
    ):
        assert sum(each.startswith(words) for each in said) == 1, words
    assert any("of 60 test samples are also training samples" in each for each in said)
    assert len(said) == 6


def test_few_samples_are_reported(arrays):
    x, y, *test = arrays
    said = found(x[:6], y[:6], *test)
    assert said[0].startswith("6 training samples of dataset leave none to validate; give ten or")
    said = found(x[:50], y[:50], *test)
    assert said[0].startswith("5 validation samples cannot choose between epochs or settings")


def test_answers_of_zero_are_named(arrays):
    x, _, x_test, _ = arrays
    said = found(x, x[:, 0, 0], x_test, 0.0 * x_test[:, 0, 0], kind="regression")
    assert sum(each.startswith("the answers of the test samples are zero") for each in said) == 1


@pytest.mark.parametrize("shape", [(400, 1, 150), (400, 9, 24)], ids=["many", "smooth"])
def test_features_before_steps_are_noticed(rng, shape):
    y = np.arange(400) % 2
    x = rng.normal(size=shape).cumsum(axis=2)
    (said,) = found(x, y, -x, y)
    assert "give x.transpose(0, 2, 1)" in said
    right = x.transpose(0, 2, 1)
    assert found(right, y, -right, y) == []


def test_steps_of_many_features_are_no_transposed_array(rng):
    y = np.arange(400) % 2
    for x in (rng.normal(size=(400, 9, 24)), rng.normal(size=(400, 9, 24)).cumsum(axis=1)):
        assert found(x, y, -x, y) == []


def test_data_of_one_class_are_reported(arrays):
    x, _, x_test, _ = arrays
    said = found(x, np.full(400, "slow"), x_test, np.full(60, "slow"))
    assert said == [
        "all answers are the class slow; give samples of another class, or real numbers with "
        "kind='regression'."
    ]


def test_windows_are_compared_with_length_and_spectrum(arrays):
    said = found(*arrays, network=window(400.0, 30))
    assert said == [
        "the window of layer0 is 400 steps, and sequences have 40; choose theta near 40."
    ]
    (said,) = found(*arrays, network=window(40.0, 2))
    assert "half-waves in the window of layer0, and order 2 can hold 2" in said


def test_baselines_are_those_of_hand_computation(rng):
    x, y = rng.normal(size=(40, 5, 1)), np.repeat(["a", "b"], [30, 10])
    trivial = baseline(Dataset(x, y, x[:8], ["a"] * 6 + ["b"] * 2).task)
    assert (trivial.words, trivial.value) == ("always answering 'a'", 0.75)
    series = 350 + np.cumsum(rng.normal(size=(40, 6)), axis=1)
    data = Dataset(series[:, :5], series[:, 5:], series[:, :5], series[:, 5:])
    trivial = baseline(data.task)
    assert trivial.words == "repeating the last value"
    last, truth = (series[:, k].astype(np.float32).astype(np.float64) for k in (4, 5))
    expected = np.sqrt(np.mean((last - truth) ** 2) / np.mean(truth**2))
    assert trivial.value == pytest.approx(expected, rel=1e-6)


def test_a_result_at_the_level_of_the_baseline_is_named(rng):
    x, y = rng.normal(size=(100, 5, 1)), np.arange(100) % 2
    task = Dataset(x, y, x, y).task
    said = "0.4930 on 150 answers is no better than always answering '0'"
    assert said in not_better(task, 0.493, 150)
    assert not_better(task, 0.55, 150) is not None  # within the error of 150 samples
    assert not_better(task, 0.6, 150) is None


def test_training_on_noise_is_no_success(rng, caplog):
    pytest.importorskip("lightning", reason="training needs lightning")
    x, y = rng.normal(size=(60, 5, 1)), np.arange(60) % 2
    config = {"epochs": 1, "layers": [{"kind": "lmu", "units": 4, "order": 2, "theta": 5}]}
    other = rng.normal(size=(20, 5, 1))
    ld.train(Dataset(x, y, other, y[:20]), config=config)
    assert "is no better than always answering '0' (0.5000)" in caplog.text


def test_checks_of_ordinary_data_take_less_than_a_second(rng):
    x, y = rng.normal(size=(2000, 100, 8)), np.arange(2000) % 10
    task = Dataset(x, y, x[:500] + 1, y[:500]).task
    start = time.process_time()
    preflight(task)
    assert time.process_time() - start < 1.0


def test_command_prints_findings_and_is_strict_if_asked(arrays, tmp_path):
    x, y, x_test, y_test = arrays
    sound, faulty = tmp_path / "sound.npz", tmp_path / "faulty.npz"
    np.savez(sound, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    x[:, :, 1] *= 1000
    np.savez(faulty, x_train=x, y_train=y, x_test=x_test, y_test=y_test)

    def check(*arguments):
        return CliRunner().invoke(app, ["check", "--task", *map(str, arguments)])

    shown = check(sound, "--strict")
    assert shown.exit_code == 0
    assert "nothing found" in shown.output
    assert "do better than always answering 'fast': 0.5000" in shown.output
    assert check(faulty).exit_code == 0
    assert "channel 1 is " in check(faulty).output
    assert check(faulty, "--strict").exit_code == 1
    refused = check(sound, "examples/models/digits.safetensors").exception
    assert isinstance(refused, InputError)
    assert "has 3 inputs and 2 outputs, and the network 8 and 10" in str(refused)


def test_loss_on_calibration_samples_is_reported_when_integers_are_made(caplog):
    pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")
    digits = ld.load_task("digits")
    data = Dataset(digits.train.x, digits.train.y, digits.test.x, digits.test.y)
    ld.quantize("examples/models/digits.safetensors", data, message_bits=2, hidden_bits=2)
    assert "100 calibration samples: accuracy 1.0000 float, 0." in caplog.text
    assert "saturates most (" in caplog.text
