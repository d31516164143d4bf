"""Two validations compared: what changed, how surely, and in both files."""

from __future__ import annotations

import pytest

from lmu_deploy.commands.report import report
from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.against import compare_runs, difference_interval, metric_change
from lmu_deploy.fidelity.intervals import wilson
from lmu_deploy.fidelity.schema import Metric
from lmu_deploy.fidelity.store import read_fidelity
from lmu_deploy.reporting.against import write_comparison


def accuracy(right, samples):
    return Metric(name="accuracy", value=right / samples, ci95=wilson(right, samples))


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_interval_is_newcombes(one, other, low, high):
    """Cases (a), (b), (d) and (h) of his Table II, method 10."""
    found = difference_interval(accuracy(*one), accuracy(*other))
    assert found == pytest.approx((low, high), abs=5e-5)


def test_better_means_more_accuracy_and_less_error():
    low, high = accuracy(600, 1000), accuracy(700, 1000)
    assert metric_change(low, high).outcome == "better"
    assert metric_change(high, low).outcome == "worse"
    assert metric_change(low, accuracy(610, 1000)).outcome == "no clear change"
    small = Metric(name="nrmse", value=0.1, ci95=(0.09, 0.11))
    large = Metric(name="nrmse", value=0.2, ci95=(0.19, 0.21))
    assert metric_change(large, small).outcome == "better"
    assert metric_change(small, large).outcome == "worse"
    alone = Metric(name="nrmse", value=0.3, ci95=None)
    assert metric_change(small, alone).ci95 is None
    assert metric_change(small, alone).outcome == "no clear change"


def test_the_order_of_the_two_only_turns_signs():
    one, other = accuracy(56, 70), accuracy(48, 80)
    low, high = difference_interval(one, other)
    assert difference_interval(other, one) == pytest.approx((-high, -low))


@pytest.fixture
def folders(digits, folder_of):
    """Before, brian2 was the uncalibrated chip, there was no lava, and ONNX Runtime ran."""
    onnx, integer, lava, brian2 = digits.results
    before = [onnx, integer, brian2.variants["uncalibrated"]]
    return folder_of(digits, results=before, command="an older <command>"), folder_of(
        digits, results=[integer, lava, brian2]
    )


def test_what_changed_is_said_in_both_files(folders):
    before, after = folders
    path = report(after, against=before)
    assert path.name == "report.html"
    for name in ("comparison.html", "comparison.md"):
        text = (after / name).read_text(encoding="utf-8")
        assert "brian2" in text
        assert "No longer run: onnxruntime." in text
        assert "Run for the first time: lava, brian2 · uncalibrated." in text
        assert "an older &lt;command&gt;" in text
        assert "an older <command>" not in text
        assert "better" in text
        assert "unchanged" in text
    assert not (before / "comparison.html").exists()


def test_outcomes_are_those_of_the_figures(folders):
    before, after = (read_fidelity(folder) for folder in folders)
    found = compare_runs(before, after)
    outcomes = {pair.name: pair.metric for pair in found.pairs}
    assert list(outcomes) == ["integer", "brian2"]
    assert outcomes["integer"].difference == 0
    assert outcomes["brian2"].outcome == "better"
    assert outcomes["brian2"].difference == pytest.approx(
        after.targets["brian2"].metric.value - before.targets["brian2"].metric.value
    )
    assert found.same_samples
    assert set(found.provenance) == {"command"}


def test_a_run_against_itself_has_not_changed(digits, folder_of):
    folder = folder_of(digits)
    page = write_comparison(folder, folder).read_text(encoding="utf-8")
    assert "Command, seed, versions and hashes are the same." in page
    assert "better</p>" not in page
    assert "<table" not in page


def test_other_tasks_are_refused(digits, signal, folder_of):
    with pytest.raises(InputError, match="compare two of one task"):
        write_comparison(folder_of(digits), folder_of(signal))


def test_settings_and_samples_that_differ_are_named(digits, assembled):
    before, _ = assembled(digits)
    found = before.targets["brian2"]
    changed = found.model_copy(update={"settings": {**found.settings, "mismatch": 0.2}})
    hashes = {**before.hashes, "inputs": "other"}
    after = before.model_copy(
        update={"targets": {**before.targets, "brian2": changed}, "hashes": hashes}
    )
    comparison = compare_runs(before, after)
    settings = {pair.name: pair.settings for pair in comparison.pairs}
    assert settings["brian2"] == {"mismatch": ("0.1", "0.2")}
    assert settings["integer"] == {}
    assert not comparison.same_samples
