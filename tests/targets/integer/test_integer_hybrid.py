"""Networks with LSTM layers: those stay on the host, and every target gives the same numbers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layered import layered, relayered
from lmu_deploy.core.integer.segments import ChipSegment, HostSegment, segments

from converters.onnx import to_onnx_integer, to_onnx_integer_step, to_onnx_qdq
from converters.quantize import quantize
from converters.quantize.sparsity import with_fraction
from lmu_deploy.api.check import remarks
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.graph import edges, populations
from lmu_deploy.core.integer.network import INTEGER_CLASSES, HostLayer, IntegerNetwork
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.fidelity.measures.agreement import compare_states
from lmu_deploy.hardware.placement import place
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import load_profile
from targets.base import get_target
from targets.integer import IntegerTarget, step


def needs(library):
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None,
        reason=f"{library} is not installed; run lmu-deploy doctor --fix",
    )


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
    """L is an LMU, H an LSTM: what stays on the host."""
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
    kinds = {type(layer) for layer in layered(drawn).layers}
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


@needs("lava")
def test_lava_runs_segment_by_segment_and_equals_the_simulator():
    network = with_fraction(quantize(network_of("LHL"), INPUTS), 0.05)
    inputs = INPUTS[:2, :8]
    lava = get_target("lava").run(network, inputs, record=True)
    same(IntegerTarget("numpy").run(network, inputs, record=True), lava)
    assert any("layer 1 (LSTM)." in note for note in lava.notes)
    assert all(len(raster) == lava.chip_steps for raster in lava.rasters.values())


@pytest.mark.parametrize("order", ["LHLH", "HL", "LH"])
def test_a_report_compares_every_integer_of_a_hybrid(order):
    integer = quantize(network_of(order), INPUTS)
    run = IntegerTarget("numpy").run(integer, INPUTS, record=True)
    units = [layer.n_out for layer in network_of(order).layers]
    on_host = np.repeat([kind == "H" for kind in order], units)
    assert np.array_equal(run.states.h_on_host, on_host)
    assert (run.states.h[..., ~on_host] == np.rint(run.states.h[..., ~on_host])).all()
    found = compare_states(run.states, run.states)
    columns = run.states.m.shape[2] + (~on_host).sum() + 2 * (order[-1] == "L")
    assert found.values == run.states.m.shape[0] * run.states.m.shape[1] * columns
    for column in np.flatnonzero(~on_host):
        h = run.states.h.copy()
        h[-1, -1, column] += 1
        assert not compare_states(run.states, replace(run.states, h=h)).equal


@pytest.mark.parametrize("order", ["HL", "LH", "HHLL", "LHHL"])
@pytest.mark.parametrize("every_step", [True, False])
def test_any_order_of_layers_is_near_the_float_network(order, every_step):
    network = network_of(order, every_step=every_step)
    integer = quantize(network, INPUTS, slices=2, kernel_slices=2, hidden_bits=12)
    run = IntegerTarget().run(integer, INPUTS)
    truth = get_target("reference").run(Network.from_layers(network), INPUTS).outputs
    assert run.outputs.shape == truth.shape
    np.testing.assert_allclose(run.outputs, truth, atol=0.03)


@pytest.mark.parametrize("form", ["dense-incremental", "schur", "fir"])
def test_a_memory_in_other_coordinates_is_given_to_the_host_in_its_own(form):
    """Without hidden units the LSTM reads the memory itself, which a basis has to give back."""
    network = network_of("LHL", units=0)
    for slices in (1, 2):
        integer = quantize(network, INPUTS, realization=form, slices=slices)
        run = IntegerTarget().run(integer, INPUTS)
        truth = get_target("reference").run(Network.from_layers(network), INPUTS).outputs
        error = np.sqrt(np.mean((run.outputs - truth) ** 2) / np.mean(truth**2))
        assert error < (0.05 if slices == 1 else 0.01) or form == "fir"


def test_the_host_takes_what_messages_stand_for_and_its_output_is_rounded_once():
    """By hand: the first layer alone, its messages times their scale, the LSTM, one rounding."""
    network = network_of("LHL")
    integer = quantize(network, INPUTS)
    states = IntegerTarget().run(integer, INPUTS, record=True).states
    first, host, _ = layered(integer).layers
    sent = states.h[..., :5] * first.output.scale
    h = np.zeros((len(INPUTS), 4))
    c = np.zeros_like(h)
    for t in range(INPUTS.shape[1]):
        z = sent[:, t] @ host.lstm.kernel + h @ host.lstm.recurrent_kernel + host.lstm.bias
        i, f, g, o = np.split(z, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        np.testing.assert_allclose(states.h[:, t, 5:9], h, rtol=0, atol=1e-12)
    messages = np.rint(states.h[..., 5:9] / host.message.scale)
    whole = IntegerTarget().run(integer, INPUTS)
    assert np.array_equal(np.count_nonzero(messages, axis=2), whole.events["layer1/host"])
    assert np.all(np.abs(messages) <= host.message.limit)


def test_counts_fit_and_placement_are_of_the_chip_alone():
    integer = quantize(network_of(), INPUTS)
    run = IntegerTarget().run(integer, INPUTS)
    names = ["input", "layer0/memory", "layer0/hidden", "layer1/host"]
    names += ["layer2/memory", "layer2/hidden"]
    assert list(populations(integer)) == list(run.events) == list(run.neurons) == names
    assert set(run.carried) == {edge.place for edge in edges(integer)}
    assert "readout/output" not in run.saturations
    fan_out = {edge.place: edge.connection.fan_out for edge in edges(integer)}
    assert all(len(np.unique(synapses)) == 1 for synapses in fan_out.values())
    assert run.synops == sum(n * int(fan_out[place][0]) for place, n in run.carried.items())
    profile = load_profile("loihi2")
    assert not check(integer, profile)
    placed = set().union(*(core.neurons for core in place(integer, profile)))
    assert placed == {"layer0/memory", "layer0/hidden", "layer2/memory", "layer2/hidden"}


def test_what_stays_on_the_host_is_said():
    integer = quantize(network_of(), INPUTS)
    sentence = "On the host, in float64: layers 1 and 3 (LSTM) and the readout."
    assert IntegerTarget().run(integer, INPUTS).notes[-1].startswith(sentence)
    assert remarks(integer)[0].startswith(sentence)
    assert remarks(quantize(network_of("LL"), INPUTS)) == []


def test_segments_begin_where_the_host_does():
    parts = segments(quantize(network_of("HHLLH"), INPUTS))
    kinds = [(type(part), part.first) for part in parts]
    assert kinds == [(HostSegment, 0), (ChipSegment, 2), (HostSegment, 4)]
    assert parts[0].readout is None
    assert parts[1].hands_over
    assert parts[2].readout is not None


def test_a_file_gives_the_same_network_back(tmp_path):
    integer = quantize(network_of(), INPUTS)
    save(integer, tmp_path / "hybrid.safetensors")
    again = load(tmp_path / "hybrid.safetensors", INTEGER_CLASSES)
    one, two = (IntegerTarget().run(n, INPUTS, record=True) for n in (integer, again))
    same(one, two)


def test_streams_belong_to_their_network_and_stay_as_they_were():
    integer = quantize(network_of(), INPUTS)
    _, stream = step(integer, INPUTS[:, 0])
    first, _ = step(integer, INPUTS[:, 1], stream)
    again, _ = step(integer, INPUTS[:, 1], stream)
    assert np.array_equal(first, again)
    with pytest.raises(InputError, match="another network"):
        step(replace(integer), INPUTS[:, 1], stream)


@pytest.mark.parametrize("convert", [to_onnx_integer, to_onnx_integer_step, to_onnx_qdq])
def test_one_graph_of_integers_is_refused(convert):
    with pytest.raises(InputError, match="LSTM layers 1, 3 stay on the host; export the float"):
        convert(quantize(network_of(), INPUTS))


def test_lstm_layers_alone_leave_nothing_for_a_chip():
    with pytest.raises(InputError, match="only LSTM layers, which stay on the host"):
        quantize(network_of("HH"), INPUTS)


HYBRID = quantize(network_of("LHL"), INPUTS)
AT_THE_END = quantize(network_of("LH"), INPUTS)
LAYERS = layered(HYBRID).layers
WRONG = {
    "no format": (HYBRID, (LAYERS[0], replace(LAYERS[1], message=None), LAYERS[2]), "layer 1 is"),
    "a format at the end": (
        AT_THE_END,
        (
            layered(AT_THE_END).layers[0],
            replace(layered(AT_THE_END).layers[1], message=Format(8, 1.0)),
        ),
        "layer 1 is on the host and needs a message format exactly if",
    ),
    "widths": (HYBRID, (LAYERS[0], LAYERS[0]), "layer 0 sends 5 messages"),
    "readout on the chip": (AT_THE_END, layered(AT_THE_END).layers[:1], "needs a IntegerReadout"),
    "all on the host": (HYBRID, LAYERS[1:2], "at least one layer in integers"),
    "something else": (HYBRID, (LAYERS[0], "LSTM"), "needs a IntegerLayer, not str"),
}


@pytest.mark.parametrize(("network", "layers", "message"), WRONG.values(), ids=WRONG)
def test_a_network_that_cannot_be_is_refused_by_name(network, layers, message):
    assert isinstance(network, IntegerNetwork)
    with pytest.raises(InputError, match=message):
        relayered(network, layers=layers)


@pytest.mark.parametrize("field", ["lstm", "message"])
def test_a_host_layer_of_something_else_is_refused(field):
    with pytest.raises(InputError, match="host layer needs a"):
        replace(HostLayer(LAYERS[1].lstm, None), **{field: "x"})
