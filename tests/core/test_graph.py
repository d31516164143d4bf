"""Networks as graphs: the fast forms against the plain loop, and both against other code."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from graphs import fewest_steps, inputs_for, masked_run, networks, runs, steps_of
from hypothesis import Phase, assume, given, seed, settings
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.graph.executor import Stream, record_states, run, run_stepwise
from lmu_deploy.core.graph.frames import FramePool, Permute, Reshape, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU, _own_blas_threads
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import GRAPH_CLASSES, INPUT, OPERATORS, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Delay, Mask, Pool, Reduce, Reverse
from lmu_deploy.core.graph.transforms import as_layers, fold, prune
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference


def weights(rng, *shape, scale=0.5):
    return rng.normal(scale=scale / np.sqrt(max(shape[0], 1)), size=shape)


def close(one, other, rtol=1e-9):
    scale = max(np.abs(other).max(initial=0.0), 1e-3)
    np.testing.assert_allclose(one, other, rtol=0, atol=rtol * scale)


def test_the_strategy_draws_every_operator():
    drawn, wanted = set(), set(OPERATORS) - {Mask}  # which the tests of masks draw

    @settings(max_examples=100, database=None, phases=[Phase.generate])
    @given(networks())
    def collect(network):
        drawn.update(type(node.operator) for node in network.nodes)

    for number in range(20):
        seed(number)(collect)()
        if drawn >= wanted:
            break
    assert drawn == wanted


@settings(max_examples=60)
@given(runs())
def test_the_fast_forms_agree_with_the_plain_loop(drawn):
    network, inputs = drawn
    close(run(network, inputs), run_stepwise(network, inputs))


CHANGES_LENGTH = st.sampled_from([None, Conv1d, Pool, Delay, Reverse])


@settings(max_examples=60)
@given(st.data(), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_few_steps_are_computed_or_refused(data, steps, start):
    """Where every signal has a frame, the forms agree; else all say how many steps it takes."""
    network = data.draw(networks(most_nodes=5, first=data.draw(CHANGES_LENGTH)))
    inputs, least = inputs_for(network, 2, steps, start), fewest_steps(network)
    if steps >= least:
        found = run(network, inputs)
        close(found, run_stepwise(network, inputs))
        recorded = record_states(network, inputs).answers
        close(found, recorded if network.return_sequences else recorded[:, -1])
        return
    name = next(name for name, frames in steps_of(network, steps).items() if frames < 1)
    words = f"of the input gives? no frame of {re.escape(name)}; give at least {least} steps"
    for compute in (run, run_stepwise, record_states):
        with pytest.raises(InputError, match=words):
            compute(network, inputs)
    longer = inputs_for(network, 2, least, start)
    assert np.isfinite(run(network, longer)).all()
    with pytest.raises(InputError, match=words.replace("the input", "the shortest sequence")):
        run(network, longer, np.array([least, steps]))


@settings(max_examples=15)
@given(runs())
def test_batches_change_nothing(drawn):
    network, inputs = drawn
    close(run(network, inputs, batch_size=1), run(network, inputs), 1e-12)


def test_samples_in_threads_answer_as_the_plain_loop(monkeypatch):
    rng = np.random.default_rng(3)
    memory = Memory.legendre(6, theta=9.0, channels=2)
    cell = SimpleRNN(weights(rng, 15, 70, scale=3), weights(rng, 70, 70), weights(rng, 70))
    lmu = LMU(memory, weights(rng, 3, 2), cell, True, weights(rng, 70, 2))
    network = Network((Node("lmu", lmu, (INPUT,)),), (3,), "lmu")
    inputs = rng.normal(size=(256, 40, 3))  # in a step, more values than tanh computes at once
    wanted = run_stepwise(network, inputs)
    close(run(network, inputs), wanted)
    blas = SimpleNamespace(set=[], scipy_openblas_get_num_threads64_=lambda: 3)
    blas.scipy_openblas_set_num_threads64_ = blas.set.append
    monkeypatch.setattr("lmu_deploy.core.graph.lmu._openblas", lambda: blas)
    close(run(network, inputs), wanted)
    assert blas.set == [1, 3]
    with _own_blas_threads(4) as first, _own_blas_threads(4) as second:
        assert (first, second) == (3, 1)  # the threads have been taken
    recorded = record_states(network, inputs)
    close(recorded.answers, wanted)


def test_the_fast_hyperbolic_tangent():
    rng = np.random.default_rng(0)
    special = [0.0, 1e-300, -1e-9, 19.0, -25.0, 1e200, -np.inf, np.inf, np.nan]
    z = np.concatenate([rng.normal(scale=s, size=20_000) for s in (1e-5, 0.1, 3.0, 40.0)])
    z = np.concatenate([z, special]).reshape(-1, 1)
    found = np.empty_like(z)
    Activation("tanh").fill(z, found)
    np.testing.assert_allclose(found, np.tanh(z), rtol=4e-16, atol=4e-16)
    assert not np.array_equal(found[:-9], np.tanh(z[:-9]))  # it is another algorithm


@settings(max_examples=25)
@given(runs(), st.integers(0, 2**32 - 1))
def test_padding_changes_nothing(drawn, start):
    """Where an operator that looks ahead sees padding, so does a framework, so none is drawn."""
    network, inputs = drawn
    assume(not any(getattr(node.operator, "right", 0) for node in network.nodes))
    rng = np.random.default_rng(start)
    lengths = rng.integers(fewest_steps(network), inputs.shape[1] + 1, size=len(inputs))
    found = run(network, inputs, lengths)
    for sample, length in enumerate(lengths):
        alone = run(network, inputs[sample : sample + 1, :length])[0]
        counted = steps_of(network, int(length))[network.output]
        close(found[sample, :counted] if network.return_sequences else found[sample], alone)


@settings(max_examples=25)
@given(runs())
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


@settings(max_examples=20)
@given(networks(), st.integers(0, 2**32 - 1))
def test_frames_of_padding_count_nowhere(network, start):
    """A network behind a mask answers as it does alone to the frames that are not padding."""
    assume(not any(isinstance(node.operator, Embedding) for node in network.nodes))
    assume(not any(getattr(node.operator, "right", 0) for node in network.nodes))
    masked, inputs, counts = masked_run(network, start)
    found, stepwise = run(masked, inputs), run_stepwise(masked, inputs)
    for sample in range(3):
        alone = run(network, inputs[sample, counts[sample]][None])[0]
        counted = steps_of(network, int(counts[sample].sum()))[network.output]
        for answer in (found, stepwise):
            close(answer[sample, :counted] if network.return_sequences else answer[sample], alone)


@pytest.mark.parametrize("kind", ["last", "mean", "max", "sum", ""])
def test_padding_that_leaves_too_few_frames_is_refused(rng, kind):
    nodes = [
        Node("mask", Mask(), (INPUT,)),
        Node("conv", Conv1d(weights(rng, 4, 1, 2)), ("mask",)),
        *([Node("once", Reduce(kind), ("conv",))] if kind else []),
    ]
    network = Network(tuple(nodes), (1,), nodes[-1].name)
    inputs = rng.normal(size=(3, 8, 1))
    inputs[1, 4:] = 0.0
    close(run(network, inputs)[1, :1] if not kind else run(network, inputs)[1],
          run_stepwise(network, inputs[1:2, :4])[0])  # fmt: skip
    inputs[1, 2:] = 0.0
    for compute in (run, record_states):
        with pytest.raises(InputError, match="sequence 1 has 2 frames that count before node conv"):
            compute(network, inputs)
    with pytest.raises(InputError, match="too few frames besides its padding"):
        run_stepwise(network, inputs)


def test_a_mask_needs_a_frame_that_counts():
    network = Network((Node("mask", Mask(), (INPUT,)),), (2,), "mask")
    inputs = np.array([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    with pytest.raises(InputError, match="sequence 1 has only frames of 0"):
        run(network, inputs)
    assert (run(network, inputs[:1])[0] == inputs[0]).all()
    with pytest.raises(InputError, match="feed one at a time"):
        Stream(network, 2).push(np.array([[1.0, 1.0], [0.0, 0.0]]))


def test_some_features_of_a_frame():
    x = np.arange(24.0).reshape(2, 3, 4)
    network = Network((Node("part", Slice(1, 3), (INPUT,)),), (4,), "part")
    assert (run(network, x) == x[..., 1:3]).all()
    with pytest.raises(InputError, match="node part: features 1 to 2 are not all in"):
        Network((Node("part", Slice(1, 3), (INPUT,)),), (2,), "part")
    with pytest.raises(InputError, match="slice end"):
        Slice(2, 2)


def test_a_network_prints_as_a_table():
    network = Network((Node("lmu_1", Dense(np.ones((2, 3))), (INPUT,)),), (2,), "lmu_1")
    assert repr(network) == "Network(2 inputs, 3 outputs, 6 parameters, 1 node)"
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
@given(runs())
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
    again = as_layers(Network.from_layers(network), "test")
    assert again.return_sequences == network.return_sequences
    inputs = np.random.default_rng(0).normal(size=(2, 20, network.n_in))
    np.testing.assert_array_equal(
        run_reference(again, inputs).outputs, run_reference(network, inputs).outputs
    )
    assert again.fingerprint() == network.fingerprint()


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
    layers = as_layers(network, "test")
    assert len(layers.layers) == 1
    close(run_reference(layers, inputs).outputs, run(network, inputs))


def test_every_node_that_is_no_layer_is_named_with_what_works():
    memory = Memory.legendre(3, 6.0)
    cell = GRU(np.ones((3, 6)), np.ones((2, 6)))
    nodes = [
        Node("conv", Conv1d(np.ones((3, 2, 2)), left=2), (INPUT,)),
        Node("lmu", LMU(memory, np.ones((2, 1)), cell), ("conv",)),
        Node("sum", Add(), ("lmu", "conv")),
        Node("shortcut", Dense(np.ones((2, 2))), ("conv",)),
        Node("both", Add(), ("sum", "shortcut")),
        Node("lstm", LSTM(np.ones((2, 8)), np.ones((2, 8))), ("both",)),
        Node("mean", Reduce("mean"), ("lstm",)),
        Node("readout", Dense(np.ones((2, 1))), ("mean",)),
        Node("squash", Activation("tanh"), ("readout",)),
    ]
    with pytest.raises(InputError) as caught:
        as_layers(Network(tuple(nodes), (2,), "squash"), "quantize")
    assert str(caught.value) == (
        "quantize: 7 of 9 nodes have no integer form yet: conv (Conv1d), lmu (LMU: its hidden cell "
        "is GRU), sum (Add: joins branches), shortcut (Dense: begins a branch), both (Add: joins "
        "branches), mean (Reduce mean), squash (Activation tanh: behind the readout); what "
        "works is an LMU in place of conv, an LMU with dense or recurrent units of linear or relu "
        "or tanh or hard-tanh from zero in place of lmu, one branch in place of sum, one branch in "
        "place of shortcut, one branch in place of both, the last step in place of mean, a dense "
        "readout alone in place of squash."
    )
    with pytest.raises(InputError, match="spike: the network has no LMU, memory or LSTM"):
        as_layers(
            Network((Node("readout", Dense(np.ones((2, 1))), (INPUT,)),), (2,), "readout"), "spike"
        )


def test_one_output_of_several_is_kept_with_what_it_needs():
    nodes = [
        Node("a", Dense(np.ones((2, 2))), (INPUT,)),
        Node("b", Dense(np.ones((2, 3))), ("a",)),
        Node("c", Dense(np.ones((2, 1))), (INPUT,)),
        Node("d", Add(), ("a", "a")),
    ]
    assert [node.name for node in prune(nodes, "d")] == ["a", "d"]
    assert [node.name for node in prune(nodes, "c")] == ["c"]
    Network(prune(nodes, "b"), (2,), "b")
    with pytest.raises(InputError, match="no output 'e'; choose one of a, b, c, d"):
        prune(nodes, "e")


@settings(max_examples=40)
@given(runs(), st.integers(0, 2**32 - 1))
def test_recorded_answers_and_states_are_those_of_the_run(drawn, seed):
    """The last answer so far is the answer, and a state is what the node alone has at that step."""
    network, inputs = drawn
    names = [node.name for node in network.nodes]
    found = record_states(network, inputs, nodes=names)
    outputs = run(network, inputs)
    close(found.answers if network.return_sequences else found.answers[:, -1], outputs)
    for name in (*found.memory, *found.hidden):
        part = replace(network, nodes=prune(network.nodes, name), output=name)
        close(found.nodes[name], run(part, inputs))
    for name, h in found.hidden.items():
        close(h, found.nodes[name])
    for name, m in found.memory.items():
        operator, state = network[name].operator, network[name].operator.start(len(inputs))
        before = network[name].inputs[0]
        given = inputs if before == INPUT else found.nodes[before]
        for t in range(given.shape[1]):
            state, _ = operator.advance(state, given[:, t])
            now = state[0] if isinstance(operator, LMU) else state
            close(m[:, t], now)


@settings(max_examples=30)
@given(runs(), st.integers(0, 2**32 - 1))
def test_padding_changes_no_recorded_answer(drawn, seed):
    network, inputs = drawn
    fewest = fewest_steps(network)
    lengths = np.random.default_rng(seed).integers(fewest, inputs.shape[1] + 1, size=len(inputs))
    trace = run_reference(network, inputs, record=True, lengths=lengths)
    np.testing.assert_array_equal(trace.outputs, run(network, inputs, lengths))
    if not network.return_sequences and trace.y is not None:
        close(trace.y[:, -1], trace.outputs.reshape(len(inputs), -1))


def test_a_node_that_is_not_there_cannot_be_recorded():
    network = Network((Node("dense", Dense(np.ones((2, 3))), (INPUT,)),), (2,), "dense")
    with pytest.raises(InputError, match="no node 'lmu'; its nodes are dense"):
        run_reference(network, np.ones((1, 2, 2)), nodes=["lmu"])
    with pytest.raises(InputError, match="lengths must be 1 whole numbers"):
        run_reference(network, np.ones((1, 2, 2)), lengths=[1, 2])
    wide = Network((Node("pool", Pool("max", 2, 2), (INPUT,)),), (2,), "pool")
    assert run_reference(wide, np.ones((1, 4, 2)), record=True).y is None


def test_linear_operators_behind_the_last_layer_are_one_readout():
    rng = np.random.default_rng(0)
    nodes = [
        Node("lmu", LMU(Memory.legendre(3, 6.0), rng.normal(size=(2, 1))), (INPUT,)),
        Node("norm", Affine(rng.normal(size=3), rng.normal(size=3)), ("lmu",)),
        Node("dense", Dense(rng.normal(size=(3, 4)), rng.normal(size=4)), ("norm",)),
        Node("last", Reduce("last"), ("dense",)),
        Node("scale", Affine(rng.normal(size=4), rng.normal(size=4)), ("last",)),
        Node("head", Dense(rng.normal(size=(4, 2))), ("scale",)),
        Node("linear", Activation("linear"), ("head",)),
    ]
    inputs = rng.normal(size=(2, 9, 2))
    for node in nodes:
        network = Network(prune(nodes, node.name), (2,), node.name)
        found = run_reference(as_layers(network, "test"), inputs).outputs
        close(found, run(network, inputs))
