"""Networks of LMU and LSTM layers: all on the chip, and every target gives the same numbers.

Files of version 0.1 kept LSTM layers on the host; they load, and run as they did.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layered import layered
from needs import needs

from converters.quantize import quantize
from converters.quantize.sparsity import with_fraction
from lmu_deploy.api.check import remarks
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.graph import sources
from lmu_deploy.core.integer.layered import HostLayer, LayeredNetwork
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.hardware.placement import place
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import load_profile
from targets.base import get_target
from targets.integer import IntegerTarget, step


def lstm(rng, n_in, units):
    shapes = (n_in, 4 * units), (units, 4 * units), (4 * units,)
    return LSTMLayer(*(rng.normal(size=shape) / 2 for shape in shapes))


def lmu(rng, n_in, units=5):
    memory = Memory.legendre(4, 9.0)
    if not units:
        return LMULayer(rng.normal(size=(n_in, 1)), None, None, None, memory, None)
    hidden = Hidden(
        rng.normal(size=(4, units)),
        rng.normal(size=(n_in, units)),
        rng.normal(size=(units, units)) / 4,
        rng.normal(size=units) / 4,
        "tanh",
    )
    encoders = rng.normal(size=(units, 1)) / 5
    return LMULayer(rng.normal(size=(n_in, 1)), encoders, None, None, memory, hidden)


def network_of(order="LHLH", *, units=5, every_step=True):
    """L is an LMU, H an LSTM."""
    rng = np.random.default_rng(11)
    layers, n_in = [], 2
    for number, kind in enumerate(order):
        layers.append(lstm(rng, n_in, 3 + number) if kind == "H" else lmu(rng, n_in, units))
        n_in = layers[-1].n_out
    readout = Readout(rng.normal(size=(n_in, 2)), rng.normal(size=2))
    return LMUNetwork(tuple(layers), readout, every_step)


INPUTS = np.random.default_rng(4).normal(size=(6, 14, 2))


def same(ours, theirs, samples=slice(None)):
    """Whether two runs are of the same numbers, with ``==``: all states, events and counts."""
    assert ours.synops == theirs.synops
    assert ours.carried == theirs.carried
    assert ours.saturations == theirs.saturations
    assert list(ours.events) == list(theirs.events)
    for name, events in ours.events.items():
        assert np.array_equal(events, theirs.events[name]), name
    for name in ("m", "h", "y", "m_scale", "h_scale"):
        mine, other = getattr(ours.states, name), getattr(theirs.states, name)
        assert np.array_equal(mine, other), name
    assert np.array_equal(ours.outputs, theirs.outputs)


@needs("onnxruntime")
@settings(max_examples=12)
@given(data=st.data(), fraction=st.sampled_from([None, None, 0.0, 0.1]))
def test_drawn_hybrids_are_the_same_on_onnxruntime_stream_and_batch(networks, data, fraction):
    drawn = data.draw(networks)
    kinds = {type(layer) for layer in drawn.layers}
    assume(kinds == {LMULayer, LSTMLayer})
    inputs = np.random.default_rng(1).normal(size=(4, 6, drawn.n_in))
    try:
        network = quantize(drawn, inputs[:2])
    except InputError as refused:
        # A unit that two samples hardly move has a range that its bias is a million times of.
        assume("units is too large" not in str(refused))
        raise
    if fraction is not None:
        network = with_fraction(network, fraction)
    run = IntegerTarget("numpy").run(network, inputs, record=True)
    same(run, get_target("onnxruntime").run(network, inputs, record=True))
    stream = None
    for t in range(inputs.shape[1]):
        y, stream = step(network, inputs[:, t], stream)
        assert np.array_equal(y, run.states.y[:, t])
    alone = IntegerTarget("numpy").run(network, inputs[3:], record=True)
    for name in ("m", "h", "y"):
        assert np.array_equal(getattr(alone.states, name)[0], getattr(run.states, name)[3])


@pytest.mark.parametrize("order", ["HL", "LH", "HHLL", "LHHL", "HH"])
@pytest.mark.parametrize("every_step", [True, False])
def test_any_order_of_layers_is_near_the_float_network(order, every_step):
    network = network_of(order, every_step=every_step)
    integer = quantize(network, INPUTS, slices=2, kernel_slices=2, hidden_bits=12)
    assert not integer.on_host
    run = IntegerTarget().run(integer, INPUTS)
    truth = get_target("reference").run(Network.from_layers(network), INPUTS).outputs
    assert run.outputs.shape == truth.shape
    np.testing.assert_allclose(run.outputs, truth, atol=0.03)


@pytest.mark.parametrize("form", ["dense-incremental", "schur", "fir"])
def test_an_lstm_reads_a_memory_in_its_own_coordinates(form):
    """Without hidden units the LSTM reads the memory itself, which a basis has to give back."""
    network = network_of("LHL", units=0)
    for slices in (1, 2):
        integer = quantize(network, INPUTS, realization=form, slices=slices)
        run = IntegerTarget().run(integer, INPUTS)
        truth = get_target("reference").run(Network.from_layers(network), INPUTS).outputs
        error = np.sqrt(np.mean((run.outputs - truth) ** 2) / np.mean(truth**2))
        assert error < (0.05 if slices == 1 else 0.01) or form == "fir"


def test_an_lstm_is_placed_on_cores_as_its_units():
    integer = quantize(network_of(), INPUTS)
    run = IntegerTarget().run(integer, INPUTS)
    names = ["input", "layer0/memory", "layer0/hidden", "layer1/hidden"]
    names += ["layer2/memory", "layer2/hidden", "layer3/hidden"]
    assert [str(source) for source in sources(integer)] == list(run.events) == names
    profile = load_profile("loihi2")
    assert not check(integer, profile)
    placed = set().union(*(core.neurons for core in place(integer, profile)))
    assert placed == {*names[1:], "readout"}
    assert remarks(integer) == []


def old_hybrid():
    """Return what version 0.1 made of an LMU, an LSTM on the host and an LMU."""
    front = layered(quantize(network_of("L"), INPUTS))
    rng = np.random.default_rng(3)
    cell, message = lstm(rng, 5, 4), Format(8, 1 / 127)
    entering = np.random.default_rng(8).normal(size=(6, 14, 4)) / 3
    back = layered(quantize(LMUNetwork((lmu(rng, 4),), network_of("L").readout, True), entering))
    tail = replace(back, input=message).layers
    layers = (front.layers[0], HostLayer(cell, message), *tail)
    return LayeredNetwork(front.input, layers, back.readout, True), cell


def test_an_old_file_keeps_its_lstm_on_the_host(tmp_path):
    """By hand: the first layer alone, its messages times their scale, the LSTM, one rounding."""
    old, cell = old_hybrid()
    save(old, tmp_path / "old.safetensors")
    integer = load(tmp_path / "old.safetensors")
    run = IntegerTarget().run(integer, INPUTS, record=True)
    first, host = old.layers[:2]
    sent = run.states.parts["layer0/hidden"] * first.output.scale
    h = np.zeros((len(INPUTS), 4))
    c = np.zeros_like(h)
    for t in range(INPUTS.shape[1]):
        z = sent[:, t] @ cell.kernel + h @ cell.recurrent_kernel + cell.bias
        i, f, g, o = np.split(z, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        np.testing.assert_allclose(run.states.parts["layer1/host"][:, t], h, rtol=0, atol=1e-12)
    messages = np.rint(run.states.parts["layer1/host"] / host.message.scale)
    assert np.array_equal(np.count_nonzero(messages, axis=2), run.events["layer1/host"])
    assert run.states.h_on_host.sum() == 4
    assert "On the host, in float64: layer1 (LSTM, 4 units)" in run.notes[-1]
    assert remarks(integer)[0].startswith("On the host, in float64: layer1 (LSTM")


def test_streams_belong_to_their_network_and_stay_as_they_were():
    integer = quantize(network_of(), INPUTS)
    _, stream = step(integer, INPUTS[:, 0])
    first, _ = step(integer, INPUTS[:, 1], stream)
    again, _ = step(integer, INPUTS[:, 1], stream)
    assert np.array_equal(first, again)
    with pytest.raises(InputError, match="another network"):
        step(replace(integer), INPUTS[:, 1], stream)
