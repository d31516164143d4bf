"""Models with Q/DQ pairs: near the integers and the float network, with quantized weights."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from integer_graphs import KINDS, graph_runs
from onnx_runs import graphs_of, run_model

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph import executor
from lmu_deploy.core.graph.linear import Conv1d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Pool, Reduce
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Memory
from lmu_deploy.tasks.base import get_task
from targets.conformance.fixtures import example
from targets.integer import IntegerTarget

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from converters.onnx import check_onnx, to_onnx_qdq  # noqa: E402

BOUND = 0.03
"""Root mean square of a difference, as a share of that of the expected values.

On digits 0.009 was measured with messages of 12 bits, 0.016 with 8.
"""


def deviation(values, expected):
    return np.sqrt(np.mean(np.square(values - expected)) / np.mean(np.square(expected)))


@pytest.mark.parametrize(("bits", "opset"), [(12, 21), (8, 17)])
def test_digits_are_within_the_bound(bits, opset):
    models = Path(__file__).parents[3] / "examples" / "models"
    network = load(models / "digits.safetensors")
    data = get_task("digits").load()
    integer = quantize(network, data.train.inputs[:512], message_bits=bits)
    model = to_onnx_qdq(integer)
    assert model.opset_import[0].version == opset
    outputs = run_model(model, data.test.inputs)["output"]
    expected = executor.run(network, data.test.inputs)
    assert deviation(outputs, expected) < BOUND
    assert np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1)) >= 0.99
    right = (answers.argmax(axis=1) == data.test.targets for answers in (outputs, expected))
    accuracy, float_accuracy = (np.mean(part) for part in right)
    assert accuracy >= float_accuracy - 0.01


def chain(frame, *operators):
    """A network of operators one behind the other."""
    names = [f"node_{number}" for number in range(len(operators))]
    nodes = [
        Node(name, operator, (before,))
        for name, operator, before in zip(names, operators, [INPUT, *names], strict=False)
    ]
    return Network(tuple(nodes), frame, names[-1])


def array(*shape):
    return np.random.default_rng(shape).normal(size=shape) / np.sqrt(shape[0])


MEMORY = Memory.legendre(5, 10.0)
RELU, TANH, GELU = Activation("relu"), Activation("tanh"), Activation("gelu")
NETWORKS = {
    "memory": chain((2,), LinearMemory(MEMORY, array(2, 1)), Dense(array(5, 3))),
    "encoder": chain((2,), LinearMemory(MEMORY, array(2, 1), None, RELU), Dense(array(5, 3))),
    "tanh": chain((2,), Dense(array(2, 6), array(6)), TANH, Dense(array(6, 3))),
    "gelu": chain((2,), Dense(array(2, 6), array(6)), GELU, Dense(array(6, 3))),
    "units": chain((2,), SimpleRNN(array(2, 6), array(6, 6) / 2, array(6)), Dense(array(6, 3))),
    "lmu": chain(
        (2,),
        LMU(MEMORY, array(2, 1), SimpleRNN(array(5, 6), array(6, 6) / 2), False, array(6, 1) / 9),
        Dense(array(6, 3)),
    ),
    "lstm": chain((2,), LSTM(array(2, 20), array(5, 20), array(20)), Dense(array(5, 3))),
    "gru": chain((2,), GRU(array(2, 15), array(5, 15), array(15)), Dense(array(5, 3))),
    "reset before": chain(
        (2,), GRU(array(2, 15), array(5, 15), array(15), reset_after=False), Dense(array(5, 3))
    ),
    "convolution": chain((2,), Conv1d(array(3, 2, 6), left=2, stride=2), RELU, Dense(array(6, 3))),
    "maximum": chain((2,), Dense(array(2, 6)), Pool("max", 3, 1), Dense(array(6, 3))),
    "mean": chain((2,), Dense(array(2, 6)), RELU, Reduce("mean"), Dense(array(6, 3))),
    "greatest": chain((2,), Dense(array(2, 6)), RELU, Reduce("max"), Dense(array(6, 3))),
    "embedding": chain((1,), Embedding(array(7, 4)), RELU, Dense(array(4, 3))),
    "product": Network(
        (
            Node("first", Dense(array(2, 4)), (INPUT,)),
            Node("gate", Dense(array(2, 4), array(4)), (INPUT,)),
            Node("open", Activation("sigmoid"), ("gate",)),
            Node("product", Multiply(), ("first", "open")),
            Node("answer", Dense(array(4, 3)), ("product",)),
        ),
        (2,),
        "answer",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_population_is_near_the_integers_and_the_float_network(name):
    network, rng = NETWORKS[name], np.random.default_rng(5)
    inputs = rng.uniform(-1.0, 1.0, size=(12, 16, network.n_in))
    if name == "embedding":
        inputs = rng.integers(0, 7, (12, 16, 1)).astype(float)
    integer = quantize(network, inputs)
    results = run_model(to_onnx_qdq(integer, record=True), inputs)
    assert deviation(results["output"], executor.run(network, inputs)) < BOUND
    parts = IntegerTarget("numpy").run(integer, inputs, record=True).states.parts
    assert set(results) == {"output", *parts}
    for population in integer.populations[1:]:
        place = str(population.place)
        real = results[place].dtype == np.float32
        found = results[place] * (1.0 if real else population.message.scale)
        assert deviation(found, parts[place] * population.scale) < BOUND, place


@settings(max_examples=settings.default.max_examples // 2)
@given(run=graph_runs(kinds=tuple(k for k in KINDS if k != "host"), thresholds=True))
def test_every_graph_is_a_valid_model_or_refused(run):
    network, inputs = run
    try:
        model = to_onnx_qdq(network, record=True)
    except InputError as error:
        assert "onnx-qdq cannot have" in str(error)
        return
    check_onnx(model)
    results = run_model(model, inputs)
    expected = IntegerTarget("numpy").run(network, inputs, record=True)
    assert results["output"].shape == expected.outputs.shape
    for place, values in expected.states.parts.items():
        assert results[place].shape == values.shape


@pytest.mark.parametrize("name", ["recurrent", "stacked", "memory"])
def test_every_kind_of_layer_is_within_the_bound(name):
    given = example(name)
    integer = quantize(given.network, given.calibration)
    results = run_model(to_onnx_qdq(integer, record=True), given.inputs)
    expected = IntegerTarget("numpy").run(integer, given.inputs, record=True)
    assert deviation(results["output"], expected.outputs) < BOUND
    for memory in integer.memories:
        values = expected.states.parts[str(memory.place)] * memory.scale
        assert deviation(results[str(memory.place)], values) < BOUND


def test_messages_of_int8_are_limited_to_their_width():
    network, rng = NETWORKS["tanh"], np.random.default_rng(6)
    inputs = rng.uniform(-1.0, 1.0, size=(12, 16, 2))
    integer = quantize(network, inputs, message_bits=5, hidden_bits=5)
    narrow = [p for p in integer.on_chip if p.message.bits == 5]
    assert len(narrow) == 2
    results = run_model(to_onnx_qdq(integer, record=True), 5.0 * inputs)
    expected = IntegerTarget("numpy").run(integer, 5.0 * inputs, record=True)
    assert deviation(results["output"], expected.outputs) < BOUND
    (place,) = (str(p.place) for p in narrow[1:])
    assert np.abs(results[place]).max() == narrow[1].message.limit == 15


def test_products_of_int8_do_not_saturate():
    """Weights of one sign in pairs, whose products ONNX Runtime may add up in 16 bits."""
    rng = np.random.default_rng(0)
    pairs = np.repeat(rng.choice([-1.0, 1.0], (4, 3)), 2, axis=0)
    memory = LinearMemory(Memory.legendre(4, 10.0, 2), array(2, 2))
    network = chain((2,), memory, Dense(array(8, 8)), RELU, Reduce("last"), Dense(pairs))
    inputs = rng.uniform(-1.0, 1.0, size=(40, 16, 2))
    integer = quantize(network, inputs, message_bits=8)
    outputs = run_model(to_onnx_qdq(integer), inputs)["output"]
    expected = IntegerTarget("numpy").run(integer, inputs).outputs
    assert deviation(outputs, expected) < BOUND


@pytest.mark.parametrize("bits", [8, 12])
def test_weights_and_messages_are_quantized_wherever_they_are_multiplied(bits):
    given = example("recurrent")
    model = to_onnx_qdq(
        quantize(given.network, given.calibration, message_bits=bits, hidden_bits=8)
    )
    weights = {t.name: t.data_type for t in model.graph.initializer}
    products = 0
    for graph in graphs_of(model.graph):
        makers = {output: node for node in graph.node for output in node.output}
        for node in (node for node in graph.node if node.op_type == "MatMul"):
            messages, matrix = (makers[name] for name in node.input)
            assert messages.op_type == matrix.op_type == "DequantizeLinear"
            assert weights[matrix.input[0]] == onnx.TensorProto.INT8
            assert (
                weights[messages.input[2]]
                in {
                    8: (onnx.TensorProto.INT8,),
                    12: (onnx.TensorProto.INT8, onnx.TensorProto.INT16),
                }[bits]
            )
            products += 1
    assert products == 2 * 3 + 3 + 1  # slices into the memory, into the hidden units, the readout


def with_format(network, place, **formats):
    """The network with other formats of a population."""
    return dataclasses.replace(
        network,
        populations=tuple(
            dataclasses.replace(p, **formats) if p.place == place else p
            for p in network.populations
        ),
    )


def test_a_wrong_scale_is_detected():
    given = example("memory")
    integer = quantize(given.network, given.calibration)
    wrong = with_format(integer, integer.output, message=Format(24, 1.1 * integer.y_scale))
    outputs = run_model(to_onnx_qdq(wrong), given.inputs)["output"]
    expected = IntegerTarget("numpy").run(integer, given.inputs).outputs
    assert deviation(outputs, expected) > BOUND


def test_metadata_describe_form_and_scales():
    given = example("memory")
    integer = quantize(given.network, given.calibration)
    props = {item.key: item.value for item in to_onnx_qdq(integer).metadata_props}
    assert props["lmu_deploy.form"] == "qdq-sequence"
    formats = json.loads(props["lmu_deploy.formats"])
    assert formats["layer0/memory/message"]["bits"] == 12


def test_networks_without_a_qdq_form_are_refused_with_all_that_has_none():
    given = example("memory")
    series = quantize(given.network, given.calibration, realization="sign-taylor")
    wide = with_format(series, series.input.place, message=Format(20, 0.1))
    with pytest.raises(
        InputError, match=r"input, whose messages have 20 bits.*layer0/memory, whose substeps"
    ):
        to_onnx_qdq(wide)
