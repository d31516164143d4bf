"""One step of one layer as ONNX nodes, shared by the sequence and the step model.

A layer has three parts. `project` computes what depends only on the input, which the sequence model
does for all steps at once; `advance` is one step of the recurrence; `answer` is the output of the
layer, computed for all steps at once where it is not itself a state. The equations are those of
:mod:`lmu_deploy.core.network`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from converters.onnx.graph import Graph
from lmu_deploy.core.network import Hidden, Layer, LMULayer, LSTMLayer


def recurs(layer: LMULayer) -> bool:
    """Return whether the hidden units of the previous step are needed, so that they are a state."""
    if layer.hidden is None:
        return False
    return layer.hidden.recurrent_kernel is not None or layer.hidden_encoders is not None


def state_sizes(layer: Layer) -> dict[str, int]:
    """Return name and size of each state that a layer carries from step to step."""
    if isinstance(layer, LSTMLayer):
        return {"h": layer.n_out, "c": layer.n_out}
    return {"m": layer.memory.size} | ({"h": layer.n_out} if recurs(layer) else {})


def project_sizes(layer: Layer) -> dict[str, int]:
    """Return name and size of each result of `project`."""
    if isinstance(layer, LSTMLayer):
        return {"gates_x": 4 * layer.n_out}
    takes_input = (
        recurs(layer) and layer.hidden is not None and layer.hidden.input_kernel is not None
    )
    return {"u_x": layer.memory.channels} | ({"z_x": layer.n_out} if takes_input else {})


def project(graph: Graph, path: str, layer: Layer, x: str) -> dict[str, str]:
    """Add the nodes that compute each part of `project_sizes` from the input x, (..., n_in).

    Parameters
    ----------
    graph : Graph
    path : str
        Path of the layer in the network, such as ``layers.0``; the prefix of all names.
    layer : LMULayer or LSTMLayer
    x : str
        Name of the input.
    """
    w = graph.weights
    if isinstance(layer, LSTMLayer):
        gates = graph.affine(x, w[f"{path}.kernel"], w[f"{path}.bias"], f"{path}.gates_x")
        return {"gates_x": gates}
    bias = None if layer.memory_bias is None else w[f"{path}.memory_bias"]
    parts = {"u_x": graph.affine(x, w[f"{path}.input_encoders"], bias, f"{path}.u_x")}
    if "z_x" in project_sizes(layer):
        kernel = w[f"{path}.hidden.input_kernel"]
        parts["z_x"] = graph.node("MatMul", [x, kernel], f"{path}.z_x")
    return parts


def advance(
    graph: Graph, path: str, layer: Layer, parts: Mapping[str, str], before: Mapping[str, str]
) -> dict[str, str]:
    """Add the nodes of one step; return the names of the states after it.

    The results of `project` and the states before the step have shape (batch, size).
    """
    if isinstance(layer, LSTMLayer):
        return _advance_lstm(graph, path, parts["gates_x"], before)
    after = {"m": _advance_memory(graph, path, layer, parts["u_x"], before)}
    if layer.hidden is not None and recurs(layer):
        terms = [parts["z_x"]] if "z_x" in parts else []
        if layer.hidden.recurrent_kernel is not None:
            kernel = graph.weights[f"{path}.hidden.recurrent_kernel"]
            terms.append(graph.node("MatMul", [before["h"], kernel], f"{path}.z_h"))
        after["h"] = _hidden(graph, path, layer.hidden, terms, after["m"], f"{path}.h.next")
    return after


def answers_from_input(layer: Layer) -> bool:
    """Return whether `answer` needs the layer's input besides its states."""
    if isinstance(layer, LSTMLayer) or layer.hidden is None or recurs(layer):
        return False
    return layer.hidden.input_kernel is not None


def answer(graph: Graph, path: str, layer: Layer, x: str, states: Mapping[str, str]) -> str:
    """Return the layer's output; add the nodes of the hidden units if they are not a state.

    `x` and the states, (..., size), are of the same steps.
    """
    if "h" in states:
        return states["h"]
    if isinstance(layer, LSTMLayer) or layer.hidden is None:
        return states["m"]
    terms = []
    if answers_from_input(layer):
        kernel = graph.weights[f"{path}.hidden.input_kernel"]
        terms.append(graph.node("MatMul", [x, kernel], f"{path}.z_x"))
    return _hidden(graph, path, layer.hidden, terms, states["m"], f"{path}.h")


def _advance_memory(
    graph: Graph, path: str, layer: LMULayer, u_x: str, before: Mapping[str, str]
) -> str:
    """Add ``m = a_bar m + b_bar u``, with the channels of a sample as rows of one product."""
    w, memory = graph.weights, layer.memory
    terms = [u_x]
    if layer.hidden_encoders is not None:
        kernel = w[f"{path}.hidden_encoders"]
        terms.append(graph.node("MatMul", [before["h"], kernel], f"{path}.u_h"))
    if layer.memory_encoders is not None:
        kernel = w[f"{path}.memory_encoders"]
        terms.append(graph.node("MatMul", [before["m"], kernel], f"{path}.u_m"))
    u, m = graph.total(terms, f"{path}.u"), before["m"]
    if memory.channels > 1:
        u = graph.node("Reshape", [u, _shape(graph, -1, 1)], f"{path}.u.rows")
        m = graph.node("Reshape", [m, _shape(graph, -1, memory.order)], f"{path}.m.rows")
    drive = graph.node("Mul", [u, w[f"{path}.memory.b_bar"]], f"{path}.drive")
    inputs = [m, w[f"{path}.memory.a_bar"], drive]
    if memory.channels == 1:
        return graph.node("Gemm", inputs, f"{path}.m.next", transB=1)
    rows = graph.node("Gemm", inputs, f"{path}.m.next.rows", transB=1)
    return graph.node("Reshape", [rows, _shape(graph, -1, memory.size)], f"{path}.m.next")


def _hidden(graph: Graph, path: str, hidden: Hidden, terms: list[str], m: str, h: str) -> str:
    """Add ``h = f(m W_m + terms + b)``."""
    w = graph.weights
    terms = [*terms, graph.node("MatMul", [m, w[f"{path}.hidden.memory_kernel"]], f"{path}.z_m")]
    if hidden.bias is not None:
        terms.append(w[f"{path}.hidden.bias"])
    z = graph.total(terms, f"{path}.z")
    return graph.activation(hidden.activation, z, h)


def _advance_lstm(
    graph: Graph, path: str, gates_x: str, before: Mapping[str, str]
) -> dict[str, str]:
    """Add ``c = sig(f) c + sig(i) tanh(g)`` and ``h = sig(o) tanh(c)``."""
    kernel = graph.weights[f"{path}.recurrent_kernel"]
    gates_h = graph.node("MatMul", [before["h"], kernel], f"{path}.gates_h")
    gates = graph.node("Add", [gates_x, gates_h], f"{path}.gates")
    names = [f"{path}.gates.{name}" for name in "ifgo"]
    i, f, g, o = graph.nodes("Split", [gates], names, axis=-1)
    i = graph.node("Sigmoid", [i], f"{path}.input_gate")
    f = graph.node("Sigmoid", [f], f"{path}.forget_gate")
    g = graph.node("Tanh", [g], f"{path}.candidate")
    o = graph.node("Sigmoid", [o], f"{path}.output_gate")
    kept = graph.node("Mul", [f, before["c"]], f"{path}.c.kept")
    written = graph.node("Mul", [i, g], f"{path}.c.written")
    c = graph.node("Add", [kept, written], f"{path}.c.next")
    h = graph.node("Mul", [o, graph.node("Tanh", [c], f"{path}.c.squashed")], f"{path}.h.next")
    return {"h": h, "c": c}


def _shape(graph: Graph, *sizes: int) -> str:
    name = "shape." + "x".join("all" if size < 0 else str(size) for size in sizes)
    return graph.weights.constant(name, np.array(sizes, dtype=np.int64))
