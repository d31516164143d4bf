"""Every realization approximates the float memory or is refused, and auto chooses one."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import layered, relayered

from converters.quantize import quantize
from converters.quantize.calibration import calibrate
from converters.quantize.memory_analysis import coordinates, increment, predicted_error
from converters.quantize.ptq import synaptic_operations
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.integer.network import INTEGER_CLASSES
from lmu_deploy.core.integer.parts import Connection, Place
from lmu_deploy.core.legendre import impulse_response, state_space
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference
from targets.integer import IntegerTarget

ROTATED = ("schur", "hessenberg")
RECURRENT = ("dense-incremental", *ROTATED, "sign-taylor")
WIDE = {"kernel_slices": 3, "hidden_bits": 14, "input_bits": 16}


def network_of(rng, *, order=12, channels=2, n_in=2, units=10, theta=20.0, feedback=0.0):
    """One layer, with every encoder when `feedback` is not zero; none of it feeds into fir."""
    size = order * channels
    hidden = None
    if units:
        hidden = Hidden(
            rng.normal(size=(size, units)) * 1.5 / np.sqrt(size),
            rng.normal(size=(n_in, units)) / np.sqrt(n_in),
            rng.normal(size=(units, units)) * 0.5 / np.sqrt(units),
            rng.normal(size=units) * 0.1,
            "tanh",
        )
    layer = LMULayer(
        rng.normal(size=(n_in, channels)) / np.sqrt(n_in),
        rng.normal(size=(units, channels)) * feedback if feedback else None,
        rng.normal(size=(size, channels)) * feedback / 4 if feedback else None,
        rng.normal(size=channels) * 0.1 if feedback else None,
        Memory.legendre(order, theta, channels),
        hidden,
    )
    return LMUNetwork((layer,), Readout(rng.normal(size=(layer.n_out, 3)), np.ones(3)), True)


def deviation(mine, truth):
    """Relative to the truth, or to 1e-2 where that is less: messages have a unit."""
    return np.sqrt(np.mean((mine - truth) ** 2) / max(np.mean(truth**2), 1e-4))


def cancellation(network, m, y):
    """How much larger the terms are that the memory adds to y than y is; at least 1.

    An error of the memory can be as many times larger in y.
    """
    layer, kernel = network.layers[-1], np.abs(network.readout.kernel)
    if layer.hidden is not None:
        kernel = np.abs(layer.hidden.memory_kernel) @ kernel
    terms = np.abs(m[..., -layer.memory.size :]) @ kernel
    return max(1.0, np.sqrt(np.mean(terms**2) / max(np.mean(y**2), 1e-4)))


def errors(network, inputs, **options):
    """Relative rms errors of m and y, and the integer network."""
    reference = run_reference(network, inputs, record=True)
    integer = quantize(network, inputs, **options)
    states = IntegerTarget().run(integer, inputs, record=True).states
    y = deviation(states.y * states.y_scale, reference.y)
    return deviation(states.real_m(), reference.m), y, integer


@pytest.mark.parametrize("form", ROTATED)
@pytest.mark.parametrize("feedback", [0.0, 0.1])
def test_coordinates_are_a_rotation_of_the_memory(rng, form, feedback):
    layer = network_of(rng, feedback=feedback).layers[0]
    found = coordinates(layer, form)
    np.testing.assert_allclose(found.basis @ found.inverse, np.eye(24), atol=1e-10)
    back = found.basis @ found.recurrent @ found.inverse
    np.testing.assert_allclose(back, increment(layer), atol=1e-10)
    assert not np.tril(found.recurrent, -2).any()
    scaled = found.scaled(np.linspace(1.0, 3.0, 24))
    np.testing.assert_allclose(scaled.basis @ scaled.recurrent @ scaled.inverse, back, atol=1e-10)


def test_the_orthonormal_matrix_has_a_symmetric_part_of_rank_two():
    """What decides whether to divide or to multiply; multiplying leaves a full one."""
    a, _ = state_space(64)
    roots = np.sqrt(2.0 * np.arange(64) + 1.0)
    divided = a * roots[None, :] / roots[:, None]
    multiplied = a * roots[:, None] / roots[None, :]
    assert np.linalg.matrix_rank(divided + divided.T) == 2
    assert np.linalg.matrix_rank(multiplied + multiplied.T) > 32


@pytest.mark.parametrize("realization", RECURRENT)
@pytest.mark.parametrize("feedback", [0.0, 0.05])
def test_error_falls_with_message_bits(rng, realization, feedback):
    network, inputs = network_of(rng, feedback=feedback), rng.normal(size=(30, 60, 2))
    bits = (6, 8, 10, 12)
    found = [
        errors(network, inputs, message_bits=b, slices=3, realization=realization, **WIDE)
        for b in bits
    ]
    floor = 0.01 if realization == "sign-taylor" else 0.0  # the series itself errs by that much
    for (coarse, *_), (fine, *_) in pairwise(found):
        assert fine < max(coarse / 2.0, floor)
    assert found[-1][0] < max(2e-3, floor)
    assert found[-1][1] < max(5e-3, 2.0 * floor)


@pytest.mark.parametrize("realization", [*RECURRENT, "fir"])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_messages_of_every_width_run(rng, realization, bits):
    network, inputs = network_of(rng, order=4, channels=1), rng.normal(size=(30, 20, 2))
    m, _, integer = errors(network, inputs, message_bits=bits, realization=realization)
    assert layered(integer).layers[0].memory.message.bits == bits
    assert m < 4.0 * 2.0**-bits + 0.02


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("realization", [*ROTATED, "fir", "sign-taylor"])
def test_random_networks_are_approximated_or_refused(networks, realization, data):
    """With wide integers only a wrong connection causes a large error, in stacks too."""
    network = data.draw(networks)
    if any(isinstance(layer, LSTMLayer) for layer in layered(network).layers):
        return
    inputs = np.random.default_rng(0).normal(size=(20, 4, network.n_in))
    wide = {"slices": 3, "message_bits": 14, "realization": realization, **WIDE}
    try:
        m, y, _ = errors(network, inputs, **wide)
    except InputError as error:
        known = ("accumulator", "realization fir has nothing but", "no series of")
        assert any(reason in str(error) for reason in known)
        return
    if realization == "sign-taylor":  # the series itself errs by about a percent
        reference = run_reference(network, inputs, record=True)
        assert m < 0.05
        assert y < 0.05 * cancellation(network, reference.m, reference.y)
    else:
        assert max(m, y) < 1e-2


@pytest.mark.parametrize("lines", ["inputs", "channels"])
def test_fir_is_exact_within_its_taps_and_cut_off_after_them(rng, lines):
    channels, n_in = (3, 2) if lines == "inputs" else (2, 5)
    network = network_of(rng, channels=channels, n_in=n_in, theta=16.0, units=0)
    inputs = rng.integers(-40, 41, (8, 24, n_in)) / 8.0
    reference = run_reference(network, inputs, record=True)
    integer = quantize(network, inputs, realization="fir", slices=3, message_bits=14)
    memory = layered(integer).layers[0].memory
    assert memory.size == 16 * min(channels, n_in)
    states = IntegerTarget().run(integer, inputs, record=True).states
    within = deviation(states.real_m()[:, :16], reference.m[:, :16])
    assert within < (1e-12 if lines == "inputs" else 1e-3)
    assert deviation(states.real_m()[:, 16:], reference.m[:, 16:]) > 3e-3
    longer = quantize(network, inputs, realization="fir", slices=3, message_bits=14, taps=24)
    states = IntegerTarget().run(longer, inputs, record=True).states
    assert deviation(states.real_m(), reference.m) < (1e-12 if lines == "inputs" else 1e-3)


def test_fir_stores_the_last_inputs(rng):
    network = network_of(rng, channels=2, n_in=1, theta=5.0, order=4)
    inputs = rng.integers(-9, 10, (2, 12, 1)) / 1.0
    run = IntegerTarget().run(quantize(network, inputs, realization="fir"), inputs, record=True)
    for t in range(12):
        for tap in range(5):
            expected = inputs[:, t - tap, 0] if t >= tap else 0
            assert np.all(run.states.m[:, t, tap] * run.states.m_scale[tap] == expected)


@pytest.mark.parametrize("bits", [8, 4])
def test_fir_needs_few_bits_of_weight(rng, bits):
    network, inputs = network_of(rng, theta=16.0), rng.normal(size=(20, 16, 2))
    _, y, integer = errors(network, inputs, realization="fir", kernel_bits=bits, kernel_slices=2)
    assert layered(integer).layers[0].hidden.memory.weight_bits == bits
    assert y < {8: 0.01, 4: 0.06}[bits]


@pytest.mark.parametrize("field", ["hidden_encoders", "memory_encoders", "memory_bias"])
def test_fir_refuses_feedback(rng, field):
    network, inputs = network_of(rng, feedback=0.1), rng.normal(size=(4, 10, 2))
    others = {"hidden_encoders", "memory_encoders", "memory_bias"} - {field}
    layer = dataclasses.replace(layered(network).layers[0], **dict.fromkeys(others))
    network = relayered(network, layers=(layer,))
    with pytest.raises(InputError, match=f"layer0 has {field}, and realization fir has nothing"):
        quantize(network, inputs, realization="fir")


def test_fir_refuses_more_taps_than_the_fan_in(rng):
    network, inputs = network_of(rng, theta=5000.0), rng.normal(size=(4, 10, 2))
    with pytest.raises(InputError, match=r"5000 taps of 2 lines, 10000 neurons, .* fan-in of 4096"):
        quantize(network, inputs, realization="fir")


def test_rotated_memories_need_fewer_synapses(rng):
    network = network_of(rng, order=64, channels=1, theta=100.0)
    inputs = rng.normal(size=(8, 80, 2))
    synapses = {}
    for realization in ("dense-incremental", *ROTATED):
        _, _, integer = errors(network, inputs, realization=realization)
        synapses[realization] = np.count_nonzero(layered(integer).layers[0].memory.recurrent.slices)
    assert synapses["hessenberg"] < synapses["schur"] < 0.6 * synapses["dense-incremental"]


def test_one_slice_has_free_gains_by_default(rng):
    network, inputs = network_of(rng, order=32, theta=60.0), rng.normal(size=(8, 60, 2))
    default, _, integer = errors(network, inputs, slices=1)
    coarse, *_ = errors(network, inputs, slices=1, scales="power-of-two")
    assert default < 0.9 * coarse
    multiplier = layered(integer).layers[0].memory.recurrent.multiplier
    assert (multiplier & (multiplier - 1)).any()
    assert multiplier.max() < 128
    coarse_messages, *_ = errors(network, inputs, slices=1, message_bits=4)
    assert coarse_messages < 1.0
    _, _, two = errors(network, inputs)
    multiplier = layered(two).layers[0].memory.recurrent.multiplier
    assert not (multiplier & (multiplier - 1)).any()


def test_a_basis_is_saved_and_loaded(rng, tmp_path):
    network, inputs = network_of(rng), rng.normal(size=(8, 20, 2))
    integer = quantize(network, inputs, realization="schur")
    save(integer, tmp_path / "integer.safetensors")
    again = load(tmp_path / "integer.safetensors", INTEGER_CLASSES)
    assert np.array_equal(
        layered(again).layers[0].memory.basis, layered(integer).layers[0].memory.basis
    )
    with pytest.raises(InputError, match="memory basis"):
        dataclasses.replace(again.memories[0], basis=np.eye(3))


def test_states_without_their_basis_are_wrong(rng):
    network, inputs = network_of(rng), rng.normal(size=(8, 40, 2))
    reference = run_reference(network, inputs, record=True)
    integer = quantize(network, inputs, realization="schur")
    states = IntegerTarget().run(integer, inputs, record=True).states
    assert deviation(states.real_m(), reference.m) < 0.01
    assert deviation(states.m * states.m_scale, reference.m) > 0.5


@pytest.mark.parametrize("realization", [*RECURRENT, "fir"])
@pytest.mark.parametrize(("slices", "bits"), [(1, 12), (2, 8), (2, 12)])
def test_the_predicted_error_is_near_the_measured_one(rng, realization, slices, bits):
    network, inputs = network_of(rng, n_in=3, units=0), rng.normal(size=(40, 40, 3))
    m, _, integer = errors(
        network, inputs, slices=slices, message_bits=bits, input_bits=16, realization=realization
    )
    signals = calibrate(network, inputs)
    power = float((signals[Place("layer0", "memory")].rows.astype(float) ** 2).sum(axis=1).mean())
    memory = layered(integer).layers[0].memory
    predicted = predicted_error(layered(network).layers[0], memory, integer.input, None, power, 40)
    assert 0.4 * m < predicted + 3e-4
    assert predicted < 2.5 * m + 3e-4


def test_the_predicted_error_of_an_unstable_memory_is_large(rng):
    network, inputs = network_of(rng, units=0), rng.normal(size=(4, 10, 2))
    integer = quantize(network, inputs)
    memory = layered(integer).layers[0].memory
    grown = np.abs(memory.recurrent.slices)
    recurrent = dataclasses.replace(memory.recurrent, slices=grown)
    wild = dataclasses.replace(memory, recurrent=recurrent)
    args = (integer.input, None, 1.0, 4000)
    assert predicted_error(layered(network).layers[0], memory, *args) < 0.1
    assert predicted_error(layered(network).layers[0], wild, *args) > 1e3


def test_auto_chooses_the_cheapest_accurate_realization(rng):
    network, inputs = network_of(rng, order=32, theta=50.0), rng.normal(size=(16, 50, 2))
    integer = quantize(network, inputs, realization="auto")
    reason = integer.provenance["realization"]
    assert "\n" not in reason
    assert "the cheapest of" in reason
    tried = json.loads(integer.provenance["realizations tried"])
    assert set(tried) >= {"fir", "sign-taylor", "schur, 1 slice", "hessenberg, 2 slices"}
    chosen = reason.split(":")[0]
    assert tried[chosen].startswith(f"{synaptic_operations(integer):,} synaptic operations")
    m, *_ = errors(network, inputs, realization="auto")
    assert m < 0.02


def test_auto_skips_realizations_that_do_not_fit(rng):
    network, inputs = network_of(rng, feedback=0.05), rng.normal(size=(8, 30, 2))
    integer = quantize(network, inputs, realization="auto")
    tried = json.loads(integer.provenance["realizations tried"])
    assert "has nothing but delayed" in tried["fir"]
    with pytest.raises(InputError, match=r"no realization fits.*dense-incremental, 1 slice: "):
        quantize(network, inputs, realization="auto", message_bits=20)


def test_cost_counts_every_application_of_a_series(rng):
    network, inputs = network_of(rng, order=6, channels=1), rng.normal(size=(8, 30, 2))
    integer = quantize(network, inputs, realization="sign-taylor")
    layer = layered(integer).layers[0]
    links = [layer.memory.input, layer.hidden.memory, layer.hidden.input, layer.hidden.recurrent]
    others = sum(np.count_nonzero(c.slices) for c in [*links, layered(integer).readout.connection])
    assert synaptic_operations(integer) == others + 36 * layer.memory.applications


def test_delay_line_is_integrators_with_a_shift(rng):
    network, inputs = network_of(rng, channels=3, n_in=2, theta=4.0, order=3), np.ones((2, 4, 2))
    memory = layered(quantize(network, inputs, realization="fir")).layers[0].memory
    shift = np.eye(8, k=-2, dtype=np.int8) - np.eye(8, dtype=np.int8)
    assert isinstance(memory.recurrent, Connection)
    assert np.array_equal(memory.recurrent.slices[0], shift)
    response = impulse_response(
        layered(network).layers[0].memory.a_bar, layered(network).layers[0].memory.b_bar, 4
    )
    encoders = layered(network).layers[0].input_encoders
    for c, i, k, j in np.ndindex(3, 3, 4, 2):
        assert memory.basis[c * 3 + i, k * 2 + j] == pytest.approx(response[k, i] * encoders[j, c])
