"""Shapley values: parts add up, may be negative, and what is not reproduced is unexplained."""

from __future__ import annotations

import dataclasses
import re
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.options import QuantizeOptions
from converters.spiking import spike
from lmu_deploy.api.quantize import quantize
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity.attribution import attribute
from lmu_deploy.fidelity.attribution.chips import Chips
from lmu_deploy.fidelity.attribution.remedies import _beyond_chance, with_remedies
from lmu_deploy.fidelity.attribution.shapley import in_stages, parts_of, shapley
from lmu_deploy.fidelity.attribution.spiking import attribute_spiking
from lmu_deploy.fidelity.measures.entries import attribution_entry
from lmu_deploy.fidelity.schema import TargetFidelity
from lmu_deploy.report.losses import first_cause, fixes, uncertain
from lmu_deploy.report.losses import shapley as table
from lmu_deploy.tasks.base import Task, get_task

NAMES = ("a", "b", "c", "d")


def game(seed, samples=6):
    """Return a random value of every subset, zero for the empty one."""
    rng, values = np.random.default_rng(seed), {}

    def value(subsets):
        for subset in sorted(subsets, key=lambda s: (len(s), sorted(s))):
            if subset not in values:
                values[subset] = rng.random(samples) * len(subset)
        return {subset: values[subset] for subset in subsets}

    value([frozenset(s) for n in range(5) for s in permutations(NAMES, n)])
    return value


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6))
def test_parts_are_the_mean_over_all_orders_and_add_up(seed):
    value = game(seed)
    found = shapley(value, NAMES, 16)
    assert found.orders is None
    whole = value([frozenset(NAMES)])[frozenset(NAMES)]
    expected = dict.fromkeys(NAMES, 0.0)
    for order in permutations(NAMES):
        for n, name in enumerate(order):
            before, after = frozenset(order[:n]), frozenset(order[: n + 1])
            values = value([before, after])
            expected[name] += (values[after] - values[before]).sum() / whole.sum() / 24
    for part in found.parts:
        assert part.share == pytest.approx(expected[part.source])
        assert part.low <= part.share <= part.high
    assert sum(part.share for part in found.parts) == pytest.approx(1.0)


def test_drawn_orders_add_up_and_come_close():
    value = game(1)
    exact = {p.source: p.share for p in shapley(value, NAMES, 16).parts}
    few = shapley(value, NAMES, 15)
    assert few.orders == 3 or few.orders == 2
    assert sum(part.share for part in few.parts) == pytest.approx(1.0)
    many = shapley(value, tuple(NAMES), 15)
    assert {p.source for p in many.parts} == set(exact)


def test_a_source_that_compensates_another_is_negative():
    def value(subsets):
        return {s: np.full(3, 4.0 * ("a" in s) - 1.0 * ("b" in s and "a" in s)) for s in subsets}

    parts = {p.source: p.share for p in shapley(value, ("a", "b"), 4).parts}
    assert parts == pytest.approx({"a": 3.5 / 3.0, "b": -0.5 / 3.0})
    assert shapley(lambda s: {k: np.zeros(2) for k in s}, ("a",), 4) is None


@pytest.fixture(scope="module")
def explained():
    split, task = get_task("digits").load().test, get_task("digits")
    network = quantize("examples/models/digits.safetensors")
    return attribute(network, split.inputs[:8], split.targets[:8], task, budget=5.0)


def test_the_parts_of_a_network_add_up_to_its_error(explained):
    assert sum(part.share for part in explained.parts.parts) == pytest.approx(1.0)
    present = {step.source for step in explained.steps if step.places}
    assert {part.source for part in explained.parts.parts} == present
    entry = attribution_entry(explained, explained.whole.output)
    assert entry.unexplained == 0.0
    (shown,) = table(entry)
    assert shown.rows[0][0] == "unexplained"


def test_what_the_simulation_does_not_reproduce_is_unexplained_and_has_no_cause(
    explained, digits, assembled
):
    entry = attribution_entry(explained, 10.0 * explained.whole.output)
    assert entry.unexplained == pytest.approx(0.99)
    target = assembled(digits)[0].targets["brian2"]
    found: TargetFidelity = target.model_copy(update={"attribution": entry})
    assert "something other than the operations of the network" in first_cause(found)
    assert "largest cause" not in first_cause(found)
    same = target.model_copy(
        update={"attribution": attribution_entry(explained, explained.whole.output)}
    )
    assert "largest cause" in first_cause(same)
    (shown,) = table(entry)
    assert shown.rows[0][1].startswith("99.0")
    assert sum(0.01 * part for part, *_ in entry.parts.values()) == pytest.approx(0.01)


def test_a_change_that_helps_by_chance_is_no_remedy():
    """It removes half of the error of the samples that chose it, and none of the others."""
    rng = np.random.default_rng(0)
    before, fresh = rng.chisquare(3, 32), np.arange(32) >= 16
    for ratio, helps in ((0.5, True), (1.0, False), (0.97, False)):
        after = before * np.where(fresh, ratio, 0.5)
        assert _beyond_chance(before, after, fresh) == helps
    scattered = before * np.where(np.arange(32) % 2 == 0, 0.1, 1.2)
    assert scattered[fresh].sum() < 0.9 * before[fresh].sum()
    assert not _beyond_chance(before, scattered, fresh)


def test_remedies_are_tried_and_only_those_that_help_are_listed(explained):
    split = get_task("digits").load()
    network = quantize("examples/models/digits.safetensors")
    calibration = split.train.inputs[:64]
    coarse = quantize("examples/models/digits.safetensors", hidden_bits=6)
    sources = attribute(coarse, split.test.inputs[:8], split.test.targets[:8], get_task("digits"))
    options = QuantizeOptions(hidden_bits=6)
    found = with_remedies(sources, coarse, split.test.inputs, calibration, options).remedies
    assert 1 <= len(found) <= 3
    for text in found.values():
        before, after = (
            float(t) for t in re.findall(r"output error (\S+) to ([0-9.e-]+)", text)[0]
        )
        assert after**2 <= 0.9 * before**2
        assert "bytes" in text and "--" in text
    assert all("on 64 other samples" in text for text in found.values())
    none = dataclasses.replace(explained, causes=())
    assert with_remedies(none, network, split.test.inputs, calibration).remedies == {}
    few = with_remedies(sources, coarse, split.test.inputs[:8], calibration, options).remedies
    assert few == {}  # nothing is left to confirm a change
    entry = attribution_entry(dataclasses.replace(sources, remedies=found))
    assert entry.remedies == found == fixes(entry)
    untried = fixes(attribution_entry(sources))
    assert all(words.startswith("not tried: ") for words in untried.values())


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6))
def test_parts_in_stages_are_the_mean_over_all_orders_that_keep_to_them(seed):
    value, stages = game(seed), [["a"], ["b", "c"], ["d"]]
    found, expected = in_stages(value, stages), dict.fromkeys(NAMES, 0.0)
    orders = [order for order in permutations(NAMES) if order[0] == "a" and order[3] == "d"]
    for order in orders:
        for n, name in enumerate(order):
            before, after = frozenset(order[:n]), frozenset(order[: n + 1])
            values = value([before, after])
            expected[name] = expected[name] + (values[after] - values[before]) / len(orders)
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name])


def test_parts_that_cannot_be_distinguished_or_may_be_zero_are_reported():
    """Mean parts differ, but by less than they vary; one is far below; one varies around zero."""
    gains = {
        "a": np.array([5.0, 1.0, 4.0, 3.0, 6.0]),
        "b": np.array([2.0, 4.5, 3.0, 4.0, 1.5]),
        "c": np.array([0.5, 0.6, 0.5, 0.4, 0.5]),
        "d": np.array([1.0, -1.0, 0.5, -0.6, 0.0]),
    }
    found = parts_of(gains, sum(gains.values()), 32, chips=5)
    assert [part.source for part in found.parts] == ["a", "b", "c", "d"]
    assert found.tied == ("b",)
    assert [part.certain for part in found.parts] == [True, True, True, False]
    assert [found.excluded(name) for name in "abcdx"] == [False, False, False, True, False]


CHIP_TASK = Task("chips", "classification", 1, 3, 10, load=lambda: None)


def attributed(seed, budget, faults=None, **changed):
    """Return the attribution of a small chip whose neurons and noise cost about the same."""
    rng = np.random.default_rng(31)
    hidden = Hidden(rng.normal(size=(2, 4)), None, None, None, "tanh")
    memory = Memory.legendre(2, 8.0, 1)
    layer = LMULayer(rng.normal(size=(1, 1)), None, None, None, memory, hidden)
    network = LMUNetwork((layer,), Readout(rng.normal(size=(4, 3)), None))
    x = np.sin(np.linspace(0, 7, 10)[None, :, None] * rng.uniform(0.5, 1.5, (12, 1, 1)))
    options = {"mismatch": 0.0, "membrane_noise": 0.2, "weight_bits": 0, "neurons_per_state": 12}
    options |= {"presentation_ms": 20.0, "units": "host", "seed": seed}
    chip = spike(network, x, **(options | changed))
    truth = run_reference(network, x).outputs.argmax(axis=1)
    chips = Chips(chip, x)
    chips.add(chip)
    if faults is not None:
        (memory,) = chip.memories
        harmed = dataclasses.replace(memory.populations, faults=faults)
        memory = dataclasses.replace(memory, populations=harmed)
        chip = dataclasses.replace(chip, memories=(memory,))
    return attribute_spiking(chip, x, truth, CHIP_TASK, samples=8, chips=chips, budget=budget)


@pytest.fixture(scope="module")
def by_seed():
    return {seed: attributed(seed, 60.0) for seed in (0, 100)}


def test_two_sources_do_not_swap_between_tuning_seeds_without_a_word(by_seed):
    """The first two swap here, so that each report has to say that their order is uncertain."""
    first = {seed: found.parts.parts[0].source for seed, found in by_seed.items()}
    assert len(set(first.values())) == 2
    for seed, found in by_seed.items():
        assert (found.parts.chips, found.parts.note) == (5, "")
        assert sum(part.share for part in found.parts.parts) == pytest.approx(1.0)
        assert set(first.values()) - {first[seed]} <= set(found.parts.tied)
        (sentence, *_) = uncertain(attribution_entry(found))
        assert "is uncertain: the 90\u202f% interval over 5 chips" in sentence or (
            "No source" in sentence
        )


def test_a_source_whose_interval_contains_zero_is_no_cause(by_seed):
    for found in by_seed.values():
        named = {cause.source for cause in found.causes}
        for part in found.parts.parts:
            if part.low <= 0.0:
                assert not any(part.source.startswith(source) for source in named)


def test_a_short_budget_takes_fewer_chips_and_says_so():
    one = attributed(0, 1.0)
    assert one.parts.chips == 1
    assert "this chip alone" in table(attribution_entry(one))[0].caption
    assert table(attribution_entry(one))[0].columns[-1].endswith("interval over samples")
    assert one.parts.note == (
        "The intervals are over the samples of this chip alone, because --attribution-budget "
        "allows for no other."
    )
    assert attributed(0, 1e-6).parts is None


def test_a_damaged_chip_is_alone_and_the_report_says_why():
    faults = np.zeros((2, 12))
    faults[1] = -1.0
    found = attributed(0, 60.0, faults)
    assert found.parts.chips == 1
    assert found.parts.note == (
        "The intervals are over the samples of this chip alone, because it is not as spike makes "
        "it with its seeds and settings: it was damaged, has drifted, or was calibrated on other "
        "inputs."
    )
    (shown,) = table(attribution_entry(found))
    assert shown.caption.endswith(", this chip alone")
    assert found.parts.parts[0].source == "damage" == found.causes[0].source
