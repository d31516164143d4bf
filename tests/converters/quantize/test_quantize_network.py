"""Quantized networks approximate their float networks, better with more bits."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from layered import layered, relayered

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.integer.network import INTEGER_CLASSES
from lmu_deploy.core.network import FLOAT_CLASSES, Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget

DIGITS = Path(__file__).parents[3] / "examples" / "models" / "digits.safetensors"


def network_of(rng, *, order=12, channels=2, units=20, activation="tanh", feedback=0.05):
    """A layer with every encoder and kernel, scaled as training leaves them."""
    n_in, size = 3, order * channels
    hidden = Hidden(
        rng.normal(size=(size, units)) * 1.5 / np.sqrt(size),
        rng.normal(size=(n_in, units)) / np.sqrt(n_in),
        rng.normal(size=(units, units)) * 0.5 / np.sqrt(units),
        rng.normal(size=units) * 0.1,
        activation,
    )
    layer = LMULayer(
        rng.normal(size=(n_in, channels)) / np.sqrt(n_in),
        rng.normal(size=(units, channels)) * feedback,
        rng.normal(size=(size, channels)) * feedback / 4,
        rng.normal(size=channels) * 0.1,
        Memory.legendre(order, 20.0, channels),
        hidden,
    )
    return LMUNetwork((layer,), Readout(rng.normal(size=(units, 4)), np.ones(4)), True)


def errors(network, inputs, **options):
    """Root-mean-square errors of m, h and y over their own size (at least 1e-3), and the run."""
    reference = run_reference(network, inputs, record=True)
    integer = quantize(network, inputs, **options)
    run = IntegerTarget().run(integer, inputs, record=True)
    s = run.states
    pairs = (
        (s.m * s.m_scale, reference.m),
        (s.h * s.h_scale, reference.h),
        (
            s.y * s.y_scale,
            reference.y,
        ),
    )
    return [
        np.sqrt(np.mean((mine - truth) ** 2) / max(np.mean(truth**2), 1e-6)) if truth.size else 0.0
        for mine, truth in pairs
    ], run


def test_error_falls_with_message_bits(rng):
    network, inputs = network_of(rng), rng.normal(size=(40, 60, 3))
    wide = {"kernel_slices": 2, "hidden_bits": 14, "input_bits": 16}
    found = [errors(network, inputs, message_bits=b, **wide)[0][0] for b in (6, 8, 10, 12)]
    assert found[-1] < 2e-3
    for coarse, fine in pairwise(found):
        assert fine < coarse / 2.0


def test_the_memory_needs_two_slices(rng):
    network, inputs = network_of(rng), rng.normal(size=(40, 60, 3))
    (two, *_), _ = errors(network, inputs, hidden_bits=12, kernel_slices=2)
    (one, *_), _ = errors(network, inputs, hidden_bits=12, kernel_slices=2, slices=1)
    assert two < 2e-3 < one < 5e-2


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "hard-tanh"])
@pytest.mark.parametrize("scales", ["power-of-two", "free"])
def test_defaults_stay_close_for_every_activation(rng, activation, scales):
    network, inputs = network_of(rng, activation=activation), rng.normal(size=(40, 60, 3))
    (m, h, y), run = errors(network, inputs, scales=scales)
    assert m < 0.02
    assert h < 0.03
    assert y < 0.03
    assert not any(run.saturations.values())


@example(bias=-1.0859603, kernel=0.9822431)
@given(bias=st.floats(-30, 30), kernel=st.floats(0.01, 1))
def test_no_bias_of_the_readout_is_clipped(bias, kernel):
    memory = Memory.legendre(2, 14.0)
    layer = LMULayer(np.ones((1, 1), np.float32), None, None, None, memory, None)
    readout = Readout(np.full((2, 1), kernel, np.float32), np.array([bias], np.float32))
    inputs = np.random.default_rng(0).normal(size=(5, 20, 1))
    integer = quantize(LMUNetwork((layer,), readout), inputs)
    real = layered(integer).readout.bias * layered(integer).readout.output.scale
    np.testing.assert_allclose(
        real, readout.bias, rtol=1e-6, atol=layered(integer).readout.output.scale
    )


def test_a_network_with_outputs_at_every_step_has_wider_messages(rng):
    network, inputs = network_of(rng), rng.normal(size=(20, 60, 3))
    once = dataclasses.replace(network, return_sequences=False)
    (*_, every_step), _ = errors(network, inputs)
    (*_, at_the_end), _ = errors(once, inputs)
    assert every_step < 0.2 * at_the_end
    assert layered(quantize(network, inputs)).layers[0].hidden.message.bits == 12
    assert layered(quantize(once, inputs)).layers[0].hidden.message.bits == 8


def test_digits_lose_at_most_half_a_point():
    network = load(DIGITS, FLOAT_CLASSES)
    data = get_task("digits").load()
    test = data.test
    integer = quantize(network, data.train.inputs[:512])
    run = IntegerTarget().run(integer, test.inputs)
    float_accuracy = np.mean(run_reference(network, test.inputs).outputs.argmax(1) == test.targets)
    assert len(test.targets) >= 359
    assert np.mean(run.outputs.argmax(1) == test.targets) >= float_accuracy - 0.005
    assert not any(run.saturations.values())


def test_a_file_restores_the_network_and_its_source(rng, tmp_path):
    network, inputs = network_of(rng), rng.normal(size=(4, 10, 3))
    integer = quantize(network, inputs)
    save(integer, tmp_path / "integer.safetensors")
    again = load(tmp_path / "integer.safetensors", INTEGER_CLASSES)
    one, two = (IntegerTarget().run(n, inputs, record=True) for n in (integer, again))
    assert np.array_equal(one.states.y, two.states.y)
    assert np.array_equal(layered(again.source).readout.kernel, network.readout.kernel)
    needs = json.loads(again.provenance["accumulators"])
    assert needs["layer0/memory/recurrent/slice0"].endswith(("proven", "measured"))
    assert json.loads(again.provenance["quantized"])["slices"] == "2"


def test_progress_reaches_the_end(rng):
    seen = []
    quantize(network_of(rng), rng.normal(size=(5, 4, 3)), progress=lambda *a: seen.append(a))
    assert seen[-1] == (5, 5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "loihi3"}, "unknown profile 'loihi3'; choose one of loihi1, loihi2"),
        ({"profile": "loihi1"}, "sends spikes without a value"),
        ({"slices": 4}, "slices is 4, outside 1 to 3"),
        ({"message_bits": 1}, "message_bits is 1, outside"),
        ({"message_bits": 25}, "message_bits is 25"),
        (
            {"message_bits": 18, "slices": 1, "kernel_slices": 1},
            r"accumulator layer0/hidden/memory/slice0 needs 2\d\.\d bits, "
            r"profile loihi2 has 24; use --message-bits 1\d\.",
        ),
        (
            {"message_bits": 18, "hidden_bits": 20, "kernel_slices": 1},
            r"hidden/recurrent/slice0 needs .* use --hidden-bits 1\d --message-bits 1\d\.",
        ),
        ({"realization": "diagonal"}, "realization is 'diagonal'; choose one of"),
        ({"calibration_method": "guess"}, "choose one of max, mse, percentile"),
    ],
)
def test_wrong_options_are_refused(rng, options, sentence):
    with pytest.raises(InputError, match=sentence):
        quantize(network_of(rng), rng.normal(size=(5, 4, 3)), **options)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (np.zeros((0, 4, 3)), "no samples"),
        (np.full((2, 4, 3), np.nan), "NaN"),
        (np.zeros((2, 4, 5)), "expected"),
    ],
)
def test_wrong_calibration_is_refused(rng, inputs, sentence):
    with pytest.raises(InputError, match=sentence):
        quantize(network_of(rng), inputs)


def test_a_network_that_diverges_is_refused(rng):
    network = network_of(rng, activation="linear")
    layer = layered(network).layers[0]
    encoders = 100.0 * np.ones_like(layer.memory_encoders)
    wild = relayered(network, layers=(dataclasses.replace(layer, memory_encoders=encoders),))
    with np.errstate(all="ignore"), pytest.raises(InputError, match="diverges"):
        quantize(wild, rng.normal(size=(2, 400, 3)))
