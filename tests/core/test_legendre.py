"""Legendre memory: comparison with independent formulas."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.interpolate import pade
from scipy.signal import cont2discrete

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.legendre import (
    discretize,
    impulse_response,
    smallest_euler_theta,
    state_space,
    window_decoders,
)


@pytest.mark.parametrize("order", [1, 2, 3, 5, 7])
def test_transfer_function_is_the_pade_approximant_of_the_delay(order):
    # Voelker et al. 2019: reading the far end of the window gives the [d-1/d] approximant of
    # exp(-s); its coefficients here come from the Taylor series of the exponential alone.
    a, b = state_space(order)
    c = window_decoders(order, np.array([1.0]))[0]
    factorials = np.cumprod([1.0, *range(1, 2 * order)])
    taylor = [(-1.0) ** k / factorials[k] for k in range(2 * order)]
    numerator, denominator = pade(taylor, order, order - 1)
    for s in (0.3, 1.0 + 2.0j, -0.2 + 3.0j, 5.0j):
        ours = c @ np.linalg.solve(s * np.eye(order) - a, b)
        assert ours == pytest.approx(numerator(s) / denominator(s), rel=1e-8)


def test_state_space_of_order_three():
    a, b = state_space(3)
    assert a.tolist() == [[-1, -1, -1], [3, -3, -3], [-5, 5, -5]]
    assert b.tolist() == [1, -3, 5]


@pytest.mark.parametrize("order", [1, 4, 20])
@pytest.mark.parametrize("theta", [30.0, 783.5])
@pytest.mark.parametrize("dt", [1.0, 0.25])
@pytest.mark.parametrize("method", ["zoh", "bilinear", "euler"])
def test_discretize_agrees_with_scipy(method, dt, theta, order):
    if method == "euler" and theta <= smallest_euler_theta(order, dt):
        theta = 2.0 * smallest_euler_theta(order, dt)
    a, b = state_space(order)
    system = (a / theta, b[:, None] / theta, np.eye(order), np.zeros((order, 1)))
    expected = cont2discrete(system, dt, method=method)
    a_bar, b_bar = discretize(order, theta, method, dt)
    np.testing.assert_allclose(a_bar, expected[0], rtol=0, atol=1e-11)
    np.testing.assert_allclose(b_bar, expected[1][:, 0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_memory_decodes_its_window(method):
    theta, order = 200.0, 12
    a_bar, b_bar = discretize(order, theta, method)

    def signal(t):
        return np.sin(2 * np.pi * t / 150.0) + 0.5 * np.cos(2 * np.pi * t / 90.0)

    m = np.zeros(order)
    for t in range(1000):
        m = a_bar @ m + b_bar * signal(t)
    delays = np.linspace(0.0, 1.0, 21)
    decoded = window_decoders(order, delays) @ m
    # The state after step t stands at time t + 1, and a held input lags by half a step; another
    # half step off would give an error of 0.034.
    expected = signal(999 + 0.5 - delays * theta)
    assert np.abs(decoded - expected).max() < 0.015
    assert np.abs(expected).max() > 1.0


def test_memory_of_a_constant_is_its_mean():
    a_bar, b_bar = discretize(6, 50.0)
    m = np.linalg.solve(np.eye(6) - a_bar, b_bar) * 0.7
    np.testing.assert_allclose(m, [0.7, 0, 0, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 5, 12, 24])
def test_euler_is_rejected_up_to_the_stability_bound(order):
    dt = 0.5
    bound = smallest_euler_theta(order, dt)
    a, _ = state_space(order)

    def radius(theta):
        return np.abs(np.linalg.eigvals(np.eye(order) + a * dt / theta)).max()

    assert radius(0.999 * bound) > 1.0 > radius(1.001 * bound)
    above = max(1.001 * bound, dt)
    a_bar, _ = discretize(order, above, "euler", dt)
    assert np.abs(np.linalg.eigvals(a_bar)).max() < 1.0
    if bound > dt:
        with pytest.raises(InputError, match=r"euler diverges.*must exceed"):
            discretize(order, 0.999 * bound, "euler", dt)


def test_euler_bound_of_order_one_is_half_a_step():
    assert smallest_euler_theta(1, 3.0) == pytest.approx(1.5)


@pytest.mark.parametrize("steps", [1, 2, 3, 64, 100, 257])
def test_impulse_response_equals_stepping(steps):
    a_bar, b_bar = discretize(9, 40.0)
    m, expected = np.zeros(9), []
    for t in range(steps):
        m = a_bar @ m + b_bar * (t == 0)
        expected.append(m)
    np.testing.assert_allclose(impulse_response(a_bar, b_bar, steps), expected, atol=1e-12)


def test_decoders_are_orthogonal_polynomials_on_the_window():
    order = 6
    for i in range(order):
        for j in range(order):

            def product(r, i=i, j=j):
                decoders = window_decoders(order, np.array([r]))[0]
                return decoders[i] * decoders[j]

            inner = quad(product, 0.0, 1.0)[0]
            assert inner == pytest.approx((i == j) / (2 * i + 1), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: state_space(0), "order is 0"),
        (lambda: state_space(2.5), "order is 2.5"),
        (lambda: state_space(True), "order is True"),
        (lambda: discretize(4, 0.5), "theta is 0.5"),
        (lambda: discretize(4, float("nan")), "theta is nan"),
        (lambda: discretize(4, 10.0, "rk4"), "bilinear, euler, zoh"),
        (lambda: impulse_response(np.eye(2), np.ones(2), 0), "steps is 0"),
        (lambda: window_decoders(3, np.array([0.5, 1.01])), "from 0"),
        (lambda: window_decoders(3, np.array([np.nan])), "from 0"),
    ],
)
def test_invalid_values_are_rejected(call, message):
    with pytest.raises(InputError, match=message):
        call()
