"""Memory errors compared with loops, and windows compared with the true input."""

from __future__ import annotations

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.network import Memory
from lmu_deploy.fidelity.measures.memory_error import (
    MemoryShape,
    decode_window,
    memory_errors,
    strongest_channel,
    true_window,
)

SHAPES = [MemoryShape("layer0", 2, 3), MemoryShape("layer1", 1, 4)]


def test_errors_equal_loops(rng):
    truth = rng.normal(size=(70, 5, 10))
    scale = 2.0 ** -rng.integers(3, 9, 10).astype(float)
    states = np.rint((truth + 0.1 * rng.normal(size=truth.shape)) / scale).astype(np.int32)
    first, second = memory_errors(states, scale, truth, SHAPES)
    wrong = states * scale - truth
    for found, part, channels, order in ((first, slice(0, 6), 2, 3), (second, slice(6, 10), 1, 4)):
        e, m = wrong[:, :, part], truth[:, :, part]
        assert found.overall == pytest.approx(np.sqrt((e**2).sum() / (m**2).sum()))
        for t in range(5):
            assert found.by_step[t] == pytest.approx(np.sqrt((e[:, t] ** 2).mean() / (m**2).mean()))
        for k in range(order):
            chosen = [c * order + k for c in range(channels)]
            ratio = (e[:, :, chosen] ** 2).sum() / (m[:, :, chosen] ** 2).sum()
            assert found.by_order[k] == pytest.approx(np.sqrt(ratio))
        assert np.mean(found.by_step**2) == pytest.approx(found.overall**2)


def test_a_planted_error_is_found_where_it_is(rng):
    truth = rng.normal(size=(8, 6, 10))
    states = truth.copy()
    states[:, 4, 3 + 1] *= 3.0
    first, second = memory_errors(states, np.ones(10), truth, SHAPES)
    assert np.flatnonzero(first.by_step).tolist() == [4]
    assert np.flatnonzero(first.by_order).tolist() == [1]
    assert second.overall == 0.0


def test_a_zero_reference_has_no_relative_error():
    first, _ = memory_errors(np.ones((2, 3, 10)), np.ones(10), np.zeros((2, 3, 10)), SHAPES)
    assert first.overall is None
    assert first.by_step is None
    assert np.isnan(first.by_order).all()


def test_shapes_must_fit():
    with pytest.raises(InputError):
        memory_errors(np.ones((2, 3, 9)), np.ones(9), np.ones((2, 3, 9)), SHAPES)


def test_the_window_shows_the_input():
    steps, order = 400, 24
    memory = Memory.legendre(order, 200.0, channels=2)
    layer = LMU(memory, np.array([[1.0, 0.5]]), memory_bias=np.array([0.0, 0.1]))
    inputs = np.sin(np.arange(steps) / 15.0)[:, None]
    u = inputs @ layer.input_encoders + layer.memory_bias
    states = np.zeros((steps, 2, order))
    for t in range(steps):
        states[t] = states[t - 1] @ memory.a_bar.T + u[t, :, None] * memory.b_bar
    m = states.reshape(steps, -1)
    for channel in (0, 1):
        decoded = decode_window(m[-1], memory, channel)
        truth = true_window(layer, inputs, m, None, channel)
        assert np.sqrt(np.mean((decoded - truth) ** 2) / np.mean(truth**2)) < 0.06
    assert strongest_channel(m[-1], memory) == 0


def test_true_window_counts_feedback():
    memory = Memory.legendre(2, 4.0)
    layer = LMU(memory, np.array([[1.0]]), memory_encoders=np.array([[1.0], [0.0]]))
    inputs, m = np.array([[1.0], [2.0], [3.0]]), np.array([[10.0, 0], [20.0, 0], [30.0, 0]])
    window = true_window(layer, inputs, m, np.zeros((3, 0)), 0, points=5)
    assert window.tolist() == [23.0, 12.0, 1.0, 0.0, 0.0]


def test_states_in_other_coordinates_are_transformed(rng):
    truth = rng.normal(size=(3, 6, 10))
    basis = rng.normal(size=(10, 14))
    states = truth @ np.linalg.pinv(basis).T
    found = memory_errors(states / 0.5, np.full(14, 0.5), truth, SHAPES, basis)
    assert all(error.overall < 1e-12 for error in found)
    basis[4] *= 2.0
    assert memory_errors(states / 0.5, np.full(14, 0.5), truth, SHAPES, basis)[0].overall > 0.1
    with pytest.raises(InputError, match="all must match"):
        memory_errors(states, np.ones(14), truth, SHAPES, basis[:9])
