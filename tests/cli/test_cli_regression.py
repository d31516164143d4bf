"""All commands on own regression data with three inputs and two outputs per step."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lmu_deploy.cli.run import result_line
from lmu_deploy.core.files import save
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout

STEPS = 40


@pytest.fixture
def lmu(lmu, monkeypatch, tmp_path):
    """Run the command line in a folder of its own and return its output; it must succeed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> str:
        code, out, err = lmu(*arguments)
        assert not code, err
        return out

    return call


@pytest.fixture
def series(tmp_path):
    """A network with random weights and data whose targets are its outputs with noise."""
    rng = np.random.default_rng(3)
    data = {}
    for part, samples in (("train", 20), ("test", 12)):
        x = np.cumsum(rng.normal(size=(samples, STEPS, 3)), axis=1) / 8
        y = np.stack([np.roll(x[..., 0], 3, axis=1), x.mean(axis=2)], axis=-1)
        data |= {f"x_{part}": x.astype(np.float32), f"y_{part}": y.astype(np.float32)}
    np.savez(tmp_path / "mine.npz", **data)
    kernels = rng.normal(size=(8, 8)) / 4, None, rng.normal(size=(8, 8)) / 4
    hidden = Hidden(*kernels, None, "tanh")
    layer = LMULayer(
        rng.normal(size=(3, 2)) / 3, None, None, None, Memory.legendre(4, 10.0, 2), hidden
    )
    readout = Readout(rng.normal(size=(8, 2)), np.array([0.1, -0.2]))
    network = LMUNetwork((layer,), readout, True, task="mine.npz")
    save(network, tmp_path / "mine.safetensors")


def test_a_regression_network_passes_through_all_commands(lmu, series, tmp_path):
    lmu("quantize", "mine.safetensors", "--out", "int.safetensors")
    assert "fits loihi2" in lmu("check", "int.safetensors", "--profile", "loihi2")
    said = lmu("deploy", "int.safetensors", "--target", "integer", "--json", "r.json")
    assert said.startswith("integer: nrmse")
    assert "outputs 0.0" in said
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["reference"]["deviation"] < 0.1
    assert (
        lmu("deploy", "int.safetensors", "--target", "onnxruntime").split(";")[0].split(": ")[1]
        == said.split(";")[0].split(": ")[1]
    )  # the same integers, so the same figures
    assert "outputs 0.0000 apart" in lmu("deploy", "mine.safetensors", "--target", "reference")
    lmu("validate", "mine.safetensors", "--targets", "onnxruntime,integer", "--out", "report")
    report = (tmp_path / "report" / "report.html").read_text()
    assert "nrmse" in report.lower()


def test_result_line_without_a_float_reference():
    summary = {
        "target": "integer",
        "metric": {"name": "accuracy", "value": 0.5, "ci95": [0.25, 0.75]},
        "n_samples": 10,
        "reference": {"value": None, "agreement": None, "deviation": None},
    }
    assert result_line(summary) == (
        "integer: accuracy 0.5000 (0.2500 to 0.7500) on 10 samples; no float reference in the file"
    )


def test_one_sample_of_a_regression_has_no_interval():
    line = result_line(
        {
            "target": "integer",
            "metric": {"name": "nrmse", "value": 0.03, "ci95": None},
            "reference": {"value": None},
            "n_samples": 1,
        }
    )
    assert line == "integer: nrmse 0.0300 on 1 sample; no float reference in the file"
