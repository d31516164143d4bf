"""NIR graphs of any linear network: run by an interpreter of NIR's nodes, and read back equal."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.spiking import spike
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.frames import FramePool, LayerNorm, Permute, Reshape, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat
from lmu_deploy.core.graph.recurrent import SimpleRNN
from lmu_deploy.core.graph.time import Delay, Reduce
from lmu_deploy.core.network import Memory

nir = pytest.importorskip("nir", reason="the extra [nir] is not installed")
pytest.importorskip("h5py", reason="the extra [nir] is not installed")

from converters.nir import from_nir, left_to_host, read_nir, to_nir, write_nir  # noqa: E402

DT = 1e-3


def run_nir(graph, inputs):
    """Return the outputs of a graph for inputs (steps, *shape), by Euler steps of NIR's equations.

    Every node is computed once a step behind its sources; over an edge that closes a loop it sees
    the step before.
    """
    order, pending = [], [name for name in graph.nodes if name != "input"]
    states = {name for name, node in graph.nodes.items() if isinstance(node, nir.LI)}
    closing = {(a, b) for a, b in graph.edges if a in states and leads(graph, b, a)}
    while pending:
        for name in pending:
            sources = [a for a, b in graph.edges if b == name and (a, b) not in closing]
            if all(a == "input" or a in order for a in sources):
                order.append(name)
                pending.remove(name)
                break
    values, memory, outputs = dict.fromkeys(graph.nodes, 0.0), {}, []
    for x in inputs:
        values["input"] = x
        for name in order:
            total = sum(values[a] for a, b in graph.edges if b == name)
            values[name] = advance(graph.nodes[name], total, memory.setdefault(name, []))
        outputs.append(values["output"])
    return np.stack(outputs)


def leads(graph, first, last):
    """Whether a path goes from one node to another."""
    seen, todo = set(), [first]
    while todo:
        name = todo.pop()
        if name == last:
            return True
        if name not in seen:
            seen.add(name)
            todo += [b for a, b in graph.edges if a == name]
    return False


def advance(node, x, memory):
    """Return the output of a node; `memory` is a list that is its own."""
    if isinstance(node, nir.Linear | nir.Affine):
        y = node.weight @ np.broadcast_to(x, node.weight.shape[1:])
        return y + node.bias if isinstance(node, nir.Affine) else y
    if isinstance(node, nir.Scale):
        return x * node.scale
    if isinstance(node, nir.Flatten):
        return x.reshape(-1)
    if isinstance(node, nir.Delay):
        steps = round(float(np.max(node.delay)) / DT)
        memory.append(x)
        return memory[-1 - steps] if len(memory) > steps else np.zeros(node.delay.shape)
    if isinstance(node, nir.I):
        memory.append(DT * node.r * x)
        return np.sum(memory, axis=0)
    if isinstance(node, nir.LI):
        v = memory[-1] if memory else np.zeros(node.r.shape)
        memory.append(v + DT / node.tau * (node.v_leak - v + node.r * x))
        return memory[-1]
    if isinstance(node, nir.Conv2d):
        return convolve(node, x)
    if isinstance(node, nir.AvgPool2d):
        windows = np.lib.stride_tricks.sliding_window_view(x, tuple(node.kernel_size), (1, 2))
        return windows[:, :: node.stride[0], :: node.stride[1]].mean(axis=(-2, -1))
    assert isinstance(node, nir.Output)
    return x


def convolve(node, x):
    """The convolution of an image with channels first, as PyTorch defines it."""
    torch = pytest.importorskip("torch", reason="torch (the extra train) is absent")
    tensors = (torch.tensor(np.asarray(a, np.float64)) for a in (x[None], node.weight, node.bias))
    options = [tuple(map(int, v)) for v in (node.stride, node.padding, node.dilation)]
    return torch.nn.functional.conv2d(*tensors, *options, int(node.groups))[0].numpy()


def answers(network, inputs):
    """What the graph of a network answers, as the network does."""
    images = len(network.frame) == 3
    turned = inputs.transpose(0, 1, 4, 2, 3) if images else inputs
    found = np.stack([run_nir(to_nir(network), sample) for sample in turned])
    if found.ndim == 5:
        found = found.transpose(0, 1, 3, 4, 2)
    return found if network.return_sequences else found[:, -1]


def check(network, tmp_path=None, steps=20):
    """Compare answers, and what is read back."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, steps, *network.frame))
    expected = run(network, inputs)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(answers(network, inputs), expected, rtol=0, atol=1e-9 * scale)
    graph = to_nir(network)
    assert from_nir(graph).fingerprint() == network.fingerprint()
    if tmp_path is not None:
        write_nir(graph, tmp_path / "a.nir")
        again = read_nir(tmp_path / "a.nir")
        assert again.fingerprint() == network.fingerprint()
        assert [node.name for node in again.nodes] == [node.name for node in network.nodes]


def w(rng, *shape):
    return rng.normal(size=shape) / np.sqrt(shape[0])


def test_branches_of_memories_are_combined(rng, tmp_path):
    memory = LinearMemory(Memory.legendre(4, 9.0, 2), w(rng, 3, 2), w(rng, 2))
    fed_back = LMU(Memory.legendre(3, 7.0), w(rng, 3, 1), memory_encoders=0.1 * w(rng, 3, 1))
    units = SimpleRNN(w(rng, 7, 5), None, w(rng, 5), Activation("linear"))
    nodes = (
        Node("lmu_1", memory, (INPUT,)),
        Node("block.0.lmu", fed_back, (INPUT,)),
        Node("lmu_2", LMU(Memory.legendre(4, 6.0), w(rng, 3, 1), units, True), (INPUT,)),
        Node("join", Concat(), ("lmu_1", "block.0.lmu", "lmu_2")),
        Node("norm", Affine(w(rng, 16), w(rng, 16)), ("join",)),
        Node("gain", Affine(w(rng, 16), np.zeros(16)), ("norm",)),
        Node("late", Delay(3), ("gain",)),
        Node("sum", Add(), ("late", "join", "gain")),
        Node("some", Slice(2, 9), ("sum",)),
        Node("last", Reduce("last"), ("some",)),
        Node("output", Dense(w(rng, 7, 2), w(rng, 2)), ("last",)),
    )
    network = Network(nodes, (3,), "output", provenance={"command": "test"})
    graph = to_nir(network)
    assert set(network.shapes) - {INPUT, "output"} <= set(graph.nodes)
    assert isinstance(graph.nodes["lmu_1"], nir.LI)
    check(network, tmp_path)


def test_causal_convolutions_and_a_sum_over_time(rng, tmp_path):
    nodes = (
        Node("conv", Conv1d(w(rng, 3, 1, 4), w(rng, 4), dilation=2, groups=2, left=4), (INPUT,)),
        Node("linear", Activation("linear"), ("conv",)),
        Node("total", Reduce("sum"), ("linear",)),
    )
    check(Network(nodes, (2,), "total"), tmp_path)


def test_images(rng, tmp_path):
    kernel = w(rng, 3, 2, 2, 4)
    nodes = (
        Node("conv", Conv2d(kernel, w(rng, 4), (1, 2), padding=(1, 1, 0, 0)), (INPUT,)),
        Node("pool", FramePool("average", (2, 2), (2, 1)), ("conv",)),
        Node("flat", Reshape((3, 2, 4), (24,)), ("pool",)),
        Node("norm", Affine(w(rng, 24), w(rng, 24)), ("flat",)),
        Node("memory", LinearMemory(Memory.legendre(3, 8.0), w(rng, 24, 1)), ("norm",)),
        Node("dense", Dense(w(rng, 24, 3)), ("norm",)),
        Node("sum", Add(), ("memory", "dense")),
    )
    check(Network(nodes, (6, 7, 2), "sum"), tmp_path, steps=6)


@settings(max_examples=25)
@given(st.data())
def test_drawn_linear_networks(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    nodes, features = [], {INPUT: 3}
    for number in range(data.draw(st.integers(1, 6))):
        source = data.draw(st.sampled_from(list(features)))
        n = features[source]
        kernel, vector = (w(rng, *size).astype(dtype) for size in ((n, 2), (n,)))
        operator = data.draw(
            st.sampled_from(
                [
                    Dense(kernel), Dense(kernel, np.ones(2, dtype)), Affine(vector, vector),
                    Delay(2), Slice(n - 1, n), LinearMemory(Memory.legendre(2, 5.0, 2), kernel),
                    Conv1d(np.stack([kernel, kernel]), left=1), Activation("linear"),
                ]
            )
        )  # fmt: skip
        inputs, name = (source,), f"op.{number}"
        same = [other for other in features if features[other] == n and other != source]
        if same and data.draw(st.booleans()):
            operator, inputs = Add(), (source, same[0])
        nodes.append(Node(name, operator, inputs))
        features[name] = Network(tuple(nodes[-1:]), (n,), name).n_out if inputs == (INPUT,) else (
            n if isinstance(operator, Add | Affine | Delay | Activation)
            else 1 if isinstance(operator, Slice)
            else 4 if isinstance(operator, LinearMemory) else 2
        )  # fmt: skip
    used = {name for node in nodes for name in node.inputs}
    loose = [node.name for node in nodes if node.name not in used]
    if len(loose) > 1:
        nodes.append(Node("all", Concat(), tuple(loose)))
    check(Network(tuple(nodes), (3,), nodes[-1].name), steps=9)


def test_weights_that_another_program_changed_are_read(rng):
    nodes = (Node("a", Dense(w(rng, 3, 2), w(rng, 2)), (INPUT,)), Node("b", Delay(1), ("a",)))
    graph = to_nir(Network(nodes, (3,), "b"))
    graph.nodes["a"].weight = graph.nodes["a"].weight * 2.0
    assert (from_nir(graph)["a"].operator.kernel == 2.0 * nodes[0].operator.kernel).all()
    graph.nodes["b"].delay = graph.nodes["b"].delay * 2.0
    with pytest.raises(InputError, match="nodes b of this NIR graph were changed"):
        from_nir(graph)


def test_what_nir_has_no_node_for_is_named_at_once(rng):
    nodes = (
        Node("norm", LayerNorm(np.ones(2), np.ones(2)), (INPUT,)),
        Node("act", Activation("tanh"), ("norm",)),
        Node("dense", Dense(w(rng, 2, 2)), ("act",)),
        Node("conv", Conv1d(w(rng, 3, 2, 2), left=1, right=1), ("dense",)),
    )
    message = (
        r"NIR has no node for norm \(layer normalization\), act \(tanh\), conv \(convolution of 3 "
        r"steps\); export the network as onnx\."
    )
    with pytest.raises(InputError, match=message):
        to_nir(Network(nodes, (2,), "conv"))


def test_orders_that_nir_cannot_hold_are_refused(rng):
    flat = Node("flat", Reshape((2, 2, 2), (8,)), (INPUT,))
    with pytest.raises(InputError, match="output flat is a flattened image"):
        to_nir(Network((flat,), (2, 2, 2), "flat"))
    turned = Node("turn", Permute((1, 0, 2)), (INPUT,))
    with pytest.raises(InputError, match=r"no node for turn \(transpose\)"):
        to_nir(Network((turned,), (2, 2, 2), "turn"))
    dense = Node("a/b", Dense(np.ones((2, 2))), (INPUT,))
    with pytest.raises(InputError, match="node a/b has a slash in its name"):
        to_nir(Network((dense,), (2,), "a/b"))


def chain(rng, layer="lmu_1", answer="classes"):
    """Return tanh units behind a memory, which NIR has as layers only, and a readout."""
    cell = SimpleRNN(w(rng, 4, 3), None, w(rng, 3), Activation("tanh"))
    memory = Memory.legendre(4, 9.0)
    nodes = (
        Node(layer, LMU(memory, w(rng, 2, 1), cell, False, None, None, None), (INPUT,)),
        Node(answer, Dense(w(rng, 3, 2), w(rng, 2)), (layer,)),
    )
    return Network(nodes, (2,), answer)


def test_layers_keep_the_names_of_their_nodes(rng, tmp_path):
    network = chain(rng)
    graph = to_nir(network)
    assert set(graph.nodes) == {
        "input", "lmu_1_encoders", "lmu_1_memory_input", "lmu_1_memory", "lmu_1_memory_recurrent",
        "lmu_1_output",
    }  # fmt: skip
    assert left_to_host(network) == ["lmu_1: 3 hidden units (tanh)", "classes"]
    write_nir(graph, tmp_path / "a.nir")
    found = read_nir(tmp_path / "a.nir")
    assert [node.name for node in found.nodes] == ["lmu_1", "classes"]
    inputs = rng.normal(size=(2, 12, 2))
    np.testing.assert_array_equal(run(found, inputs), run(network, inputs))


def test_graphs_whose_layers_have_their_names_beside_them_alone_are_read(rng):
    """Version 0.1 wrote the names of layers into the header, and not into the tree."""
    network = chain(rng)
    graph = to_nir(network)
    header = json.loads(graph.metadata["lmu_deploy"])
    assert header["structure"]["fields"].pop("names") == header["names"] == ["lmu_1", "classes"]
    graph.metadata["lmu_deploy"] = json.dumps(header)
    assert [node.name for node in from_nir(graph).nodes] == [n.name for n in network.nodes]


def test_memories_on_neurons_have_the_names_of_their_layers(rng):
    options = {"neurons_per_state": 4, "dt_ms": 2.0, "units": "host"}
    spiking = spike(chain(rng), rng.normal(size=(5, 10, 2)), **options)
    graph = to_nir(spiking)
    assert all(name.startswith("lmu_1_") for name in graph.nodes)
    assert from_nir(graph).fingerprint() == spiking.fingerprint()
    slashed = spike(chain(rng, layer="block/lmu"), rng.normal(size=(5, 10, 2)), **options)
    with pytest.raises(InputError, match="node block/lmu has a slash in its name"):
        to_nir(slashed)


def test_names_of_layers_that_nir_cannot_hold_are_refused(rng):
    with pytest.raises(InputError, match="node block/lmu has a slash in its name"):
        to_nir(chain(rng, layer="block/lmu"))
    graph = to_nir(chain(rng))
    graph.metadata["lmu_deploy"] = graph.metadata["lmu_deploy"].replace('"lmu_1", "cl', '"cl')
    with pytest.raises(InputError, match="the names in this NIR graph are damaged"):
        from_nir(graph)


def test_a_readout_may_have_the_name_of_the_output(rng):
    first, _ = chain(rng).nodes
    memory = LMU(Memory.legendre(3, 7.0), w(rng, 3, 1), None, False, None, None, None)
    nodes = (first, Node("b", memory, (first.name,)), Node("output", Dense(w(rng, 3, 2)), ("b",)))
    network = Network(nodes, (2,), "output")
    graph = to_nir(network)
    assert {("output_", "output"), ("b_memory", "output_")} <= set(graph.edges)
    found = from_nir(graph)
    assert found.output == "output"
    inputs = rng.normal(size=(2, 9, 2))
    np.testing.assert_array_equal(run(found, inputs), run(network, inputs))
