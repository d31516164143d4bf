"""Reference implementation: comparison with a second, scalar implementation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import activate, run_reference

SQUASH = {
    "linear": lambda z: z,
    "relu": lambda z: z if z > 0 else 0.0,
    "tanh": math.tanh,
    "hard-tanh": lambda z: min(max(z, -1.0), 1.0),
}


def dot(row, matrix, column):
    return sum(float(a) * float(b) for a, b in zip(row, matrix[:, column], strict=True))


def naive_lmu(layer, sequence):
    order, channels = layer.memory.order, layer.memory.channels
    units = 0 if layer.hidden is None else layer.hidden.units
    m, h = [0.0] * (channels * order), [0.0] * units
    history = []
    for x in sequence:
        u = []
        for c in range(channels):
            total = dot(x, layer.input_encoders, c)
            if layer.hidden_encoders is not None:
                total += dot(h, layer.hidden_encoders, c)
            if layer.memory_encoders is not None:
                total += dot(m, layer.memory_encoders, c)
            if layer.memory_bias is not None:
                total += float(layer.memory_bias[c])
            u.append(total)
        new = []
        for c in range(channels):
            old = m[c * order : (c + 1) * order]
            for i in range(order):
                decayed = sum(float(layer.memory.a_bar[i, j]) * old[j] for j in range(order))
                new.append(decayed + float(layer.memory.b_bar[i]) * u[c])
        m = new
        if layer.hidden is not None:
            z = []
            for k in range(units):
                total = dot(m, layer.hidden.memory_kernel, k)
                if layer.hidden.input_kernel is not None:
                    total += dot(x, layer.hidden.input_kernel, k)
                if layer.hidden.recurrent_kernel is not None:
                    total += dot(h, layer.hidden.recurrent_kernel, k)
                if layer.hidden.bias is not None:
                    total += float(layer.hidden.bias[k])
                z.append(total)
            h = [SQUASH[layer.hidden.activation](value) for value in z]
        history.append((m, h))
    return [m for m, _ in history], [h for _, h in history]


def naive_lstm(layer, sequence):
    units = layer.n_out
    h, c, history = [0.0] * units, [0.0] * units, []
    for x in sequence:
        z = [
            dot(x, layer.kernel, k) + dot(h, layer.recurrent_kernel, k) + float(layer.bias[k])
            for k in range(4 * units)
        ]

        def gate(value):
            return 1.0 / (1.0 + math.exp(-value))

        i, f, g, o = (z[n * units : (n + 1) * units] for n in range(4))
        c = [gate(f[k]) * c[k] + gate(i[k]) * math.tanh(g[k]) for k in range(units)]
        h = [gate(o[k]) * math.tanh(c[k]) for k in range(units)]
        history.append(h)
    return history


def naive(network, sample):
    """Give m, h and y of every step of one sample."""
    all_m, all_h, signal = [], [], [list(x) for x in sample]
    for layer in network.layers:
        if isinstance(layer, LSTMLayer):
            signal = naive_lstm(layer, signal)
            all_h.append(signal)
            continue
        m, h = naive_lmu(layer, signal)
        all_m.append(m)
        signal = m if layer.hidden is None else h
        if layer.hidden is not None:
            all_h.append(h)
    readout = network.readout
    y = [
        [
            dot(x, readout.kernel, k) + (0.0 if readout.bias is None else float(readout.bias[k]))
            for k in range(network.n_out)
        ]
        for x in signal
    ]

    def side_by_side(parts):
        steps = range(len(sample))
        return np.array([[value for part in parts for value in part[t]] for t in steps])

    return side_by_side(all_m), side_by_side(all_h), np.array(y)


@given(data=st.data())
def test_reference_equals_the_naive_implementation(networks, data):
    network = data.draw(networks)
    inputs = np.random.default_rng(1).normal(size=(2, data.draw(st.integers(1, 6)), network.n_in))
    trace = run_reference(network, inputs, record=True, batch_size=1)
    for sample, m, h, y, answer in zip(
        inputs, trace.m, trace.h, trace.y, trace.outputs, strict=True
    ):
        expected_m, expected_h, expected_y = naive(network, sample)
        np.testing.assert_allclose(m, expected_m, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(h, expected_h, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(y, expected_y, rtol=1e-9, atol=1e-12)
        expected = expected_y if network.return_sequences else expected_y[-1]
        np.testing.assert_allclose(answer, expected, rtol=1e-9, atol=1e-12)


def test_memory_alone_is_a_convolution_with_its_impulse_response(rng):
    memory = Memory.legendre(7, 25.0, channels=2)
    encoders = rng.normal(size=(3, 2))
    layer = LMULayer(encoders, None, None, None, memory, None)
    network = LMUNetwork((layer,), Readout(np.eye(14), None), return_sequences=True)
    inputs = rng.normal(size=(2, 40, 3))
    response = impulse_response(memory.a_bar, memory.b_bar, 40)
    u = inputs @ encoders
    expected = np.empty((2, 40, 2, 7))
    for sample in range(2):
        for channel in range(2):
            for i in range(7):
                full = np.convolve(u[sample, :, channel], response[:, i])
                expected[sample, :, channel, i] = full[:40]
    outputs = run_reference(network, inputs).outputs
    np.testing.assert_allclose(outputs, expected.reshape(2, 40, 14), atol=1e-12)


@given(data=st.data())
def test_result_does_not_depend_on_batch_size(networks, data):
    network = data.draw(networks)
    inputs = np.random.default_rng(2).normal(size=(7, 5, network.n_in))
    calls = []
    small = run_reference(
        network, inputs, batch_size=3, progress=lambda done, total: calls.append((done, total))
    )
    whole = run_reference(network, inputs, record=True)
    np.testing.assert_allclose(small.outputs, whole.outputs, rtol=1e-12, atol=1e-14)
    assert calls == [(3, 7), (6, 7), (7, 7)]
    assert small.m is None and small.h is None and small.y is None


def test_integer_inputs_are_accepted_and_not_modified():
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(2, 4.0), None)
    network = LMUNetwork((layer,), Readout(np.ones((2, 1)), None))
    inputs = np.arange(6).reshape(2, 3, 1)
    kept = inputs.copy()
    as_float = run_reference(network, inputs.astype(float)).outputs
    np.testing.assert_array_equal(run_reference(network, inputs).outputs, as_float)
    np.testing.assert_array_equal(inputs, kept)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 3, 2)), r"shape \(2, 3, 2\), expected \(any, any, 1\)"),
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (np.full((2, 3, 1), np.nan), "6 entries that are NaN"),
        (np.zeros((2, 0, 1)), "at least one step"),
        (np.array([[["a"]]]), "give a floating type"),
        (np.zeros((1, 1, 1), complex), "give a floating type"),
    ],
)
def test_wrong_inputs_are_rejected(inputs, message):
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(2, 4.0), None)
    network = LMUNetwork((layer,), Readout(np.ones((2, 1)), None))
    with pytest.raises(InputError, match=message):
        run_reference(network, inputs)


def test_activations_at_known_points():
    z = np.array([-2.0, -0.5, 0.0, 0.5, 2.0])
    assert activate("linear", z).tolist() == z.tolist()
    assert activate("relu", z).tolist() == [0, 0, 0, 0.5, 2.0]
    assert activate("hard-tanh", z).tolist() == [-1, -0.5, 0, 0.5, 1]
    assert activate("tanh", z)[4] == pytest.approx(math.tanh(2.0))


def test_lstm_of_large_drives_does_not_overflow():
    layer = LSTMLayer(np.full((1, 4), 1e6), np.zeros((1, 4)), np.zeros(4))
    network = LMUNetwork((layer,), Readout(np.ones((1, 1)), None))
    with np.errstate(all="raise"):
        y = run_reference(network, np.array([[[1.0]], [[-1.0]]])).outputs
    assert y[0, 0] == pytest.approx(math.tanh(1.0))
    assert y[1, 0] == pytest.approx(0.0)


def test_hidden_with_wrong_memory_kernel_is_rejected():
    hidden = Hidden(np.ones((3, 2)), None, None, None, "tanh")
    with pytest.raises(InputError, match=r"memory_kernel has shape \(3, 2\), expected \(4, 2\)"):
        LMULayer(np.ones((1, 2)), None, None, None, Memory.legendre(2, 4.0, 2), hidden)


@given(st.data())
def test_a_graph_of_layers_equals_the_plain_loop(networks, data):
    """States, hidden units and answers of every step, in the order of the layers."""
    layers = data.draw(networks)
    inputs = np.random.default_rng(0).normal(size=(3, 40, layers.n_in))
    loop = run_reference(layers, inputs, record=True)
    graph = Network.from_layers(layers)
    found = run_reference(graph, inputs, record=True, batch_size=2)
    for name in ("outputs", "m", "h", "y"):
        expected = getattr(loop, name)
        scale = max(np.abs(expected).max(initial=0.0), 1e-3)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=1e-9 * scale)
    assert list(found.memory) == list(graph.memories)
    np.testing.assert_array_equal(found.outputs, run_reference(graph, inputs, batch_size=2).outputs)
    with pytest.raises(InputError, match="lengths and nodes are for graphs"):
        run_reference(layers, inputs, nodes=["layer0"])
