"""Acceptance limits of a pipeline, and the files that it reads: JUnit and Markdown."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from lmu_deploy.api.report import write_report
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.fidelity import write_fidelity
from lmu_deploy.fidelity.gate import Limits, check_limits
from lmu_deploy.fidelity.schema import Fit
from lmu_deploy.report.robustness_file import Robustness
from lmu_deploy.report.write import make_markdown

HOSTILE = "a|b <script>alert(1)</script>\n# heading"


@pytest.fixture(scope="module")
def fidelity(digits, assembled):
    """Figures in which brian2 is the uncalibrated chip, which loses predictions."""
    raw = digits.results[3].variants["uncalibrated"]
    return assembled(digits, results=[*digits.results[:3], raw])[0]


def test_a_limit_holds_where_the_value_meets_it_and_fails_just_beyond(fidelity):
    value = fidelity.targets["brian2"].metric.value
    for limit, passed in ((value, True), (value + 1e-9, False)):
        checks = {c.target: c.passed for c in check_limits(fidelity, Limits(below=limit))}
        assert checks["brian2"] is passed
        assert list(checks) == list(fidelity.targets)


def test_loss_is_counted_from_float_on_the_same_samples(fidelity):
    found = fidelity.targets["brian2"]
    lost = found.reference.value - found.metric.value
    assert lost > 0
    for limit, passed in ((lost + 1e-9, True), (lost - 1e-9, False)):
        checks = {c.target: c.passed for c in check_limits(fidelity, Limits(loss=limit))}
        assert checks["brian2"] is passed
        assert checks["onnxruntime"]


def test_a_regression_has_limits_from_above_and_in_shares_of_floats_error(signal, assembled):
    fidelity = assembled(signal)[0]
    found = fidelity.targets["brian2"]
    rise = found.metric.value / found.reference.value - 1.0
    assert rise > 0
    limits = Limits(above=found.metric.value, loss=rise + 1e-9)
    assert all(c.passed for c in check_limits(fidelity, limits) if c.target == "brian2")
    limits = Limits(above=found.metric.value - 1e-9, loss=rise - 1e-9)
    assert not any(c.passed for c in check_limits(fidelity, limits) if c.target == "brian2")


@pytest.mark.parametrize(
    "limits", [{"below": 1.5}, {"below": -0.1}, {"above": -1.0}, {"loss": float("nan")}]
)
def test_limits_out_of_range_are_named(limits):
    with pytest.raises(InputError, match=r"must be 0"):
        Limits(**limits)


def test_a_limit_of_the_other_metric_names_the_right_one(fidelity, signal, assembled):
    with pytest.raises(InputError, match="--fail-below"):
        check_limits(fidelity, Limits(above=0.1))
    with pytest.raises(InputError, match="--fail-above"):
        check_limits(assembled(signal)[0], Limits(below=0.9))


def test_a_failed_limit_still_writes_reports_and_junit(folder_of, edge_cases, tmp_path):
    folder = folder_of(edge_cases["nothing recorded"])
    out = tmp_path / "fidelity.xml"
    with pytest.raises(RunError, match=r"integer: accuracy 0\.\d+, at least 1 required"):
        write_report(folder, fail_below=1.0, max_loss=1.0, junit=out)
    assert (folder / "report.html").is_file()
    assert (folder / "report.md").is_file()
    suite = ElementTree.fromstring(out.read_text(encoding="utf-8"))
    cases = {(c.get("classname"), c.get("name")): c.find("failure") for c in suite}
    assert int(suite.get("tests")) == len(cases) == 2
    assert int(suite.get("failures")) == sum(f is not None for f in cases.values())
    assert cases["digits.integer", "accuracy"] is not None
    assert cases["digits.integer", "loss"] is None


def test_limits_that_hold_give_the_report(folder_of, edge_cases, tmp_path):
    folder = folder_of(edge_cases["nothing recorded"])
    assert write_report(folder, max_loss=1.0, junit=tmp_path / "f.xml") == folder / "report.html"


def test_junit_without_limits_is_refused(folder_of, digits, tmp_path):
    with pytest.raises(InputError, match="--junit"):
        write_report(folder_of(digits), junit=tmp_path / "fidelity.xml")


def misfit(fidelity, name, violations):
    """Return the figures with one target for a chip that it fits or not."""
    fit = Fit(profile="loihi2", title="Loihi 2", violations=violations)
    found = fidelity.targets[name].model_copy(update={"fit": fit})
    return fidelity.model_copy(update={"targets": {**fidelity.targets, name: found}})


def test_a_violation_fails_the_check_with_its_reason(fidelity):
    limits = Limits(fit=True)
    passed = check_limits(misfit(fidelity, "integer", []), limits)
    assert [(c.target, c.name, c.passed) for c in passed] == [("integer", "fit", True)]
    (failed,) = check_limits(misfit(fidelity, "integer", ["too wide.", "too deep."]), limits)
    assert not failed.passed
    assert failed.sentence == (
        "integer: does not fit Loihi 2 (profile loihi2): too wide, and 1 more"
    )
    with pytest.raises(InputError, match="no target of this report"):
        check_limits(fidelity, limits)


def test_a_violation_fails_the_command_and_is_in_junit(digits, assembled, tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    fidelity = assembled(digits, results=[digits.results[2]])[0]
    write_fidelity(folder, misfit(fidelity, "lava", ["too many synapses."]))
    out = tmp_path / "fidelity.xml"
    with pytest.raises(RunError, match="lava: does not fit Loihi 2"):
        write_report(folder, must_fit=True, junit=out)
    (case,) = ElementTree.fromstring(out.read_text(encoding="utf-8"))
    assert (case.get("classname"), case.get("name")) == ("digits.lava", "fit")
    assert "too many synapses" in case.find("failure").get("message")


def test_markdown_has_each_target_and_escapes_names(folder_of, digits):
    run = replace(digits.results[1].run, target=HOSTILE)
    odd = SimpleNamespace(**{**vars(digits), "results": [replace(digits.results[1], run=run)]})
    write_report(folder := folder_of(odd, command=f"lmu-deploy validate `{HOSTILE}`"))
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\n# heading" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4  # heads, rule, float, the one target
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_markdown_of_every_case_has_one_sentence_a_target(cases, assembled):
    for case in cases.values():
        text = make_markdown(assembled(case)[0], Robustness())
        variants = sum(1 + len(r.variants) for r in case.results)
        assert sum(line.startswith("- ") for line in text.splitlines()) == variants
