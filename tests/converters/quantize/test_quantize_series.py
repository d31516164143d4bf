"""Series are as short as their error bound allows, and the bound is valid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layered import layered, with_layer

from converters.quantize import quantize
from converters.quantize.memory_analysis import gramian, series_matrices
from converters.quantize.sign_taylor import LARGEST_ERROR, plan_series, series_error, step_matrices
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layered import SeriesMemory
from lmu_deploy.core.integer.memories import sign_matrix
from lmu_deploy.core.legendre import impulse_response, state_space
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from targets.integer import IntegerTarget


def network_of(memory: Memory) -> LMUNetwork:
    layer = LMULayer(np.ones((1, memory.channels)), None, None, None, memory, None)
    return LMUNetwork((layer,), Readout(np.ones((memory.size, 1)), None), True)


@given(order=st.integers(1, 40))
def test_signs_and_their_running_sums_are_the_matrix(order):
    a, _ = state_space(order)
    signs = sign_matrix(order)
    assert np.array_equal((2 * np.arange(order) + 1)[:, None] * signs, a)
    v = np.random.default_rng(order).integers(-99, 100, order)
    alternating = np.where(np.arange(order) % 2 == 0, 1, -1)
    running = -(v.sum() - np.cumsum(v) + alternating * np.cumsum(alternating * v))
    assert np.array_equal(signs.astype(int) @ v, running)


def test_one_step_of_many_terms_is_zero_order_hold():
    memory, (a, b) = Memory.legendre(6, 20.0), state_space(6)
    h = 1.0 / (memory.theta * 3)
    step, entering = step_matrices([h / k * a for k in range(1, 16)], 3)
    np.testing.assert_allclose(step, memory.a_bar, atol=1e-13)
    np.testing.assert_allclose(entering @ (h * b), memory.b_bar, atol=1e-13)


def test_one_term_is_euler():
    memory = Memory.legendre(6, 60.0, discretizer="euler")
    assert (plan_series(memory).terms, plan_series(memory).substeps) == (1, 1)
    assert plan_series(memory).error < 1e-12


@pytest.mark.parametrize(("order", "applications"), [(4, 2), (16, 2), (32, 3), (64, 5), (128, 12)])
def test_plans_at_the_window_of_psmnist(order, applications):
    memory = Memory.legendre(order, 784.0)
    plan = plan_series(memory)
    assert plan.terms * plan.substeps <= applications
    assert plan.error <= LARGEST_ERROR
    truth = impulse_response(memory.a_bar, memory.b_bar, 4 * 784)
    if plan.terms > 1:
        assert series_error(memory, plan.terms - 1, plan.substeps, truth) > LARGEST_ERROR
    tighter = plan_series(memory, LARGEST_ERROR / 1000.0)
    assert tighter.terms * tighter.substeps > plan.terms * plan.substeps


def test_no_input_moves_a_state_further_than_the_bound():
    """The bound is met with equality by the sign of the difference of the responses, reversed."""
    memory = Memory.legendre(12, 40.0)
    plan = plan_series(memory)
    (a, b), steps = state_space(12), 160
    h = 1.0 / (memory.theta * plan.substeps)
    step, entering = step_matrices([h / k * a for k in range(1, plan.terms + 1)], plan.substeps)
    series = impulse_response(step, entering @ (h * b), steps)
    truth = impulse_response(memory.a_bar, memory.b_bar, steps)
    worst = int(np.abs(series - truth).sum(axis=0).argmax())
    inputs = np.sign(series - truth)[::-1, worst]
    moved = np.zeros(12)
    for u in inputs:
        moved = step @ moved + entering @ (h * b) * u
    true_state = run_reference(network_of(memory), inputs[None, :, None], record=True).m[0, -1]
    assert abs(moved - true_state).max() == pytest.approx(plan.error, rel=1e-6)


@pytest.mark.parametrize(("order", "theta"), [(4, 8.0), (12, 20.0), (32, 100.0), (64, 784.0)])
def test_integers_are_within_the_stated_bound(rng, order, theta):
    memory = Memory.legendre(order, theta)
    inputs = rng.integers(-255, 256, (12, 300, 1)) / 255.0
    inputs[:6] = np.sign(inputs[:6])
    network = network_of(memory)
    options = {"realization": "sign-taylor", "slices": 3, "message_bits": 16, "kernel_slices": 1}
    integer = quantize(network, inputs, **options)
    series = layered(integer).layers[0].memory
    assert isinstance(series, SeriesMemory)
    truth = impulse_response(memory.a_bar, memory.b_bar, int(4 * theta))
    bound = series_error(memory, series.terms, series.substeps, truth)
    run = IntegerTarget().run(integer, inputs, record=True)
    reference = run_reference(network, inputs, record=True)
    step, _, noise = series_matrices(series, np.zeros((order, 1)))
    six_sigma = 6.0 * np.sqrt(np.diag(gramian(step, noise, 300)).max())
    assert six_sigma < 0.6 * bound
    assert np.abs(run.states.real_m() - reference.m).max() < bound + six_sigma
    assert not any(run.saturations.values())


def test_terms_never_exceed_twice_the_states(rng):
    """Else large terms would cancel, and show their roundings: 8 terms in one substep do."""
    memory, inputs = Memory.legendre(12, 20.0), rng.normal(size=(20, 60, 1))
    assert plan_series(memory).terms == 8
    integer = quantize(network_of(memory), inputs, realization="sign-taylor")
    assert layered(integer).layers[0].memory.substeps > 1


def test_memories_without_an_accurate_series_are_refused(rng):
    memory = Memory.legendre(8, 20.0)
    trained = Memory(8, 1, 20.0, "trained", 0.9 * memory.a_bar, memory.b_bar)
    with pytest.raises(InputError, match=r"no series of 96 applications .* discretizer trained"):
        quantize(network_of(trained), rng.normal(size=(4, 9, 1)), realization="sign-taylor")


def test_series_with_too_large_terms_are_refused():
    with pytest.raises(InputError, match="terms so large that their rounding shows"):
        plan_series(Memory.legendre(8, 20.0), acceptable=lambda terms, substeps: False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"substeps": 0}, "memory substeps is 0"),
        ({"multiplier": np.zeros((1, 4), int)}, "memory multiplier has entries"),
        ({"multiplier": np.ones((1, 3), int)}, "memory multiplier has shape"),
        ({"shift": np.full((1, 4), 32)}, "memory shift has entries"),
        ({"term_shift": np.zeros(2, int)}, "memory term_shift has shape"),
        ({"feedback": 3}, "feedback needs a Connection"),
        ({"channels": 3}, "edge readout takes 4 messages and layer0/memory sends 12"),
    ],
)
def test_a_wrong_series_is_refused(change, sentence):
    inputs = np.random.default_rng(0).normal(size=(4, 9, 1))
    memory = Memory.legendre(4, 784.0)
    integer = quantize(network_of(memory), inputs, realization="sign-taylor")
    found = layered(integer).layers[0].memory
    values = {"multiplier": found.multiplier[:1], "shift": found.shift[:1]}
    values |= {"term_shift": found.term_shift[:0]}
    assert with_layer(integer, 0, memory=replace(found, **values)).memories[0].terms == 1
    with pytest.raises(InputError, match=sentence):
        with_layer(integer, 0, memory=replace(found, **{**values, **change}))
