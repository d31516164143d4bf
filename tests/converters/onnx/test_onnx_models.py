"""Float ONNX models in ONNX Runtime, compared with the float64 reference."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.network import (
    FLOAT_CLASSES,
    Hidden,
    LMULayer,
    LMUNetwork,
    LSTMLayer,
    Memory,
    Readout,
)
from lmu_deploy.core.reference import run_reference

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from converters.onnx import (  # noqa: E402
    check_onnx,
    network_states,
    save_onnx,
    to_onnx,
    to_onnx_step,
)

TOLERANCE = 1e-5


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model_session, feed):
    names = [output.name for output in model_session.get_outputs()]
    feed = {name: np.asarray(value, np.float32) for name, value in feed.items()}
    return dict(zip(names, model_session.run(names, feed), strict=True))


def zeros(network, batch):
    return {name: np.zeros((batch, size)) for name, size in network_states(network).items()}


def stacked_network(rng, *, return_sequences=False):
    """Two LMU layers with every feedback, an LSTM between them, about unit size throughout."""

    def array(*shape):
        return rng.normal(size=shape) / np.sqrt(2 * shape[0])

    first = LMULayer(
        array(2, 3),
        0.3 * array(10, 3),
        0.1 * array(36, 3),
        0.1 * array(3),
        Memory.legendre(12, 60.0, 3),
        Hidden(array(36, 10), array(2, 10), array(10, 10), array(10), "tanh"),
    )
    last = LMULayer(
        array(8, 1),
        None,
        None,
        None,
        Memory.legendre(16, 100.0),
        Hidden(array(16, 20), array(8, 20), None, array(20), "relu"),
    )
    middle = LSTMLayer(array(10, 32), array(8, 32), array(32))
    readout = Readout(array(20, 4), array(4))
    return LMUNetwork((first, middle, last), readout, return_sequences)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_sequence_model_equals_the_reference_on_100_random_sequences(rng, return_sequences):
    network = stacked_network(rng, return_sequences=return_sequences)
    inputs = rng.normal(size=(100, 150, 2)).astype(np.float32)
    expected = run_reference(network, inputs).outputs
    output = run(session(to_onnx(network)), {"input": inputs})["output"]
    assert output.dtype == np.float32
    assert np.abs(output - expected).max() <= TOLERANCE
    assert np.abs(expected).max() > 0.1


def test_the_trained_network_is_within_the_tolerance(rng):
    models = Path(__file__).parents[3] / "examples" / "models"
    network = load(models / "digits.safetensors", FLOAT_CLASSES)
    inputs = rng.random(size=(100, 8, 8)).astype(np.float32)
    expected = run_reference(network, inputs).outputs
    output = run(session(to_onnx(network)), {"input": inputs})["output"]
    assert np.abs(output - expected).max() <= TOLERANCE
    np.testing.assert_array_equal(output.argmax(axis=1), expected.argmax(axis=1))


def test_a_memory_of_psmnist_size_is_within_the_tolerance(rng):
    def array(*shape):
        return rng.normal(size=shape) / np.sqrt(shape[0])

    layer = LMULayer(
        np.ones((1, 1)),
        None,
        None,
        None,
        Memory.legendre(256, 784.0),
        Hidden(array(256, 64), array(1, 64), array(64, 64) / 2, array(64), "tanh"),
    )
    network = LMUNetwork((layer,), Readout(array(64, 10), array(10)))
    inputs = rng.random(size=(20, 784, 1)).astype(np.float32)
    output = run(session(to_onnx(network)), {"input": inputs})["output"]
    assert np.abs(output - run_reference(network, inputs).outputs).max() <= TOLERANCE


@given(data=st.data())
def test_sequence_model_and_its_record_equal_the_reference(networks, data):
    network = data.draw(networks)
    steps = data.draw(st.integers(1, 12))
    inputs = np.random.default_rng(3).normal(size=(3, steps, network.n_in)).astype(np.float32)
    trace = run_reference(network, inputs, record=True)
    model = to_onnx(network, record=True)
    check_onnx(model)
    results = run(session(model), {"input": inputs})
    scale = max(1.0, np.abs(trace.m).max(initial=0), np.abs(trace.y).max())
    for name, expected in (("m", trace.m), ("h", trace.h), ("y", trace.y)):
        assert (name in results) == (expected.shape[2] > 0)
        if name in results:
            assert results[name].shape == expected.shape
            assert np.abs(results[name] - expected).max() <= TOLERANCE * scale
    assert np.abs(results["output"] - trace.outputs).max() <= TOLERANCE * scale
    plain = run(session(to_onnx(network)), {"input": inputs})
    assert list(plain) == ["output", *(f"{name}.next" for name in network_states(network))]
    assert np.abs(plain["output"] - trace.outputs).max() <= TOLERANCE * scale


@given(data=st.data())
def test_step_model_driven_over_time_equals_the_sequence_model(networks, data):
    network = data.draw(networks)
    inputs = np.random.default_rng(4).normal(size=(2, 7, network.n_in)).astype(np.float32)
    whole = run(session(to_onnx(network, record=True)), {"input": inputs})
    step_model = to_onnx_step(network)
    check_onnx(step_model)
    step = session(step_model)
    states, outputs = zeros(network, 2), []
    for t in range(7):
        result = run(step, {"input": inputs[:, t], **states})
        outputs.append(result["output"])
        states = {name: result[f"{name}.next"] for name in states}
    np.testing.assert_allclose(np.stack(outputs, axis=1), whole["y"], rtol=1e-5, atol=1e-5)
    for name, value in states.items():
        np.testing.assert_allclose(value, whole[f"{name}.next"], rtol=1e-5, atol=1e-5)


@given(data=st.data())
def test_a_stream_in_chunks_equals_one_pass(networks, data):
    network = data.draw(networks)
    inputs = np.random.default_rng(5).normal(size=(2, 11, network.n_in)).astype(np.float32)
    whole = run(session(to_onnx(network, record=True)), {"input": inputs})
    model = to_onnx(network, record=True, stateful=True)
    check_onnx(model)
    chunked, states, outputs = session(model), zeros(network, 2), []
    for chunk in (inputs[:, :4], inputs[:, 4:5], inputs[:, 5:]):
        result = run(chunked, {"input": chunk, **states})
        outputs.append(result["y"])
        states = {name: result[f"{name}.next"] for name in states}
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole["y"], rtol=1e-6, atol=1e-6)


def test_time_is_not_unrolled_and_is_dynamic_like_batch(rng):
    network = stacked_network(rng, return_sequences=True)
    model = to_onnx(network)
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    assert len(scans) == len(network.layers)
    assert len(model.graph.node) < 40
    one = session(model)
    for batch, steps in ((1, 1), (1, 500), (5, 3), (64, 2)):
        inputs = rng.normal(size=(batch, steps, 2)).astype(np.float32)
        output = run(one, {"input": inputs})["output"]
        expected = run_reference(network, inputs).outputs
        assert np.abs(output - expected).max() <= TOLERANCE
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert shapes == [["batch", "time", 2], ["batch", "time", 4]]


def test_a_layer_that_occurs_twice_in_a_network(rng):
    layer = LSTMLayer(rng.normal(size=(3, 12)), rng.normal(size=(3, 12)), rng.normal(size=12))
    network = LMUNetwork((layer, layer), Readout(rng.normal(size=(3, 2)), None))
    inputs = rng.normal(size=(4, 9, 3)).astype(np.float32)
    output = run(session(to_onnx(network)), {"input": inputs})["output"]
    assert np.abs(output - run_reference(network, inputs).outputs).max() <= TOLERANCE


def graphs(graph):
    """A graph and the bodies of its Scans."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


@pytest.mark.parametrize("export", [to_onnx, to_onnx_step])
def test_every_tensor_is_named_and_has_a_shape(rng, export):
    model = export(stacked_network(rng))
    check_onnx(model)
    for graph in graphs(model.graph):
        known = {value.name: value for value in (*graph.value_info, *graph.output)}
        for node in graph.node:
            assert node.name
            for output in node.output:
                assert any(letter.isalpha() for letter in output)
                assert known[output].type.tensor_type.HasField("shape"), output
                assert known[output].type.tensor_type.elem_type in (
                    onnx.TensorProto.FLOAT,
                    onnx.TensorProto.INT64,
                )


def test_a_shared_array_is_stored_once(rng):
    memory = Memory.legendre(64, 100.0)
    first = LMULayer(np.ones((1, 1)), None, None, None, memory, None)
    second = LMULayer(rng.normal(size=(64, 1)), None, None, None, memory, None)
    network = LMUNetwork((first, second), Readout(rng.normal(size=(64, 2)), None))
    for model in (to_onnx(network), to_onnx_step(network)):
        sizes = [list(tensor.dims) for tensor in model.graph.initializer]
        assert sizes.count([64, 64]) == 1
        assert not any(node.op_type == "Constant" for g in graphs(model.graph) for node in g.node)
        assert len(model.SerializeToString()) < 2 * 64 * 64 * 4


def test_metadata_describe_the_model(rng):
    network = stacked_network(rng)
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
    network = stacked_network(rng)
    save_onnx(to_onnx(network), tmp_path / "a.onnx")
    save_onnx(to_onnx(network), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_invalid_model_is_not_written(rng, tmp_path):
    model = to_onnx(stacked_network(rng))
    model.graph.node[0].input[0] = "nowhere"
    (tmp_path / "a.onnx").write_text("old")
    with pytest.raises(InputError, match="not valid"):
        save_onnx(model, tmp_path / "a.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    assert (tmp_path / "a.onnx").read_text() == "old"


def test_weights_beyond_float32_are_refused(rng):
    layer = LMULayer(np.full((1, 1), 1e39), None, None, None, Memory.legendre(2, 4.0), None)
    network = LMUNetwork((layer,), Readout(np.ones((2, 1)), None))
    with pytest.raises(InputError, match=r"layers\.0\.input_encoders .* float32"):
        to_onnx(network)


def test_more_weights_than_fit_a_file_are_refused(rng, monkeypatch):
    monkeypatch.setattr("converters.onnx.graph.LARGEST_MODEL", 100)
    with pytest.raises(InputError, match="bytes of weights, and one ONNX file can have 100"):
        to_onnx(stacked_network(rng))
