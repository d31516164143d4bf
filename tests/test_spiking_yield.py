"""The yield of a batch of chips: each figure is that of the chip alone, and shares are counted."""

import json
from pathlib import Path

import pytest

from converters.spiking import spike
from lmu_deploy.commands import chip_yield as module
from lmu_deploy.commands.chip_yield import ChipYield, chip_yield
from lmu_deploy.commands.task_data import limited, task_for
from lmu_deploy.errors import InputError
from lmu_deploy.representations import load_any
from targets.brian2 import Brian2Target

DIGITS = Path(__file__).parents[1] / "examples" / "models" / "digits.safetensors"
OPTIONS = {"neurons_per_state": 4, "mismatch": 0.3, "calibration_samples": 10}


def result(metric, values):
    return ChipYield("t", metric, "p", 1, 1, 0.0, 0.0, {"dynamic": values}, {}, {})


def test_shares_are_counted_from_the_better_end():
    values = [float(n) for n in range(101)]
    assert result("accuracy", values).reached_by("dynamic", 0.95) == pytest.approx(5.0)
    assert result("nrmse", values).reached_by("dynamic", 0.95) == pytest.approx(95.0)
    assert result("accuracy", values).reached_by("dynamic", 1.0) == 0.0
    assert result("nrmse", values).reached_by("dynamic", 0.0) == 0.0


def test_every_figure_is_that_of_the_chip_alone(tmp_path):
    out = tmp_path / "yield.json"
    found = chip_yield(DIGITS, chips=2, first_chip=5, limit=20, seed=3, out=out, **OPTIONS)
    network = load_any(DIGITS)
    task = task_for(network, None)
    data = task.load()
    test, known = limited(data.test, 20), limited(data.train, 512).inputs
    chip = spike(network, known, seed=3, chip_seed=6, **OPTIONS)
    run = Brian2Target().run(chip, test.inputs, seed=3)
    assert found.values["dynamic"][1] == task.score(run.outputs, test.targets)
    assert len(found.values["none"]) == len(found.values["dynamic"]) == 2
    assert found.metric == "accuracy" and (found.samples, found.steps) == (20, 8)
    assert found.reference > 0.9
    assert json.loads(out.read_text())["values"] == found.values
    assert found.spikes_per_sample["dynamic"] > 100


def test_chips_that_fit_one_simulation_run_together(monkeypatch):
    def plan(neurons_at_once):
        monkeypatch.setattr(module, "_NEURONS_AT_ONCE", neurons_at_once)
        task = task_for(load_any(DIGITS), None)
        study = module._Study(load_any(DIGITS), task, "generic-analog", 10, None, 0, OPTIONS)
        return [(method, list(chips)) for method, chips in study.plan(7, 3)]

    neurons = 16 * 4 * 10
    assert plan(10**9) == [("none", [7, 8, 9]), ("dynamic", [7, 8, 9])]
    assert [chips for _, chips in plan(2 * neurons)] == [[7, 8], [7, 8], [9], [9]]
    assert [chips for _, chips in plan(1)] == [[7], [7], [8], [8], [9], [9]]


def test_wrong_requests_are_refused():
    with pytest.raises(InputError, match="chips is 0"):
        chip_yield(DIGITS, chips=0)
    with pytest.raises(InputError, match="cannot be cut"):
        chip_yield(DIGITS, steps=4)
