"""Graphs as PyTorch modules: answers of the executor, gradients, and the same graph back."""

import numpy as np
import pytest
import torch
from graphs import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.frames import Permute
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, OPERATORS, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import GRU, SimpleRNN
from lmu_deploy.core.graph.time import Mask, Reduce
from lmu_deploy.core.network import Memory
from lmu_deploy.nn.config import StackConfig
from lmu_deploy.nn.convert import to_torch
from lmu_deploy.nn.graph.module import GraphModule, make_stack
from lmu_deploy.nn.graph.operator import counterparts


def close(one, other, tolerance):
    scale = max(np.abs(other).max(initial=0.0), 1e-3)
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


def answers(module, inputs, lengths=None):
    dtype = next((w.dtype for w in module.parameters()), torch.float64)
    ends = None if lengths is None else torch.from_numpy(lengths)
    with torch.no_grad():
        return module(torch.tensor(inputs, dtype=dtype), ends).double().numpy()


@settings(max_examples=60)
@given(runs())
def test_modules_give_the_answers_of_the_executor(drawn):
    network, inputs = drawn
    expected = run(network, inputs)
    close(answers(to_torch(network, torch.float64), inputs), expected, 1e-10)
    close(answers(to_torch(network, torch.float32), inputs), expected, 1e-5)


@settings(max_examples=40)
@given(runs())
def test_every_parameter_gets_a_gradient_and_the_weights_come_back(drawn):
    network, inputs = drawn
    module = to_torch(network)
    again = module.to_network()
    assert again.fingerprint() == network.fingerprint()
    assert [node.name for node in again.nodes] == [node.name for node in network.nodes]
    trained = {name: w for name, w in module.named_parameters() if w.requires_grad}
    if trained:
        dtype = next(iter(trained.values())).dtype
        module(torch.tensor(inputs, dtype=dtype)).sum().backward()
        assert [name for name, w in trained.items() if w.grad is None] == []


@settings(max_examples=30)
@given(runs(samples=2), st.integers(0, 2**32 - 1))
def test_lengths_count_as_in_the_executor(drawn, seed):
    network, inputs = drawn
    steps = inputs.shape[1]
    lengths = np.array([steps, np.random.default_rng(seed).integers(1, steps + 1)])
    if not _gives_frames(network, lengths[1]):
        return
    found = answers(to_torch(network, torch.float64), inputs, lengths)
    expected = run(network, inputs, lengths)
    counted = _counted(network, lengths)
    for sample in range(2):
        some = slice(counted[sample]) if network.return_sequences else slice(None)
        close(found[sample, some], expected[sample, some], 1e-10)


def _counted(network, lengths):
    """Return how many steps of the output count."""
    counts = {INPUT: lengths}
    for node in network.nodes:
        counts[node.name] = node.operator.lengths(counts[node.inputs[0]])
    return counts[network.output]


def _gives_frames(network, length):
    counts = {INPUT: np.array([length])}
    for node in network.nodes:
        counts[node.name] = node.operator.lengths(counts[node.inputs[0]])
    return min(int(count.min()) for count in counts.values()) > 0


def test_every_operator_has_a_counterpart():
    assert set(counterparts()) == set(OPERATORS)


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    memory = Memory.legendre(3, 6.0, 2)
    cell = GRU(rng.normal(size=(8, 9)), rng.normal(size=(3, 9)), reset_after=False)
    layer = LMU(memory, rng.normal(size=(2, 2)), cell, True, rng.normal(size=(3, 2)) * 0.1)
    nodes = (
        Node("conv", Conv1d(rng.normal(size=(2, 2, 2)), stride=2), (INPUT,)),
        Node("lmu", layer, ("conv",)),
        Node("mean", Reduce("mean"), ("lmu",)),
    )
    module = to_torch(Network(nodes, (2,), "mean"))
    x = torch.randn(2, 8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))
    weights = dict(module.named_parameters())

    def by_weights(*values):
        named = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(module, named, (x.detach(),))

    assert torch.autograd.gradcheck(by_weights, tuple(weights.values()))


def memory_network(order=4, theta=9.0, dtype=np.float32):
    encoders = np.ones((1, 2), dtype)
    nodes = (
        Node("block.0.memory", LinearMemory(Memory.legendre(order, theta, 2), encoders), (INPUT,)),
        Node("readout", Dense(np.ones((2 * order, 1), dtype)), ("block.0.memory",)),
    )
    return Network(nodes, (1,), "readout", "digits", {"seed": "3"})


def test_a_trained_window_and_a_trained_memory_come_back():
    network = memory_network()
    x = torch.randn(3, 12, 1)
    for options, kind in (({"train_theta": True}, "zoh"), ({"train_memory": True}, "trained")):
        module = to_torch(network, **options)
        close(answers(module, x.numpy()), run(network, x.numpy()), 1e-5)
        optimizer = torch.optim.SGD(module.parameters(), 0.01)
        module(x).square().mean().backward()
        optimizer.step()
        again = module.to_network()
        memory = again["block.0.memory"].operator.memory
        assert memory.discretizer == kind
        assert (memory.a_bar != network["block.0.memory"].operator.memory.a_bar).any()
        assert (memory.theta != 9.0) == (kind == "zoh")
        assert (again.task, again.provenance) == ("digits", {"seed": "3"})
        close(answers(module, x.numpy()), run(again, x.numpy()), 1e-5)
    with pytest.raises(InputError, match="exclude each other"):
        to_torch(network, train_theta=True, train_memory=True)


@pytest.mark.parametrize(("order", "steps"), [(3, 40), (12, 20), (1, 1), (5, 200)])
def test_a_memory_in_one_block_or_in_many(order, steps):
    network = memory_network(order, 30.0, np.float64)
    inputs = np.random.default_rng(0).normal(size=(2, steps, 1))
    close(answers(to_torch(network), inputs), run(network, inputs), 1e-11)


def test_padding_that_a_mask_leaves_out():
    rng = np.random.default_rng(0)
    nodes = (
        Node("mask", Mask(), (INPUT,)),
        Node("units", SimpleRNN(rng.normal(size=(2, 3)), rng.normal(size=(3, 3)) * 0.3), ("mask",)),
        Node("last", Reduce("last"), ("units",)),
    )
    network = Network(nodes, (2,), "last")
    inputs = rng.normal(size=(3, 9, 2))
    inputs[0, :4] = inputs[1, 6:] = 0.0
    close(answers(to_torch(network), inputs), run(network, inputs), 1e-10)
    with pytest.raises(InputError, match="only frames of 0"):
        to_torch(network)(torch.zeros(1, 4, 2, dtype=torch.float64))


def norm_network():
    scale, offset = np.array([1.5, -0.5]), np.array([0.25, 1.0])
    return Network((Node("norm", Affine(scale, offset), (INPUT,)),), (2,), "norm")


def test_batch_normalization_agrees_with_that_of_torch_and_becomes_an_affine():
    torch.manual_seed(0)
    module = GraphModule(norm_network(), batch_norm=["norm"])
    other = torch.nn.BatchNorm1d(2, dtype=torch.float64)
    with torch.no_grad():
        other.weight.copy_(module["norm"].scale)
        other.bias.copy_(module["norm"].offset)
    x = 3.0 * torch.randn(4, 7, 2, dtype=torch.float64) + 1.0
    close(answers(module.eval(), x.numpy()), run(norm_network(), x.numpy()), 1e-12)
    module.train()
    # The running statistics start at a mean of zero and a variance of one, as those of torch do.
    module["norm"].variance.fill_(1.0)
    expected = other(x.transpose(1, 2)).transpose(1, 2)
    close(module(x).detach().numpy(), expected.detach().numpy(), 1e-12)
    close(module.eval()(x).detach().numpy(), other.eval()(x.transpose(1, 2)).transpose(1, 2)
          .detach().numpy(), 1e-12)  # fmt: skip
    close(run(module.to_network(), x.numpy()), module(x).detach().numpy(), 1e-12)
    assert isinstance(module.to_network()["norm"].operator, Affine)


def test_padding_does_not_count_for_batch_statistics():
    module = GraphModule(norm_network(), batch_norm=["norm"])
    x = torch.randn(2, 5, 2, dtype=torch.float64)
    lengths = torch.tensor([5, 2])
    first = module(x, lengths)
    changed = x.clone()
    changed[1, 2:] = 1e6
    assert torch.equal(module(changed, lengths)[1, :2], first[1, :2])


def test_dropout_acts_in_training_alone():
    network = norm_network()
    module = GraphModule(network, dropout={"norm": 0.5})
    x = torch.ones(4, 50, 2, dtype=torch.float64)
    module.train()
    dropped = module(x)
    whole = module.eval()(x)
    share = (dropped == 0).double().mean()
    assert 0.4 < share < 0.6
    torch.testing.assert_close(dropped[dropped != 0], 2.0 * whole[dropped != 0])


def test_wrong_names_and_inputs_are_named():
    network = memory_network()
    with pytest.raises(InputError, match="no node block_1"):
        GraphModule(network, batch_norm=["block_1"])
    with pytest.raises(InputError, match="readout is no Affine"):
        GraphModule(network, batch_norm=["readout"])
    with pytest.raises(InputError, match=r"shape \(3, 4\); give \(batch, steps, 1\)"):
        to_torch(network)(torch.zeros(3, 4))
    assert to_torch(network)["block.0.memory"].operator is network["block.0.memory"].operator
    with pytest.raises(KeyError):
        to_torch(network)["lmu"]


def test_too_few_steps_are_refused_in_one_sentence():
    kernel = np.ones((3, 1, 2), np.float32)
    module = to_torch(Network((Node("conv", Conv1d(kernel), (INPUT,)),), (1,), "conv"))
    module(torch.ones(2, 3, 1))
    words = "2 steps of the input give no frame of conv; give at least 3 steps"
    with pytest.raises(InputError, match=words):
        module(torch.ones(2, 2, 1))


def test_frames_of_several_axes():
    network = Network((Node("turn", Permute((1, 0)), (INPUT,)),), (2, 3), "turn")
    inputs = np.random.default_rng(0).normal(size=(2, 4, 2, 3))
    assert (answers(to_torch(network), inputs) == run(network, inputs)).all()


@pytest.mark.parametrize("every_step", [False, True])
def test_a_stack_answers_as_its_network(every_step):
    torch.manual_seed(0)
    stride = 1 if every_step else 4
    config = StackConfig(
        n_in=2, n_out=3, blocks=3, width=12, channels=2, order=5, theta=8.0, stem_stride=stride,
        return_sequences=every_step,
    )  # fmt: skip
    stack = make_stack(config, 0.2)
    for _ in range(3):
        stack(torch.randn(20, 32, 2))
    inputs = np.random.default_rng(0).normal(size=(2, 32, 2))
    network = stack.eval().to_network()
    close(answers(stack, inputs), run(network, inputs), 1e-5)
    assert network.return_sequences == every_step
    assert {"stem", "block_3.memory", "block_3.sum", "norm", "readout"} <= set(network.shapes)
    trained = sum(w.numel() for w in stack.parameters() if w.requires_grad)
    assert network.n_parameters == trained


def test_a_stack_has_residual_branches():
    """With weights of zero behind its memories, a stack passes on what the stem gives."""
    config = StackConfig(n_in=1, n_out=2, blocks=2, width=4, channels=1, order=3, theta=8.0)
    stack = make_stack(config).eval()
    with torch.no_grad():
        for number in (1, 2):
            stack[f"block_{number}.mix"].kernel.zero_()
    network = stack.to_network()
    short = [network["stem"], Node("relu", Activation("linear"), ("stem",))]
    x = np.random.default_rng(0).normal(size=(2, 8, 1))
    plain = Network(
        (*short, Node("norm", network["norm"].operator, ("relu",)),
         Node("mean", Reduce("mean"), ("norm",)),
         Node("readout", network["readout"].operator, ("mean",))),
        (1,), "readout",
    )  # fmt: skip
    close(run(network, x), run(plain, x), 1e-12)
