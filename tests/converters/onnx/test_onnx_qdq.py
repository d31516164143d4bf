"""The graph with Q/DQ pairs: near the float network in ONNX Runtime, with quantized weights."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.network import (
    ACTIVATIONS,
    FLOAT_CLASSES,
    Hidden,
    LMULayer,
    LMUNetwork,
    Memory,
    Readout,
)
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task
from targets.conformance.networks import example

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from converters.onnx import check_onnx, to_onnx_qdq  # noqa: E402

BOUND = 0.03
"""Root mean square of the difference to the float network, as a share of that of its answers.

On digits 0.007 was measured with messages of 12 bits, 0.015 with 8.
"""


def run(model, inputs):
    check_onnx(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    feed = {"input": np.asarray(inputs, dtype=np.float32)}
    return dict(zip(names, session.run(names, feed), strict=True))


def deviation(values, expected):
    return np.sqrt(np.mean(np.square(values - expected)) / np.mean(np.square(expected)))


@pytest.mark.parametrize(("bits", "opset"), [(12, 21), (8, 17)])
def test_digits_are_within_the_bound(bits, opset):
    models = Path(__file__).parents[3] / "examples" / "models"
    network = load(models / "digits.safetensors", FLOAT_CLASSES)
    data = get_task("digits").load()
    integer = quantize(network, data.train.inputs[:512], message_bits=bits)
    model = to_onnx_qdq(integer)
    assert model.opset_import[0].version == opset
    outputs = run(model, data.test.inputs)["output"]
    expected = run_reference(network, data.test.inputs).outputs
    assert deviation(outputs, expected) < BOUND
    assert np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1)) >= 0.99
    right = (answers.argmax(axis=1) == data.test.targets for answers in (outputs, expected))
    accuracy, float_accuracy = (np.mean(part) for part in right)
    assert accuracy >= float_accuracy - 0.01


@pytest.mark.parametrize("name", ["recurrent", "stacked", "memory"])
def test_every_kind_of_layer_is_within_the_bound(name):
    given = example(name)
    integer = quantize(given.network, given.calibration)
    results = run(to_onnx_qdq(integer, record=True), given.inputs)
    trace = run_reference(given.network, given.inputs, record=True)
    assert results["output"].shape == trace.outputs.shape
    for kind, expected in (("output", trace.outputs), ("m", trace.m), ("y", trace.y)):
        assert deviation(results[kind], expected) < BOUND, kind
    if "h" in results:
        scales = [np.full(lay.hidden.units, lay.hidden.message.scale) for lay in integer.layers]
        assert deviation(results["h"] * np.concatenate(scales), trace.h) < BOUND


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_the_float_network(activation, rng):
    hidden = Hidden(rng.normal(size=(6, 5)), None, None, rng.normal(size=5), activation)
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(6, 12.0), hidden)
    network = LMUNetwork((layer,), Readout(rng.normal(size=(5, 2)), None))
    inputs = rng.uniform(-1.0, 1.0, size=(20, 15, 1))
    outputs = run(to_onnx_qdq(quantize(network, inputs)), inputs)["output"]
    assert deviation(outputs, run_reference(network, inputs).outputs) < BOUND


def graphs(graph):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


@pytest.mark.parametrize("bits", [8, 12])
def test_weights_and_messages_are_quantized_wherever_they_are_multiplied(bits):
    given = example("recurrent")
    model = to_onnx_qdq(
        quantize(given.network, given.calibration, message_bits=bits, hidden_bits=8)
    )
    weights = {t.name: t.data_type for t in model.graph.initializer}
    products = 0
    for graph in graphs(model.graph):
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


def test_a_wrong_scale_is_detected():
    given = example("memory")
    integer = quantize(given.network, given.calibration)
    readout = dataclasses.replace(
        integer.readout, output=Format(24, 1.1 * integer.readout.output.scale)
    )
    wrong = dataclasses.replace(integer, readout=readout)
    outputs = run(to_onnx_qdq(wrong), given.inputs)["output"]
    assert deviation(outputs, run_reference(given.network, given.inputs).outputs) > BOUND


def test_metadata_describe_form_and_scales():
    given = example("memory")
    integer = quantize(given.network, given.calibration)
    props = {item.key: item.value for item in to_onnx_qdq(integer).metadata_props}
    assert props["lmu_deploy.form"] == "qdq-sequence"
    formats = json.loads(props["lmu_deploy.formats"])
    assert formats["layer0/memory/message"]["bits"] == 12


def test_networks_without_a_qdq_form_are_refused():
    given = example("memory")
    integer = quantize(given.network, given.calibration)
    with pytest.raises(InputError, match=r"does not have it; quantize it again"):
        to_onnx_qdq(dataclasses.replace(integer, source=None))
    with pytest.raises(InputError, match="input has messages of 20 bits"):
        to_onnx_qdq(dataclasses.replace(integer, input=Format(20, 0.1)))
    series = quantize(given.network, given.calibration, realization="sign-taylor")
    with pytest.raises(InputError, match="sign-taylor"):
        to_onnx_qdq(series)
