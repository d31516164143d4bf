"""Units of input channels change no integer, whatever they are."""

import dataclasses

import numpy as np
import pytest

import lmu_deploy as ld
from converters.quantize import quantize
from converters.quantize.calibration import Signal
from converters.quantize.formats import channel_gains
from lmu_deploy.core.loading import load

FACTORS = (1e3, 1e4, 1e5, 1e-4)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return (rng.integers(0, 17, (60, 8, 8)) / 16).astype(np.float32)


def in_other_units(network, scale):
    """Return a network for inputs that are `scale` times larger."""
    first = network.nodes[0]
    encoders = (first.operator.input_encoders / scale[:, None]).astype(np.float32)
    operator = dataclasses.replace(first.operator, input_encoders=encoders)
    nodes = (dataclasses.replace(first, operator=operator), *network.nodes[1:])
    return dataclasses.replace(network, nodes=nodes)


def integers(network, inputs):
    """Return the outputs in units of the output."""
    return np.rint(ld.run(network, inputs, reference=False).outputs / network.y_scale)


@pytest.mark.parametrize("factor", FACTORS)
def test_one_channel_in_another_unit_changes_no_integer(inputs, factor):
    network, scale = load("examples/models/digits.safetensors"), np.ones(8, np.float32)
    scale[3] = factor
    expected = integers(quantize(network, inputs), inputs)
    made = quantize(in_other_units(network, scale), inputs * scale)
    assert made.input.gain[3] == pytest.approx(1 / factor)
    assert np.delete(made.input.gain, 3).tolist() == [1.0] * 7
    np.testing.assert_array_equal(integers(made, inputs * scale), expected)
    assert len(np.unique(expected)) > 100


def test_inputs_that_one_unit_represents_exactly_keep_it(inputs):
    faint = inputs.copy()
    faint[:, :, 2] = np.minimum(faint[:, :, 2], 1 / 16)
    made = quantize(load("examples/models/digits.safetensors"), faint)
    assert made.input.gain is None


def test_gains_follow_the_median_of_the_channels(rng):
    x = rng.normal(size=(500, 4)) * np.array([1.0, 2.0, 0.0, 900.0])
    extremes = np.array([x.min(axis=0), x.max(axis=0)])
    gains = channel_gains(Signal(float(np.abs(x).max()), x.astype(np.float32), extremes=extremes))
    widest = np.abs(x).max(axis=0)
    assert gains[:3].tolist() == [1.0, 1.0, 1.0]
    assert gains[3] * widest[3] == pytest.approx(np.median(widest[widest > 0]))


@pytest.mark.parametrize("halvings", [5, 10])
def test_an_output_in_another_unit_is_as_exact_as_before(inputs, halvings):
    # All outputs have one format of 24 bits, and each a gain of its own in the rows of the readout.
    network = load("examples/models/digits.safetensors")
    *nodes, readout = network.nodes
    scale = np.ones(10, np.float32)
    scale[4] = 2.0**-halvings
    faint = dataclasses.replace(
        readout.operator,
        kernel=readout.operator.kernel * scale,
        bias=readout.operator.bias * scale,
    )
    other = dataclasses.replace(
        network, nodes=(*nodes, dataclasses.replace(readout, operator=faint))
    )
    made, expected = quantize(other, inputs), quantize(network, inputs)
    (last,), (before,) = (n.entering(n.output) for n in (made, expected))
    np.testing.assert_array_equal(last.connection.slices, before.connection.slices)
    y, wanted = (ld.run(n, inputs, reference=False).outputs for n in (made, expected))
    np.testing.assert_array_equal(np.delete(y, 4, axis=1), np.delete(wanted, 4, axis=1))
    error = y[:, 4] / scale[4] - wanted[:, 4]
    assert np.abs(error).max() <= 2.0 * made.y_scale / scale[4]
    assert error.std() < 0.005 * wanted[:, 4].std()
