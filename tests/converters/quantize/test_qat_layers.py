"""The trained model computes with exactly the weights of the integer network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layered import layered, relayered

from converters.options import QuantizeOptions
from converters.quantize import calibrate
from converters.quantize.memory_analysis import linear_memory
from converters.quantize.ptq import lower
from converters.quantize.qat import rounding_model
from converters.quantize.qat_layers import ports, rounded
from converters.quantize.settings import settings_for
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.options import REALIZATIONS
from lmu_deploy.nn.convert import to_sequence_model
from lmu_deploy.nn.model import SequenceModel

ACTIVATION = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "tanh": np.tanh,
    "hard-tanh": lambda z: np.clip(z, -1.0, 1.0),
}


def normal(rng, *shape, scale=1.0):
    """Weights as a trained network has them, in float32."""
    return (rng.normal(size=shape) * scale).astype(np.float32)


def layer_of(rng, n_in, *, order=6, channels=2, units=9, activation="tanh", fed_back=True):
    size = order * channels
    hidden = Hidden(
        normal(rng, size, units, scale=size**-0.5),
        normal(rng, n_in, units, scale=n_in**-0.5),
        normal(rng, units, units, scale=0.5 * units**-0.5),
        normal(rng, units, scale=0.1),
        activation,
    )
    return LMULayer(
        normal(rng, n_in, channels, scale=n_in**-0.5),
        normal(rng, units, channels, scale=0.05) if fed_back else None,
        normal(rng, size, channels, scale=0.02) if fed_back else None,
        normal(rng, channels, scale=0.1) if fed_back else None,
        Memory.legendre(order, 12.0, channels),
        hidden,
    )


def network_of(rng, **options):
    layer = layer_of(rng, 3, **options)
    readout = Readout(normal(rng, layer.n_out, 4), normal(rng, 4))
    return LMUNetwork((layer,), readout, True)


def rounding(network, inputs, rank=None, **options):
    """The integer network, the model that rounds as it does, and how it was lowered."""
    settings = settings_for(network, "loihi2", QuantizeOptions(**options))
    lowering = lower(network, calibrate(network, inputs), settings)
    model = SequenceModel(to_sequence_model(network).config)
    rounding_model(network, lowering, rank)(model)
    return lowering.result, model, lowering


def stands_for(connection, source, target):
    """The matrix of a connection: gains times integers, summed over slices."""
    total = np.zeros(connection.slices.shape[1:])
    for digits, multiplier, shift in zip(
        connection.slices, connection.multiplier, connection.shift, strict=True
    ):
        total += digits * (multiplier / 2.0**shift)[:, None]
    return total * target / source


def check_equal(integer, model):
    """Every weight of the model is what an integer stands for, in the model's own precision."""
    for made, layer in zip(layered(integer).layers, model.layers, strict=True):
        hidden, weights = made.hidden, layer.weights()
        if hidden is None:
            assert weights.memory_kernel is None
            continue
        for connection, source, kernel in (
            (hidden.memory, made.memory.message, weights.memory_kernel),
            (hidden.input, None, weights.input_kernel),
            (hidden.recurrent, hidden.message, weights.recurrent_kernel),
        ):
            if connection is None:
                assert kernel is None
                continue
            scale = layer.roundings["input"].source if source is None else source.scale
            real = stands_for(connection, scale, hidden.drive.scale).T.astype(np.float32)
            assert np.array_equal(kernel.detach().numpy(), real)
        if hidden.bias is not None:
            real = (hidden.bias * hidden.drive.scale).astype(np.float32)
            assert np.array_equal(weights.bias.detach().numpy(), real)


def simulate(integer, inputs, activation):
    """The integer network's matrices in float64, without rounding of messages."""
    signal, x = inputs, integer.input
    for layer in layered(integer).layers:
        hidden = layer.hidden
        memory = linear_memory(layer.memory, x, None if hidden is None else hidden.message)
        n = np.zeros((len(inputs), layer.memory.size))
        h = np.zeros((len(inputs), layer.n_out))
        outputs = []
        for t in range(inputs.shape[1]):
            n = n @ memory.step.T + signal[:, t] @ memory.input.T
            if memory.hidden is not None:
                n = n + h @ memory.hidden.T
            if memory.bias is not None:
                n = n + memory.bias
            if hidden is None:
                outputs.append(n)
                continue
            to = hidden.drive.scale
            z = n @ stands_for(hidden.memory, layer.memory.message.scale, to).T
            if hidden.input is not None:
                z = z + signal[:, t] @ stands_for(hidden.input, x.scale, to).T
            if hidden.recurrent is not None:
                z = z + h @ stands_for(hidden.recurrent, hidden.message.scale, to).T
            if hidden.bias is not None:
                z = z + hidden.bias * to
            h = ACTIVATION[activation](z)
            outputs.append(h)
        signal, x = np.stack(outputs, 1), layer.output
    readout = layered(integer).readout
    y = signal @ stands_for(readout.connection, x.scale, readout.output.scale).T
    return y if readout.bias is None else y + readout.bias * readout.output.scale


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    realization=st.sampled_from(REALIZATIONS),
    slices=st.integers(1, 2),
    bits=st.sampled_from([3, 4, 8]),
    scales=st.sampled_from([None, "free", "power-of-two"]),
    activation=st.sampled_from(list(ACTIVATION)),
)
def test_every_weight_is_that_of_the_integer_network(
    seed, realization, slices, bits, scales, activation
):
    rng = np.random.default_rng(seed)
    fed_back = realization != "fir"
    network = network_of(rng, activation=activation, fed_back=fed_back)
    inputs = rng.normal(size=(8, 20, 3))
    options = {"realization": realization, "slices": slices, "kernel_bits": bits, "scales": scales}
    try:
        integer, model, _ = rounding(network, inputs, rank=99, **options)
    except InputError:
        assume(False)
    check_equal(integer, model)
    own = model.layers[0].weights().own
    linear = linear_memory(
        layered(integer).layers[0].memory, integer.input, layered(integer).layers[0].output
    )
    assert np.array_equal(own.transition.numpy(), linear.step.T.astype(np.float32))
    with torch.no_grad():
        found = model(torch.tensor(inputs, dtype=torch.float32)).numpy()
    truth = simulate(integer, inputs, activation)
    np.testing.assert_allclose(found, truth, atol=2e-4 * max(1.0, np.abs(truth).max()))


def test_two_layers_the_first_without_hidden_units(rng):
    first = LMULayer(normal(rng, 3, 2), None, None, None, Memory.legendre(4, 8.0, 2), None)
    network = LMUNetwork(
        (first, layer_of(rng, first.n_out)), Readout(normal(rng, 9, 4), None), True
    )
    inputs = rng.normal(size=(6, 15, 3))
    for realization in ("dense-incremental", "schur"):
        integer, model, _ = rounding(network, inputs, rank=99, slices=1, realization=realization)
        check_equal(integer, model)
        with torch.no_grad():
            found = model(torch.tensor(inputs, dtype=torch.float32)).numpy()
        truth = simulate(integer, inputs, "tanh")
        np.testing.assert_allclose(found, truth, atol=2e-4 * np.abs(truth).max())


def test_new_weights_are_rounded_as_the_quantizer_would(rng):
    network, inputs = network_of(rng), rng.normal(size=(8, 20, 3))
    _, model, quantizer = rounding(network, inputs, slices=1, kernel_bits=4)
    other = replace(layered(network).layers[0].hidden, memory_kernel=normal(rng, 12, 9))
    changed = relayered(
        network,
        layers=(replace(layered(network).layers[0], hidden=other),),
        readout=Readout(normal(rng, 9, 4), normal(rng, 4)),
    )
    model.load_state_dict(to_sequence_model(changed).state_dict())
    check_equal(lower(changed, quantizer.calibration, quantizer.settings).result, model)


def test_ports_of_full_rank_are_exact_and_fewer_are_the_best_approximation(rng):
    network, inputs = network_of(rng, order=20), rng.normal(size=(8, 20, 3))
    integer, _, _ = rounding(network, inputs, slices=1)
    layer = layered(integer).layers[0]
    memory = linear_memory(layer.memory, integer.input, layer.output)
    singular = np.linalg.svd(memory.hidden, compute_uv=False)
    for rank in (1, 2, 9, 99):
        entry, encoders, feedback, bias = ports(memory, rank)
        np.testing.assert_allclose(encoders @ entry, memory.input.T, atol=1e-12)
        np.testing.assert_allclose(bias @ entry, memory.bias, atol=1e-12)
        missing = np.linalg.norm(feedback @ entry - memory.hidden.T)
        assert missing == pytest.approx(np.sqrt((singular[rank:] ** 2).sum()), abs=1e-9)
    # two channels before rounding, so that all but two directions are rounding alone
    assert np.sqrt((singular[2:] ** 2).sum()) < 0.02 * np.linalg.norm(singular)


def test_the_gradient_passes_the_rounding_unchanged(rng):
    network, inputs = network_of(rng), rng.normal(size=(8, 20, 3))
    for realization in ("dense-incremental", "schur"):
        integer, _, quantizer = rounding(
            network, inputs, slices=1, kernel_bits=3, realization=realization
        )
        kernel = torch.tensor(
            layered(network).layers[0].hidden.memory_kernel, dtype=torch.float64, requires_grad=True
        )
        found = rounded(kernel, quantizer.connector.roundings["layer0/hidden/memory"])
        weight = torch.tensor(rng.normal(size=found.shape))
        (found * weight).sum().backward()
        basis = layered(integer).layers[0].memory.basis
        straight = weight if basis is None else torch.tensor(basis) @ weight
        np.testing.assert_allclose(kernel.grad.numpy(), straight.numpy(), rtol=1e-9)


def test_only_memory_and_encoders_are_fixed(rng):
    network, inputs = network_of(rng), rng.normal(size=(8, 20, 3))
    _, model, _ = rounding(network, inputs, slices=1)
    model(torch.tensor(inputs, dtype=torch.float32)).square().sum().backward()
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert learned == {
        "layers.0.memory_kernel",
        "layers.0.input_kernel",
        "layers.0.recurrent_kernel",
        "layers.0.bias",
        "readout.weight",
        "readout.bias",
    }
    assert all(weight.requires_grad == (n in learned) for n, weight in model.named_parameters())


def test_a_delay_line_responds_as_the_memory_does(rng):
    network = network_of(rng, fed_back=False)
    integer, model, _ = rounding(network, rng.normal(size=(8, 12, 3)), realization="fir")
    memory = linear_memory(
        layered(integer).layers[0].memory, integer.input, layered(integer).layers[0].output
    )
    pulse = np.zeros((1, 12, 3))
    pulse[0, 0, 1] = 1.0
    n, seen = np.zeros(memory.step.shape[0]), []
    for t in range(12):
        n = memory.step @ n + memory.input @ pulse[0, t]
        seen.append(layered(integer).layers[0].memory.basis @ n)
    layer = layered(network).layers[0]
    response = impulse_response(layer.memory.a_bar, layer.memory.b_bar, 12)
    truth = np.einsum("c,ti->tci", layer.input_encoders[1], response).reshape(12, -1)
    np.testing.assert_allclose(seen, truth, atol=0.01 * np.abs(truth).max())
    assert model.layers[0].initial_state(5).m.shape == (5, layered(integer).layers[0].memory.size)
