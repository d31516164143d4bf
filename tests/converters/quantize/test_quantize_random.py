"""Random quantized networks differ from their float networks by at most the bound of rounding.

Nothing saturates on the calibration itself, so the two networks differ only by rounding: half a
unit of each format, and half a unit of each weight and drive. These errors are propagated through
the network by the magnitudes of its matrices, step by step, along with the reference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.quantize import quantize
from converters.quantize.formats import evaluate
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import edges, with_connections
from lmu_deploy.core.integer.layered import layer_views
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import GATE
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import activate, run_reference
from targets.integer import IntegerTarget

WIDE = {
    "slices": 3,
    "kernel_slices": 3,
    "message_bits": 14,
    "hidden_bits": 14,
    "input_bits": 16,
}


def through(matrix, error):
    """Errors of rows of messages, carried on by ``rows @ matrix``."""
    return 0.0 if matrix is None else error @ np.abs(matrix).astype(np.float64)


def of_connection(connection, scale, source, values):
    """What rounding a connection's weights and drives makes, at most, on real `values`; real."""
    if connection is None:
        return 0.0
    step = connection.multiplier[-1] * 2.0 ** -connection.shift[-1].astype(float)
    sent = np.abs(values).sum(axis=-1, keepdims=True) / source + values.shape[-1]
    drives = 0.5 * (connection.shift > 0).sum(axis=0)
    return (0.5 * step * sent + drives) * scale


def of_activation(name, hidden):
    """Greatest error of the activation's lines at many points, and half a unit between them."""
    z = np.linspace(0, min(hidden.drive.limit, 8.0 / hidden.drive.scale), 20_001).astype(int)
    truth = activate(name, z * hidden.drive.scale)
    inside = np.abs(truth) <= hidden.message.limit * hidden.message.scale
    found = evaluate(hidden.activation, z, hidden.message.bits) * hidden.message.scale
    return np.abs(found - truth)[inside].max() + 0.5 * hidden.message.scale


class LMUBound:
    """Errors of m and of H of one layer, at most; (samples, states) and (samples, units)."""

    def __init__(self, layer, made, x_scale, samples):
        self.layer, self.made, self.x_scale = layer, made, x_scale
        memory, n = layer.memory, layer.memory.size
        self.b = memory.b_bar.astype(float)[:, None]
        self.step = np.kron(np.eye(memory.channels), memory.a_bar.astype(float))
        if layer.memory_encoders is not None:
            self.step = self.step + np.kron(layer.memory_encoders.T, self.b)
        self.of_m = np.zeros((samples, n))
        self.m = np.zeros((samples, n))
        units = 0 if layer.hidden is None else layer.hidden.units
        self.of_h, self.h = np.zeros((samples, units)), np.zeros((samples, units))
        self.lines = 0.0 if units == 0 else of_activation(layer.hidden.activation, made.hidden)

    def into(self, encoders):
        return None if encoders is None else np.kron(encoders.T, self.b).T

    def advance(self, x, of_x, m, h):
        """Take the true x, m and h of a step; give the bound on what the layer sends."""
        layer, memory, hidden = self.layer, self.made.memory, self.made.hidden
        sent, unit = 0.5 * memory.message.scale, memory.state.scale
        error = through(self.step.T, self.of_m) + through(self.into(layer.input_encoders), of_x)
        error = error + np.abs(self.step - np.eye(len(self.step))).sum(axis=1) * sent
        error = error + through(self.into(layer.hidden_encoders), self.of_h) + 0.5 * unit
        error = error + of_connection(memory.recurrent, unit, memory.message.scale, self.m)
        error = error + of_connection(memory.input, unit, self.x_scale, x)
        if memory.hidden is not None:
            error = error + of_connection(memory.hidden, unit, hidden.message.scale, self.h)
        self.of_m, self.m = error, m
        if hidden is None:
            return error + sent
        unit, kernels = hidden.drive.scale, layer.hidden
        z = through(kernels.memory_kernel, error + sent) + through(kernels.input_kernel, of_x)
        z = z + through(kernels.recurrent_kernel, self.of_h) + 0.5 * unit
        z = z + of_connection(hidden.memory, unit, memory.message.scale, m)
        z = z + of_connection(hidden.input, unit, self.x_scale, x)
        z = z + of_connection(hidden.recurrent, unit, hidden.message.scale, self.h)
        self.of_h, self.h = z + self.lines, h
        return self.of_h


def of_function(function, unit, exact):
    """Greatest error of a function of an LSTM at many drives of `unit`, and half a unit between."""
    z = np.linspace(-12.0 / unit, 12.0 / unit, 40_001).astype(int)
    found = np.clip(function(z), -GATE.limit, GATE.limit) * GATE.scale
    return np.abs(found - exact(z * unit)).max() + 0.5 * GATE.scale


class LSTMBound:
    """The same of an LSTM: sigmoid has a slope of at most 1/4, tanh of 1, and |c| <= steps."""

    def __init__(self, layer, integer, name, x_scale, samples):
        self.layer, self.made, self.x_scale, self.steps = layer, integer[name], x_scale, 0
        self.edges = {edge.name: edge.connection for edge in integer.entering(name)}
        self.of_h, self.of_c, self.h = np.zeros((3, samples, layer.n_out))
        drive, state = self.made.drive.scale, self.made.state.scale
        self.gate = of_function(self.made.gate, drive, lambda z: 1.0 / (1.0 + np.exp(-z)))
        self.value = of_function(self.made.activation, drive, np.tanh)
        self.result = of_function(self.made.output, state, np.tanh)

    def advance(self, x, of_x, h):
        """Take the true x and h of a step; give the bound on what the layer sends."""
        made, unit = self.made, self.made.drive.scale
        of_z = through(self.layer.kernel, of_x) + through(self.layer.recurrent_kernel, self.of_h)
        of_z = of_z + of_connection(self.edges["input"], unit, self.x_scale, x) + 0.5 * unit
        of_z = of_z + of_connection(self.edges["recurrent"], unit, made.message.scale, self.h)
        i, f, g, o = np.split(of_z, 4, axis=1)
        i, f, g, o = i / 4 + self.gate, f / 4 + self.gate, g + self.value, o / 4 + self.gate
        kept = self.of_c + (self.steps + self.of_c) * f
        self.of_c = kept + g + (1.0 + g) * i + made.state.scale  # two products are rounded
        self.steps += 1
        out = self.of_c + self.result
        self.of_h, self.h = out + (1.0 + out) * o + 0.5 * made.message.scale, h
        return self.of_h


def bounds(network, integer, inputs, trace):
    """At every step, the largest possible errors of m, h and y; each (samples, steps, n)."""
    samples, steps, _ = inputs.shape
    layers, scale = [], integer.input.scale
    names = [f"layer{number}" for number in range(len(network.layers))]
    for name, layer, made in zip(names, network.layers, layer_views(integer, names), strict=True):
        if made is None:
            units = Place(name, "hidden")
            layers.append(LSTMBound(layer, integer, units, scale, samples))
            scale = integer[units].message.scale
        else:
            layers.append(LMUBound(layer, made, scale, samples))
            scale = made.output.scale
    found = {"m": [], "h": [], "y": []}
    for t in range(steps):
        x, kept, at = inputs[:, t], {"m": [], "h": []}, {"m": 0, "h": 0}
        of_x = np.full_like(x, 0.5 * integer.input.scale)

        def take(name, size, t=t, at=at):
            at[name] += size
            return getattr(trace, name)[:, t, at[name] - size : at[name]]

        for layer, bound in zip(network.layers, layers, strict=True):
            if isinstance(bound, LSTMBound):
                h = take("h", layer.n_out)
                of_x, x = bound.advance(x, of_x, h), h
                kept["h"].append(of_x)
                continue
            m = take("m", layer.memory.size)
            h = m if layer.hidden is None else take("h", layer.hidden.units)
            of_x, x = bound.advance(x, of_x, m, h), h
            kept["m"].append(bound.of_m)
            if layer.hidden is not None:
                kept["h"].append(bound.of_h)
        of_y, (readout,) = through(network.readout.kernel, of_x), integer.entering(integer.output)
        of_y = of_y + of_connection(readout.connection, integer.y_scale, scale, x)
        of_y = of_y + 0.5 * integer.y_scale
        found["y"].append(of_y)
        for name in "mh":
            found[name].append(np.concatenate(kept[name], axis=1) if kept[name] else x[:, :0])
    return {name: np.stack(parts, axis=1) for name, parts in found.items()}


def compared(network, inputs, integer):
    """By name: the integer network's values, the float one's, and the bound; and saturations."""
    trace = run_reference(network, inputs, record=True)
    run = IntegerTarget().run(integer, inputs, record=True)
    s, bound = run.states, bounds(network, integer, inputs, trace)
    real = {"m": s.m * s.m_scale, "h": s.h * s.h_scale, "y": s.y * s.y_scale}
    return {n: (real[n], getattr(trace, n), bound[n]) for n in "mhy"}, run.saturations


def tiny_kernel(kernel=0.0889):
    """Hidden units of tanh that hardly move, so that 14 bits of +-1 are coarse beside them."""
    layer = LMULayer(
        np.full((1, 1), 0.05),
        None,
        None,
        None,
        Memory.legendre(1, 4.0),
        Hidden(np.full((1, 1), kernel), None, None, None, "tanh"),
    )
    return LMUNetwork((layer,), Readout(np.full((1, 1), 0.45), None))


def whisper():
    """Units of relu that hardly answer, and behind them units of tanh that feed back in full."""
    rng = np.random.default_rng(3)
    faint = Hidden(np.full((2, 3), 1e-9), None, None, None, "relu")
    first = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(2, 9.0), faint)
    units = Hidden(rng.normal(size=(3, 4)), None, None, None, "tanh")
    second = LMULayer(
        rng.normal(size=(3, 1)),
        rng.normal(size=(4, 1)),
        None,
        None,
        Memory.legendre(3, 12.0),
        units,
    )
    return LMUNetwork((first, second), Readout(rng.normal(size=(4, 2)), None), True)


@settings(max_examples=40)
@given(data=st.data())
def test_random_networks_are_within_the_bound_of_their_rounding(networks, data):
    """Four steps, because some of the random networks are unstable and multiply any error."""
    check(data.draw(networks))


@pytest.mark.parametrize("network", [tiny_kernel(), tiny_kernel(1e-4), whisper()])
def test_networks_with_small_signals_are_within_the_bound_of_their_rounding(network):
    check(network)


def check(network):
    inputs = np.random.default_rng(0).normal(size=(20, 4, network.n_in))
    try:
        integer = quantize(network, inputs, **WIDE)
    except InputError as error:
        assert "accumulator" in str(error), error
        return
    found, saturations = compared(network, inputs, integer)
    assert not any(saturations.values())
    for name, (mine, truth, bound) in found.items():
        assert np.all(np.abs(mine - truth) <= bound + 1e-12), name


def lively():
    """LMU, LSTM, LMU: every kernel and encoder, about unit size throughout."""
    rng = np.random.default_rng(5)

    def array(*shape):
        return rng.normal(size=shape) / np.sqrt(shape[0])

    def lmu(n_in):
        hidden = Hidden(array(8, 5), array(n_in, 5), 0.5 * array(5, 5), 0.1 * array(5), "tanh")
        memory = Memory.legendre(4, 9.0, 2)
        return LMULayer(array(n_in, 2), 0.2 * array(5, 2), 0.1 * array(8, 2), None, memory, hidden)

    lstm = LSTMLayer(0.7 * array(5, 16), 0.3 * array(4, 16), array(16))
    return LMUNetwork((lmu(2), lstm, lmu(4)), Readout(array(5, 3), array(3)), True)


def test_a_wrong_matrix_exceeds_the_bound():
    network, inputs = lively(), np.random.default_rng(0).normal(size=(20, 4, 2))
    integer = quantize(network, inputs, **WIDE)
    found, _ = compared(network, inputs, integer)
    for mine, truth, bound in found.values():
        assert np.all(np.abs(mine - truth) <= bound + 1e-12)
    for edge in edges(integer):
        turned = replace(edge.connection, slices=-edge.connection.slices)
        wrong = with_connections(integer, {edge.place: turned})
        parts = compared(network, inputs, wrong)[0].values()
        assert any(np.any(np.abs(mine - truth) > 1.5 * bound) for mine, truth, bound in parts), (
            edge.place
        )
