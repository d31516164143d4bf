"""fidelity.json: valid, reproducible, and equal to independently computed figures."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.metrics import accuracy, nrmse
from lmu_deploy.fidelity import (
    Fidelity,
    Result,
    deploy_summary,
    json_schema,
    judge,
    read_excerpts,
    read_fidelity,
    write_fidelity,
)
from lmu_deploy.fidelity.measures.metric import compare, measure
from lmu_deploy.fidelity.measures.statistics import wilson
from lmu_deploy.fidelity.store import canonical_json, plain

VERSION_1 = Path(__file__).parents[1] / "fixtures" / "fidelity-version-1.json"


def test_figures_equal_an_independent_computation(digits, assembled):
    fidelity, _ = assembled(digits)
    for result in digits.results:
        run, found = result.run, fidelity.targets[result.run.target]
        samples = len(run.outputs)
        answers, theirs = digits.split.targets[:samples], digits.reference.outputs[:samples]
        assert found.samples == samples
        assert found.metric.value == accuracy(run.outputs, answers)
        assert found.reference.value == accuracy(theirs, answers)
        same = run.outputs.argmax(1) == theirs.argmax(1)
        assert found.reference.agreement == pytest.approx(same.mean())
        assert found.reference.flips == (~same).sum()
        assert found.events.total == sum(e.sum() for e in run.events.values())
        assert found.events.total == sum(found.events.by_population.values())
        assert found.events.per_step == pytest.approx(found.events.per_sample / run.steps)


def test_the_bit_identical_target_is_named(digits, assembled):
    targets = assembled(digits)[0].targets
    assert targets["integer"].equal_to is None
    assert targets["onnxruntime"].equal_to is None
    assert targets["lava"].equal_to.equal
    assert (targets["lava"].equal_to.target, targets["lava"].equal_to.samples) == ("integer", 8)


def test_memory_error_follows_the_noise(digits, assembled):
    targets = assembled(digits)[0].targets
    onnx, integer, brian2 = (
        targets[n].memory_error.overall["layer0"] for n in ("onnxruntime", "integer", "brian2")
    )
    assert onnx < integer / 100 < brian2 / 100
    worse = targets["brian2"].variants["uncalibrated"]
    assert worse.memory_error.overall["layer0"] == pytest.approx(8 * brian2, rel=0.05)
    assert worse.metric.value < targets["brian2"].metric.value


def test_regression(signal, assembled):
    fidelity, _ = assembled(signal)
    for result in signal.results:
        run, found = result.run, fidelity.targets[result.run.target]
        assert found.metric.name == "nrmse"
        assert found.metric.value == nrmse(run.outputs, signal.split.targets, 20)
        deviation = nrmse(run.outputs, signal.reference.outputs, 20)
        assert found.reference.deviation == pytest.approx(deviation, rel=1e-14)
        assert found.reference.agreement is None
        low, high = found.metric.ci95
        assert low < found.metric.value < high
        assert found.populations["layer0/memory"].by_class is None


def test_one_sample_has_no_bootstrap_interval(signal, assembled):
    results = [Result(replace(r.run, outputs=r.run.outputs[:1], events={})) for r in signal.results]
    fidelity, _ = assembled(signal, results=results)
    assert fidelity.targets["integer"].metric.ci95 is None


@pytest.mark.parametrize(
    "case",
    ["nothing recorded", "no events", "long names", "one sample", "three layers", "no targets"],
)
def test_unusual_runs_are_evaluated(case, edge_cases, assembled, tmp_path):
    fidelity, excerpts = assembled(edge_cases[case])
    write_fidelity(tmp_path, fidelity, excerpts)
    assert read_fidelity(tmp_path) == fidelity


def test_the_file_is_valid_and_is_read_back(digits, assembled, tmp_path):
    fidelity, excerpts = assembled(digits)
    path = write_fidelity(tmp_path, fidelity, excerpts)
    text = path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    raw = json.loads(text)
    assert (raw["schema"], raw["version"]) == ("lmu_deploy/fidelity", 2)
    Fidelity.model_validate(raw, strict=False)
    assert set(raw) == set(json_schema()["properties"])
    assert read_fidelity(tmp_path) == fidelity
    again = read_excerpts(tmp_path)
    assert list(again) == list(excerpts)
    for name, one in excerpts.items():
        assert (again[name].packed() == one.packed()).all()


def test_files_are_reproducible(digits, assembled, tmp_path):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_fidelity(tmp_path / name, *assembled(digits))
        contents.append([p.read_bytes() for p in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]


def numbers(value):
    """Return all numbers of JSON data in their order."""
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [] if isinstance(value, str | None) else [value]


def test_version_1_is_read_with_new_names_and_the_same_numbers(tmp_path):
    old = json.loads(VERSION_1.read_text())
    shutil.copyfile(VERSION_1, tmp_path / "fidelity.json")
    found = read_fidelity(tmp_path)
    assert (old["version"], found.version) == (1, 2)
    assert [layer.discretizer for layer in found.network.layers] == ["zoh"]
    assert '"discretizer":"zoh"' in found.network.provenance["settings"].replace(" ", "")
    integer = found.targets["integer"]
    assert integer.attribution.steps[0].source == "discretization"
    points = old["targets"]["integer"]["divergence"]["partings"]
    assert [point.variable for point in integer.divergence.points] == [
        p["variable"] for p in points
    ]
    assert found.command == old["command"]
    write_fidelity(tmp_path, found)
    new = json.loads((tmp_path / "fidelity.json").read_text())
    assert numbers({**new, "version": 1}) == numbers(old)
    assert read_fidelity(tmp_path) == found


def test_an_unknown_version_or_format_is_refused(digits, assembled, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_fidelity(tmp_path)
    path = write_fidelity(tmp_path, *assembled(digits))
    text = path.read_text()
    for wrong in (text[:-9], "[]", re.sub('"version": ?2', '"version": 3', text), "{}"):
        path.write_text(wrong)
        with pytest.raises(InputError, match=re.escape("fidelity.json")):
            read_fidelity(tmp_path)
    (tmp_path / "plots.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="corrupt"):
        read_excerpts(tmp_path)


def test_runs_that_cannot_be_evaluated_are_refused(digits):
    run, targets = digits.results[1].run, digits.split.targets
    with pytest.raises(InputError, match="only 100 can be evaluated"):
        judge(run, digits.reference, digits.task, targets[:100])
    broken = replace(run, outputs=np.full_like(run.outputs, np.nan))
    with pytest.raises(RunError, match="NaN"):
        judge(broken, digits.reference, digits.task, targets)
    empty = replace(run, outputs=run.outputs[:0], events={})
    with pytest.raises(InputError, match="at least 1"):
        judge(empty, digits.reference, digits.task, targets)


def test_a_duplicate_target_is_refused(digits, assembled):
    with pytest.raises(InputError, match="duplicate"):
        assembled(digits, results=[digits.results[0]] * 2)


def test_deploy_summary_has_the_documented_keys(digits):
    run = digits.results[1].run
    found = deploy_summary(run, digits.reference, digits.task, digits.split.targets)
    keys = "target task n_samples metric reference events synops saturations steps wall_seconds"
    assert set(f"{keys} seed versions".split()) <= set(found)
    assert set(found["metric"]) == {"name", "value", "ci95", "by_output"}
    assert {"value", "agreement"} <= set(found["reference"])
    assert set(found["events"]) == {"total", "per_sample", "per_step", "by_population"}
    assert 0.0 <= found["metric"]["value"] <= 1.0
    json.dumps(found, allow_nan=False)
    alone = deploy_summary(run, None, digits.task, digits.split.targets)
    assert alone["reference"]["value"] is None


def test_json_is_compact_and_keeps_texts():
    value = {"a": [1, 2.5, None], "b": "[\n 1,\n 2\n]", "c": [[1], [2]], "d": [], "e": ["x"]}
    text = canonical_json(value)
    assert json.loads(text) == value
    assert '"a": [1, 2.5, null]' in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([float("nan")])


def test_settings_become_plain_values():
    odd = {"a": np.float32(0.5), 2: np.arange(2), "n": float("inf"), "p": (True, {3})}
    assert plain(odd) == {"a": 0.5, "2": [0, 1], "n": None, "p": [True, "{3}"]}


def test_classes_at_every_step_count_separately(digits, rng):
    task = replace(digits.task, washout=2)
    outputs, reference = rng.normal(size=(2, 6, 9, 4))
    classes = rng.integers(0, 4, (6, 9))
    found = measure(outputs, classes, task)
    assert found.value == accuracy(outputs, classes, 2)
    right = (outputs.argmax(2) == classes)[:, 2:].sum()
    assert found.ci95 == wilson(int(right), 6 * 7)
    changed = (outputs.argmax(2) != reference.argmax(2))[:, 2:].sum()
    assert compare(outputs, reference, classes, task).flips == changed


def test_every_layer_with_a_memory_is_evaluated(edge_cases, assembled):
    fidelity, _ = assembled(edge_cases["three layers"])
    error = fidelity.targets["plugin"].memory_error
    assert {name: len(orders) for name, orders in error.by_order.items()} == {
        "layer0": 4,
        "layer2": 7,
    }
    assert [layer.kind for layer in fidelity.network.layers] == ["lmu", "lstm", "lmu"]
    states = edge_cases["three layers"].results[0].run.states.m
    truth = edge_cases["three layers"].reference.states.m
    wrong, right = (states - truth)[:, :, 8:], truth[:, :, 8:]
    expected = np.sqrt((wrong**2).sum() / (right**2).sum())
    assert error.overall["layer2"] == pytest.approx(expected)
