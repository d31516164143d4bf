"""Float ONNX models in ONNX Runtime, compared with the float64 executor of the graph."""

import json
from pathlib import Path

import numpy as np
import pytest
from graphs import masked_run, networks, runs, steps_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx_runs import error, graphs_of, run_model, run_steps, session, step_error

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.frames import FramePool, Reshape
from lmu_deploy.core.graph.linear import Conv1d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, OPERATORS, Network, Node
from lmu_deploy.core.graph.pointwise import NAMES, Activation, Add
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Pool, Reduce, Reverse
from lmu_deploy.core.network import FLOAT_CLASSES, Memory
from lmu_deploy.core.reference import run_reference

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from converters.onnx import check_onnx, from_onnx, save_onnx, to_onnx, to_onnx_step  # noqa: E402
from converters.onnx.emitter import EMITTERS  # noqa: E402

TOLERANCE = 1e-5
EXAMPLES = Path(__file__).parents[3] / "examples" / "models"


def chain(*operators, frame=(2,), names=None):
    """Return a network of operators one behind the other, called a, b and so on."""
    names = names or [chr(ord("a") + number) for number in range(len(operators))]
    before = [INPUT, *names[:-1]]
    nodes = [Node(n, o, (b,)) for n, o, b in zip(names, operators, before, strict=True)]
    return Network(tuple(nodes), frame, names[-1])


def weights(rng, *shape):
    return rng.normal(size=shape) / np.sqrt(2 * shape[0])


def stack(rng, every_step=False):
    """Two LMUs with every feedback, an LSTM between them, about unit size throughout."""
    first = LMU(
        Memory.legendre(12, 60.0, 3),
        weights(rng, 2, 3),
        SimpleRNN(weights(rng, 38, 10), weights(rng, 10, 10), weights(rng, 10)),
        True,
        0.3 * weights(rng, 10, 3),
        0.1 * weights(rng, 36, 3),
        0.1 * weights(rng, 3),
    )
    middle = LSTM(weights(rng, 10, 32), weights(rng, 8, 32), weights(rng, 32))
    units = SimpleRNN(weights(rng, 24, 20), None, weights(rng, 20), Activation("relu"))
    last = LMU(Memory.legendre(16, 100.0), weights(rng, 8, 1), units, True)
    ends = [] if every_step else [Reduce("last")]
    names = ["lmu_1", "block.0.lstm", "lmu_2", *["last"] * len(ends), "readout"]
    readout = Dense(weights(rng, 20, 4), weights(rng, 4))
    return chain(first, middle, last, *ends, readout, names=names)


def test_every_operator_has_one_emitter():
    assert set(EMITTERS) == set(OPERATORS)


@settings(max_examples=30)
@given(runs())
def test_drawn_networks_answer_as_the_executor(drawn):
    network, inputs = drawn
    inputs = inputs.astype(np.float32)
    expected = run(network, inputs)
    model = to_onnx(network)
    check_onnx(model)
    assert error(run_model(model, inputs)["output"], expected) <= TOLERANCE
    assert from_onnx(model).fingerprint() == network.fingerprint()
    ahead = [
        node.name
        for node in network.nodes
        if isinstance(node.operator, Reverse) or getattr(node.operator, "right", 0)
    ]
    if ahead:
        with pytest.raises(InputError, match="needs inputs of later steps") as refusal:
            to_onnx_step(network)
        assert all(name in str(refusal.value) for name in ahead)
        return
    model = to_onnx_step(network)
    check_onnx(model)
    assert step_error(model, inputs, expected, network.return_sequences) <= TOLERANCE
    assert from_onnx(model).fingerprint() == network.fingerprint()


@settings(max_examples=15)
@given(networks(), st.integers(0, 2**32 - 1))
def test_padding_that_a_mask_leaves_out(network, seed):
    assume(not any(isinstance(node.operator, Embedding) for node in network.nodes))
    masked, inputs, counts = masked_run(network, seed)
    inputs = inputs.astype(np.float32)
    expected = run(masked, inputs)
    assert error(run_model(to_onnx(masked), inputs)["output"], expected) <= TOLERANCE
    if any(
        isinstance(n.operator, Reverse) or getattr(n.operator, "right", 0) for n in network.nodes
    ):
        return
    outputs = run_steps(to_onnx_step(masked), inputs)
    for sample, found in enumerate(outputs):
        if network.return_sequences:
            counted = steps_of(network, int(counts[sample].sum()))[network.output]
            assert error(np.stack(found), expected[sample, :counted]) <= TOLERANCE
        else:
            assert error(found[-1], expected[sample]) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_every_activation(name):
    network = chain(Activation(name, 0.3), frame=(301,))
    inputs = np.linspace(-9.0, 9.0, 301, dtype=np.float32)[None, None]
    for model, x in ((to_onnx(network), inputs), (to_onnx_step(network), inputs[0])):
        found = run_model(model, x)["output"]
        np.testing.assert_allclose(found.ravel(), run(network, inputs).ravel(), atol=2e-6)


@pytest.mark.parametrize("every_step", [False, True])
def test_a_stack_equals_the_executor_on_100_random_sequences(rng, every_step):
    network = stack(rng, every_step)
    inputs = rng.normal(size=(100, 150, 2)).astype(np.float32)
    expected = run(network, inputs)
    output = run_model(to_onnx(network), inputs)["output"]
    assert output.dtype == np.float32
    assert np.abs(output - expected).max() <= TOLERANCE
    assert np.abs(expected).max() > 0.1


def test_the_trained_network_is_within_the_tolerance(rng):
    network = load(EXAMPLES / "digits.safetensors", FLOAT_CLASSES)
    inputs = rng.random(size=(100, 8, 8)).astype(np.float32)
    expected = run_reference(network, inputs).outputs
    output = run_model(to_onnx(network), inputs)["output"]
    assert np.abs(output - expected).max() <= TOLERANCE
    np.testing.assert_array_equal(output.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("every_step", [True, False])
def test_a_memory_of_psmnist_size_is_within_the_tolerance(rng, kernel, every_step):
    """At the last step without a recurrent kernel, the memory runs in blocks."""
    recurrent = weights(rng, 64, 64) / 2 if kernel else None
    units = SimpleRNN(weights(rng, 257, 64), recurrent, weights(rng, 64))
    lmu = LMU(Memory.legendre(256, 784.0), np.ones((1, 1)), units, True)
    ends = [] if every_step else [Reduce("last")]
    network = chain(lmu, *ends, Dense(weights(rng, 64, 10)), frame=(1,))
    inputs = rng.random(size=(5, 784, 1)).astype(np.float32)
    model = to_onnx(network)
    names = [node.name for node in model.graph.node if node.op_type == "Scan"]
    assert names == ["a.memory.rows" if not kernel and not every_step else "a.memory.last"]
    assert error(run_model(model, inputs)["output"], run(network, inputs)) <= TOLERANCE


@pytest.mark.parametrize("steps", [1, 31, 32, 33, 100])
def test_blocks_of_a_memory_of_any_number_of_steps(rng, steps):
    memory = LinearMemory(
        Memory.legendre(6, 20.0, 3), weights(rng, 2, 3), weights(rng, 3), Activation("relu")
    )
    network = chain(memory, Reduce("last"))
    inputs = rng.normal(size=(4, steps, 2)).astype(np.float32)
    assert error(run_model(to_onnx(network), inputs)["output"], run(network, inputs)) <= 1e-6


@given(data=st.data())
def test_the_record_equals_the_reference(request, data):
    network = data.draw(request.getfixturevalue("networks"))
    steps = data.draw(st.integers(1, 12))
    inputs = np.random.default_rng(3).normal(size=(3, steps, network.n_in)).astype(np.float32)
    trace = run_reference(network, inputs, record=True)
    model = to_onnx(network, record=True)
    check_onnx(model)
    results = run_model(model, inputs)
    scale = max(1.0, np.abs(trace.m).max(initial=0), np.abs(trace.y).max())
    for name, expected in (("m", trace.m), ("h", trace.h), ("y", trace.y)):
        assert (name in results) == (expected.shape[2] > 0)
        if name in results:
            assert results[name].shape == expected.shape
            assert np.abs(results[name] - expected).max() <= TOLERANCE * scale
    assert np.abs(results["output"] - trace.outputs).max() <= TOLERANCE * scale
    assert list(run_model(to_onnx(network), inputs)) == ["output"]


@pytest.mark.parametrize("kind", ["last", "mean", "max", "sum"])
def test_a_record_has_the_answer_for_the_steps_so_far(rng, kind):
    network = chain(Dense(weights(rng, 2, 3)), Reduce(kind), Dense(weights(rng, 3, 2)))
    inputs = rng.normal(size=(2, 9, 2)).astype(np.float32)
    results = run_model(to_onnx(network, record=True), inputs)
    for t in range(9):
        assert error(results["y"][:, t], run(network, inputs[:, : t + 1])) <= TOLERANCE
    assert (results["output"] == results["y"][:, -1]).all()
    stepwise = run_steps(to_onnx_step(network), inputs)
    assert error(np.stack([np.stack(each) for each in stepwise]), results["y"]) <= TOLERANCE


def test_what_has_fewer_steps_cannot_be_recorded():
    network = chain(Conv1d(np.ones((3, 2, 1)), stride=2), Dense(np.ones((1, 1))))
    with pytest.raises(InputError, match=r"cannot be recorded, because a, b and the input"):
        to_onnx(network, record=True)


def test_an_operator_with_a_stride_says_when_it_is_ready(rng):
    conv = Conv1d(weights(rng, 3, 2, 2), stride=2)
    lstm = LSTM(weights(rng, 2, 8), weights(rng, 2, 8), initial_h=np.ones(2))
    model = to_onnx_step(chain(conv, Pool("average", 2, 2), lstm))
    inputs = rng.normal(size=(2, 12, 2)).astype(np.float32)
    one = session(model)
    states = {i.name: np.zeros((2, *i.shape[1:]), np.float32) for i in one.get_inputs()[1:]}
    assert set(states) == {
        "a.window", "a.count", "b.window", "b.count", "c.hidden", "c.cell"
    }  # fmt: skip
    ready = []
    for t in range(12):
        names = ["ready", *(f"{name}.next" for name in states)]
        said, *after = one.run(names, {"input": inputs[:, t], **states})
        states = dict(zip(states, after, strict=True))
        ready.append(said[0, 0])
    assert np.flatnonzero(ready).tolist() == [4, 8]


def test_branches_of_different_length_are_refused():
    nodes = (
        Node("conv", Conv1d(np.ones((2, 1, 1))), (INPUT,)),
        Node("sum", Add(), ("conv", INPUT)),
    )
    network = Network(nodes, (1,), "sum")
    for export in (to_onnx, to_onnx_step):
        with pytest.raises(InputError, match="inputs of node sum do not have equally many steps"):
            export(network)


def test_pooling_of_four_axes_is_refused():
    shape = (2, 2, 2, 2, 1)
    network = chain(Reshape((16,), shape), FramePool("max", (2,) * 4, (1,) * 4), frame=(16,))
    with pytest.raises(InputError, match="node b pools 4 axes"):
        to_onnx(network)


def test_time_is_not_unrolled_and_is_dynamic_like_batch(rng):
    network = stack(rng, every_step=True)
    model = to_onnx(network)
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    assert len(scans) == 3
    for batch, steps in ((1, 1), (1, 500), (5, 3), (64, 2)):
        inputs = rng.normal(size=(batch, steps, 2)).astype(np.float32)
        output = run_model(model, inputs)["output"]
        assert np.abs(output - run(network, inputs)).max() <= TOLERANCE
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert shapes == [["batch", "time", 2], ["batch", "time", 4]]


@pytest.mark.parametrize("export", [to_onnx, to_onnx_step])
def test_every_tensor_is_named_and_has_a_shape(rng, export):
    network = stack(rng)
    model = export(network)
    check_onnx(model)
    for graph in graphs_of(model.graph):
        known = {value.name: value for value in (*graph.value_info, *graph.output)}
        for node in graph.node:
            assert node.name
            for output in node.output:
                assert any(letter.isalpha() for letter in output)
                assert known[output].type.tensor_type.HasField("shape"), output
    made = {output for node in model.graph.node for output in node.output}
    assert {node.name for node in network.nodes} <= made
    stored = {tensor.name for tensor in model.graph.initializer}
    assert {"lmu_1.memory.a_bar", "block.0.lstm.kernel", "readout.bias"} <= stored


def test_states_are_named_after_the_nodes(rng):
    model = to_onnx_step(stack(rng))
    states = ["lmu_1.memory", "lmu_1.hidden", "block.0.lstm.hidden", "block.0.lstm.cell",
              "lmu_2.memory"]  # fmt: skip
    assert [value.name for value in model.graph.input] == ["input", *states]
    assert [v.name for v in model.graph.output] == ["output", *(f"{s}.next" for s in states)]


def test_names_that_collide_are_made_unique(rng):
    """Nodes called like parts of others, or like outputs of the model."""
    square = Dense(weights(rng, 2, 2), weights(rng, 2))
    cell = SimpleRNN(weights(rng, 5, 2), weights(rng, 2, 2))
    lmu = LMU(Memory.legendre(5, 9.0), weights(rng, 2, 1), cell)
    names = [
        "m",
        "output",
        "x",
        "x.hidden",
        "x.memory",
        "x.memory.next",
        "x.hidden.kernel",
        "ready",
    ]
    operators = [square, square, lmu, square, lmu, square, square, square]
    network = chain(*operators, names=names)
    inputs = rng.normal(size=(2, 7, 2)).astype(np.float32)
    expected = run(network, inputs)
    for record in (False, True):
        model = to_onnx(network, record=record)
        assert error(run_model(model, inputs)["output"], expected) <= TOLERANCE
        assert from_onnx(model).fingerprint() == network.fingerprint()
    assert step_error(to_onnx_step(network), inputs, expected, True) <= TOLERANCE


def test_a_shared_array_is_stored_once(rng):
    memory = Memory.legendre(64, 100.0)
    first, second = LMU(memory, np.ones((1, 1))), LMU(memory, weights(rng, 64, 1))
    network = chain(first, second, Reduce("last"), frame=(1,))
    for model in (to_onnx(network), to_onnx_step(network)):
        sizes = [list(tensor.dims) for tensor in model.graph.initializer]
        assert sizes.count([64, 64]) == 1
        assert not any(
            node.op_type == "Constant" for g in graphs_of(model.graph) for node in g.node
        )
        assert len(model.SerializeToString()) < 2 * 64 * 64 * 8


def test_weights_are_stored_in_float32_unless_that_loses_bits(rng):
    exact = rng.normal(size=(2, 3)).astype(np.float32).astype(np.float64)
    network = chain(Dense(exact), Dense(rng.normal(size=(3, 2)), np.ones(2, np.float16)))
    model = to_onnx(network)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    narrow, wide = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    assert stored == {"a.kernel": narrow, "b.kernel": wide, "b.bias": narrow}
    again = from_onnx(model)
    assert again["a"].operator.kernel.dtype == np.float64
    assert again["b"].operator.bias.dtype == np.float16
    assert again.fingerprint() == network.fingerprint()


def test_metadata_describe_the_model(rng):
    network = stack(rng)
    for model, form in ((to_onnx(network), "sequence"), (to_onnx_step(network), "step")):
        assert (model.ir_version, model.opset_import[0].version) == (8, 17)
        props = {item.key: item.value for item in model.metadata_props}
        assert props["lmu_deploy.form"] == form
        assert json.loads(props["lmu_deploy.theta"]) == [60.0, 100.0]
        assert json.loads(props["lmu_deploy.order"]) == [12, 16]
        assert json.loads(props["lmu_deploy.channels"]) == [3, 1]
        assert json.loads(props["lmu_deploy.return_sequences"]) is False
        assert props["lmu_deploy.dt"] == "1"
        assert set(session(model).get_modelmeta().custom_metadata_map) == set(props)


def test_equal_networks_have_equal_bytes(rng, tmp_path):
    network = stack(rng)
    save_onnx(to_onnx(network), tmp_path / "a.onnx")
    save_onnx(to_onnx(network), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_invalid_model_is_not_written(rng, tmp_path):
    model = to_onnx(stack(rng))
    model.graph.node[0].input[0] = "nowhere"
    (tmp_path / "a.onnx").write_text("old")
    with pytest.raises(InputError, match="not valid"):
        save_onnx(model, tmp_path / "a.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    assert (tmp_path / "a.onnx").read_text() == "old"


def test_weights_beyond_float32_are_refused():
    network = chain(LMU(Memory.legendre(2, 4.0), np.full((2, 1), 1e39)))
    with pytest.raises(InputError, match=r"a\.input_encoders .* float32"):
        to_onnx(network)


def test_more_weights_than_fit_a_file_are_refused(rng, monkeypatch):
    monkeypatch.setattr("converters.onnx.graph.LARGEST_MODEL", 100)
    with pytest.raises(InputError, match="bytes of weights, and one ONNX file can have 100"):
        to_onnx(stack(rng))


def test_gru_and_hard_gates_equal_the_executor(rng):
    hard = Activation("hard-sigmoid")
    kernels = weights(rng, 2, 9), weights(rng, 3, 9)
    biases = weights(rng, 9), weights(rng, 9)
    for reset_after in (True, False):
        gru = GRU(*kernels, *biases, reset_after, gate_activation=hard, initial=np.ones(3))
        inputs = rng.normal(size=(3, 200, 2)).astype(np.float32)
        expected = run(chain(gru), inputs)
        assert error(run_model(to_onnx(chain(gru)), inputs)["output"], expected) <= 1e-6
        assert step_error(to_onnx_step(chain(gru)), inputs, expected, True) <= 1e-6
