"""PyTorch models and the NumPy reference: equal outputs and lossless conversion."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lmu_options import lmu_options

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.network import FLOAT_CLASSES
from lmu_deploy.core.reference import run_reference
from lmu_deploy.nn import LMUConfig, LSTMConfig, ModelConfig, SequenceModel
from lmu_deploy.nn.convert import from_torch, to_sequence_model, to_torch


@st.composite
def models(draw):
    layer = st.one_of(
        lmu_options().map(lambda options: LMUConfig(**options)),
        st.builds(LSTMConfig, units=st.integers(1, 5)),
    )
    config = ModelConfig(
        n_in=draw(st.integers(1, 3)),
        n_out=draw(st.integers(1, 3)),
        layers=tuple(draw(st.lists(layer, min_size=1, max_size=3))),
        return_sequences=draw(st.booleans()),
        readout_bias=draw(st.booleans()),
    )
    torch.manual_seed(draw(st.integers(0, 1000)))
    model = SequenceModel(config).double()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad and weight.ndim > 0:
                weight.add_(0.2 * torch.randn_like(weight) / max(weight.shape) ** 0.5)
    return model


@settings(max_examples=60, deadline=None)
@given(model=models(), steps=st.integers(1, 12))
def test_torch_equals_the_reference_and_round_trip_is_lossless(model, steps):
    inputs = np.random.default_rng(steps).normal(size=(4, steps, model.config.n_in))
    network = from_torch(model)
    expected = run_reference(network, inputs).outputs
    scale = np.abs(expected).max() + 1e-3
    with torch.no_grad():
        there = model(torch.from_numpy(inputs)).numpy()
        back = to_sequence_model(network)(torch.from_numpy(inputs)).numpy()
        graph = to_torch(network)(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(there, expected, rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(back, expected, rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(graph, expected, rtol=0, atol=1e-11 * scale)


def test_file_round_trip_is_bit_exact(tmp_path):
    torch.manual_seed(0)
    config = ModelConfig(
        n_in=2,
        n_out=3,
        layers=(LMUConfig(units=5, order=4, theta=9, hidden_to_memory=True), LSTMConfig(units=4)),
    )
    network = from_torch(SequenceModel(config), "digits", {"seed": "0"})
    save(network, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors", FLOAT_CLASSES)
    assert (loaded.task, loaded.provenance) == ("digits", {"seed": "0"})
    assert loaded.layers[0].input_encoders.dtype == np.float32
    again = from_torch(to_sequence_model(loaded))
    for name in ("input_encoders", "hidden_encoders"):
        before, after = getattr(network.layers[0], name), getattr(again.layers[0], name)
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(network.layers[0].memory.a_bar, again.layers[0].memory.a_bar)
    np.testing.assert_array_equal(network.layers[1].kernel, again.layers[1].kernel)
    np.testing.assert_array_equal(network.readout.kernel, again.readout.kernel)


def test_parameter_counts_agree():
    config = ModelConfig(
        n_in=1,
        n_out=10,
        readout_bias=True,
        layers=(
            LMUConfig(
                units=212,
                order=256,
                theta=784,
                hidden_to_memory=True,
                memory_to_memory=True,
                hidden_bias=False,
            ),
        ),
    )
    model = SequenceModel(config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == from_torch(model).n_parameters == 102_027  # the paper's psMNIST network


def test_nonfinite_weight_is_rejected():
    model = SequenceModel(
        ModelConfig(n_in=1, n_out=1, layers=(LMUConfig(units=2, order=2, theta=4),))
    )
    with torch.no_grad():
        model.layers[0].bias[0] = float("nan")
    with pytest.raises(InputError, match="bias has 1 entries that are NaN"):
        from_torch(model)


def test_other_module_is_rejected():
    with pytest.raises(InputError, match="needs a SequenceModel, not Linear"):
        from_torch(torch.nn.Linear(1, 1))
