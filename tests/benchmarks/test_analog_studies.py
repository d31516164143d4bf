"""The study of one imperfection at a time: it runs at toy size, repeats, and resumes."""

import json

import pytest


@pytest.fixture(scope="module")
def study(load_benchmark):
    pytest.importorskip("brian2", reason="the chips are simulated by Brian2")
    return load_benchmark("analog_studies")


def test_every_value_is_measured_once_from_one_base(study):
    settings = list(study.wanted())
    values = sum(len(v) for v in study.VALUES.values())
    assert len(settings) == len(study.METHODS) * (values - len(study.VALUES) + 1)
    for factor, value in study.BASE.items():
        assert value in study.VALUES[factor]


def test_more_bits_and_neurons_help_and_figures_are_shown(study, capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    monkeypatch.setattr(study, "VALUES", {"weight_bits": (0, 2), "neurons_per_state": (2, 8)})
    points, plot = tmp_path / "points.json", tmp_path / "plot.svg"
    monkeypatch.setattr(study, "BASE", {**study.BASE, "weight_bits": 0, "neurons_per_state": 8})
    arguments = ["--seeds=1", "--chips=1", "--limit=20", f"--points={points}", f"--plot={plot}"]
    study.main(arguments)
    found = study.read_points(points)
    assert len(found) == 6

    def error(factor, value):
        return study.row(found, factor, value, "dynamic").error[0][0]

    assert error("weight_bits", 0) < error("weight_bits", 2)
    assert error("neurons_per_state", 8) < error("neurons_per_state", 2)
    few, many = (study.row(found, "neurons_per_state", n, "dynamic") for n in (2, 8))
    assert 0 < few.spikes < many.spikes
    assert 0 < few.energy[0] <= few.energy[1] < many.energy[0]  # one source may be all there is
    shown = capsys.readouterr().out
    assert shown.count("| weight bits (0: real) |") == 2
    assert "<svg" in plot.read_text()

    monkeypatch.setattr(study.Study, "measure", None)  # nothing is measured again
    study.main(arguments)
    assert capsys.readouterr().out == shown
    assert len(json.loads(points.read_text())) == 6
