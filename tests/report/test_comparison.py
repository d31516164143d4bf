"""Comparison of two validations: changes with intervals, in both files."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmu_deploy.api.report import write_report
from lmu_deploy.core.errors import InputError
from lmu_deploy.fidelity import write_fidelity
from lmu_deploy.fidelity.comparison import compare_runs, difference_interval, metric_change, pair
from lmu_deploy.fidelity.measures.metric import error_sums, keep_answers, right_answers
from lmu_deploy.fidelity.measures.statistics import wilson
from lmu_deploy.fidelity.schema import Metric
from lmu_deploy.fidelity.store import read_fidelity
from lmu_deploy.report.comparison import write_comparison
from lmu_deploy.tasks.base import Task


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


def test_exchanging_the_two_only_changes_signs():
    one, other = accuracy(56, 70), accuracy(48, 80)
    low, high = difference_interval(one, other)
    assert difference_interval(other, one) == pytest.approx((-high, -low))


@pytest.fixture
def folders(digits, folder_of):
    """Two runs: the earlier one with ONNX Runtime, without lava, and with an uncalibrated chip."""
    onnx, integer, lava, brian2 = digits.results
    before = [onnx, integer, brian2.variants["uncalibrated"]]
    return folder_of(digits, results=before, command="an older <command>"), folder_of(
        digits, results=[integer, lava, brian2]
    )


def test_changes_are_in_both_files(folders):
    before, after = folders
    path = write_report(after, against=before)
    assert path.name == "report.html"
    for name in ("comparison.html", "comparison.md"):
        text = (after / name).read_text(encoding="utf-8")
        assert "brian2" in text
        assert "Only the earlier run has onnxruntime." in text
        assert "Only the later run has lava, brian2 · uncalibrated." in text
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
    assert "Command, seed, versions and hashes are the same in both runs." in page
    assert "better</p>" not in page
    assert "<table" not in page


def test_other_tasks_are_refused(digits, signal, folder_of):
    with pytest.raises(InputError, match="compare two reports of one task"):
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


def answered(right):
    """Return the recorded results of a synthetic classifier, and its metric."""
    task = Task("pairs", "classification", 1, 2, 1, load=lambda: None)
    outputs = np.stack([np.zeros(len(right)), np.asarray(right) - 0.5], axis=1)
    kept = keep_answers(outputs, np.ones(len(right), int), task)
    return kept, accuracy(int(np.sum(right)), len(right))


def test_answers_come_back_bit_by_bit(rng):
    for count in (1, 7, 8, 9, 1000):
        right = rng.random(count) < 0.7
        kept, _ = answered(right)
        assert (right_answers(kept) == right).all()
        assert error_sums(kept) is None
    assert len(kept.right) == 4 * -(-125 // 3)


def test_pairing_finds_a_change_that_independent_figures_hide():
    """20 of 1,000 answers gained and 4 lost: McNemar's p is 0.0015, and the intervals overlap."""
    was = np.arange(1000) < 900
    now = was.copy()
    now[:4], now[900:920] = False, True
    (before, old), (after, new) = answered(was), answered(now)
    found = pair(before, after)
    assert (found.lost, found.gained) == (4, 20)
    exact = 2.0 * sum(math.comb(24, k) for k in range(5)) / 2**24
    assert found.p_value == pytest.approx(exact)
    assert metric_change(old, new).outcome == "no clear change"
    assert metric_change(old, new, found).outcome == "better"
    assert metric_change(new, old, pair(after, before)).outcome == "worse"
    assert metric_change(old, old, pair(before, before)).outcome == "no clear change"


def test_signals_are_paired_sequence_by_sequence(signal, assembled):
    fidelity, _ = assembled(signal)
    small, large = (fidelity.targets[name].answers for name in ("integer", "brian2"))
    errors, norms = error_sums(small)
    outputs, targets = signal.results[0].run.outputs, signal.split.targets
    squares = ((outputs - targets)[:, 20:].astype(np.float64) ** 2).sum(axis=(1, 2))
    assert errors == pytest.approx(squares, rel=1e-6)
    assert np.sqrt(errors.sum() / norms.sum()) == pytest.approx(
        fidelity.targets["integer"].metric.value, rel=1e-6
    )
    found = pair(small, large)
    assert found.clear
    assert found.ci95[0] > 0
    assert found.p_value is None
    difference = fidelity.targets["brian2"].metric.value - fidelity.targets["integer"].metric.value
    assert found.ci95[0] < difference < found.ci95[1]


def test_unpaired_results_are_named(digits, assembled, folder_of):
    fidelity, _ = assembled(digits)
    older = fidelity.targets["integer"].model_copy(update={"answers": None})
    before = fidelity.model_copy(update={"targets": {**fidelity.targets, "integer": older}})
    paired = {p.name: p.metric.paired is not None for p in compare_runs(before, fidelity).pairs}
    assert not paired.pop("integer")
    assert all(paired.values())
    other = fidelity.model_copy(update={"hashes": {**fidelity.hashes, "inputs": "other"}})
    assert not any(p.metric.paired for p in compare_runs(other, fidelity).pairs)
    folder, elsewhere = folder_of(digits), folder_of(digits)
    write_fidelity(elsewhere, before)
    write_comparison(folder, elsewhere)
    text = (folder / "comparison.md").read_text(encoding="utf-8")
    assert "The results of integer are not paired" in text
    assert "unpaired)" in text
    assert "paired; 0 predictions lost, 0 gained" in text


def test_corrupt_answers_are_refused():
    kept, _ = answered(np.ones(9, bool))
    for spoilt in ({"right": "###"}, {"count": 99}, {"right": ""}):
        with pytest.raises(InputError, match="corrupt"):
            right_answers(kept.model_copy(update=spoilt))
