"""Planted faults: the attribution names their source, place and row first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layered import layered, with_layer

from converters.quantize import quantize
from converters.quantize.connections import split_digits
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import with_connections
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity.attribution import SOURCES, attribute
from lmu_deploy.tasks.base import Task

UNITS, ORDER, LAYERS = 12, 6, 2


@pytest.fixture(scope="module")
def planted():
    """Well quantized network of two layers, with a task that float solves perfectly."""
    rng = np.random.default_rng(20)
    layers, n_in = [], 2
    for _ in range(LAYERS):
        hidden = Hidden(
            rng.normal(size=(2 * ORDER, UNITS)) / 2.0,
            rng.normal(size=(n_in, UNITS)) / n_in**0.5,
            rng.normal(size=(UNITS, UNITS)) * 0.1,
            rng.normal(size=UNITS) * 0.1,
            "tanh",
        )
        encoders = rng.normal(size=(n_in, 2)) / n_in**0.5
        memory = Memory.legendre(ORDER, 24.0, 2)
        layers.append(LMULayer(encoders, None, None, None, memory, hidden))
        n_in = UNITS
    network = LMUNetwork(tuple(layers), Readout(rng.normal(size=(UNITS, 4)), np.zeros(4)))
    phases = rng.uniform(0.0, 6.0, (64, 1, 2))
    inputs = np.sin(np.linspace(0, 9, 40)[None, :, None] * rng.uniform(0.5, 2, (64, 1, 2)) + phases)
    integer = quantize(network, inputs, kernel_slices=2, hidden_bits=12)
    targets = run_reference(network, inputs).outputs.argmax(axis=1)
    return integer, inputs, targets, Task("planted", "classification", 2, 4, 40, load=lambda: None)


def changed(network, number, part, **values):
    """Return the network with changed fields of the memory or hidden part of one layer."""
    new = dataclasses.replace(getattr(layered(network).layers[number], part), **values)
    return with_layer(network, number, **{part: new})


def enlarged(connection, doublings):
    """Return the connection with gains larger by `doublings` powers of two, by slice and row."""
    exponent = np.broadcast_to(doublings, connection.shift.shape) - connection.shift
    multiplier = connection.multiplier * 2 ** np.maximum(exponent, 0)
    return dataclasses.replace(connection, multiplier=multiplier, shift=np.maximum(-exponent, 0))


def row_doubled(connection, row):
    """Return the connection with the gains of one row doubled."""
    return enlarged(connection, np.eye(connection.n_out, dtype=np.int64)[row])


def test_a_good_network_has_small_errors_and_its_steps_add_up(planted):
    found = attribute(*planted)
    assert [step.source for step in found.steps] == list(SOURCES)
    assert found.reference.metric == 1.0
    assert found.whole.output < 0.01
    assert sum(found.shares_in_turn()) == pytest.approx(1.0)
    assert sum(found.shares_alone()) + found.interaction == pytest.approx(1.0)
    assert abs(found.interaction) < 0.5
    assert not found.tally.saturations["layer0/memory/state"].any()


@pytest.mark.parametrize(
    ("number", "part", "name", "row"),
    [
        (0, "memory", "recurrent", 5),
        (1, "memory", "input", 3),
        (0, "hidden", "memory", 7),
        (1, "hidden", "recurrent", 2),
    ],
)
def test_a_row_of_the_wrong_scale_is_named(planted, number, part, name, row):
    integer, *samples = planted
    connection = getattr(getattr(layered(integer).layers[number], part), name)
    bad = changed(integer, number, part, **{name: row_doubled(connection, row)})
    found = attribute(bad, *samples)
    first = found.causes[0]
    assert first.source == ("memory weights" if part == "memory" else "hidden weights")
    assert (first.place, first.row) == (f"layer{number}/{part}/{name}", row)
    assert first.row_share > 0.9
    assert first.share > 0.5


def test_a_wrong_row_of_the_readout_is_named(planted):
    integer, *samples = planted
    (edge,) = integer.entering(integer.output)
    bad = with_connections(integer, {edge.place: row_doubled(edge.connection, 1)})
    first = attribute(bad, *samples).causes[0]
    assert (first.source, first.place, first.row) == ("readout", "readout", 1)


def test_a_wrong_bias_is_named(planted):
    integer, *samples = planted
    bias = layered(integer).layers[1].hidden.bias.copy()
    bias[4] += round(1.0 / layered(integer).layers[1].hidden.drive.scale)
    first = attribute(changed(integer, 1, "hidden", bias=bias), *samples).causes[0]
    assert (first.source, first.place, first.row) == ("hidden weights", "layer1/hidden/bias", 4)


def one_row_wide(connection, row):
    """Return the same matrix with weights of a sixteenth in all rows but one: small sums."""
    hi, lo = connection.slices.astype(np.int64)
    coarse = split_digits(np.rint((128 * hi + lo) / 16).astype(np.int64), 2, 8)
    coarse[:, row] = connection.slices[:, row]
    wide = dataclasses.replace(connection, slices=coarse.astype(np.int8))
    return enlarged(wide, 4 * (np.arange(connection.n_out) != row))


@pytest.mark.parametrize("number", range(LAYERS))
@pytest.mark.parametrize("part", ["memory", "hidden"])
def test_one_accumulator_that_saturates_is_named(planted, number, part):
    integer, *samples = planted
    name, row = ("recurrent", 4) if part == "memory" else ("memory", 6)
    place = f"layer{number}/{part}/{name}/slice0"
    wide = one_row_wide(getattr(getattr(layered(integer).layers[number], part), name), row)
    plain = attribute(changed(integer, number, part, **{name: wide}), *samples)
    assert plain.whole.output < 0.05
    widest = np.delete(plain.tally.widest[place], row).max()
    bits = int(widest).bit_length() + 1
    narrow = dataclasses.replace(wide, accumulator_bits=bits)
    found = attribute(changed(integer, number, part, **{name: narrow}), *samples)
    first = found.causes[0]
    assert (first.source, first.place, first.row) == ("saturation", place, row)
    assert first.row_share == 1.0
    assert first.saturations == found.tally.saturations[place].sum() > 0
    assert found.whole.output > 2 * plain.whole.output


def coarse_state(integer, number, bits):
    """Return the network with narrow memory states of one layer, messages in the same units."""
    memory, hidden = layered(integer).layers[number].memory, layered(integer).layers[number].hidden
    shift = memory.state.bits - bits - 2
    messages = shift - memory.message_shift
    assert messages >= 0

    wide = changed(
        integer,
        number,
        "memory",
        state=Format(bits, memory.state.scale * 2.0**shift),
        message=Format(bits, memory.message.scale * 2.0**messages),
        message_shift=0,
        recurrent=enlarged(memory.recurrent, messages - shift),
        input=enlarged(memory.input, -shift),
    )
    return changed(wide, number, "hidden", memory=enlarged(hidden.memory, messages))


@pytest.mark.parametrize("number", range(LAYERS))
def test_a_state_of_8_bits_is_named(planted, number):
    integer, *samples = planted
    found = attribute(coarse_state(integer, number, 8), *samples)
    first = found.causes[0]
    assert (first.source, first.place) == ("memory state width", f"layer{number}/memory/state")
    assert first.row is None
    assert first.share > 0.5


def test_a_fir_line_that_is_too_short_is_named(planted):
    _, inputs, targets, task = planted
    integer = quantize(planted[0].source, inputs, realization="fir", taps=16)
    first = attribute(integer, inputs, targets, task).causes[0]
    assert first.source == "discretization"
    assert first.place in ("layer0/memory", "layer1/memory")


def test_thresholds_that_are_too_large_are_named(planted):
    integer, *samples = planted
    held = dataclasses.replace(layered(integer).layers[1].hidden.recurrent, threshold=900)
    found = attribute(changed(integer, 1, "hidden", recurrent=held), *samples)
    first = found.causes[0]
    assert (first.source, first.place) == ("message thresholds", "layer1/hidden/recurrent")


def test_narrow_messages_are_named(planted):
    _, inputs, targets, task = planted
    options = {"kernel_slices": 2, "hidden_bits": 12}
    integer = quantize(planted[0].source, inputs, message_bits=5, input_bits=12, **options)
    first = attribute(integer, inputs, targets, task).causes[0]
    assert first.source == "message widths"
    assert first.place in ("layer0/memory/message", "layer1/memory/message")


def test_it_is_reproducible_and_uses_the_requested_samples(planted):
    seen = []
    one = attribute(*planted, samples=5, progress=lambda *done: seen.append(done))
    other = attribute(*planted, samples=5)
    assert one.samples == 5
    assert (one.steps, one.causes) == (other.steps, other.causes)
    assert seen[-1][0] == seen[-1][1] > 0
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_samples_without_desired_outputs_are_refused(planted):
    integer, inputs, targets, task = planted
    with pytest.raises(InputError, match="64 samples and 3 desired outputs"):
        attribute(integer, inputs, targets[:3], task)
    with pytest.raises(InputError, match="samples of the attribution"):
        attribute(integer, inputs, targets, task, samples=0)
