"""Training on data of users: lengths, vectors, few samples, early stopping, checkpoints."""

import json
import logging

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.dataset import Dataset

pytest.importorskip("lightning", reason="training needs lightning")

from lmu_deploy.training import train

LAYER = {"kind": "lmu", "units": 8, "order": 4, "theta": 12}
SETTINGS = {"batch_size": 20, "learning_rate": 0.03, "schedule": "one-cycle", "layers": [LAYER]}


def waves(samples, rng, lengths=(12,)):
    """Slow and fast sines of random phase."""
    classes = np.arange(samples) % 2
    time = [np.arange(n) for n in rng.choice(lengths, samples)]
    phases = 2 * np.pi * rng.random(samples)
    return [
        np.sin(2 * np.pi * (1 + 2 * k) * t / 12 + phase)[:, None]
        for k, t, phase in zip(classes, time, phases, strict=True)
    ], np.array(["slow", "fast"])[classes]


def test_sequences_of_different_lengths_are_learned_at_their_own_last_step(rng):
    data = Dataset(*waves(320, rng, range(6, 14)), *waves(60, rng, range(6, 14)))
    result = train(data, config={**SETTINGS, "epochs": 8}, progress=False)
    outputs = run(result.network, data.test.x, data.test.lengths)
    assert data.task.score(outputs, data.test.y) == result.figures["test_accuracy"] > 0.8
    assert json.loads(result.network.provenance["classes"]) == ["fast", "slow"]
    assert result.network.provenance["data"] == data.identity


def test_padding_does_not_reach_the_training(rng):
    (x, y), test = waves(60, rng, range(6, 14)), waves(4, rng, range(6, 14))
    data = Dataset(x, y, *test)
    longer = Dataset(x, y, *test)
    for part in longer.data.parts.values():
        for row, length in zip(part.x, part.lengths, strict=True):
            row[length:] = 50.0
    one, two = (train(d, config={**SETTINGS, "epochs": 2}, progress=False) for d in (data, longer))
    for mine, theirs in zip(_arrays(one.network), _arrays(two.network), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _arrays(network):
    (layer,) = as_layers(network, "test").layers
    return [layer.input_encoders, layer.hidden.memory_kernel, layer.hidden.bias]


def test_a_vector_after_the_last_step_is_learned(rng):
    series = np.cumsum(rng.normal(size=(200, 12)), axis=1)[:, :, None] / 4
    y = series[:, -1] @ [[1.0, -0.5]]
    data = Dataset(series[:160], y[:160], series[160:], y[160:])
    result = train(data, config={**SETTINGS, "epochs": 30}, progress=False)
    assert not result.network.return_sequences
    assert result.figures["test_nrmse"] < 0.3
    outputs = run_reference(result.network, data.test.x).outputs
    score = data.task.score(outputs, data.test.y)
    assert score == pytest.approx(result.figures["test_nrmse"], rel=1e-6)  # float32 in torch


def test_fewer_than_ten_samples_train_without_validation(rng, caplog):
    series = np.sin(np.arange(401) / 7)[:, None].astype(np.float32)
    data = Dataset(
        series[None, :200], series[None, 1:201], series[None, 200:400], series[None, 201:]
    )
    with caplog.at_level(logging.INFO, "lmu_deploy"):
        result = train(data, config={**SETTINGS, "epochs": 2}, progress=False)
    assert "validation_nrmse" not in result.figures
    assert result.figures["best_epoch"] == result.figures["epochs"] == 2
    assert [set(row) for row in result.history] == [{"epoch", "train_loss", "skipped"}] * 2
    assert "all 2 epochs; no validation samples, so the weights are the last" in caplog.text


def test_few_validation_samples_neither_stop_nor_choose(rng, caplog):
    data = Dataset(*waves(50, rng), *waves(30, rng))
    assert len(data.validation) == 5
    with caplog.at_level(logging.INFO, "lmu_deploy"):
        figures = train(data, config={**SETTINGS, "epochs": 40}, progress=False).figures
    assert figures["best_epoch"] == figures["epochs"] == 40
    assert "all 40 epochs; the weights are the last, because 5 validation samples" in caplog.text


def test_training_says_why_it_stopped_early(rng, caplog):
    x, y = waves(50, rng)
    data = Dataset(x, y, x[:9], y[:9], x_val=x[:5], y_val=np.where(y[:5] == "slow", "fast", "slow"))
    config = {**SETTINGS, "epochs": 60, "patience": 3, "choose_by": "loss"}
    with caplog.at_level(logging.INFO, "lmu_deploy"):
        figures = train(data, config=config, progress=False).figures
    assert figures["epochs"] == figures["best_epoch"] + 3 < 60
    said = f"stopped at epoch {figures['epochs']:.0f}: no improvement on 5 validation samples for 3"
    assert said in caplog.text


def test_checkpoint_refuses_other_data_and_takes_the_same_from_another_path(rng, tmp_path):
    arrays = dict(
        zip(
            ("x_train", "y_train", "x_test", "y_test"),
            (*waves(40, rng), *waves(9, rng)),
            strict=True,
        )
    )
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", **arrays)
    state, config = tmp_path / "state.ckpt", {**SETTINGS, "epochs": 1}
    first = train(tmp_path / "one.npz", config=config, progress=False, checkpoint=state)
    again = train(tmp_path / "two.npz", config=config, progress=False, checkpoint=state)
    assert first.history == again.history
    np.savez(tmp_path / "one.npz", **{**arrays, "x_test": np.zeros_like(arrays["x_test"])})
    with pytest.raises(InputError, match="training with other data, seed or settings"):
        train(tmp_path / "one.npz", config=config, progress=False, checkpoint=state)
