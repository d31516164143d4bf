"""Formats are chosen so that no bias is clipped."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layered import layered

from converters.quantize import quantize
from converters.quantize.formats import drive_format, guard_bits, piecewise
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layered import SeriesMemory
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.legendre import state_space
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.hardware.profile import load_profile
from targets.integer import IntegerTarget

FORMS = ("dense-incremental", "schur", "hessenberg", "sign-taylor")
NO_ROOM = "leave no room in a state|too large for|needs .* bits, profile"


def made_or_refused(network, inputs, **options):
    """The integer network, or None where the quantizer says in a sentence what does not fit."""
    try:
        return quantize(network, inputs, **options)
    except InputError as error:
        assert re.search(NO_ROOM, str(error)), error
        return None


@settings(max_examples=30)
@example(bias=1.0859603, gain=0.1, form="dense-incremental", bits=12)
@example(bias=30.0, gain=1.0, form="schur", bits=12)
@given(
    bias=st.floats(0.01, 1e4),
    gain=st.floats(0.01, 1.0),
    form=st.sampled_from(FORMS),
    bits=st.sampled_from([4, 8, 12]),
)
def test_no_bias_of_a_memory_is_clipped(bias, gain, form, bits):
    """The inputs undo the bias, so that the memory itself stays small."""
    inputs = np.random.default_rng(0).normal(size=(5, 20, 1)) * 1e-3 - bias / gain
    legendre = Memory.legendre(3, 14.0)
    layer = LMULayer(np.full((1, 1), gain), None, None, np.array([bias]), legendre, None)
    network = LMUNetwork((layer,), Readout(np.ones((3, 1)), None))
    integer = made_or_refused(network, inputs, message_bits=bits, realization=form, refit=False)
    if integer is None:
        return
    memory = layered(integer).layers[0].memory
    basis = np.eye(3) if memory.basis is None else memory.basis
    truth = bias * legendre.b_bar
    if isinstance(memory, SeriesMemory):
        truth = bias * state_space(3)[1] / (legendre.theta * memory.substeps)
    half = 0.501 * np.abs(basis).sum(axis=1) * memory.state.scale
    assert np.all(np.abs(basis @ (memory.bias * memory.state.scale) - truth) <= half + 1e-9 * bias)


def hidden_network(bias, activation, kernel):
    hidden = Hidden(np.full((2, 1), kernel), None, None, np.array([bias]), activation)
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(2, 14.0), hidden)
    return LMUNetwork((layer,), Readout(np.ones((1, 1)), None), True)


@settings(max_examples=40)
@example(bias=-70.0, kernel=0.5, activation="tanh", bits=12)
@example(bias=-3e4, kernel=1e-3, activation="relu", bits=16)
@given(
    bias=st.floats(-1e5, 1e5),
    kernel=st.floats(1e-3, 1.0),
    activation=st.sampled_from(["tanh", "hard-tanh", "relu", "linear"]),
    bits=st.sampled_from([4, 8, 12, 16]),
)
def test_no_bias_of_hidden_units_is_clipped(bias, kernel, activation, bits):
    network = hidden_network(bias, activation, kernel)
    inputs = np.random.default_rng(0).normal(size=(5, 20, 1))
    try:
        integer = quantize(network, inputs, hidden_bits=bits)
    except InputError as error:
        assert re.search(f"a bias of .* does not fit a drive of 24 bits|{NO_ROOM}", str(error))
        return
    hidden = layered(integer).layers[0].hidden
    assert abs(hidden.bias[0] * hidden.drive.scale - bias) <= 0.501 * hidden.drive.scale


def test_outputs_with_a_large_bias_are_those_of_the_float_network():
    """A drive of 24 bits reaches 64 in units of 12-bit messages of tanh, and this bias is 70."""
    network = hidden_network(-70.0, "tanh", 75.0)
    inputs = np.ones((1, 60, 1))
    h = run_reference(network, inputs, record=True).h
    states = IntegerTarget().run(quantize(network, inputs), inputs, record=True).states
    assert h.min() < -0.99
    assert h.max() > 0.99
    np.testing.assert_allclose(states.h * states.h_scale, h, atol=0.02)


def test_a_bias_that_no_drive_can_represent_is_refused():
    sentence = r"layer0/hidden, a bias of 300 does not fit a drive of 24 bits .* --hidden-bits 15\."
    with pytest.raises(InputError, match=sentence):
        quantize(hidden_network(300.0, "tanh", 0.1), np.ones((2, 9, 1)), hidden_bits=16)
    assert quantize(hidden_network(300.0, "tanh", 0.1), np.ones((2, 9, 1)), hidden_bits=15)


@pytest.mark.parametrize("name", ["tanh", "hard-tanh", "relu", "linear"])
def test_a_coarser_drive_gives_the_same_activation(name):
    message = Format(12, 1.0 / 2047)
    guard = guard_bits("layer0/hidden", message, 24, 500.0)
    assert guard == 3
    assert drive_format(message, 24, guard).scale == message.scale / 8
    fine, coarse = piecewise(name, message), piecewise(name, message, guard)
    assert coarse.shift == fine.shift - 3


def test_biases_have_24_bits_on_a_chip_with_wider_states():
    """A drive of 25 bits would hold 128 in units of 2^-6 messages, a bias of 24 bits only 64."""
    profile = load_profile("loihi2")
    wider = profile.state_bits.model_copy(update={"value": 25})
    network = hidden_network(-100.0, "tanh", 0.5)
    integer = quantize(
        network, np.ones((2, 9, 1)), profile.model_copy(update={"state_bits": wider})
    )
    hidden = layered(integer).layers[0].hidden
    assert hidden.drive.bits == 25
    assert abs(hidden.bias[0] * hidden.drive.scale + 100.0) <= hidden.drive.scale
