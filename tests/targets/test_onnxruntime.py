"""Target onnxruntime: what is its own; the rest is in the conformance cases."""

import sys

import numpy as np
import pytest
from graphs import runs, steps_of
from hypothesis import given, settings
from onnx_runs import error

from lmu_deploy.core.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.linear import Embedding
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.network import LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference
from targets.onnxruntime import OnnxRuntimeTarget


def network(encoder=1.0):
    memory = Memory.legendre(4, 8.0)
    layer = LMULayer(np.full((1, 1), encoder), None, None, None, memory, None)
    return Network.from_layers(LMUNetwork((layer,), Readout(np.ones((4, 2)), None)))


def test_batches_and_threads_do_not_change_the_answer(rng):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    inputs = rng.normal(size=(11, 9, 1))
    calls = []
    usual = OnnxRuntimeTarget().run(network(), inputs)
    small = OnnxRuntimeTarget(threads=2, batch_size=4).run(
        network(), inputs, progress=lambda done, total: calls.append((done, total))
    )
    np.testing.assert_allclose(small.outputs, usual.outputs, rtol=1e-6, atol=1e-7)
    assert calls == [(4, 11), (8, 11), (11, 11)]
    assert small.settings["threads"] == 2
    assert small.settings["provider"] == "CPUExecutionProvider"


@settings(max_examples=15)
@given(runs())
def test_any_float_network_runs(drawn):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    graph, inputs = drawn
    inputs = inputs.astype(np.float32)
    target, expected = OnnxRuntimeTarget(), run(graph, inputs)
    assert target.unsupported(graph) == []
    found = target.run(graph, inputs)
    assert error(found.outputs, expected) <= 1e-5
    assert sum(found.neurons.values()) == sum(
        sum(node.operator.states.values()) for node in graph.nodes
    )
    # A model takes sequences of any length, and so does its record.
    if not all(set(steps_of(graph, steps).values()) == {steps} for steps in range(1, 65)):
        with pytest.raises(InputError, match="run it without record"):
            target.run(graph, inputs, record=True)
        return
    states = target.run(graph, inputs, record=True).states
    units = [node.operator.states for node in graph.nodes]
    for kind, part in (("m", "memory"), ("h", "hidden")):
        assert getattr(states, kind).shape[2] == sum(each.get(part, 0) for each in units)
    answer = expected if graph.return_sequences else expected[:, None]
    last = answer[:, -1].reshape(len(inputs), -1)
    assert error(states.y[:, -1], last) <= 1e-5


def test_tokens_without_a_row_are_refused():
    words = Network((Node("words", Embedding(np.eye(4)), (INPUT,)),), (1,), "words")
    for wrong in (-1.0, 4.0, 0.5):
        with pytest.raises(InputError, match="whole numbers that the embedding has a row for"):
            OnnxRuntimeTarget().run(words, np.full((1, 2, 1), wrong))


def test_a_network_without_a_memory_is_recorded_with_an_empty_m(rng):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    layer = LSTMLayer(rng.normal(size=(1, 8)), rng.normal(size=(2, 8)), rng.normal(size=8))
    lstm = Network.from_layers(LMUNetwork((layer,), Readout(np.ones((2, 1)), None)))
    inputs = rng.normal(size=(3, 6, 1))
    run = OnnxRuntimeTarget().run(lstm, inputs, record=True)
    assert run.states.m.shape == (3, 6, 0)
    assert run.neurons == {"layer0/hidden": 2}
    np.testing.assert_allclose(run.states.h, run_reference(lstm, inputs, record=True).h, atol=1e-6)


def test_weights_and_inputs_beyond_float32_are_refused():
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    target = OnnxRuntimeTarget()
    assert target.unsupported(network()) == []
    assert "layer0.input_encoders" in target.unsupported(network(1e39))[0]
    with pytest.raises(InputError, match=r"cannot run this network: layer0\.input_encoders"):
        target.run(network(1e39), np.zeros((1, 2, 1)))
    with pytest.raises(InputError, match="beyond float32"):
        target.run(network(), np.full((1, 2, 1), 1e39))


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_an_absent_library_is_named_with_the_command_that_installs_it(monkeypatch, library):
    for module in [name for name in sys.modules if name.startswith("converters.onnx")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"{library}\b.*pip install 'lmu-deploy\[onnx\]'"
    with pytest.raises(MissingDependencyError, match=message):
        OnnxRuntimeTarget().run(network(), np.zeros((1, 2, 1)))


def test_a_failure_of_the_runtime_is_a_run_error(monkeypatch):
    runtime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

    def fail(self, names, feed):
        raise runtime.capi.onnxruntime_pybind11_state.Fail("out of luck")

    monkeypatch.setattr(runtime.InferenceSession, "run", fail)
    with pytest.raises(RunError, match=r"ONNX Runtime failed: .*out of luck"):
        OnnxRuntimeTarget().run(network(), np.zeros((1, 2, 1)))


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_runtime(monkeypatch):
    runtime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

    def faulty(self, names, feed):
        raise NameError("a name that is nowhere")

    monkeypatch.setattr(runtime.InferenceSession, "run", faulty)
    with pytest.raises(NameError):
        OnnxRuntimeTarget().run(network(), np.zeros((1, 2, 1)))


@pytest.mark.parametrize("wrong", [{"threads": -1}, {"batch_size": 0}, {"threads": "2"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        OnnxRuntimeTarget(**wrong)
