"""Every task is learned at reduced size: far above chance, with a decreasing loss."""

import os
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="training needs lightning")

from lmu_deploy.tasks.base import get_task
from lmu_deploy.training import train
from lmu_deploy.training.config import preset

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
DATA = os.environ.get("LMU_DEPLOY_DATA") or str(BESIDE)


def _train(name, model, **settings):
    task = get_task(name)
    config = preset(task, model).changed(settings, "toy")
    return train(task, model, config=config, progress=False)


def _falls(result, share):
    losses = [row["train_loss"] for row in result.history]
    return losses[-1] < share * losses[0]


def test_psdigits():
    pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")
    result = _train("psdigits", "parallel", epochs=8)
    assert result.figures["test_accuracy"] > 0.7  # chance is 0.1
    assert _falls(result, 0.5)


def test_delay():
    result = _train("delay-20", "lmu", epochs=40, samples=64)
    assert result.figures["test_nrmse"] < 0.4  # answering zero scores 1
    assert _falls(result, 0.2)


def test_capacity():
    result = _train("capacity-25", "parallel", epochs=10)
    assert result.figures["test_nrmse"] < 0.5  # answering zero scores 1
    assert _falls(result, 0.3)


def test_copy():
    result = _train("copy-1", "parallel", epochs=3, samples=2000)
    assert result.figures["test_accuracy"] > 0.5  # chance is 0.125
    assert _falls(result, 0.8)


@pytest.mark.skipif(
    not (Path(DATA) / "mnist" / "train-images-idx3-ubyte.gz").is_file(),
    reason="the MNIST files are absent; set LMU_DEPLOY_DATA to their folder",
)
@pytest.mark.parametrize("name", ["smnist", "psmnist", "psmnist-nru"])
def test_mnist(name, monkeypatch):
    monkeypatch.setenv("LMU_DEPLOY_DATA", DATA)
    layers = [
        {
            "kind": "lmu",
            "units": 100,
            "order": 64,
            "theta": 784,
            "hidden": "feedforward",
            "activation": "relu",
            "input_to_hidden": False,
            "init": "memory",
        }
    ]
    # The preset's regularization is for 50,000 images; it is too strong for a thousand.
    result = _train(
        name,
        "parallel",
        layers=layers,
        epochs=6,
        samples=1000,
        learning_rate=0.005,
        batch_size=50,
        dropout=0.0,
        adversary=0.0,
    )
    assert result.figures["test_accuracy"] > 0.5  # chance is 0.1
    assert _falls(result, 0.6)
