"""Chip yield: results per chip, quantiles, records and the command."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.options import SpikeOptions
from converters.spiking import spike, spike_chips
from lmu_deploy.api.spike import chip_yield
from lmu_deploy.cli import main
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.studies import chip_yield as module
from lmu_deploy.studies.chip_yield import ChipYield, load_yield, save_yield
from lmu_deploy.tasks.selection import limited, task_for
from targets.brian2 import Brian2Target

DIGITS = Path(__file__).parents[2] / "examples" / "models" / "digits.safetensors"
OPTIONS = {"neurons_per_state": 4, "mismatch": 0.3, "calibration_samples": 10}


def record(values, metric="accuracy", chips=None):
    chips = list(range(len(values))) if chips is None else chips
    columns = {"none": list(values), "dynamic": list(values)}
    study = ("f" * 64, "t", metric, "p", 1, 1, {"seed": 0}, 1.0, 0.5)
    return ChipYield(*study, chips=chips, values=columns, spikes=columns)


def test_quantiles_are_counted_from_the_better_end():
    values = [float(n) for n in range(101)]
    assert record(values).reached_by("dynamic", 0.95) == pytest.approx(5.0)
    assert record(values, "nrmse").reached_by("dynamic", 0.95) == pytest.approx(95.0)
    assert record(values).reached_by("dynamic", 1.0) == 0.0
    assert record(values, "nrmse").reached_by("dynamic", 0.0) == 0.0


def test_what_most_chips_reach_is_a_value_that_a_chip_has():
    """Of 100 chips on 359 images, 95 reached 351 images or more, and no chip an average of two."""
    values = [351 / 359] * 6 + [353 / 359] * 94
    assert record(values).reached_by("dynamic", 0.95) == 351 / 359
    assert record(values).reached_by("dynamic", 0.94) == 353 / 359


def test_the_distribution_is_printed():
    found = record([0.4, 0.5, 0.5, 0.6], "nrmse")
    assert "| dynamic | 0.6000 |" in found.table()
    assert "4 chips of p" in found.verdict() and "% above the ideal device" in found.verdict()
    lines = found.histogram().splitlines()
    assert len(lines) == 2 * (1 + 12)
    assert sum(line.count("#") for line in lines) == 2 * 4
    many = record([0.5] * 400 + [1.0])
    assert max(len(line) for line in many.histogram().splitlines()) < 100


def test_records_are_combined_chip_by_chip():
    one, other = record([0.1, 0.2], chips=[3, 7]), record([0.3, 0.9], chips=[5, 7])
    both = one.with_chips(other)
    assert both.chips == [3, 5, 7]
    assert both.values["none"] == both.spikes["dynamic"] == [0.1, 0.3, 0.2]


@pytest.fixture(scope="module")
def whole():
    return chip_yield(DIGITS, chips=3, first_chip=5, limit=20, seed=3, **OPTIONS)


def test_every_result_equals_that_of_the_chip_alone(whole):
    network = load(DIGITS)
    task = task_for(network, None)
    data = task.load()
    test, known = limited(data.test, 20), limited(data.train, 512).inputs
    chip = spike(network, known, seed=3, chip_seed=6, **OPTIONS)
    run = Brian2Target().run(chip, test.inputs, seed=3)
    assert whole.chips == [5, 6, 7]
    assert whole.values["dynamic"][1] == task.score(run.outputs, test.targets)
    assert whole.spikes["dynamic"][1] == run.events["layer0/memory"].sum() / 20
    assert [len(whole.values[method]) for method in ("none", "dynamic")] == [3, 3]
    assert whole.metric == "accuracy" and (whole.samples, whole.steps) == (20, 8)
    assert whole.reference > 0.9


def test_a_study_in_parts_equals_the_whole_study(whole, tmp_path):
    asked = {"limit": 20, "seed": 3, **OPTIONS}
    first, last = tmp_path / "first.json", tmp_path / "last.json"
    chip_yield(DIGITS, chips=1, first_chip=7, out=last, **asked)
    chip_yield(DIGITS, chips=1, first_chip=5, out=first, **asked)
    both = chip_yield(DIGITS, chips=3, first_chip=5, out=first, add=[last], **asked)
    assert both == whole == load_yield(first)
    with pytest.raises(InputError, match="run with samples 20, and this study has 19"):
        chip_yield(DIGITS, add=[last], **{**asked, "limit": 19})


def test_chips_in_the_record_are_not_run_again(whole, tmp_path, monkeypatch):
    out = tmp_path / "yield.json"
    save_yield(whole, out)

    def judged_again(*_):
        raise AssertionError("a chip was judged again")

    monkeypatch.setattr(module._Study, "_measure", judged_again)
    again = chip_yield(DIGITS, chips=2, first_chip=6, limit=20, seed=3, out=out, **OPTIONS)
    assert again == whole == load_yield(out)


def test_an_interrupted_study_keeps_finished_chips(tmp_path, monkeypatch):
    out, run_chips = tmp_path / "yield.json", module._Study.run_chips

    def stopped(study, chips):
        if 1 in chips:
            raise KeyboardInterrupt
        return run_chips(study, chips)

    monkeypatch.setattr(module, "_CHIPS_AT_ONCE", 1)
    monkeypatch.setattr(module._Study, "run_chips", stopped)
    with pytest.raises(KeyboardInterrupt):
        chip_yield(DIGITS, chips=2, limit=5, out=out, **{**OPTIONS, "neurons_per_state": 2})
    assert load_yield(out).chips == [0]


def test_chips_are_grouped_by_the_size_of_a_simulation_and_the_number_of_workers(monkeypatch):
    def groups(neurons_at_once, workers=1):
        monkeypatch.setattr(module, "_NEURONS_AT_ONCE", neurons_at_once)
        task = task_for(load(DIGITS), None)
        study = module._Study(
            as_layers(load(DIGITS), "test"),
            task,
            "generic-analog",
            10,
            None,
            SpikeOptions(**OPTIONS),
        )
        return [list(chips) for chips in study.groups(range(7, 10), workers)]

    neurons = 16 * 4 * 10
    assert groups(10**9) == [[7, 8, 9]]
    assert groups(2 * neurons) == [[7, 8], [9]]
    assert groups(1) == [[7], [8], [9]]
    assert groups(10**9, workers=2) == [[7, 8], [9]]
    assert groups(10**9, workers=9) == [[7], [8], [9]]


def test_a_record_of_other_data_is_refused(whole, tmp_path):
    """The names are the same: the hash alone tells that a figure of the profile has changed."""
    out = tmp_path / "yield.json"
    save_yield(dataclasses.replace(whole, inputs="0" * 64), out)
    asked = {"limit": 20, "seed": 3, "first_chip": 5, "chips": 3, **OPTIONS}
    with pytest.raises(InputError, match="with other data, another chip profile or another"):
        chip_yield(DIGITS, out=out, **asked)
    early = dataclasses.asdict(whole)
    del early["inputs"]
    out.write_text(json.dumps(early))
    assert chip_yield(DIGITS, out=out, **asked).chips == whole.chips


@pytest.mark.parametrize("calibration", ["none", "static", "dynamic"])
@pytest.mark.parametrize("neuron", ["lif", "dpi"])
def test_chips_calibrated_together_equal_those_calibrated_alone(rng, neuron, calibration):
    layer = LMULayer(np.ones((1, 2)), None, None, None, Memory.legendre(2, 8.0, 2), None)
    network = LMUNetwork((layer,), Readout(np.eye(4), None))
    inputs = rng.uniform(-1, 1, (6, 8, 1))
    options = {"neurons_per_state": 5, "mismatch": 0.3, "weight_bits": 6, "seed": 4}
    options |= {"membrane_noise": 0.1, "neuron": neuron, "calibration": calibration}
    shown = []
    together = spike_chips(
        network,
        inputs,
        "generic-analog",
        [9, 2, 9],
        SpikeOptions(**options),
        progress=lambda done, total: shown.append((done, total)),
    )
    for seed, chip in zip([9, 2, 9], together, strict=True):
        alone = spike(network, inputs, chip_seed=seed, **options)
        np.testing.assert_equal(dataclasses.asdict(chip), dataclasses.asdict(alone))
    assert shown == sorted(shown) and shown[-1][0] == shown[-1][1]


def test_invalid_requests_are_refused(tmp_path):
    with pytest.raises(InputError, match="chips is 0"):
        chip_yield(DIGITS, chips=0)
    with pytest.raises(InputError, match="cannot be cut"):
        chip_yield(DIGITS, steps=4)
    with pytest.raises(InputError, match="sets calibration itself"):
        module.yield_of_chips(DIGITS, SpikeOptions(calibration="static"))
    with pytest.raises(InputError, match="no chip"):
        spike_chips(load(DIGITS), np.zeros((1, 8, 8)), "generic-analog", [])
    with pytest.raises(InputError, match=r"cannot read .*absent.json"):
        chip_yield(DIGITS, add=[tmp_path / "absent.json"])


@pytest.mark.parametrize(
    "spoilt", ["[]", "{", '{"chips": [1]}', "\x00", '{"chips": [true], "values": 3}']
)
def test_files_that_are_not_records_are_refused(tmp_path, spoilt):
    path = tmp_path / "r.json"
    path.write_text(spoilt)
    with pytest.raises(InputError, match="no record of a yield study"):
        load_yield(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("chips", [0, 1]), ("values", {"none": [1.0]}), ("spikes", 3), ("ideal", "good")],
)
def test_incomplete_records_are_refused(tmp_path, name, value):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(dataclasses.asdict(record([0.5])) | {name: value}))
    with pytest.raises(InputError, match="no record of a yield study"):
        load_yield(path)


def test_the_command_prints_the_distribution(tmp_path, monkeypatch, capsys):
    out = tmp_path / "yield.json"
    arguments = f"lmu-deploy yield {DIGITS} --chips 2 --limit 5 --neurons-per-state 2 --seed 1"
    more = f"--mismatch 0.2 --calibration-samples 5 --weight-bits 6 --out {out}"
    monkeypatch.setattr(sys, "argv", [*arguments.split(), *more.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "digits, 2 chips of generic-analog, 5 samples of 8 steps, accuracy" in shown
    assert "| dynamic |" in shown and "none:" in shown
    found = load_yield(out)
    assert found.chips == [0, 1]
    assert found.settings == {
        "neurons_per_state": 2,
        "mismatch": 0.2,
        "weight_bits": 6,
        "calibration_samples": 5,
        "seed": 1,
    }
