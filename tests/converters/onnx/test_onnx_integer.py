"""The integer graph: ONNX Runtime equals the bit-exact simulator in every integer."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory, PiecewiseLinear

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.network import IntegerLayer, IntegerNetwork, IntegerReadout
from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.options import REALIZATIONS
from targets.conformance.networks import example
from targets.conformance.strategies import integer_networks, loud_and_quiet
from targets.integer import IntegerTarget
from targets.onnxruntime import OnnxRuntimeTarget

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from converters.onnx import (  # noqa: E402
    check_onnx,
    from_onnx,
    to_onnx_integer,
    to_onnx_integer_step,
)
from converters.onnx.graph import (  # noqa: E402
    Graph,
    Weights,
)
from converters.onnx.quantized.integers import Integers  # noqa: E402


def assert_equal_runs(ours, theirs):
    for kind in ("m", "h", "y"):
        mine, right = getattr(ours.states, kind), getattr(theirs.states, kind)
        assert mine.dtype.kind == "i"
        np.testing.assert_array_equal(mine, right, err_msg=kind)
        scale = getattr(ours.states, f"{kind}_scale")
        np.testing.assert_array_equal(scale, getattr(theirs.states, f"{kind}_scale"))
    np.testing.assert_array_equal(ours.outputs, theirs.outputs)
    assert dict(ours.saturations) == dict(theirs.saturations)
    assert ours.synops == theirs.synops
    assert set(ours.events) == set(theirs.events) == set(ours.rasters)
    for name, counts in theirs.events.items():
        np.testing.assert_array_equal(ours.events[name], counts, err_msg=name)
        np.testing.assert_array_equal(ours.rasters[name], theirs.rasters[name], err_msg=name)
    assert dict(ours.neurons) == dict(theirs.neurons)


@given(network=integer_networks(thresholds=True), seed=st.integers(0, 1000))
def test_every_integer_equals_the_simulator(network, seed):
    simulator, inputs = IntegerTarget("numpy"), loud_and_quiet(network, seed)
    assume(not simulator.unsupported(network))
    theirs = simulator.run(network, inputs, record=True)
    ours = OnnxRuntimeTarget(batch_size=2).run(network, inputs, record=True)
    assert_equal_runs(ours, theirs)


def messages(network, inputs):
    exact = np.rint(inputs / network.input.scale)
    return np.clip(exact, -network.input.limit, network.input.limit).astype(np.int32)


def session(model):
    check_onnx(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model_session, feed):
    names = [output.name for output in model_session.get_outputs()]
    return dict(zip(names, model_session.run(names, feed), strict=True))


def zeros(model_session, batch):
    return {
        entry.name: np.zeros((batch, entry.shape[1]), np.int32)
        for entry in model_session.get_inputs()
        if entry.name != "input"
    }


@settings(max_examples=settings.default.max_examples // 3)
@given(network=integer_networks(thresholds=True), seed=st.integers(0, 1000))
def test_steps_and_chunks_equal_the_whole(network, seed):
    x = messages(network, loud_and_quiet(network, seed))
    whole = run(session(to_onnx_integer(network, record=True)), {"input": x})
    step, chunk = (
        session(to_onnx_integer_step(network)),
        session(to_onnx_integer(network, record=True, stateful=True)),
    )
    states, answers = zeros(step, len(x)), []
    for t in range(x.shape[1]):
        results = run(step, {"input": x[:, t], **states})
        answers.append(results["output"])
        states = {name: results[f"{name}.next"] for name in states}
    np.testing.assert_array_equal(np.stack(answers, axis=1), whole["y"])
    for name, value in states.items():
        np.testing.assert_array_equal(value, whole[f"{name}.next"])
    states, answers = zeros(chunk, len(x)), []
    for part in (x[:, :3], x[:, 3:4], x[:, 4:]):
        results = run(chunk, {"input": part, **states})
        answers.append(results["y"])
        states = {name: results[f"{name}.next"] for name in states}
    np.testing.assert_array_equal(np.concatenate(answers, axis=1), whole["y"])


def trained_like(order, units, theta, seed=0):
    """A network of one LMU layer with every feedback, its sums about unit size."""
    rng = np.random.default_rng(seed)

    def array(*shape):
        return rng.normal(size=shape) / np.sqrt(shape[0])

    memory = Memory.legendre(order, theta)
    kernels = array(order, units), array(1, units), array(units, units) / 2, array(units)
    layer = LMULayer(
        np.ones((1, 1)),
        0.1 * array(units, 1),
        0.1 * array(order, 1),
        np.array([0.02]),
        memory,
        Hidden(*kernels, "tanh"),
    )
    return LMUNetwork((layer,), Readout(array(units, 10), array(10)), task="psmnist")


def test_a_network_of_the_papers_size_equals_the_simulator():
    rng = np.random.default_rng(1)
    network = quantize(trained_like(256, 212, 784.0), rng.random((8, 784, 1)))
    inputs = rng.random((3, 784, 1))
    theirs = IntegerTarget("numpy").run(network, inputs, record=True)
    assert_equal_runs(OnnxRuntimeTarget().run(network, inputs, record=True), theirs)
    assert np.abs(theirs.states.m).max() > 2**18


def graphs(graph):
    """A graph and the bodies of its Scans and Loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


WHOLE = {onnx.TensorProto.INT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64}


ERR_ON_INT64 = {"Clip", "Max", "Min", "ReduceMax", "ReduceMin", "Relu", "Sign"}


@settings(max_examples=settings.default.max_examples // 3)
@given(network=integer_networks(thresholds=True))
def test_the_graph_has_only_integers(network):
    for model in (
        to_onnx_integer(network),
        to_onnx_integer(network, record=True, stateful=True, tally=True),
        to_onnx_integer_step(network),
    ):
        check_onnx(model)
        assert {tensor.data_type for tensor in model.graph.initializer} <= WHOLE
        for graph in graphs(model.graph):
            known = {value.name: value for value in (*graph.value_info, *graph.output)}
            for node in graph.node:
                assert node.name
                for output in node.output:
                    kind = known[output].type.tensor_type
                    assert kind.elem_type in WHOLE | {onnx.TensorProto.BOOL}, output
                    if node.op_type in ERR_ON_INT64:
                        assert kind.elem_type == onnx.TensorProto.INT32, node.name
                    # A Loop may change its states' shapes, so inference gives them none.
                    assert kind.HasField("shape") or node.op_type == "Loop", output


def test_time_is_not_unrolled_and_is_dynamic_like_batch():
    network = quantize(trained_like(12, 6, 40.0), np.random.default_rng(2).random((4, 60, 1)))
    model = to_onnx_integer(network)
    assert [node.op_type for node in model.graph.node].count("Scan") == 1
    shape = model.graph.input[0].type.tensor_type.shape
    assert [d.dim_param or d.dim_value for d in shape.dim] == ["batch", "time", 1]
    one, simulator = session(model), IntegerTarget("numpy")
    for batch, steps in ((1, 1), (1, 300), (6, 2)):
        inputs = np.random.default_rng(steps).random((batch, steps, 1))
        outputs = run(one, {"input": messages(network, inputs)})["output"]
        expected = simulator.run(network, inputs).outputs
        np.testing.assert_array_equal(outputs * network.readout.output.scale, expected)


def test_weights_are_stored_as_bytes():
    network = quantize(trained_like(160, 99, 200.0), np.random.default_rng(2).random((2, 50, 1)))
    model = to_onnx_integer(network)
    sizes = [(t.data_type, list(t.dims)) for t in model.graph.initializer]
    assert sizes.count((onnx.TensorProto.INT8, [160, 160])) == 2
    weights = sum(edge.connection.slices.size for edge in edges(network))
    assert weights < len(model.SerializeToString()) < 2 * weights


def test_multiply_and_shift_are_exact_over_their_ranges():
    rng = np.random.default_rng(3)
    edge = 2**31 - 1
    shifts = np.repeat(np.arange(32), 8)
    gains = np.where(np.arange(256) % 8 < 4, 2**15 - 1, rng.integers(1, 2**15, 256))
    half = np.where(shifts > 0, 1 << np.maximum(shifts - 1, 0), 0)
    rows = [np.full(256, edge), np.full(256, -edge), half, -half, -half - 1, half - 1]
    values = np.stack([*rows, *rng.integers(-edge, edge, (50, 256))]).astype(np.int64)
    graph = Graph("shift", Weights())
    x = graph.input("input", ["batch", 256], onnx.TensorProto.INT64)
    y = Integers(graph).multiply_shift("y", x, gains, shifts)
    graph.output(y, ["batch", 256], onnx.TensorProto.INT64)
    ours = run(session(graph.model({})), {"input": values})[y]
    ends = [(int(g), int(s)) for g, s in zip(gains, shifts, strict=True)]
    exact = [
        [(int(v) * g + ((1 << s) >> 1)) >> s for v, (g, s) in zip(row, ends, strict=True)]
        for row in values
    ]
    assert ours.tolist() == exact


@pytest.mark.parametrize(
    "fault", [{"_LIFT": 0}, {"largest": lambda bits: 2 ** (bits - 1)}], ids=["cuts", "wider"]
)
def test_a_wrong_rule_is_detected(fault, monkeypatch):
    network, inputs = faint_network()
    theirs = IntegerTarget("numpy").run(network, inputs, record=True)
    assert_equal_runs(OnnxRuntimeTarget().run(network, inputs, record=True), theirs)
    for name, value in fault.items():
        monkeypatch.setattr(f"converters.onnx.quantized.integers.{name}", value)
    with pytest.raises(AssertionError):
        assert_equal_runs(OnnxRuntimeTarget().run(network, inputs, record=True), theirs)


def test_one_changed_weight_is_detected():
    network, inputs = faint_network()
    layer = network.layers[0]
    slices = layer.memory.recurrent.slices.copy()
    slices[0, 0, 1] += 1
    changed = dataclasses.replace(layer.memory.recurrent, slices=slices)
    memory = dataclasses.replace(layer.memory, recurrent=changed)
    other = dataclasses.replace(network, layers=(IntegerLayer(memory, layer.hidden),))
    theirs = IntegerTarget("numpy").run(network, inputs, record=True)
    with pytest.raises(AssertionError):
        assert_equal_runs(OnnxRuntimeTarget().run(other, inputs, record=True), theirs)


def faint_network():
    """A small network whose accumulators are narrow enough to saturate."""
    rng = np.random.default_rng(4)

    def link(n_out, n_in):
        weights = rng.integers(-100, 100, (2, n_out, n_in))
        return Connection(weights, np.ones((2, n_out), int), np.full((2, n_out), 4), 8, 13)

    lines = PiecewiseLinear(np.array([900, 300, 0]), np.array([0, 40, 120]), 10, "odd")
    hidden = IntegerHidden(
        Format(16, 0.01), Format(8, 0.01), link(3, 4), link(3, 2), link(3, 3), None, lines
    )
    memory = IntegerMemory(
        Format(18, 0.01), Format(9, 0.04), 4, link(4, 4), link(4, 2), link(4, 3), None
    )
    readout = IntegerReadout(link(2, 3), None, Format(12, 0.01))
    network = IntegerNetwork(Format(8, 0.05), (IntegerLayer(memory, hidden),), readout, True)
    return network, rng.normal(size=(3, 20, 2))


def test_metadata_describe_the_formats():
    source = trained_like(12, 6, 40.0)
    network = quantize(source, np.random.default_rng(2).random((4, 60, 1)))
    for model, form in (
        (to_onnx_integer(network), "integer-sequence"),
        (to_onnx_integer_step(network), "integer-step"),
    ):
        props = {item.key: item.value for item in model.metadata_props}
        assert props["lmu_deploy.form"] == form
        assert props["lmu_deploy.task"] == "psmnist"
        assert json.loads(props["lmu_deploy.theta"]) == [40.0]
        assert json.loads(props["lmu_deploy.order"]) == [12]
        formats = json.loads(props["lmu_deploy.formats"])
        memory = network.layers[0].memory
        assert formats["layer0/memory/state"] == {"bits": 24, "scale": memory.state.scale}
        assert formats["input"]["scale"] == network.input.scale
        assert formats["output"]["scale"] == network.readout.output.scale


def test_equal_networks_have_equal_bytes():
    network = quantize(trained_like(12, 6, 40.0), np.random.default_rng(2).random((4, 60, 1)))
    one, other = (
        to_onnx_integer(network, tally=True).SerializeToString(deterministic=True) for _ in range(2)
    )
    assert one == other


def test_an_integer_graph_is_not_read_as_a_float_network():
    network = quantize(trained_like(12, 6, 40.0), np.random.default_rng(2).random((4, 60, 1)))
    with pytest.raises(InputError, match=r"integer-sequence.*onnx-step"):
        from_onnx(to_onnx_integer(network))


@pytest.mark.parametrize("realization", REALIZATIONS)
def test_every_realization_equals_the_simulator(realization):
    given = example("memory")
    network = quantize(given.network, given.calibration, realization=realization)
    assert network.layers[0].memory.realization == realization
    ours = OnnxRuntimeTarget().run(network, given.inputs, record=True)
    theirs = IntegerTarget("numpy").run(network, given.inputs, record=True)
    assert_equal_runs(ours, theirs)
    np.testing.assert_array_equal(ours.states.real_m(), theirs.states.real_m())
