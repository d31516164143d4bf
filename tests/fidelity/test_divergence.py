"""Divergence from the reference is found where it was planted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from converters.quantize import quantize
from lmu_deploy.fidelity.measures.divergence import diverge
from lmu_deploy.fidelity.measures.memory_error import MOST_ORDERS, MOST_TIMES, growth
from targets.integer import IntegerTarget
from targets.reference import ReferenceTarget


def same_states(states):
    """Return a copy of the states of the reference."""
    return dataclasses.replace(states, m=states.m.copy(), h=states.h.copy(), y=states.y.copy())


def test_a_run_does_not_diverge_from_itself(digits):
    states = digits.reference.states
    found = diverge(same_states(states), states, digits.network)
    assert [p.step for p in found.points] == [None] * len(found.points)
    assert all(p.error == 0.0 for p in found.points)
    assert found.maps[0].growth is None
    assert not found.maps[0].values.any()


@pytest.mark.parametrize(
    ("array", "name"), [("m", "layer0/memory"), ("h", "layer0/hidden"), ("y", "output")]
)
def test_the_first_step_and_variable_are_those_that_were_changed(digits, array, name):
    states = digits.reference.states
    bad = same_states(states)
    values = getattr(bad, array)
    rms = float(np.sqrt(np.mean(getattr(states, array) ** 2)))
    values[2, 5, 3] += 0.5 * rms
    values[2, 6, 1] += 5.0 * rms
    values[1, 4, 7] += 0.04 * rms  # below the bound
    points = {p.sample: p for p in diverge(bad, states, digits.network, bound=0.05).points}
    assert (points[2].step, points[2].variable) == (5, f"{name}[3]")
    assert points[2].error == pytest.approx(0.5)
    assert points[2].target - points[2].reference == pytest.approx(0.5 * rms)
    assert (points[1].step, points[1].variable) == (None, f"{name}[7]")
    assert points[0].error == 0.0


def test_of_one_step_the_first_to_be_computed_is_named(digits):
    states = digits.reference.states
    bad = same_states(states)
    for array in ("m", "h", "y"):
        getattr(bad, array)[0, 3, 0] += 10.0
    first = diverge(bad, states, digits.network).points[0]
    assert (first.step, first.variable) == (3, "layer0/memory[0]")


def test_the_sample_with_the_worst_outputs_is_among_them(digits):
    states = digits.reference.states
    bad = same_states(states)
    bad.y[30] += 1.0
    assert [p.sample for p in diverge(bad, states, digits.network).points] == [0, 1, 2, 3, 30]


def test_the_map_shows_order_and_time_of_an_error(signal):
    states = signal.reference.states
    bad = same_states(states)
    bad.m[:, 400:, 4] += 0.3
    found = diverge(bad, states, signal.network).maps[0]
    assert found.values.shape == (6, MOST_TIMES)
    assert found.values.shape[0] <= MOST_ORDERS
    rms = np.sqrt(np.mean(states.m**2))
    row = found.values[4]
    late = found.times[:-1] >= 400
    np.testing.assert_allclose(row[late], 0.3 / rms, rtol=1e-9)
    assert not row[found.times[1:] <= 400].any()
    assert not np.delete(found.values, 4, axis=0).any()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, -1.0])
def test_growth_is_the_exponent_of_the_error(exponent):
    time = np.arange(200) + 1.0
    assert growth((3.0 * time**exponent) ** 2) == pytest.approx(exponent, abs=1e-9)
    assert growth(np.zeros(200)) is None
    assert growth(np.ones(7)) is None


def test_errors_that_add_up_grow_and_those_that_stay_do_not(signal):
    states = signal.reference.states
    steps = np.arange(states.m.shape[1]) + 1.0
    adding, staying = same_states(states), same_states(states)
    adding.m[:] += 1e-4 * steps[None, :, None]
    staying.m[:] += 0.1
    assert diverge(adding, states, signal.network).maps[0].growth == pytest.approx(1.0, abs=1e-6)
    assert diverge(staying, states, signal.network).maps[0].growth == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("form", ["dense-incremental", "schur"])
def test_integers_in_other_coordinates_are_compared_as_real_numbers(signal, form):
    inputs = signal.split.inputs[:, :120]
    integer = quantize(signal.network, inputs, realization=form)
    mine = IntegerTarget().run(integer, inputs, record=True).states
    truth = ReferenceTarget().run(signal.network, inputs, record=True).states
    found = diverge(mine, truth, signal.network)
    assert all(p.step is None for p in found.points)
    assert 0 < max(p.error for p in found.points) < 0.05
    assert 0 < found.maps[0].values.max() < 0.05


def test_several_layers_and_targets_without_hidden_states(edge_cases):
    deep = edge_cases["three layers"]
    states = deep.results[0].run.states
    found = diverge(states, deep.reference.states, deep.network)
    assert [m.layer for m in found.maps] == ["layer0", "layer2"]
    assert found.maps[1].values.shape == (7, 25)
    blind = dataclasses.replace(states, h=states.h[:, :, :0], h_scale=np.zeros(0))
    parted = diverge(blind, deep.reference.states, deep.network).points
    assert all("hidden" not in p.variable for p in parted)
