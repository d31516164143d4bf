"""The study of error against neurons: it runs, repeats, and measures slopes correctly."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def study(load_benchmark):
    return load_benchmark("spiking_error")


def test_slope_and_constant_of_an_exact_law(study):
    points = [
        study.Point("poisson", "static", order, neurons, 0.4 * order / np.sqrt(neurons))
        for order in (3, 6)
        for neurons in (100, 400, 1600)
    ]
    assert study.slope(points[:3]) == pytest.approx(-0.5)
    assert "c = 0.400 on average, 0.400 to 0.400" in study.constants(points)
    columns, rows = study.table(points)
    titles = [title for title, _ in columns]
    assert titles[:-3] == ["neuron", "decoders", "order", "p = 100", "p = 400", "p = 1600"]
    assert titles[-3:] == ["slope", "slopes of single seeds", "seeds"]
    assert rows[1][:3] == ["poisson", "static", 6]
    assert rows[1][3:7] == pytest.approx([0.24, 0.12, 0.06, -0.5])
    assert rows[1][7:] == ["-0.50 to -0.50", 1]


def test_errors_are_means_over_seeds_and_slopes_have_a_range(study):
    points = [
        study.Point("poisson", "static", 3, neurons, error, seed)
        for seed, errors in enumerate(((0.4, 0.2), (0.2, 0.2)))
        for neurons, error in zip((100, 400), errors, strict=True)
    ]
    _, [row] = study.table(points)
    assert row[3:5] == pytest.approx([0.3, 0.2])
    assert row[5] == pytest.approx(np.log(2 / 3) / np.log(4))
    assert row[6:] == ["-0.50 to 0.00", 2]


def test_noise_has_its_band_and_size(study):
    signal = study.white_noise(8, 4000, np.random.default_rng(0))[:, :, 0]
    power = np.abs(np.fft.rfft(signal, axis=1)) ** 2
    frequencies = np.fft.rfftfreq(4000, 1e-3)
    assert np.sqrt(np.mean(signal**2)) == pytest.approx(study.RMS)
    assert power[:, frequencies > study.BAND_HZ].sum() < 1e-9 * power.sum()


def test_poisson_error_halves_with_four_times_the_neurons(study, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "VARIANTS", (("poisson", "static"),))
    few = ["--seeds=1", "--orders=2", "--neurons=25,100", "--samples=6", "--milliseconds=1500"]
    monkeypatch.setattr(study.results, "DATA", tmp_path)
    study.main([*few, "--save=analog/error"])
    shown = capsys.readouterr().out
    table = study.results.load("analog/error", tmp_path)
    assert table.markdown() in shown
    assert table.seed == 0
    assert table.rows[0][-3] == pytest.approx(-0.5, abs=0.15)
