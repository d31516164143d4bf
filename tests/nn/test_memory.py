"""Memory matrices in torch: equal to those of NumPy, with the right derivative in theta."""

import copy

import numpy as np
import pytest
import torch
from scipy.linalg import expm_frechet

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.legendre import discretize, smallest_euler_theta, state_space, window_decoders
from lmu_deploy.nn import LMU
from lmu_deploy.nn.memory import LegendreMemory, StateNoise, discretize_at


@pytest.mark.parametrize("method", ["zoh", "bilinear", "euler"])
@pytest.mark.parametrize(("order", "theta"), [(1, 3.0), (6, 40.0), (32, 2000.0)])
def test_torch_discretization_equals_numpy(order, theta, method):
    found = discretize_at(torch.tensor(1.0 / theta, dtype=torch.float64), order, method)
    for have, want in zip(found, discretize(order, theta, method), strict=True):
        np.testing.assert_allclose(have.numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["zoh", "bilinear", "euler"])
def test_gradient_of_theta_is_the_slope_of_the_matrices(method):
    order, theta, step = 7, 60.0, 1e-3
    memory = LegendreMemory(order, theta, method, train_theta=True, dtype=torch.float64)
    rng = np.random.default_rng(0)
    probe_a, probe_b = rng.normal(size=(order, order)), rng.normal(size=order)
    a_bar, b_bar = memory()
    loss = (a_bar * torch.from_numpy(probe_a)).sum() + (b_bar * torch.from_numpy(probe_b)).sum()
    loss.backward()

    def value(theta):
        a, b = discretize(order, theta, method)
        return (a * probe_a).sum() + (b * probe_b).sum()

    slope = (value(theta + step) - value(theta - step)) / (2 * step)
    assert memory.log_theta.grad.item() == pytest.approx(slope * theta, rel=1e-7)


def test_gradient_through_zoh_is_the_exponentials_frechet_derivative():
    order, theta = 12, 30.0
    a, b = state_space(order)
    block = np.zeros((order + 1, order + 1))
    block[:order, :order], block[:order, order] = a, b
    expected = expm_frechet(block / theta, block, compute_expm=False)
    rate = torch.tensor(1.0 / theta, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda r: discretize_at(r, order, "zoh")[0], rate)
    np.testing.assert_allclose(jacobian.numpy(), expected[:order, :order], atol=1e-9)


def test_trained_theta_recovers_the_tasks_time_scale():
    """Read the far end of the window; the target is the input 20 steps ago, theta starts at 11."""
    torch.manual_seed(0)
    steps, delay, order = 200, 20, 8
    phases = torch.rand(16, 6, 1) * 6.3
    frequencies = torch.rand(16, 6, 1) * 0.25
    x = torch.sin(frequencies * torch.arange(steps + delay) + phases).sum(1)[..., None]
    layer = LMU(1, 0, order, 11.0, hidden="none", init="memory", train_theta=True)
    layer.input_encoders.requires_grad_(False)
    read = torch.tensor(window_decoders(order, np.array([1.0]))[0], dtype=torch.float32)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(60):
        y = layer(x)[0][:, delay:] @ read
        loss = ((y[:, 40:] - x[:, :steps, 0][:, 40:]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert layer.memory.theta == pytest.approx(delay, abs=0.5)


def test_euler_beyond_its_bound_is_rejected_also_in_training():
    bound = smallest_euler_theta(4)
    with pytest.raises(InputError, match=f"diverges.*must exceed {bound:.4g}"):
        LegendreMemory(4, bound * 0.99, "euler")
    memory = LegendreMemory(4, bound * 1.5, "euler", train_theta=True)
    memory()
    with torch.no_grad():
        memory.log_theta.sub_(0.5)
    with pytest.raises(RunError, match=f"must exceed {bound:.4g}; use zoh"):
        memory()


def test_theta_and_matrices_cannot_both_be_trained():
    with pytest.raises(InputError, match="exclude each other"):
        LegendreMemory(2, 4.0, train_theta=True, train_memory=True)


def test_cache_follows_changes_of_the_matrices():
    layer = LMU(1, 3, 4, 9.0, hidden="feedforward", dtype=torch.float64)
    x = torch.randn(2, 20, 1, dtype=torch.float64)

    def last():
        with torch.no_grad():
            return layer(x, last_only=True)[0]

    first = last()
    torch.testing.assert_close(last(), first, rtol=0, atol=0)
    layer.memory.a_bar.data.diagonal().mul_(0.9)  # autograd's version counter does not see this
    fresh = copy.deepcopy(layer)
    fresh.form = "step"
    with torch.no_grad():
        expected = fresh(x, last_only=True)[0]
    assert (last() - first).abs().max() > 1e-3
    torch.testing.assert_close(last(), expected, rtol=1e-12, atol=1e-12)


def test_trained_theta_is_discretized_once_without_gradients():
    memory = LegendreMemory(4, 9.0, train_theta=True)
    with torch.no_grad():
        before = memory()
        assert memory()[0] is before[0]
        memory.log_theta.add_(0.1)
        after = memory()
    assert not torch.equal(after[0], before[0])
    assert memory()[0].requires_grad


def test_noise_of_states_has_the_covariance_and_the_correlation_that_it_was_given():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    covariance, rho = root @ root.T, 0.6
    noise = StateNoise(covariance, rho)
    states = torch.from_numpy(rng.normal(size=(2000, 40, 3)) * [1.0, 10.0, 0.0])
    torch.manual_seed(0)
    found = noise.draw(states).numpy()
    scale = np.sqrt(np.mean(states.numpy() ** 2, axis=(0, 1)))
    assert not found[:, :, 2].any()  # a state that is never used has no noise
    relative = found[:, :, :2] / scale[:2]
    for step in (0, 39):  # the first step has all of it
        measured = relative[:, step].T @ relative[:, step] / 2000
        np.testing.assert_allclose(measured, covariance[:2, :2], atol=0.12 * np.trace(covariance))
    lagged = np.sum(relative[:, 1:] * relative[:, :-1]) / np.sum(relative[:, :-1] ** 2)
    assert lagged == pytest.approx(rho, abs=0.02)


def test_noise_of_states_is_relative_to_the_steps_that_count():
    noise = StateNoise(np.eye(2), 0.0)
    states = torch.ones(4, 9, 2, dtype=torch.float64)
    states[:, 5:] = 100.0
    torch.manual_seed(0)
    counted = noise.draw(states, torch.full((4,), 5))
    torch.manual_seed(0)
    torch.testing.assert_close(counted, noise.draw(torch.ones_like(states)))
