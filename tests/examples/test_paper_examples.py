"""The scripts behind docs/results/paper.md, each at toy size."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning", reason="training needs lightning")

from lmu_deploy.tasks.base import get_task
from lmu_deploy.training import train
from lmu_deploy.training.config import preset

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "paper"


def _script(name):
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))


def test_a_memory_without_training_beats_a_trained_lstm_at_capacity(tmp_path):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    arguments = ["--windows", "100", "--order", "40", "--lstm", "25", "--epochs", "2"]
    _script("capacity")["main"]([*arguments, "--out", str(tmp_path / "results")])
    memory, lstm = json.loads((tmp_path / "results" / "capacity.json").read_text())
    assert memory["window"] == 100
    # answering zero scores 1; the hold alone smooths the fastest noise, 0.1 cycles a step, by
    # (0.1 pi)^2 / 6 = 0.016 of its size
    assert memory["nrmse"] < 0.03
    assert list(memory["nrmse_at"]) == ["0", "25", "50", "75", "100"]
    squares = np.square(list(memory["nrmse_at"].values()))
    assert 0.5 < memory["nrmse"] ** 2 / squares.mean() < 2.0  # late targets are zero for longer
    assert memory["nrmse"] < lstm["nrmse"] < 1.0
    assert "Legendre memory" in (tmp_path / "results" / "capacity.svg").read_text()


@pytest.mark.parametrize("start", [12.0, 50.0])
def test_a_trained_theta_finds_the_time_scale(start):
    course = _script("timescale")["learn"](30, start)
    assert course[0] == pytest.approx(start)
    assert course[-1] == pytest.approx(30.5, abs=0.1)  # 30 steps, and half a step of the hold


def test_the_memory_is_perturbed_and_nothing_else():
    pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")
    script = _script("perturbation")
    task = get_task("psdigits")
    settings = {"epochs": 4, "samples": 500, "schedule": "constant"}
    config = preset(task, "parallel").changed(settings, "t")
    as_it_was = script["retrain"](task, config, 0.0, 0)
    figures = train(task, config=config, progress=False).figures
    assert as_it_was["test_accuracy"] == figures["test_accuracy"]
    forgetful = script["retrain"](task, config, -0.5, 0)  # forgets all but some 20 of 64 pixels
    assert forgetful["test_accuracy"] < as_it_was["test_accuracy"] - 0.1


def test_perturbation_moves_the_diagonal_alone():
    from lmu_deploy.nn.model import SequenceModel

    task = get_task("psdigits")
    model = SequenceModel(preset(task, "parallel").network_for(task))
    (layer,) = model.layers
    before = layer.memory.a_bar.clone().numpy()
    _script("perturbation")["perturb"](model, 0.25)
    np.testing.assert_allclose(
        layer.memory.a_bar.numpy() - before, 0.25 * np.eye(len(before)), atol=1e-6
    )
