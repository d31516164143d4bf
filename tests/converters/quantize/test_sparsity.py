"""Thresholds tuned to a loss: the ladder, the estimate of the loss, and the command."""

from __future__ import annotations

import json
import logging
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.quantize import quantize
from converters.quantize.sparsity import (
    Option,
    eligible,
    expected_loss,
    highest_rung,
    ladder,
    make_ladder,
    silent_shares,
    with_fraction,
)
from lmu_deploy.api.quantize import quantize as command
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.graph import edges, sources
from lmu_deploy.core.integer.network import INTEGER_CLASSES
from lmu_deploy.studies.quantization import loss_of
from lmu_deploy.tasks.base import Split, Task, get_task
from targets.conformance.fixtures import example
from targets.integer import IntegerTarget

OWN_LOOP = "layer0/memory/recurrent"


def run(network, inputs):
    return IntegerTarget("numpy").run(network, inputs)


options = st.lists(
    st.builds(
        Option,
        st.integers(0, 9),
        st.integers(0, 20).map(float),
        st.integers(0, 20).map(float),
    ),
    min_size=1,
    max_size=5,
)


@given(choices=st.lists(options, min_size=1, max_size=3))
def test_no_other_choice_is_better_than_a_rung(choices):
    rungs = ladder({str(number): made for number, made in enumerate(choices)})
    every = [
        (sum(o.cost for o in combination), sum(o.harm for o in combination))
        for combination in product(*choices)
    ]
    found = [
        (sum(o.cost for o in rung.values()), sum(o.harm for o in rung.values())) for rung in rungs
    ]
    for cost, harm in found:
        assert not [e for e in every if e[0] <= cost and e[1] <= harm and e != (cost, harm)]
    assert found[0][1] == min(harm for _, harm in every)
    assert found[-1][0] == min(cost for cost, _ in every)
    costs = [cost for cost, _ in found]
    assert costs == sorted(costs, reverse=True)


def test_expected_loss_is_exact_for_equal_changes():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 200)
    before = rng.normal(size=(200, 3))
    before[np.arange(200), classes] += 1.0
    assert expected_loss(before, before, classes) == 0.0
    after = before.copy()
    after[np.arange(200), classes] -= 0.5
    right = before.argmax(axis=1) == classes
    turned = np.mean(right & (after.argmax(axis=1) != classes))
    assert expected_loss(after, before, classes) == pytest.approx(turned)
    assert turned > 0.05
    noisy = before + rng.normal(size=before.shape)
    counted = np.mean(right & (noisy.argmax(axis=1) != classes))
    assert abs(expected_loss(noisy, before, classes) - counted) < 0.06
    assert not np.isin(np.linspace(0, 1, 201), expected_loss(noisy, before, classes)).any()


def test_bisection_finds_the_highest_allowed_rung():
    losses = [0.0, 0.1, 0.1, 0.4, 0.5, 0.9]
    for allowed, expected in ((0.0, 0), (0.1, 2), (0.45, 3), (1.0, 5)):
        asked, calls = [], []
        found = highest_rung(
            len(losses),
            lambda rung: asked.append(rung) or losses[rung],  # noqa: B023
            allowed,
            lambda *done: calls.append(done),  # noqa: B023
        )
        assert found == expected
        assert 0 not in asked
        assert len(asked) <= 3
        assert calls[-1] == (3, 3)
    assert highest_rung(1, lambda rung: 1.0, 0.0) == 0


@pytest.fixture(scope="module")
def made():
    given = example("recurrent")
    return quantize(given.network, given.calibration), given.calibration[:8]


def test_a_ladder_starts_exact_and_reduces_operations(made):
    network, inputs = made
    calls = []
    found = make_ladder(network, inputs, run, lambda *done: calls.append(done))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] == calls[-1][1]
    plain, exact = run(network, inputs), run(found.at(0), inputs)
    assert np.array_equal(plain.outputs, exact.outputs)
    assert exact.synops <= plain.synops
    assert all(rung[OWN_LOOP] <= 1 for rung in found.rungs)
    assert len(found.rungs) > 5
    last = run(found.at(len(found.rungs) - 1), inputs)
    assert last.synops < 0.9 * exact.synops
    assert not np.array_equal(last.outputs, plain.outputs)


def test_a_fraction_is_relative_to_the_range_of_each_population(made):
    network, inputs = made
    places = {edge.place for edge in eligible(network)}
    assert places == {edge.place for edge in edges(network)} - {OWN_LOOP}
    coarse = with_fraction(network, 0.1)
    limits = {place: source.message.limit for place, source in sources(network).items()}
    for edge in edges(coarse):
        expected = round(0.1 * limits[edge.source]) if edge.place in places else 0
        assert edge.connection.threshold == expected
    exact = with_fraction(network, 0.0)
    assert np.array_equal(run(exact, inputs).outputs, run(network, inputs).outputs)
    with pytest.raises(InputError, match=r"sparsity threshold is 1\.5"):
        with_fraction(network, 1.5)


def test_silent_shares_count_messages_that_are_not_carried(made):
    network, _ = made
    silence = run(network, np.zeros((2, 5, 2)))
    assert set(silent_shares(network, silence.carried, 10).values()) == {1.0}
    carried = {edge.place: 3 * edge.connection.n_in for edge in edges(network)}
    assert set(silent_shares(network, carried, 4).values()) == {0.25}


def test_losses_of_regression_are_relative():
    inputs = np.zeros((1, 4, 1), np.float32)
    targets = np.ones((1, 4, 1), np.float32)
    task = Task("t", "regression", 1, 1, 4, lambda: None, washout=1)
    loss = loss_of(task, Split(inputs, targets), np.full((1, 4, 1), 0.9))
    assert loss(np.full((1, 4, 1), 0.9)) == pytest.approx(0.0, abs=1e-6)
    assert loss(np.full((1, 4, 1), 0.85)) == pytest.approx(0.5, abs=1e-4)


def test_losses_exclude_the_washout():
    task = Task("t", "classification", 1, 2, 3, lambda: None, washout=1, every_step=True)
    before = np.tile(np.array([1.0, 0.0]), (1, 3, 1))
    after = before.copy()
    after[0, 0] = [0.0, 1.0]
    loss = loss_of(task, Split(np.zeros((1, 3, 1)), np.zeros((1, 3), np.int64)), before)
    assert loss(after) == 0.0
    after[0, 1] = [0.0, 1.0]
    assert loss(after) > 0.0


def test_the_command_tunes_to_a_loss_and_reports_it(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lmu_deploy")
    path = tmp_path / "sparse.safetensors"
    network = command("examples/models/digits.safetensors", sparsity_loss=0.005, out=path)
    said = json.loads(network.provenance["sparsity"])
    assert load(path, INTEGER_CLASSES).provenance["sparsity"] == network.provenance["sparsity"]
    thresholds = {edge.place: edge.connection.threshold for edge in edges(network)}
    assert said["thresholds"] == thresholds
    assert thresholds[OWN_LOOP] <= 1 < max(thresholds.values())
    assert said["silent"]["total"] > 0.15
    lines = caplog.messages
    assert any(line.startswith("sparsity layer0/hidden/memory: threshold ") for line in lines)
    task = get_task("digits")
    data = task.load().validation
    plain = run(command("examples/models/digits.safetensors"), data.inputs)
    sparse = run(network, data.inputs)
    assert loss_of(task, data, plain.outputs)(sparse.outputs) <= 0.005
    assert sparse.synops < 0.85 * plain.synops


def test_contradictory_options_are_refused():
    file = "examples/models/digits.safetensors"
    with pytest.raises(InputError, match="leave one of them out"):
        command(file, sparsity_loss=0.1, sparsity_threshold=0.1)
    with pytest.raises(InputError, match="sparsity_loss is 2"):
        command(file, sparsity_loss=2.0)
