"""Principle 3 with ideal populations equals the network's memory after every presentation."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from converters.spiking.build import memory_inputs
from converters.spiking.closed_loop import behind_synapse, divide_step
from converters.spiking.dynamic import follow, ranges
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference


def behind_ideal_populations(memory, u, parts, decay):
    """States at the end of each presentation when W s / dt is exactly A' x."""
    a_prime, b_prime = behind_synapse(*divide_step(memory, parts), decay)
    m = np.zeros((len(u), memory.channels, memory.order))
    ends = []
    for t in range(u.shape[1]):
        for _ in range(parts):
            push = m @ a_prime.T + u[:, t, :, None] * b_prime
            m = decay * m + (1.0 - decay) * push
        ends.append(m.reshape(len(u), -1))
    return np.stack(ends, axis=1)


def only_memory(memory, encoders):
    layer = LMULayer(encoders, None, None, None, memory, None)
    return LMUNetwork((layer,), Readout(np.eye(memory.size), None))


@given(
    order=st.integers(1, 12),
    channels=st.integers(1, 3),
    theta=st.floats(2.0, 40.0),
    parts=st.integers(1, 60),
    tau=st.floats(2.0, 200.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_zoh_memory_is_equal_after_each_presentation(order, channels, theta, parts, tau, seed):
    rng = np.random.default_rng(seed)
    memory = Memory.legendre(order, theta, channels)
    network = only_memory(memory, rng.normal(size=(2, channels)))
    x = rng.normal(size=(3, 8, 2))
    (u,) = memory_inputs(network, x)
    ends = behind_ideal_populations(memory, u, parts, np.exp(-1.0 / tau))
    np.testing.assert_allclose(ends, run_reference(network, x, record=True).m, rtol=0, atol=1e-9)


@given(order=st.integers(1, 6), theta=st.floats(16.0, 40.0), parts=st.integers(1, 60))
def test_bilinear_memory_is_divided_by_its_logarithm(order, theta, parts):
    rng = np.random.default_rng(0)
    memory = Memory.legendre(order, theta, 1, "bilinear")
    network = only_memory(memory, np.ones((1, 1)))
    x = rng.normal(size=(3, 8, 1))
    (u,) = memory_inputs(network, x)
    ends = behind_ideal_populations(memory, u, parts, np.exp(-0.01))
    np.testing.assert_allclose(ends, run_reference(network, x, record=True).m, rtol=0, atol=1e-8)


def test_matrix_without_a_real_root_is_refused():
    memory = Memory(1, 1, 4.0, "trained", np.array([[-0.5]]), np.array([1.0]))
    with pytest.raises(InputError, match="cannot be divided into 50 steps"):
        divide_step(memory, 50)


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_channels_are_what_the_reference_feeds_its_memories(networks, data, seed):
    """With the channels of every memory, its states follow alone: feedback has been counted."""
    network = data.draw(networks)
    assume(any(isinstance(layer, LMULayer) for layer in network.layers))
    x = np.random.default_rng(seed).normal(size=(2, 5, network.n_in))
    m = [
        follow(layer.memory.a_bar, layer.memory.b_bar, u, 1).transpose(1, 0, 2, 3).reshape(2, 5, -1)
        for layer, u in zip(network.layers, memory_inputs(network, x), strict=True)
        if isinstance(layer, LMULayer)
    ]
    expected = run_reference(network, x, record=True).m
    assert expected is not None
    tolerance = 1e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(np.concatenate(m, axis=2), expected, rtol=0, atol=tolerance)


def test_ranges_cover_all_but_a_thousandth_and_are_never_zero(rng):
    trajectory = rng.normal(size=(500, 40, 2, 3)).astype(np.float32)
    trajectory[..., 1, 2] = 0.0
    size = ranges(trajectory)
    inside = (np.abs(trajectory) <= size).mean(axis=(0, 1))
    assert np.all(size > 0.0)
    assert inside.reshape(-1)[:5] == pytest.approx(0.999, abs=2e-4)
