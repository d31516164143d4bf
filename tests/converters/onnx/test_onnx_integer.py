"""Integer models in ONNX Runtime equal the bit-exact simulator in every integer."""

import dataclasses
import json

import numpy as np
import pytest
from equal_runs import differences
from hypothesis import assume, given, settings
from integer_graphs import KINDS, fewest_steps, graph_runs, integer_graphs
from onnx_runs import graphs_of, run_model, run_steps

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.graph import executor
from lmu_deploy.core.graph.frames import LayerNorm, RMSNorm
from lmu_deploy.core.graph.linear import Conv1d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import NAMES, Activation, Concat
from lmu_deploy.core.graph.recurrent import GRU, LSTM
from lmu_deploy.core.graph.time import Reverse
from lmu_deploy.core.integer.functions import PiecewiseLinear, Segments
from lmu_deploy.core.integer.graph import edges, frame_counts, with_connections
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place
from lmu_deploy.core.integer.populations import Input, Output, Pointwise, Product
from lmu_deploy.core.integer.reductions import Maximum, Reduction
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.options import REALIZATIONS
from targets.conformance.fixtures import example
from targets.host import to_messages
from targets.integer import IntegerTarget
from targets.onnxruntime import OnnxRuntimeTarget

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from converters.onnx import (  # noqa: E402
    check_onnx,
    from_onnx,
    to_onnx_integer,
    to_onnx_integer_step,
)
from converters.onnx.graph import Graph, Weights  # noqa: E402
from converters.onnx.models import add_sequence  # noqa: E402
from converters.onnx.quantized.export import sequence_stage  # noqa: E402
from converters.onnx.quantized.integers import Integers  # noqa: E402
from converters.onnx.quantized.stages import whole_stage  # noqa: E402
from converters.onnx.quantized.step import timings  # noqa: E402

ON_CHIP = tuple(kind for kind in KINDS if kind != "host")


def assert_equal_runs(network, inputs):
    """Check that a recorded run equals that of the simulator in all that both return."""
    theirs = IntegerTarget("numpy").run(network, inputs, record=True)
    ours = OnnxRuntimeTarget(batch_size=2).run(network, inputs, record=True)
    assert differences(ours, theirs) == []
    assert set(ours.rasters) == set(theirs.rasters)
    for name, raster in theirs.rasters.items():
        np.testing.assert_array_equal(ours.rasters[name], raster, err_msg=name)
    assert (ours.chip_steps, ours.notes) == (theirs.chip_steps, theirs.notes)
    return theirs


def assume_simulated(network):
    """Leave out networks whose sums float64, and so the simulator, cannot represent."""
    assume(not IntegerTarget("numpy").unsupported(network))


@given(run=graph_runs(samples=3))
def test_every_integer_of_any_graph_equals_the_simulator(run):
    assume_simulated(run[0])
    assert_equal_runs(*run)


@pytest.mark.parametrize("kind", KINDS)
def test_every_population_alone_equals_the_simulator(kind):
    @settings(max_examples=max(settings.default.max_examples // 10, 2))
    @given(run=graph_runs(kinds=(kind,), most=2))
    def check(run):
        assume_simulated(run[0])
        assert_equal_runs(*run)

    check()


def array(*shape):
    return np.random.default_rng(shape).normal(size=shape) / np.sqrt(shape[0])


def messages(network, inputs):
    return inputs if network.input.tokens else to_messages(inputs, network.input.message)[0]


def assert_integers_equal(found, expected):
    """Check that integers are equal, and real numbers of the host nearly so."""
    if np.asarray(expected).dtype.kind == "i":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@given(run=graph_runs(kinds=(*KINDS, "host", "host")))
def test_the_exported_file_and_its_steps_equal_the_simulator(run):
    network, inputs = run
    assume_simulated(network)
    theirs = IntegerTarget("numpy").run(network, inputs, record=True).states.parts
    try:
        model = to_onnx_integer(network, record=True)
    except InputError as error:
        assert "ONNX Runtime has no" in str(error)
        return
    check_onnx(model)
    sent = inputs if takes_real_inputs(model) else messages(network, inputs)
    found = run_model(model, sent)
    for place, values in theirs.items():
        assert_integers_equal(found[place], values)
    last = theirs[str(network.output)]
    assert_integers_equal(found["output"], last if network.return_sequences else last[:, -1])
    try:
        model = to_onnx_integer_step(network)
    except InputError as error:
        assert "export the whole sequence" in str(error)
        return
    check_onnx(model)
    final = timings(network)[0][network.output].final
    for answer, expected in zip(run_steps(model, sent), last, strict=True):
        assert_integers_equal(np.stack(answer)[-1:] if final else np.stack(answer), expected)


def takes_real_inputs(model):
    """Whether the host reads the input of a model."""
    return model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE


HYBRIDS = {
    "bidirectional": (
        Node("there", LSTM(array(2, 16), array(4, 16), array(16)), (INPUT,)),
        Node("turned", Reverse(), (INPUT,)),
        Node("back", GRU(array(2, 12), array(4, 12), array(12)), ("turned",)),
        Node("again", Reverse(), ("back",)),
        Node("both", Concat(), ("there", "again")),
        Node("answer", Dense(array(8, 3)), ("both",)),
    ),
    "normalization": (
        Node("units", Dense(array(2, 6), array(6)), (INPUT,)),
        Node("bent", Activation("gelu"), ("units",)),
        Node("norm", LayerNorm(1.0 + array(6), array(6)), ("bent",)),
        Node("memory", LinearMemory(Memory.legendre(4, 9.0), array(6, 1)), ("norm",)),
        Node("scale", RMSNorm(1.0 + array(4)), ("memory",)),
        Node("shares", Activation("softmax"), ("scale",)),
        Node("answer", Dense(array(4, 3)), ("shares",)),
    ),
}


@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrids_are_one_file_and_one_step_with_equal_messages(name):
    network = Network(HYBRIDS[name], (2,), "answer")
    inputs = np.random.default_rng(6).normal(size=(3, 12, 2))
    integer = quantize(network, inputs)
    assert integer.on_host
    theirs = assert_equal_runs(integer, inputs).states.parts
    model = to_onnx_integer(integer, record=True)
    sent = inputs if takes_real_inputs(model) else messages(integer, inputs)
    found = run_model(model, sent)
    for place, values in theirs.items():
        assert_integers_equal(found[place], values)
    if name == "bidirectional":
        with pytest.raises(
            InputError, match=r"turned \(reversal of time\).*on the host need frames"
        ):
            to_onnx_integer_step(integer)
        return
    steps = run_steps(to_onnx_integer_step(integer), sent)
    assert_integers_equal(np.stack([np.stack(each) for each in steps]), theirs["answer"])


@settings(max_examples=max(settings.default.max_examples // 10, 2))
@given(run=graph_runs(kinds=("reduction",), most=1))
def test_a_step_answers_as_if_the_sequence_ended_there(run):
    network, inputs = run
    try:
        model = to_onnx_integer_step(network)
    except InputError:
        assume(False)
    assume(timings(network)[0][network.output].final)
    answers = run_steps(model, messages(network, inputs))
    shortest = fewest_steps(network)
    for steps in range(shortest, inputs.shape[1] + 1):
        expected = IntegerTarget("numpy").run(network, inputs[:, :steps], record=True)
        last = expected.states.parts[str(network.output)][:, -1]
        found = np.stack([each[steps - inputs.shape[1] - 1] for each in answers])
        np.testing.assert_array_equal(found, last)


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
    readout = Readout(array(units, 10), array(10))
    return Network.from_layers(LMUNetwork((layer,), readout, task="psmnist"))


def test_a_network_of_the_papers_size_equals_the_simulator():
    rng = np.random.default_rng(1)
    network = quantize(trained_like(256, 212, 784.0), rng.random((8, 784, 1)))
    theirs = assert_equal_runs(network, rng.random((2, 784, 1)))
    assert np.abs(theirs.states.m).max() > 2**18


WHOLE = {onnx.TensorProto.INT8, onnx.TensorProto.INT32, onnx.TensorProto.INT64}


ERR_ON_INT64 = {"Clip", "Max", "Min", "ReduceMax", "ReduceMin", "Relu", "Sign"}


@settings(max_examples=settings.default.max_examples // 5)
@given(network=integer_graphs(kinds=ON_CHIP))
def test_the_graph_has_only_integers_and_avoids_what_errs_on_int64(network):
    stage = whole_stage(network)
    models = [to_onnx_integer(network), sequence_stage(network, stage, record=True, tally=True)[0]]
    try:
        models.append(to_onnx_integer_step(network))
    except InputError as error:
        assert "export the whole sequence" in str(error)
    for model in models:
        check_onnx(model)
        assert {tensor.data_type for tensor in model.graph.initializer} <= WHOLE
        names = [
            output for graph in graphs_of(model.graph) for n in graph.node for output in n.output
        ]
        assert len(names) == len(set(names))
        for graph in graphs_of(model.graph):
            known = {value.name: value for value in (*graph.value_info, *graph.output)}
            for node in graph.node:
                for output in node.output:
                    kind = known[output].type.tensor_type.elem_type
                    assert kind in WHOLE | {onnx.TensorProto.BOOL}, output
                    assert kind == onnx.TensorProto.INT32 or node.op_type not in ERR_ON_INT64


def test_time_is_not_unrolled_and_is_dynamic_like_batch():
    network = quantize(trained_like(12, 6, 40.0), np.random.default_rng(2).random((4, 60, 1)))
    model = to_onnx_integer(network)
    assert [node.op_type for node in model.graph.node].count("Scan") == 1
    shape = model.graph.input[0].type.tensor_type.shape
    assert [d.dim_param or d.dim_value for d in shape.dim] == ["batch", "time", 1]
    simulator = IntegerTarget("numpy")
    for batch, steps in ((1, 1), (1, 300), (6, 2)):
        inputs = np.random.default_rng(steps).random((batch, steps, 1))
        outputs = run_model(model, messages(network, inputs))["output"]
        expected = simulator.run(network, inputs).outputs
        np.testing.assert_array_equal(outputs * network.y_scale, expected)


def test_weights_are_stored_as_bytes():
    network = quantize(trained_like(160, 99, 200.0), np.random.default_rng(2).random((2, 50, 1)))
    model = to_onnx_integer(network)
    sizes = [(t.data_type, list(t.dims)) for t in model.graph.initializer]
    assert sizes.count((onnx.TensorProto.INT8, [160, 160])) == 2
    weights = sum(edge.connection.slices.size for edge in edges(network))
    assert weights < len(model.SerializeToString()) < 2 * weights


# Arithmetic at the ends of its ranges


def values_of(build, shape, element, values):
    """The result of what `build` adds to a graph with an input of that shape."""
    graph = Graph("part", Weights())
    x = graph.input("input", ["batch", *shape], element)
    y = build(Integers(graph), x)
    graph.output(y, ["batch", *shape], onnx.TensorProto.INT64)
    return run_model(graph.model({}), values)[y]


def test_multiply_and_shift_are_exact_over_their_ranges():
    rng = np.random.default_rng(3)
    edge = 2**31 - 1
    shifts = np.repeat(np.arange(32), 8)
    gains = np.where(np.arange(256) % 8 < 4, 2**15 - 1, rng.integers(1, 2**15, 256))
    half = np.where(shifts > 0, 1 << np.maximum(shifts - 1, 0), 0)
    rows = [np.full(256, edge), np.full(256, -edge), half, -half, -half - 1, half - 1]
    values = np.stack([*rows, *rng.integers(-edge, edge, (50, 256))]).astype(np.int64)
    ours = values_of(
        lambda numbers, x: numbers.multiply_shift("y", x, gains, shifts),
        [256],
        onnx.TensorProto.INT64,
        values,
    )
    ends = [(int(g), int(s)) for g, s in zip(gains, shifts, strict=True)]
    exact = [
        [(int(v) * g + ((1 << s) >> 1)) >> s for v, (g, s) in zip(row, ends, strict=True)]
        for row in values
    ]
    assert ours.tolist() == exact


@pytest.mark.parametrize("pieces", [1, 2, 3, 64, 255, 256])
@pytest.mark.parametrize("shift", [0, 31])
def test_segments_are_exact_at_and_between_their_breakpoints(pieces, shift):
    rng = np.random.default_rng(pieces)
    edge = 2**31 - 1
    points = np.sort(rng.choice(np.arange(-edge, edge, 2**20), pieces - 1, replace=False))
    function = Segments(
        points,
        rng.integers(-(2**15) + 1, 2**15, pieces),
        rng.integers(-edge, edge, pieces),
        shift,
    )
    near = np.concatenate([points - 1, points, points + 1, [-edge, 0, edge]])
    values = near.clip(-edge, edge).astype(np.int32)[None]
    ours = values_of(
        lambda numbers, x: numbers.widened(
            "y", numbers.apply("f", function, x, 2**31 - 1, "place")
        ),
        [values.size],
        onnx.TensorProto.INT32,
        values,
    )
    np.testing.assert_array_equal(ours, function(values).clip(-edge, edge))


def single(population, inputs, sizes, sequences=False):
    """A network of one population between input and answer, with weights of one."""
    rows = population.drive_size
    weights = np.eye(rows, sizes, dtype=int)[None]
    ones = np.ones((1, rows), int)
    joined = Connection(weights, ones, 0 * ones, accumulator_bits=32)
    entry = Input(Place("input"), sizes, Format(32, 1.0))
    edge = Edge(entry.place, population.place, "input", joined)
    return IntegerNetwork((entry, population), (edge,), (), population.place, sequences)


@pytest.mark.parametrize("kind", ["sum", "mean", "max", "last"])
def test_reductions_are_exact_at_the_ends_of_32_bits(kind):
    edge = 2**31 - 1
    population = Reduction(Place("all"), 3, Format(32, 1.0), Format(32, 1.0), kind)
    network = single(population, None, 3)
    for values in ([edge, edge, -edge], [-edge] * 4, [-1, 0, 0], [-edge, -edge, -1, -3, 2]):
        x = np.array(values, float)[None, :, None] * np.array([1.0, -1.0, 0.5]).round()
        assert_equal_runs(network, x)


def test_maxima_and_products_are_exact_beyond_32_bits():
    maximum = Maximum(Place("max"), 2, Format(32, 1.0), 2)
    product = Product(
        Place("product"), 2, Format(32, 1.0), Format(32, 1.0), Format(32, 1.0), 0,
        PiecewiseLinear(np.array([32767]), np.array([0]), 0, "linear"), None,
        np.array([8_000_000] * 4),
    )  # fmt: skip
    edge = 2.0**31 - 1
    x = np.array([[[edge, -edge, edge - 1, edge], [-edge, -edge, -5, 5], [3, 2, 1, 0]]])
    for population in (maximum, product):
        theirs = assert_equal_runs(single(population, None, 4, True), x)
        assert theirs.saturations[str(population.place) + "/message"] or population is maximum


def in_double(*operators):
    """A model of operators on the host, one behind the other, of three features."""
    names = [f"node_{number}" for number in range(len(operators))]
    nodes = [
        Node(name, operator, (before,))
        for name, operator, before in zip(names, operators, [INPUT, *names], strict=False)
    ]
    network = Network(tuple(nodes), (3,), names[-1])
    graph = Graph("host", Weights().of_another(network, "float64"))
    x = graph.input("input", ["batch", "time", 3])
    y = graph.node("Identity", [add_sequence(graph, network, x)], "output")
    graph.output(y, ["batch", "time", network.n_out])
    return network, graph.model({})


@pytest.mark.parametrize("name", NAMES)
def test_functions_on_the_host_have_all_bits_of_float64_but_the_last(name):
    x = np.random.default_rng(7).normal(size=(2, 50, 3)) * 4.0
    operators = Dense(array(3, 3) * 0.1), Activation(name, 0.3)
    if name == "gelu":
        with pytest.raises(InputError, match="ONNX Runtime has no Erf in float64"):
            in_double(*operators)
        return
    network, model = in_double(*operators)
    expected = executor.run(network, x)
    np.testing.assert_allclose(run_model(model, x)["output"], expected, rtol=1e-13, atol=1e-15)


def test_a_host_without_a_float64_kernel_is_refused_with_the_target_that_runs_it():
    with pytest.raises(InputError, match=r"no Conv in float64; run.*target onnxruntime"):
        in_double(Conv1d(array(2, 3, 3)))


# Faults are detected


@pytest.mark.parametrize(
    "fault",
    [{"_LIFT": 0}, {"largest": lambda bits: 2 ** (bits - 1)}, {"_NEVER": 0}],
    ids=["cuts", "wider", "segments"],
)
def test_a_wrong_rule_is_detected(fault, monkeypatch):
    network, inputs = faint_network()
    assert_equal_runs(network, inputs)
    for name, value in fault.items():
        monkeypatch.setattr(f"converters.onnx.quantized.integers.{name}", value)
    with pytest.raises((AssertionError, RunError)):
        assert_equal_runs(network, inputs)


def test_one_changed_weight_is_detected():
    network, inputs = faint_network()
    (place, connection), *_ = ((e.place, e.connection) for e in network.edges)
    slices = connection.slices.copy()
    slices[0, 0, 1] += 1
    changed = with_connections(network, {place: dataclasses.replace(connection, slices=slices)})
    theirs = IntegerTarget("numpy").run(network, inputs, record=True)
    ours = OnnxRuntimeTarget().run(changed, inputs, record=True)
    assert differences(ours, theirs) != []


def faint_network():
    """Units of five segments, whose accumulators are narrow enough to saturate."""
    rng = np.random.default_rng(4)

    def link(source, target, name, n_out, n_in, offsets=(0,)):
        weights = rng.integers(-100, 100, (2, n_out, n_in * len(offsets)))
        ones = np.ones((2, n_out), int)
        connection = Connection(weights, ones, 0 * ones, 8, 13)
        return Edge(source, target, name, connection, offsets)

    entry, units, answer = Place("input"), Place("units"), Place("readout")
    function = Segments(
        np.array([-3000, -10, 20, 5000]),
        np.array([0, 300, 900, -300, 40]),
        np.array([-70, 0, 5, 40, 0]),
        10,
    )
    network = IntegerNetwork(
        (
            Input(entry, 2, Format(8, 0.05)),
            Pointwise(units, 3, Format(16, 0.01), Format(12, 0.01), function),
            Output(answer, 2, Format(16, 0.01)),
        ),
        (
            link(entry, units, "input", 3, 2, (-1, 0)),
            link(units, units, "recurrent", 3, 3, (-1,)),
            link(units, answer, "", 2, 3),
        ),
        (),
        answer,
        True,
    )
    return network, rng.normal(size=(3, 20, 2))


def test_a_loop_that_reads_a_population_between_its_own_equals_the_simulator():
    network, inputs = faint_network()
    entry, units, answer = network.populations
    first, last = (dataclasses.replace(units, place=Place(name)) for name in ("first", "last"))
    into, back, out = network.edges

    def edge(like, source, target, name):
        return dataclasses.replace(like, source=source, target=target, name=name)

    order = (
        edge(into, entry.place, first.place, "input"),
        edge(back, last.place, first.place, "feedback"),
        edge(into, entry.place, units.place, "input"),
        dataclasses.replace(edge(back, first.place, last.place, "first"), offsets=(0,)),
        dataclasses.replace(edge(back, units.place, last.place, "units"), offsets=(0,)),
        edge(out, last.place, answer.place, ""),
    )
    populations = (entry, first, units, last, answer)
    looped = dataclasses.replace(network, populations=populations, edges=order)
    assert_equal_runs(looped, inputs)


# Strides, later steps, names


def test_a_step_behind_a_stride_says_when_there_is_a_frame():
    network, inputs = faint_network()
    slow = tuple(
        dataclasses.replace(e, stride=3, offsets=(0, 1)) if e.name == "input" else e
        for e in network.edges
    )
    network = dataclasses.replace(network, edges=slow)
    model = to_onnx_integer_step(network)
    assert [output.name for output in model.graph.output][:2] == ["output", "ready"]
    answers = run_steps(model, messages(network, inputs))
    expected = IntegerTarget("numpy").run(network, inputs, record=True).states.y
    assert expected.shape[1] == frame_counts(network, 20)[network.output] == 7
    np.testing.assert_array_equal(np.stack([np.stack(each) for each in answers]), expected)


def test_a_step_that_needs_steps_behind_the_end_is_refused_with_its_edges():
    network, _ = faint_network()
    ahead = tuple(
        dataclasses.replace(e, offsets=(-1, 1), after=1) if e.name == "input" else e
        for e in network.edges
    )
    network = dataclasses.replace(network, edges=ahead)
    to_onnx_integer(network)
    with pytest.raises(InputError, match=r"units/input reads steps behind the end.*onnx-int"):
        to_onnx_integer_step(network)


def test_a_step_where_branches_of_different_strides_meet_is_refused():
    network, _ = faint_network()
    slow = dataclasses.replace(network.edges[0], name="slow", stride=2)
    network = dataclasses.replace(network, edges=(*network.edges, slow))
    with pytest.raises(InputError, match="units/input, units/slow bring frames of different"):
        to_onnx_integer_step(network)


def test_places_may_have_the_names_of_inputs_outputs_and_states():
    network, inputs = faint_network()
    renamed = {"units": Place("output"), "readout": Place("output", "message")}

    def place(old):
        return renamed.get(str(old), old)

    network = dataclasses.replace(
        network,
        populations=tuple(
            dataclasses.replace(p, place=place(p.place)) for p in network.populations
        ),
        edges=tuple(
            dataclasses.replace(e, source=place(e.source), target=place(e.target))
            for e in network.edges
        ),
        output=renamed["readout"],
    )
    assert_equal_runs(network, inputs)
    found = run_steps(to_onnx_integer_step(network), messages(network, inputs))
    expected = IntegerTarget("numpy").run(network, inputs, record=True).states.y
    np.testing.assert_array_equal(np.stack([np.stack(each) for each in found]), expected)


# Files


def test_metadata_describe_the_formats():
    network = quantize(trained_like(12, 6, 40.0), np.random.default_rng(2).random((4, 60, 1)))
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
        (memory,) = network.memories
        assert formats[f"{memory.place}/state"] == {"bits": 24, "scale": memory.state.scale}
        assert formats["input"]["scale"] == network.input.message.scale
        assert formats["output"]["scale"] == network.y_scale


def test_states_of_a_step_are_named_after_their_places():
    network = quantize(trained_like(12, 6, 40.0), np.random.default_rng(2).random((4, 60, 1)))
    model = to_onnx_integer_step(network)
    assert [entry.name for entry in model.graph.input] == [
        "input", "layer0/memory/state", "layer0/memory/message", "layer0/hidden/message",
    ]  # fmt: skip


def test_equal_networks_have_equal_bytes():
    network = quantize(trained_like(12, 6, 40.0), np.random.default_rng(2).random((4, 60, 1)))
    one, other = (
        to_onnx_integer(network, record=True).SerializeToString(deterministic=True)
        for _ in range(2)
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
    assert [memory.realization for memory in network.memories] == [realization]
    assert_equal_runs(network, given.inputs)
