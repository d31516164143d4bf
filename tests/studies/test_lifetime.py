"""Lifetime of chips: schedules, records, and that calibration brings back what drift takes."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import lmu_deploy as ld
from converters.options import SpikeOptions
from lmu_deploy.cli import main
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.hardware.profile import Figure, load_profile
from lmu_deploy.studies.chip_yield import yield_of_chips
from lmu_deploy.studies.life_record import Lifetime, Schedule, parse_age, parse_temperatures
from lmu_deploy.studies.lifetime import lifetime_of_chips
from tests.converters.spiking.test_spiking_graph import QUICK, two_blocks

DIGITS = Path(__file__).parents[2] / "examples" / "models" / "digits.safetensors"
OPTIONS = SpikeOptions(neurons_per_state=8, mismatch=0.2, calibration_samples=20)


def strong(**values):
    """Return the generic profile with other figures of drift."""
    chip = load_profile("generic-analog")
    changed = {n: Figure(value=v, source="planted here") for n, v in values.items()}
    return chip.model_copy(update={"drift": chip.drift.model_copy(update=changed)})


STRONG = strong(gain_drift=0.6, bias_drift=0.6, drift_time=20.0)


def judged(recalibrate, profile=STRONG, **changes):
    chosen = {"ages": ["60d"], "chips": 2, "limit": 24, "search": False, **changes}
    return lifetime_of_chips(DIGITS, OPTIONS, recalibrate=recalibrate, profile=profile, **chosen)


@pytest.fixture(scope="module")
def never():
    return judged("never")


MANY = {"chips": 4, "limit": 48}
"""What a readout alone brings back differs from chip to chip, from a fifth to nearly all."""


@pytest.fixture(scope="module")
def never_of_many():
    return judged("never", **MANY)


@pytest.mark.parametrize(("when", "method"), [("30d", "full"), ("20d", "readout")])
def test_recalibration_restores_accuracy_after_drift(never_of_many, when, method):
    never, again = never_of_many, judged(when, recalibration=method, **MANY)
    assert again.new == never.new
    assert np.mean(never.points[0]["values"]) < np.mean(never.new) - 0.1
    gained = np.mean(again.points[0]["values"]) - np.mean(never.points[0]["values"])
    assert gained > 0.4 * (np.mean(never.new) - np.mean(never.points[0]["values"]))
    assert never.recalibrations == (0,) * 4
    assert again.recalibrations == ((2,) * 4 if method == "full" else (3,) * 4)
    assert again.schedule == ("30d" if method == "full" else "20d, readout only")


def test_on_error_calibrates_only_chips_that_have_become_worse(never):
    worse = judged("on-error", keep=3.0)
    assert worse.recalibrations == (1, 1)
    assert np.mean(worse.points[0]["values"]) > np.mean(never.points[0]["values"])
    still = strong(gain_drift=0.0, bias_drift=0.0, tau_drift=0.0, dead_rate=0.0, stuck_rate=0.0)
    calm = judged("on-error", still, keep=5.0)
    assert calm.recalibrations == (0, 0)
    assert calm.points[0]["values"] == list(calm.new)


def test_the_fewest_calibrations_are_searched(monkeypatch):
    monkeypatch.setattr("lmu_deploy.studies.lifetime.INTERVALS", (30, 1))
    found = judged("never", search=True, keep=4.0, chips=1)
    assert [every for every, _ in found.kept_by["tried"]] == [0.0, 30.0, 1.0]
    losses = [lost for _, lost in found.kept_by["tried"]]
    assert losses[0] > 4.0 and losses[0] > losses[2]
    assert found.kept_by["every"] in (1, None)
    assert ("every 1 days keep" if losses[2] <= 4.0 else "Not even daily") in found.verdict()
    assert judged("never", search=True, keep=100.0, chips=1).kept_by["every"] == 0


def test_times_and_schedules_are_read():
    assert [parse_age(text) for text in ("0d", "30d", "2w", "1y")] == [0, 30, 14, 365]
    assert str(Schedule.parse("2w")) == "14d" and str(Schedule.parse("never")) == "never"
    assert [Schedule.parse("30d").last(day) for day in (1, 30, 365)] == [0, 30, 360]
    assert Schedule.parse("never").last(365) == 0
    assert parse_temperatures("0,25,60") == [0.0, 25.0, 60.0]
    for text in ("", "d", "3", "1.5d", "-1d", "999999d", "two weeks"):
        with pytest.raises(InputError, match="is no time"):
            parse_age(text)
    with pytest.raises(InputError, match="time in days is 0"):
        Schedule.parse("0d")
    with pytest.raises(InputError, match="recalibration is 'half'"):
        Schedule.parse("30d", "half")
    with pytest.raises(InputError, match="with commas between"):
        parse_temperatures("0;25")


def record(metric, new, values):
    points = ({"age": 30, "temperature": 60.0, "values": values},)
    drift = {"reference_temperature": 25.0}
    return Lifetime(
        "f", "t", metric, "p", 9, {}, drift, 0.5, (0, 1), tuple(new), "never", 2.0, points, (0, 0)
    )


@pytest.mark.parametrize("metric", ["accuracy", "nrmse"])
def test_figures_over_chips_are_those_of_a_chip(metric):
    """One broken chip of twenty changes only what all chips reach."""
    rng = np.random.default_rng(4)
    new = rng.uniform(0.9, 1.0, 20)
    old = new - 0.01 if metric == "accuracy" else new + 0.01
    old[7] = 0.3 if metric == "accuracy" else 5.0
    found = Lifetime(
        **{"network": "", "task": "digits", "profile": "generic-analog", "samples": 100},
        **{"settings": {}, "drift": {}, "reference": 0.9, "schedule": "never", "keep": 2.0},
        **{"points": (), "recalibrations": (0,) * 20, "inputs": ""},
        metric=metric,
        chips=tuple(range(20)),
        new=tuple(new),
    ).with_trial(30, {chip: [float(old[chip])] for chip in range(20)})
    losses = found.losses(old)
    assert found.lost_at(30) in losses
    assert np.count_nonzero(losses <= found.lost_at(30)) == 19
    assert found.lost_at(30) < 2.0 < found.lost_at(30, 1.0) == losses[7]
    reached = found.reached_by(old, 0.95)
    assert reached in old and reached != old[7]


def test_losses_are_points_of_accuracy_or_percent_of_an_error():
    assert record("accuracy", (0.9, 0.8), [0.85, 0.85]).losses([0.85, 0.85]) == pytest.approx(
        [5.0, -5.0]
    )
    found = record("nrmse", (0.1, 0.2), [0.11, 0.2])
    assert found.losses([0.11, 0.2]) == pytest.approx([10.0, 0.0])
    assert "| 30d | 60 °C | 0.2000 |" in found.table() and "| 1 of 2 |" in found.table()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ages": []}, "there is no age"),
        ({"ages": ["5"]}, "is no time"),
        ({"recalibrate": "always"}, "is no time"),
        ({"keep": -1.0}, "keep is -1"),
        (
            {"profile": load_profile("dynapse2").model_copy(update={"drift": None})},
            "no section drift",
        ),
        ({"out": "/nowhere/life.json"}, "no such folder"),
    ],
)
def test_wrong_requests_are_refused_before_any_work(changes, message):
    chosen = {"ages": ["1d"], "recalibrate": "never", "chips": 1, **changes}
    with pytest.raises(InputError, match=message):
        lifetime_of_chips(DIGITS, OPTIONS, **chosen)
    with pytest.raises(InputError, match="hidden units on the host"):
        lifetime_of_chips(DIGITS, OPTIONS.replace(units="chip"), ages=["1d"])


def test_the_command_writes_a_record_and_a_plot(tmp_path, capsys, monkeypatch):
    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["lmu-deploy", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0

    out, plot = tmp_path / "life.json", tmp_path / "life.svg"
    call = ["yield", str(DIGITS), "--chips", "1", "--limit", "10", "--neurons-per-state", "4"]
    aging = ["--age", "1d,2w", "--temperature", "25,60", "--recalibrate", "on-error"]
    files = ["--calibration-samples", "10", "--out", str(out), "--plot", str(plot)]
    assert called(*call, *aging, *files) == 0
    told = capsys.readouterr().out
    assert "recalibration on-error" in told and "| 14d | 60 °C |" in told
    read = json.loads(out.read_text())
    assert [(p["age"], p["temperature"]) for p in read["points"]] == [
        (1, 25.0), (1, 60.0), (14, 25.0), (14, 60.0),
    ]  # fmt: skip
    assert dataclasses.asdict(Lifetime(**read))["metric"] == "accuracy"
    svg = ElementTree.parse(plot).getroot()
    assert len(svg.findall(".//{*}polyline")) == 4
    assert called(*call, *aging, "--steps", "3") == 2
    assert "cannot be combined with --age" in capsys.readouterr().err


def test_a_graph_ages_and_is_calibrated_again():
    """At age 0 it is the chip of a yield study; a later calibration is that of the aged chip."""
    network = two_blocks()
    inputs = np.random.default_rng(1).normal(size=(90, 6, 3)) * 0.7
    outputs = run(network, inputs)
    data = ld.Dataset(inputs[:80], outputs[:80], inputs[80:], outputs[80:])
    options = SpikeOptions(units="chip", mismatch=0.2, seed=1, **QUICK)
    asked = {"ages": ["30d"], "task": data, "chips": 3, "first_chip": 3, "search": False}
    found = {
        when: lifetime_of_chips(network, options, profile=STRONG, recalibrate=when, **asked)
        for when in ("never", "30d")
    }
    new = yield_of_chips(network, options, task=data, chips=3, first_chip=3)
    assert found["never"].new == found["30d"].new == tuple(new.values["dynamic"])
    old, again = (np.array(found[when].points[0]["values"]) for when in ("never", "30d"))
    assert found["30d"].recalibrations == (1, 1, 1)
    assert again.mean() < 0.6 * old.mean()
    assert np.all(again < old) and np.all(again < 2.0 * np.array(new.values["dynamic"]))
    with pytest.raises(InputError, match="cannot be calibrated alone"):
        lifetime_of_chips(
            network, options, recalibrate="30d", recalibration="readout", ages=["30d"], task=data
        )
