"""The study of error against neurons: it runs, repeats, and measures slopes rightly."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "spiking_error.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("spiking_error", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_slope_and_constant_of_an_exact_law(study):
    points = [
        study.Point("poisson", "static", order, neurons, 0.4 * order / np.sqrt(neurons))
        for order in (3, 6)
        for neurons in (100, 400, 1600)
    ]
    assert study.slope(points[:3]) == pytest.approx(-0.5)
    assert "c = 0.400 on average, 0.400 to 0.400" in study.constants(points)
    assert "| poisson | static | 6 | 0.2400 | 0.1200 | 0.0600 | -0.50 |" in study.table(points)


def test_noise_has_its_band_and_size(study):
    signal = study.white_noise(8, 4000, np.random.default_rng(0))[:, :, 0]
    power = np.abs(np.fft.rfft(signal, axis=1)) ** 2
    frequencies = np.fft.rfftfreq(4000, 1e-3)
    assert np.sqrt(np.mean(signal**2)) == pytest.approx(study.RMS)
    assert power[:, frequencies > study.BAND_HZ].sum() < 1e-9 * power.sum()


def test_poisson_error_halves_with_four_times_the_neurons(study, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "VARIANTS", (("poisson", "static"),))
    out = tmp_path / "table.md"
    few = ["--orders=2", "--neurons=25,100", "--samples=6", "--milliseconds=1500"]
    study.main([*few, f"--out={out}"])
    row = next(line for line in out.read_text().splitlines() if line.startswith("| poisson"))
    assert float(row.split("|")[-2]) == pytest.approx(-0.5, abs=0.15)
    assert row in capsys.readouterr().out
