"""Graphs in training have the values of their integers, and recover what coarse weights lose."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from graphs import runs
from hypothesis import example, given, settings

from converters.options import QuantizeOptions
from converters.quantize import calibrate
from converters.quantize.ptq import lower
from converters.quantize.qat import qat_config, train_quantized
from converters.quantize.qat_layers import IntegerValues
from converters.quantize.settings import settings_for
from lmu_deploy.api.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph import executor
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.network import Memory
from lmu_deploy.nn.graph.module import GraphModule
from lmu_deploy.studies.quantization import _simulated as simulated
from lmu_deploy.tasks.dataset import Dataset
from targets.integer import IntegerTarget


def weights(rng, *shape):
    return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)


def stack(rng):
    """Convolution, normalization, parallel LMU with ReLU encoders, residual, mean, two outputs."""
    memory = LinearMemory(Memory.legendre(6, 9.0, 3), weights(rng, 8, 3), None, Activation("relu"))
    return [
        ("scale", Affine(np.full(2, 0.5), np.full(2, 0.1)), INPUT),
        ("conv", Conv1d(weights(rng, 3, 2, 8), weights(rng, 8), left=2), "scale"),
        ("norm", Affine(1.0 + weights(rng, 8) / 4, weights(rng, 8)), "conv"),
        ("memory", memory, "norm"),
        ("units", Dense(weights(rng, 18, 8), weights(rng, 8)), "memory"),
        ("relu", Activation("relu"), "units"),
        ("sum", Add(), "conv relu"),
        ("mean", Reduce("mean"), "sum"),
        ("readout", Dense(weights(rng, 8, 2), weights(rng, 2)), "mean"),
        ("output", Affine(np.array([1.0, 300.0]), np.array([0.0, 2000.0])), "readout"),
    ]


def hybrid(cell):
    """An LMU behind LSTM or GRU, with an answer at every step."""

    def made(rng):
        gates = 4 if cell is LSTM else 3
        inner = SimpleRNN(weights(rng, 5 + 6, 7), weights(rng, 7, 7), weights(rng, 7))
        lmu = LMU(Memory.legendre(5, 8.0), weights(rng, 6, 1), inner, True, weights(rng, 7, 1))
        own = cell(weights(rng, 2, gates * 6), weights(rng, 6, gates * 6), weights(rng, gates * 6))
        return [
            ("gated", own, INPUT),
            ("lmu", lmu, "gated"),
            ("readout", Dense(weights(rng, 7, 2)), "lmu"),
        ]

    return made


def network(make, seed=0):
    nodes = make(np.random.default_rng(seed))
    parts = tuple(Node(name, operator, tuple(inputs.split())) for name, operator, inputs in nodes)
    return Network(parts, (2,), parts[-1].name)


NETWORKS = {"stack": stack, "lstm": hybrid(LSTM), "gru": hybrid(GRU)}


def inputs_of(samples, steps=14, seed=1):
    return np.random.default_rng(seed).normal(size=(samples, steps, 2)).astype(np.float32)


def module(net, x, kind=IntegerValues, **options):
    options = {"slices": 2, "kernel_slices": 2, "hidden_bits": 12, **options}
    chosen = settings_for(net, "loihi2", QuantizeOptions(**options))
    return kind(net, calibrate(net, x), chosen, simulated)


class Compared(IntegerValues):
    """Remembers how far the float operators are from the integers, relative to what rounds."""

    worst = 0.0

    def _replaced(self, name, value, lengths):
        if name in self._exact and name != INPUT and value.numel():
            source, exact = self.lowering.forms[name].single, self._exact[name]
            frames = exact.last if value.numel() == exact.last.numel() else exact.frames
            error = (value.detach() - frames.reshape(value.shape)).abs().max()
            # What feeds back rounds its messages in every frame, and encoders round theirs too.
            scales = [source.format.scale, *self._scales_within(name)]
            messages = sum(scales) * exact.frames.shape[1]
            rounding = 0.01 * value.detach().abs().max() + 2.0 * messages
            self.worst = max(self.worst, float(error / rounding))
        return super()._replaced(name, value, lengths)

    def _scales_within(self, name):
        own = (each for each in self.lowering.result.populations if each.place.node == name)
        return [each.message.scale for each in own if each.place.part == "encoder"]


def faint_encoders():
    """Encoders whose activation reaches 6 and whose values are a hundredth of that."""
    encoders = np.array([[0.06286511, -0.06605243]], np.float32)
    memory = LinearMemory(Memory.legendre(1, 2.0, 2), encoders, None, Activation("relu6"))
    kernel = np.array([[0.2264236, 0.03708779], [-0.18938772, 0.12784316]], np.float32)
    nodes = (Node("memory", memory, (INPUT,)), Node("units", Dense(kernel), ("memory",)))
    inputs = np.array([0.12573022, -0.13210486, 0.64042265])[:, None, None]
    return Network(nodes, (1,), "units"), inputs


@settings(max_examples=20)
@example(faint_encoders())
@given(runs(samples=3))
def test_a_node_computes_its_integers_from_those_before_it(drawn):
    # Two implementations: the float operators of torch, node by node, and the integer simulator.
    net, x = drawn
    try:
        trained = module(net, x, Compared)
    except InputError:
        return  # too wide for the accumulators
    dtype = next(trained.parameters(), torch.zeros(0)).dtype
    y = trained(torch.from_numpy(x).to(dtype))
    assert trained.worst < 1.0
    exact = IntegerTarget().run(trained.lowering.result, x).outputs
    np.testing.assert_allclose(y.detach().numpy(), exact, rtol=1e-6, atol=1e-6)
    y.sum().backward()
    grown = [w.grad for w in trained.parameters() if w.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in grown)


def test_a_node_that_differs_is_detected(monkeypatch):
    net, x = network(stack), inputs_of(4)
    trained = module(net, x, Compared)
    trained(torch.from_numpy(x))
    assert 0.0 < trained.worst < 1.0
    trained["conv"].kernel.data[0, 0, 0] += 0.5  # not seen by the versions of the weights
    monkeypatch.setattr(Compared, "lowering", trained._first)
    trained(torch.from_numpy(x))
    assert trained.worst > 3.0


def gradients(model, x):
    model(torch.from_numpy(x)).square().mean().backward()
    return {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_of_fine_integers_is_that_of_the_float_network(name):
    net, x = network(NETWORKS[name]), inputs_of(8)
    float_gradients = gradients(GraphModule(net, torch.float32), x)
    found = gradients(module(net, x), x)
    assert len(found) >= 4
    for weight, gradient in found.items():
        wanted = float_gradients[weight]
        assert torch.linalg.norm(gradient - wanted) < 0.03 * torch.linalg.norm(wanted), weight


def test_a_saturated_message_passes_no_gradient():
    net = Network(
        (
            Node("units", Dense(np.ones((2, 3), np.float32)), (INPUT,)),
            Node("relu", Activation("relu"), ("units",)),
            Node("readout", Dense(np.ones((3, 1), np.float32)), ("relu",)),
        ),
        (2,),
        "readout",
    )
    small, large = np.full((4, 5, 2), 0.5, np.float32), np.full((4, 5, 2), 50.0, np.float32)
    trained = module(net, small)
    assert gradients(trained, small)["operators.0.kernel"].abs().min() > 0.0
    for weight in trained.parameters():
        weight.grad = None
    assert gradients(trained, large)["operators.0.kernel"].abs().max() == 0.0


def test_sequences_of_different_lengths_end_where_they_end():
    for make in NETWORKS.values():
        net, x = network(make), inputs_of(4)
        lengths = np.array([14, 6, 9, 6])
        trained = module(net, x, slices=1, kernel_bits=4)
        together = trained(torch.from_numpy(x), torch.from_numpy(lengths)).detach().numpy()
        for sample, length in enumerate(lengths):
            alone = trained(torch.from_numpy(x[sample : sample + 1, :length])).detach().numpy()[0]
            mine = together[sample, :length] if net.return_sequences else together[sample]
            np.testing.assert_array_equal(mine, alone)


@pytest.mark.parametrize(("name", "share"), [("stack", 0.4), ("lstm", 0.75)])
def test_training_recovers_what_coarse_weights_lose(name, share, tmp_path):
    net = network(NETWORKS[name])
    x, val, test = (inputs_of(n, 8, seed=n) for n in (96, 32, 40))
    y, y_val, wanted = (executor.run(net, inputs) for inputs in (x, val, test))
    place = "step" if net.return_sequences else "sample"
    data = Dataset(x, y, test, wanted, x_val=val, y_val=y_val, place=place)
    spread = wanted.reshape(-1, 2).std(axis=0)

    def error(integer):
        found = IntegerTarget().run(integer, test).outputs
        return float(np.sqrt(np.mean(((found - wanted) / spread) ** 2)))

    coarse = {"slices": 1, "kernel_slices": 1, "kernel_bits": 2}
    before = error(quantize(net, data, **coarse))
    chosen = tmp_path / "qat.toml"
    chosen.write_text("learning_rate = 0.003\nbatch_size = 16\n")
    integer = quantize(net, data, **coarse, method="qat", config=chosen, epochs=8)
    assert before > 0.5
    assert error(integer) < share * before
    recorded = json.loads(integer.source.provenance["trained on while rounded"])
    assert recorded["epochs"] == 8
    for node, other in zip(net.nodes, integer.source.nodes, strict=True):
        if isinstance(node.operator, LinearMemory | LMU):
            assert other.operator.memory is node.operator.memory


def test_the_start_is_kept_if_no_epoch_is_better():
    net, x = network(stack), inputs_of(30)
    data = Dataset(x, executor.run(net, x), x, executor.run(net, x), place="sample")
    task = data.task
    signals = calibrate(net, x)
    chosen = settings_for(net, "loihi2", QuantizeOptions(kernel_slices=2))
    config = qat_config(net, {"epochs": 1, "learning_rate": 5.0, "schedule": "constant"})
    parts = (net, task, task.load(), signals, chosen, config)
    result = train_quantized(*parts, show=False, simulate=simulated)
    assert result.network is net
    assert result.figures["best_epoch"] == 0
    same = lower(net, signals, chosen).result
    for one, other in zip(result.integer.edges, same.edges, strict=True):
        assert np.array_equal(one.connection.slices, other.connection.slices)
    with pytest.raises(InputError, match="dropout is not for graphs"):
        qat_config(net, {"dropout": 0.1})
    with pytest.raises(InputError, match="needs a simulator"):
        train_quantized(*parts)
