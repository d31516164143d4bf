"""Ranges, histograms and accumulators, compared with recorded and recomputed values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layered import layered, relayered

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.fidelity.attribution import attribute
from lmu_deploy.fidelity.measures.ranges import layer_ranges
from targets.integer import IntegerTarget


@pytest.fixture(scope="module", params=["dense-incremental", "schur", "fir", "sign-taylor"])
def integer(digits, request):
    return quantize(digits.network, digits.split.inputs, realization=request.param)


def test_signals_equal_the_integer_target(digits, integer):
    inputs = digits.split.inputs[:10]
    found = {s.place: s for s in layer_ranges(integer, inputs).signals}
    states = IntegerTarget().run(integer, inputs, record=True).states
    for place, values, scale in (
        ("layer0/memory/state", states.m, layered(integer).layers[0].memory.state.scale),
        ("layer0/hidden/message", states.h, layered(integer).layers[0].hidden.message.scale),
        ("readout/output", states.y, layered(integer).readout.output.scale),
    ):
        signal = found[place]
        np.testing.assert_allclose(signal.after, (values.min() * scale, values.max() * scale))
        assert signal.histogram.after.sum() == signal.histogram.before.sum() == values.size
        counted, _ = np.histogram(
            values * scale, 24, (signal.histogram.low, signal.histogram.high)
        )  # fine bins decide on which side of an edge a value falls
        assert np.abs(np.cumsum(counted) - np.cumsum(signal.histogram.after)).max() <= (
            0.01 * values.size
        )
        assert (
            signal.histogram.high * (11 / 12)
            <= max(max(map(abs, signal.after)), max(map(abs, signal.before))) + signal.limit / 2048
        )
        assert 0 < signal.used <= 1.0
        assert signal.saturations == 0


def test_float_and_integer_signals_are_similar(digits, integer):
    for signal in layer_ranges(integer, digits.split.inputs).signals:
        size = max(map(abs, signal.before))
        np.testing.assert_allclose(signal.after, signal.before, atol=0.05 * size)


def test_accumulators_need_the_bits_of_their_sums(digits, integer):
    inputs = digits.split.inputs[:10]
    states = IntegerTarget().run(integer, inputs, record=True).states
    found = {c.place: c for c in layer_ranges(integer, inputs).connections}
    assert list(found) == [edge.place for edge in edges(integer)]
    connection = layered(integer).layers[0].hidden.recurrent or layered(integer).readout.connection
    place = "layer0/hidden/recurrent" if layered(integer).layers[0].hidden.recurrent else "readout"
    sums = np.abs(states.h.astype(np.int64) @ connection.slices[0].astype(np.int64).T).max()
    accumulator = found[place].accumulators[0]
    assert accumulator.measured == pytest.approx(np.log2(sums + 1.0) + 1.0)
    for each in found.values():
        for one in each.accumulators:
            assert one.measured <= one.proved + 1e-9
            assert one.saturations == 0


def test_weights_before_and_after(digits):
    integer = quantize(digits.network, digits.split.inputs)
    shift = layered(integer).layers[0].hidden.memory.shift.copy()
    shift[:, 4] -= 1
    memory = dataclasses.replace(layered(integer).layers[0].hidden.memory, shift=shift)
    hidden = dataclasses.replace(layered(integer).layers[0].hidden, memory=memory)
    layer = dataclasses.replace(layered(integer).layers[0], hidden=hidden)
    bad = relayered(integer, layers=(layer,))
    good, wrong = (
        next(c for c in layer_ranges(n, digits.split.inputs).connections if "hidden/mem" in c.place)
        for n in (integer, bad)
    )
    assert good.largest == pytest.approx(
        np.abs(layered(integer.source).layers[0].hidden.memory_kernel).max()
    )
    assert good.error < 0.01 < good.histogram.before.sum() == memory.slices[0].size
    assert (wrong.worst_row, wrong.worst_error) == (4, pytest.approx(1.0, abs=0.02))
    assert good.histogram.low == -good.histogram.high


def test_sums_of_more_samples_can_be_given(digits):
    integer = quantize(digits.network, digits.split.inputs)
    found = attribute(integer, digits.split.inputs, digits.split.targets, digits.task, samples=100)
    ranges = layer_ranges(integer, digits.split.inputs, found.tally, found.samples)
    assert (ranges.samples, ranges.accumulator_samples) == (16, 100)
    few = layer_ranges(integer, digits.split.inputs)
    for more, less in zip(ranges.connections, few.connections, strict=True):
        assert more.accumulators[0].measured >= less.accumulators[0].measured


def test_saturations_are_counted_where_they_are(digits):
    integer = quantize(digits.network, digits.split.inputs / 4)
    memory = layered(integer).layers[0].memory
    narrow = dataclasses.replace(memory.recurrent, accumulator_bits=12)
    layer = dataclasses.replace(
        layered(integer).layers[0], memory=dataclasses.replace(memory, recurrent=narrow)
    )
    bad = relayered(integer, layers=(layer,))
    inputs = digits.split.inputs[:10]
    run = IntegerTarget().run(bad, inputs, record=True)
    ranges = layer_ranges(bad, inputs)
    assert {s.place: s.saturations for s in ranges.signals} == {
        s.place: run.saturations[s.place] for s in ranges.signals
    }
    found = next(c for c in ranges.connections if c.place == "layer0/memory/recurrent")
    for k, accumulator in enumerate(found.accumulators):
        assert accumulator.saturations == run.saturations[f"layer0/memory/recurrent/slice{k}"]
    assert found.accumulators[0].saturations > 0
    assert found.accumulators[0].measured > found.accumulators[0].available == 12


def test_a_network_without_its_float_network_is_refused(digits):
    integer = dataclasses.replace(quantize(digits.network, digits.split.inputs), source=None)
    with pytest.raises(InputError, match="does not contain the float network"):
        layer_ranges(integer, digits.split.inputs)
