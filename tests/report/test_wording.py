"""Formatting of numbers and findings in a report."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmu_deploy.fidelity import schema
from lmu_deploy.fidelity.measures.metric import measure
from lmu_deploy.fidelity.schema import Equality, Specification
from lmu_deploy.report import tables
from lmu_deploy.report.view import pairs, parse_settings
from lmu_deploy.report.wording import (
    count,
    equality,
    metric_difference,
    metric_value,
    seconds,
    sentence,
    significant,
    size,
    verdict,
)
from lmu_deploy.tasks.base import Task


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.05342, "0.0534"),
        (0.1, "0.100"),
        (1.0, "1.00"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (0.9999, "1.00"),
        (3.94e-7, "3.9·10⁻⁷"),
        (-0.25, "\u22120.250"),
    ],
)
def test_significant(value, text):
    assert significant(value) == text


@given(st.floats(1e-4, 1e3))
def test_significant_keeps_three_digits(value):
    assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_units_and_signs():
    assert metric_value("accuracy", 0.9721) == "97.21\u202f%"
    assert metric_difference("accuracy", -0.0051) == "\u22120.51 points"
    assert metric_difference("accuracy", 0.0001) == "+0.01 points"
    assert metric_difference("accuracy", -0.00001) == "0.00 points"
    assert metric_difference("nrmse", 0.00333) == "+0.0033"
    assert metric_difference("nrmse", 0.0) == "0"
    assert [count(v) for v in (0, 12, 12.3456, 999_999, 1234.5, 2.5e6)] == [
        "0", "12", "12.3", "999,999", "1,234", "2.50\u202fM",
    ]  # fmt: skip
    assert [size(v) for v in (12, 8900, 2_500_000)] == ["12\u202fB", "8.9\u202fkB", "2.5\u202fMB"]
    assert [seconds(v) for v in (0.25, 21.04, 600)] == [
        "250\u202fms",
        "21.0\u202fs",
        "10.0\u202fmin",
    ]


def _changed(found, **changes):
    return found.model_copy(update={"reference": found.reference.model_copy(update=changes)})


def test_verdicts_follow_the_tests(digits, signal, assembled):
    found = assembled(digits)[0].targets["brian2"]
    few = _changed(found, flips=9, lost=6, gained=3, difference=-0.015, p_value=0.5,
                   difference_ci90=(-0.04, 0.01), needed=4321)  # fmt: skip
    assert verdict(few) == ("undecided within 1 point: needs 4,321 samples or more", "unknown")
    assert (
        "9 predictions differ from float (6 lost, 3 gained; McNemar's test: p\u202f=\u202f0.50)"
        in sentence("brian2", few)
    )
    for interval, words, tone in (
        ((-0.009, 0.009), "equivalent to float within 1 point", "same"),
        ((-0.011, 0.009), "undecided within 1 point: the difference is at the margin", "unknown"),
        ((-0.06, -0.011), "worse than float by more than 1 point", "worse"),
        ((0.011, 0.06), "better than float by more than 1 point", "better"),
        (None, "undecided within 1 point: no interval", "unknown"),
    ):
        shown = verdict(_changed(found, difference_ci90=interval, needed=None))
        assert shown[0].startswith(words)
        assert shown[1] == tone
    old = _changed(found, flips=0, lost=0, gained=0, difference_ci90=None, margin=None)
    assert verdict(old.model_copy(update={"samples": 267}))[1] == "unknown"
    assert verdict(old.model_copy(update={"samples": 268}))[1] == "same"
    assert verdict(found.model_copy(update={"reference": None}))[1] == "unknown"
    found = assembled(signal)[0].targets["brian2"]
    assert verdict(found)[1] == "worse"
    limit = 0.02 * found.reference.value
    for low, high, tone in (
        (-0.99, 0.99, "same"), (-2, 2, "unknown"), (-3, -1.01, "better"), (1.01, 3, "worse"),
    ):  # fmt: skip
        changed = _changed(found, difference_ci90=(low * limit, high * limit))
        assert verdict(changed)[1] == tone


def test_a_target_that_differs_from_the_specification_never_has_a_tick(digits, assembled):
    found = _changed(assembled(digits)[0].targets["brian2"], difference_ci90=(-0.001, 0.001))
    assert verdict(found)[1] == "same"
    counted = {"samples": 8, "values": 100, "replayed": 8, "predicted": 100}
    for different, residuals in ((1, 0), (0, 1)):
        wrong = Specification(**counted, different=different, residuals=residuals)
        words, tone = verdict(found.model_copy(update={"specification": wrong}))
        assert words == ("differs from the specification; equivalent to float within 1 point")
        assert tone == "worse"
    right = Specification(**counted, different=0, residuals=0)
    assert verdict(found.model_copy(update={"specification": right}))[1] == "same"


def test_equality_in_words():
    shared = {"target": "integer", "samples": 8, "steps": 1, "values": 1440}
    equal = equality(Equality(**shared, equal=True, different=0, first=""))
    assert equal == (
        "The results are bit-identical to integer in all 1,440 recorded integers "
        "(8 samples, 1 step)."
    )
    differs = Equality(**shared, equal=False, different=2, first="m[3] at step 0 of sample 1")
    assert "2 of 1,440" in equality(differs)
    assert "m[3] at step 0 of sample 1" in equality(differs)
    parts = {"compared": ["m", "h", "y"], "on_host": []}
    text = equality(Equality(**shared, equal=True, different=0, first="", **parts))
    assert text.endswith("1,440 recorded integers (8 samples, 1 step; m, h and y).")
    parts = {"compared": ["m"], "on_host": ["h (3 of 8 columns)", "y"]}
    text = equality(Equality(**shared, equal=True, different=0, first="", **parts))
    assert "(8 samples, 1 step; m). The host computes h (3 of 8 columns) and y in floats" in text


def test_nested_settings_are_flattened():
    settings = {"a": 1, "b": {"c": 0.123456, "d": [1, 2]}, "e": [{"f": None}], "g": "x", "h": 50.0}
    settings |= {"i": True, "j": 5262.0}
    assert pairs(settings) == [
        ("a", "1"), ("b.c", "0.123"), ("b.d", "1 2"), ("e.0.f", "none"), ("g", "x"), ("h", "50"),
        ("i", "yes"), ("j", "5262"),
    ]  # fmt: skip
    assert parse_settings('{"a": {"b": 2}}') == [("a.b", "2")]
    for text in ("plain", "[1, 2]", '{"a": ', "3"):
        assert parse_settings(text) == text


def test_the_worst_of_several_outputs_is_named(signal, assembled):
    """A small output that is all wrong hardly changes the NRMSE of both."""
    rng = np.random.default_rng(3)
    wanted = rng.normal(size=(9, 20, 3)) * [100.0, 1.0, 0.0]
    found = wanted + np.array([1.0, 1.0, 0.0])
    task = Task("two", "regression", 1, 3, 20, load=lambda: None, every_step=True)
    metric = measure(found, wanted, task)
    alone = [np.linalg.norm(np.ones(180)) / np.linalg.norm(wanted[..., k]) for k in range(2)]
    assert metric.by_output == [pytest.approx(alone[0]), pytest.approx(alone[1]), None]
    assert metric.value < 0.05 < alone[1]
    target = next(iter(assembled(signal)[0].targets.values()))
    said = sentence("chip", target.model_copy(update={"metric": metric}))
    assert f"worst of its 3 outputs is output 1 with an NRMSE of {significant(alone[1])}" in said
    assert said.endswith(f"their mean is {significant(sum(alone) / 2)}.")
    alone = metric.model_copy(update={"by_output": None})
    assert "worst" not in sentence("chip", target.model_copy(update={"metric": alone}))


@pytest.mark.parametrize(
    ("changes", "answer", "cell"),
    [
        ({}, "Yes: every target satisfies all of these.", "fits"),
        ({"fit": ("too many neurons",)}, "No: see integer.", "exceeds 1 limit"),
        ({"different": 3}, "No: see integer.", "differs"),
        ({"damage": ["A row is missing."]}, "No: see integer.", "file damaged"),
        ({"ci90": (-0.2, 0.1)}, "Not decided: see integer.", "equal"),
    ],
)
def test_the_first_screen_answers_whether_a_network_can_be_shipped(
    assembled, digits, changes, answer, cell
):
    fidelity, _ = assembled(digits)
    found = next(iter(fidelity.targets.values()))
    specification = schema.Specification(
        samples=1,
        values=9,
        different=changes.get("different", 0),
        replayed=1,
        predicted=9,
        residuals=0,
    )
    against = found.reference.model_copy(
        update={"difference_ci90": changes.get("ci90", (-0.001, 0.001)), "margin": 0.01}
    )
    fit = schema.Fit(profile="x", title="X", violations=list(changes.get("fit", ())))
    update = {"specification": specification, "fit": fit, "reference": against}
    found = found.model_copy(update=update | {"damage": changes.get("damage", [])})
    ship = tables.shipping(fidelity.model_copy(update={"targets": {"integer": found}}))
    assert ship.answer == answer
    assert cell in ship.table.rows[0]
    assert tables.shipping(fidelity.model_copy(update={"targets": {}})) is None


@pytest.mark.parametrize(
    ("equal", "answer"),
    [(True, "Yes: every target satisfies all of these."), (False, "Not decided: see lava.")],
)
def test_a_target_of_few_samples_counts_as_what_it_is_bit_identical_to(
    assembled, digits, equal, answer
):
    fidelity, _ = assembled(digits)
    found = next(iter(fidelity.targets.values()))

    def target(interval, **update):
        limits = {"difference_ci90": interval, "margin": 0.01}
        against = found.reference.model_copy(update=limits)
        none = {"specification": None, "fit": None, "damage": []}
        return found.model_copy(update=none | {"reference": against} | update)

    same = schema.Equality(
        target="integer", samples=8, steps=8, values=9, equal=equal, different=0, first=""
    )
    targets = {
        "integer": target((-0.001, 0.001)),
        "lava": target((-0.3, 0.1), equal_to=same),
    }
    ship = tables.shipping(fidelity.model_copy(update={"targets": targets}))
    assert ship.answer == answer
    assert ("bit-identical to integer" in ship.table.rows[1][1]) == equal
