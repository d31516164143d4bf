"""Run ONNX models in ONNX Runtime, whole or step by step; go through their graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yield a graph and the bodies of its Scans and Loops."""
    import onnx

    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)


def session(model: Any) -> Any:
    """Return an inference session of a model, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_model(model: Any, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return all outputs of a model with one input."""
    one = session(model)
    (given,) = one.get_inputs()
    names = [output.name for output in one.get_outputs()]
    fed = {given.name: inputs.astype(_DTYPES[given.type])}
    return dict(zip(names, one.run(names, fed), strict=True))


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def run_steps(model: Any, inputs: np.ndarray, chunk: int = 0) -> list[list[np.ndarray]]:
    """Return for each sample the outputs that a model of one step gives when it is ready.

    A new session takes over the states after every `chunk` steps, if it is not 0.
    """
    one = session(model)
    names = [output.name for output in one.get_outputs()]
    states = {
        given.name: np.zeros((len(inputs), *given.shape[1:]), _DTYPES[given.type])
        for given in one.get_inputs()
        if given.name != "input"
    }
    (dtype,) = (_DTYPES[given.type] for given in one.get_inputs() if given.name == "input")
    found: list[list[np.ndarray]] = [[] for _ in inputs]
    for t in range(inputs.shape[1]):
        if chunk and t % chunk == 0:
            one = session(model)
        frame = inputs[:, t].astype(dtype)
        results = dict(zip(names, one.run(names, {"input": frame, **states}), strict=True))
        states = {name: results[f"{name}.next"] for name in states}
        ready = results.get("ready", np.ones((len(inputs), 1), bool))
        for sample in np.flatnonzero(ready):
            found[sample].append(results["output"][sample])
    return found


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value where that exceeds one."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def step_error(model: Any, inputs: np.ndarray, expected: np.ndarray, sequences: bool) -> float:
    """Return the error of a model of one step, fed with whole sequences."""
    outputs = run_steps(model, inputs)
    found = np.stack([np.stack(each) if sequences else each[-1] for each in outputs])
    return error(found, expected)
