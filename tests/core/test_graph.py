"""Networks as graphs: the fast forms against the plain loop, and both against other code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.graph.executor import Stream, run, run_stepwise
from lmu_deploy.core.graph.frames import FramePool, LayerNorm, Permute, Reshape, RMSNorm
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import GRAPH_CLASSES, INPUT, OPERATORS, Network, Node
from lmu_deploy.core.graph.pointwise import NAMES, Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Delay, Pool, Reduce, Reverse, RunningMean
from lmu_deploy.core.graph.transforms import fold, to_layers
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference


def weights(rng, *shape, scale=0.5):
    return rng.normal(scale=scale / np.sqrt(max(shape[0], 1)), size=shape)


def maybe(draw, value):
    return value if draw(st.booleans()) else None


def activations():
    names = [name for name in NAMES if name != "softmax"]
    return st.builds(Activation, st.sampled_from(names), st.floats(0.1, 1.0))


def drawn_memory(draw, channels):
    order = draw(st.integers(1, 7))
    theta = draw(st.floats(2.0 * order, 40.0))
    return Memory.legendre(order, theta, channels, draw(st.sampled_from(["zoh", "bilinear"])))


def drawn_cell(draw, rng, n_in):
    units = draw(st.integers(1, 5))
    kind = draw(st.sampled_from(["simple", "dense", "lstm", "gru"]))
    if kind == "lstm":
        initial = [maybe(draw, weights(rng, units)) for _ in range(2)]
        sizes = (n_in, 4 * units), (units, 4 * units)
        bias = maybe(draw, weights(rng, 4 * units))
        return LSTM(weights(rng, *sizes[0]), weights(rng, *sizes[1]), bias, *_gates(draw), *initial)
    if kind == "gru":
        biases = [maybe(draw, weights(rng, 3 * units)) for _ in range(2)]
        sizes = (n_in, 3 * units), (units, 3 * units)
        kernels = weights(rng, *sizes[0]), weights(rng, *sizes[1])
        return GRU(*kernels, *biases, draw(st.booleans()), *_gates(draw))
    recurrent = weights(rng, units, units) if kind == "simple" else None
    bias, initial = maybe(draw, weights(rng, units)), maybe(draw, weights(rng, units))
    return SimpleRNN(weights(rng, n_in, units), recurrent, bias, draw(activations()), initial)


def _gates(draw):
    gate = draw(st.sampled_from(["sigmoid", "hard-sigmoid", "hard-sigmoid-keras2"]))
    return Activation("tanh"), Activation(gate)


def drawn_lmu(draw, rng, n_in):
    memory = drawn_memory(draw, draw(st.integers(1, 3)))
    encoders = weights(rng, n_in, memory.channels)
    feedback = maybe(draw, weights(rng, memory.size, memory.channels, scale=0.1))
    bias = maybe(draw, weights(rng, memory.channels))
    if draw(st.integers(0, 4)) == 0:
        return LMU(memory, encoders, memory_encoders=feedback, memory_bias=bias)
    takes_input = draw(st.booleans())
    cell = drawn_cell(draw, rng, memory.size + (n_in if takes_input else 0))
    from_hidden = maybe(draw, weights(rng, cell.n_out, memory.channels, scale=0.1))
    return LMU(memory, encoders, cell, takes_input, from_hidden, feedback, bias)


def drawn_conv(draw, rng, n_in):
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if n_in % g == 0]))
    width, n_out = draw(st.integers(1, 4)), groups * draw(st.integers(1, 3))
    kernel = weights(rng, width, n_in // groups, n_out)
    dilation = draw(st.integers(1, 3))
    reach = dilation * (width - 1)
    left = draw(st.integers(0, reach))
    bias = maybe(draw, weights(rng, n_out))
    return Conv1d(kernel, bias, 1, dilation, groups, left, reach - left)


def drawn_framewise(draw, rng, n):
    return draw(
        st.sampled_from(
            [
                Dense(weights(rng, n, n), maybe(draw, weights(rng, n))),
                Affine(weights(rng, n), weights(rng, n)),
                LayerNorm(weights(rng, n), weights(rng, n), 0.1),
                RMSNorm(weights(rng, n), 0.1),
                Activation("softmax"),
                Reshape((n,), (n, 1)),
            ]
        )
        | activations()
    )


@st.composite
def graphs(draw):
    """A network of up to eight nodes in any order, with branches that meet again."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_in = draw(st.integers(1, 4))
    nodes, ends = [], [(INPUT, n_in)]

    def add(operator, inputs, features):
        nodes.append(Node(f"block.{len(nodes)}", operator, tuple(inputs)))
        ends.append((nodes[-1].name, features))

    for _ in range(draw(st.integers(1, 6))):
        name, n = draw(st.sampled_from(ends))
        kind = draw(st.sampled_from(["framewise", "recurrent", "lmu", "memory", "conv", "time"]))
        if kind == "framewise":
            operator = drawn_framewise(draw, rng, n)
            add(operator, [name], n)
            if isinstance(operator, Reshape):
                (reshaped, _) = ends.pop()
                add(Reshape((n, 1), (n,)), [reshaped], n)
        elif kind == "recurrent":
            cell = drawn_cell(draw, rng, n)
            add(cell, [name], cell.n_out)
        elif kind == "lmu":
            layer = drawn_lmu(draw, rng, n)
            add(layer, [name], layer.n_out)
        elif kind == "memory":
            memory = drawn_memory(draw, draw(st.integers(1, 3)))
            encoders = weights(rng, n, memory.channels)
            bias = maybe(draw, weights(rng, memory.channels))
            add(LinearMemory(memory, encoders, bias, maybe(draw, Activation("relu"))), [name],
                memory.size)  # fmt: skip
        elif kind == "conv":
            conv = drawn_conv(draw, rng, n)
            add(conv, [name], conv.kernel.shape[2])
        else:
            operator = draw(
                st.sampled_from(
                    [
                        RunningMean(), Reverse(), Delay(2), Delay(30),
                        Pool("max", 3, 1, 1, 1), Pool("average", 3, 1, 2, 0),
                        Pool("average", 2, 1, 0, 1, count_padding=True),
                    ]
                )
            )  # fmt: skip
            add(operator, [name], n)
        same = [other for other, features in ends[:-1] if features == ends[-1][1]]
        if same and draw(st.booleans()):
            other = draw(st.sampled_from(same))
            add(draw(st.sampled_from([Add(), Multiply()])), [other, ends[-1][0]], ends[-1][1])
    used = {name for node in nodes for name in node.inputs}
    loose = [(name, n) for name, n in ends[1:] if name not in used]
    if len(loose) > 1:
        add(Concat(), [name for name, _ in loose], sum(n for _, n in loose))
    if draw(st.booleans()):
        add(Reduce(draw(st.sampled_from(["last", "mean", "max", "sum"]))), [ends[-1][0]],
            ends[-1][1])  # fmt: skip
    name, n = ends[-1]
    add(Dense(weights(rng, n, 2), weights(rng, 2)), [name], 2)
    network = Network(tuple(nodes), (n_in,), nodes[-1].name)
    steps = draw(st.integers(1, 45))
    return network, rng.normal(size=(3, steps, n_in))


def close(one, other, rtol=1e-9):
    scale = max(np.abs(other).max(initial=0.0), 1e-3)
    np.testing.assert_allclose(one, other, rtol=0, atol=rtol * scale)


@settings(max_examples=60)
@given(graphs())
def test_the_fast_forms_agree_with_the_plain_loop(drawn):
    network, inputs = drawn
    close(run(network, inputs), run_stepwise(network, inputs))


@settings(max_examples=15)
@given(graphs())
def test_batches_change_nothing(drawn):
    network, inputs = drawn
    close(run(network, inputs, batch_size=1), run(network, inputs), 1e-12)


@settings(max_examples=25)
@given(graphs(), st.integers(0, 2**32 - 1))
def test_padding_changes_nothing(drawn, seed):
    """Where an operator that looks ahead sees padding, so does a framework, so none is drawn."""
    network, inputs = drawn
    ahead = [
        node
        for node in network.nodes
        if (isinstance(node.operator, Conv1d | Pool) and node.operator.right)
    ]
    if ahead:
        return
    rng = np.random.default_rng(seed)
    steps = inputs.shape[1]
    lengths = rng.integers(1, steps + 1, size=len(inputs))
    found = run(network, inputs, lengths)
    for sample, length in enumerate(lengths):
        alone = run(network, inputs[sample : sample + 1, :length])[0]
        close(found[sample, :length] if network.return_sequences else found[sample], alone)


@settings(max_examples=25)
@given(graphs())
def test_a_file_holds_the_whole_network(drawn):
    import tempfile
    from pathlib import Path

    network, inputs = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save(network, path)
        again = load(path, GRAPH_CLASSES)
    assert again.fingerprint() == network.fingerprint()
    assert (run(again, inputs) == run(network, inputs)).all()


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("feedback", [False, True])
def test_a_network_of_layers_answers_as_its_reference(every_step, feedback):
    rng = np.random.default_rng(3)
    memory = Memory.legendre(6, 12.0, 2)
    hidden = Hidden(
        weights(rng, 12, 5), weights(rng, 3, 5), weights(rng, 5, 5), weights(rng, 5), "tanh"
    )
    encoders = weights(rng, 5, 2), weights(rng, 12, 2, scale=0.1)
    first = LMULayer(
        weights(rng, 3, 2), *(encoders if feedback else (None, None)), weights(rng, 2), memory,
        hidden,
    )  # fmt: skip
    second = LSTMLayer(weights(rng, 5, 16), weights(rng, 4, 16), weights(rng, 16))
    third = LMULayer(weights(rng, 4, 1), None, None, None, Memory.legendre(3, 9.0), None)
    readout = Readout(weights(rng, 3, 2), weights(rng, 2))
    layers = LMUNetwork((first, second, third), readout, every_step)
    inputs = rng.normal(size=(4, 70, 3))
    network = Network.from_layers(layers)
    assert network.n_parameters == layers.n_parameters
    truth = run_reference(layers, inputs).outputs
    close(run(network, inputs), truth, 1e-12)
    close(run_stepwise(network, inputs), truth, 1e-12)


def test_lstm_gru_and_convolution_agree_with_pytorch():
    torch = pytest.importorskip("torch", reason="torch (the extra train) is absent")
    torch.manual_seed(1)
    x = torch.randn(2, 11, 4, dtype=torch.float64)

    def array(tensor):
        return tensor.detach().numpy()

    lstm = torch.nn.LSTM(4, 3, batch_first=True, dtype=torch.float64)
    bias = array(lstm.bias_ih_l0 + lstm.bias_hh_l0)
    ours = LSTM(array(lstm.weight_ih_l0).T, array(lstm.weight_hh_l0).T, bias)
    close(ours.forward(x.numpy()), array(lstm(x)[0]), 1e-12)

    gru = torch.nn.GRU(4, 3, batch_first=True, dtype=torch.float64)
    kernels = array(gru.weight_ih_l0).T, array(gru.weight_hh_l0).T
    ours = GRU(*kernels, array(gru.bias_ih_l0), array(gru.bias_hh_l0))
    close(ours.forward(x.numpy()), array(gru(x)[0]), 1e-12)

    conv = torch.nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, dtype=torch.float64)
    kernel = array(conv.weight).transpose(2, 1, 0)
    ours = Conv1d(kernel, array(conv.bias), 2, 2, 2, 2, 2)
    network = Network((Node("conv", ours, (INPUT,)),), (4,), "conv")
    expected = array(conv(x.transpose(1, 2)).transpose(1, 2))
    close(run(network, x.numpy()), expected, 1e-12)
    close(run_stepwise(network, x.numpy()), expected, 1e-12)

    images = torch.randn(2, 5, 3, 8, 7, dtype=torch.float64)
    conv = torch.nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dtype=torch.float64)
    ours = Conv2d(array(conv.weight).transpose(2, 3, 1, 0), array(conv.bias), (2, 1), (1, 1),
                  (1, 1, 0, 0))  # fmt: skip
    expected = array(conv(images.flatten(0, 1))).reshape(2, 5, 4, 4, 6).transpose(0, 1, 3, 4, 2)
    close(ours.apply(images.numpy().transpose(0, 1, 3, 4, 2)), expected, 1e-12)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu6", "relu6"), ("hard-tanh", "hardtanh"), ("sigmoid", "sigmoid"), ("gelu", "gelu"),
        ("hard-sigmoid", "hardsigmoid"), ("silu", "silu"), ("softsign", "softsign"),
        ("softplus", "softplus"), ("elu", "elu"),
    ],
)  # fmt: skip
def test_activations_agree_with_pytorch(name, function):
    torch = pytest.importorskip("torch", reason="torch (the extra train) is absent")
    z = np.linspace(-9.0, 9.0, 301)
    expected = getattr(torch.nn.functional, function)(torch.tensor(z)).numpy()
    np.testing.assert_allclose(Activation(name).apply(z), expected, atol=1e-12)


def test_pooling_of_frames_and_strided_pooling():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 3, 4, 6, 2))
    pooled = FramePool("max", (2, 3), (2, 3)).apply(images)
    expected = images.reshape(2, 3, 2, 2, 2, 3, 2).max(axis=(3, 5))
    assert (pooled == expected).all()
    network = Network(
        (
            Node("turn", Permute((1, 0)), (INPUT,)),
            Node("flat", Reshape((3, 2), (6,)), ("turn",)),
            Node("pool", Pool("average", 2, 2), ("flat",)),
        ),
        (2, 3),
        "pool",
    )
    x = rng.normal(size=(2, 9, 2, 3))
    expected = x.swapaxes(2, 3).reshape(2, 9, 6)[:, :8].reshape(2, 4, 2, 6).mean(axis=2)
    close(run(network, x), expected, 1e-12)
    close(run_stepwise(network, x), expected, 1e-12)


def test_an_embedding_refuses_tokens_that_it_has_no_row_for():
    network = Network((Node("words", Embedding(np.eye(4)), (INPUT,)),), (1,), "words")
    tokens = np.array([[[0], [3]]])
    assert (run(network, tokens)[0] == np.eye(4)[[0, 3]]).all()
    for wrong in (4, -1, 0.5):
        with pytest.raises(InputError, match="whole numbers"):
            run(network, np.array([[[wrong]]]))


def test_only_the_last_step_is_computed_where_only_that_is_needed(monkeypatch):
    memory = LinearMemory(Memory.legendre(4, 9.0), np.ones((1, 1)))
    nodes = (
        Node("memory", memory, (INPUT,)),
        Node("relu", Activation("relu"), ("memory",)),
        Node("last", Reduce("last"), ("relu",)),
    )
    network = Network(nodes, (1,), "last")
    monkeypatch.setattr(LinearMemory, "forward", None)
    inputs = np.random.default_rng(0).normal(size=(2, 5000, 1))
    close(run(network, inputs), run_stepwise(network, inputs))


def test_errors_name_the_node():
    dense = Dense(np.ones((2, 3)))
    with pytest.raises(InputError, match=r"node lmu_1: Dense takes 2 features"):
        Network((Node("lmu_1", dense, (INPUT,)),), (5,), "lmu_1")
    with pytest.raises(InputError, match="no node before it"):
        Network((Node("a", dense, ("b",)),), (2,), "a")
    with pytest.raises(InputError, match="two nodes have the name a"):
        Network((Node("a", dense, (INPUT,)), Node("a", dense, (INPUT,))), (2,), "a")
    with pytest.raises(InputError, match="does not depend on b"):
        Network((Node("a", dense, (INPUT,)), Node("b", dense, (INPUT,))), (2,), "a")
    with pytest.raises(InputError, match="1 inputs and needs at least 2"):
        Node("sum", Add(), (INPUT,))
    with pytest.raises(InputError, match="needs inputs of one shape"):
        Network((Node("a", dense, (INPUT,)), Node("s", Add(), ("a", INPUT))), (2,), "s")
    with pytest.raises(InputError, match="have 3 and 6 steps"):
        pool = Node("pool", Pool("max", 2, 2), (INPUT,))
        run(Network((pool, Node("s", Add(), ("pool", INPUT))), (2,), "s"), np.ones((1, 6, 2)))


def test_a_network_prints_as_a_table():
    network = Network((Node("lmu_1", Dense(np.ones((2, 3))), (INPUT,)),), (2,), "lmu_1")
    assert repr(network) == "Network(1 node, 2 inputs, 3 outputs, 6 parameters)"
    assert "lmu_1  dense, 3 units  input   (steps, 3)" in str(network)
    assert len({operator.__name__ for operator in OPERATORS}) == len(OPERATORS)


def test_a_stream_gives_frames_as_soon_as_they_are_ready():
    conv = Conv1d(np.ones((3, 1, 1)), left=1, right=1)
    nodes = (Node("conv", conv, (INPUT,)), Node("sum", Add(), ("conv", INPUT)))
    stream = Stream(Network(nodes, (1,), "sum"))
    frames = [float(y[0, 0]) for t in (1.0, 2.0, 4.0) for y in stream.push(np.full((1, 1), t))]
    assert frames == [4.0, 9.0]
    assert [float(y[0, 0]) for y in stream.finish()] == [10.0]


@settings(max_examples=60)
@given(graphs())
def test_folding_changes_no_answer(drawn):
    network, inputs = drawn
    folded = fold(network)
    close(run(folded, inputs), run(network, inputs))
    names = {node.name for node in folded.nodes}
    assert names <= {node.name for node in network.nodes}
    assert len(folded.nodes) <= len(network.nodes)


@pytest.mark.parametrize(
    "operator",
    [
        Conv1d(np.ones((2, 3, 2)), np.ones(2), stride=2),
        Conv1d(np.ones((2, 3, 2)), left=1),
        Dense(np.ones((3, 2)), np.ones(2)),
        LinearMemory(Memory.legendre(3, 6.0, 2), np.ones((3, 2)), None, Activation("relu")),
        GRU(np.ones((3, 6)), np.ones((2, 6)), None, np.ones(6)),
    ],
)
def test_a_batch_normalization_folds_into_what_follows(operator):
    rng = np.random.default_rng(1)
    norm = Affine.from_batch_norm(
        rng.normal(size=3), rng.uniform(0.5, 2.0, 3), rng.normal(size=3), rng.normal(size=3), 1e-3
    )
    nodes = (
        Node("dense", Dense(rng.normal(size=(4, 3))), (INPUT,)),
        Node("norm", norm, ("dense",)),
    )
    network = Network((*nodes, Node("next", operator, ("norm",))), (4,), "next")
    inputs = rng.normal(size=(2, 9, 4))
    folded = fold(network)
    close(run(folded, inputs), run(network, inputs))
    padded = isinstance(operator, Conv1d) and operator.left
    assert [node.name for node in folded.nodes] == (["norm", "next"] if padded else ["next"])


@settings(max_examples=25)
@given(st.data())
def test_layers_become_a_graph_and_layers_again(networks, data):
    network = data.draw(networks)
    again = to_layers(Network.from_layers(network))
    assert again.return_sequences == network.return_sequences
    inputs = np.random.default_rng(0).normal(size=(2, 20, network.n_in))
    close(run_reference(again, inputs).outputs, run_reference(network, inputs).outputs, 1e-12)


def test_a_parallel_stack_becomes_layers_and_anything_else_is_named():
    memory = LinearMemory(Memory.legendre(3, 6.0), np.ones((2, 1)))
    nodes = [
        Node("scale", Affine(np.full(2, 0.5), np.ones(2)), (INPUT,)),
        Node("memory", memory, ("scale",)),
        Node("units", Dense(np.ones((3, 4))), ("memory",)),
        Node("relu", Activation("relu"), ("units",)),
        Node("last", Reduce("last"), ("relu",)),
    ]
    network = Network(tuple(nodes), (2,), "last")
    inputs = np.random.default_rng(0).normal(size=(2, 12, 2))
    layers = to_layers(network)
    assert len(layers.layers) == 1
    close(run_reference(layers, inputs).outputs, run(network, inputs))
    nodes[-1:] = [
        Node("mean", Reduce("mean"), ("relu",)),
        Node("norm", RMSNorm(np.ones(4)), ("mean",)),
    ]
    with pytest.raises(InputError, match=r"mean \(mean over time\), norm \(RMS normalization\)"):
        to_layers(Network(tuple(nodes), (2,), "norm"))
