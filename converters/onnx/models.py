"""Convert LMUNetwork to ONNX models of whole sequences and of one step.

:func:`to_onnx` returns a model of sequences with batch and time of any length. Each layer's
recurrence is one Scan, whose body is the step of :mod:`converters.onnx.cell`; everything that does
not recur is computed before and after it for all steps at once. Internally, time is the first axis.

:func:`to_onnx_step` returns a streaming model: one step, with the states as inputs and outputs.
Start with states of zero, and pass each output ``layers.0.m.next`` as the input ``layers.0.m`` of
the next step. ``output`` is the readout of the step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from converters.onnx import cell
from converters.onnx.graph import Graph, Weights, describe
from lmu_deploy.core.network import Layer, LMUNetwork
from lmu_deploy.core.reference import has_hidden


def network_states(network: LMUNetwork) -> dict[str, int]:
    """Return name and size of every state of a network's ONNX models, such as ``layers.0.m``."""
    return {
        f"layers.{number}.{name}": size
        for number, layer in enumerate(network.layers)
        for name, size in cell.state_sizes(layer).items()
    }


def to_onnx_step(network: LMUNetwork) -> onnx.ModelProto:
    """Convert a network to a model of one step.

    Parameters
    ----------
    network : LMUNetwork

    Returns
    -------
    model : onnx.ModelProto
        Inputs: ``input``, (batch, n_in), and each state of :func:`network_states`,
        (batch, size). Outputs: ``output``, (batch, n_out), and each state after the step, named
        with the suffix ``.next``. All float32.

    Raises
    ------
    InputError
        When a weight exceeds float32.
    """
    weights = Weights(network)
    graph = Graph("lmu_step", weights)
    signal = graph.input("input", ["batch", network.n_in])
    for name, size in network_states(network).items():
        graph.input(name, ["batch", size])
    for number, layer in enumerate(network.layers):
        path = f"layers.{number}"
        parts = cell.project(graph, path, layer, signal)
        before = {name: f"{path}.{name}" for name in cell.state_sizes(layer)}
        after = cell.advance(graph, path, layer, parts, before)
        signal = cell.answer(graph, path, layer, signal, after)
    bias = None if network.readout.bias is None else weights["readout.bias"]
    graph.output(
        graph.affine(signal, weights["readout.kernel"], bias, "output"), ["batch", network.n_out]
    )
    for name, size in network_states(network).items():
        graph.output(f"{name}.next", ["batch", size])
    return graph.model(describe(network, "step", weights.structure))


Names = dict[str, str]


def to_onnx(
    network: LMUNetwork, *, record: bool = False, stateful: bool = False
) -> onnx.ModelProto:
    """Convert a network to a model of sequences.

    Parameters
    ----------
    network : LMUNetwork
    record : bool
        Add outputs ``m``, ``h`` and ``y``, (batch, time, size): the states and readouts of every
        step, layer after layer. ``m`` or ``h`` is missing if no layer has any.
    stateful : bool
        Take the initial states as inputs instead of zeros, so that a long stream can be run in
        chunks.

    Returns
    -------
    model : onnx.ModelProto
        Input ``input``, (batch, time, n_in). Outputs: ``output``, (batch, n_out), or
        (batch, time, n_out) if the network returns sequences; then the states after the last
        step, named ``layers.0.m.next`` and so on, (batch, size). All float32.

    Raises
    ------
    InputError
        When a weight exceeds float32.
    """
    weights = Weights(network)
    graph = Graph("lmu_sequence", weights)
    x = graph.input("input", ["batch", "time", network.n_in])
    before = _first_states(graph, network, x, stateful)
    signal = graph.swap_time(x, "input.by_time")
    traces: list[Names] = []
    for number, layer in enumerate(network.layers):
        path = f"layers.{number}"
        at_every_step = record or network.return_sequences or number < len(network.layers) - 1
        traced = _traced(layer, record) if at_every_step else []
        last, trace = _scan(graph, path, layer, signal, before, traced)
        if at_every_step:
            signal = cell.answer(graph, path, layer, signal, trace)
            traces.append(trace | ({"h": signal} if has_hidden(layer) else {}))
        else:
            if cell.answers_from_input(layer):
                signal = graph.last_step(signal, f"{path}.x.last", "last")
            signal = cell.answer(graph, path, layer, signal, last)
    _read_out(graph, network, signal, record)
    for name, size in network_states(network).items():
        graph.output(f"{name}.next", ["batch", size])
    if record:
        _add_record(graph, network, traces)
    return graph.model(describe(network, "sequence", weights.structure))


def _first_states(graph: Graph, network: LMUNetwork, x: str, stateful: bool) -> Names:
    """Return the names of the initial states: inputs of the model, or zeros."""
    sizes = network_states(network)
    if stateful:
        return {name: graph.input(name, ["batch", size]) for name, size in sizes.items()}
    batch = graph.node("Shape", [x], "batch_size", start=0, end=1)
    zero = graph.weights.constant("zero", np.zeros((1, 1), dtype=np.float32))
    names = {}
    for name, size in sizes.items():
        width = graph.weights.constant(f"width.{size}", np.array([size], dtype=np.int64))
        shape = graph.node("Concat", [batch, width], f"{name}.shape", axis=0)
        names[name] = graph.node("Expand", [zero, shape], f"{name}.first")
    return names


def _traced(layer: Layer, record: bool) -> list[str]:
    """Return the names of the states that are needed at every step."""
    sizes = cell.state_sizes(layer)
    wanted = {"h"} if "h" in sizes else {"m"}
    return [name for name in sizes if name in wanted or (record and name == "m")]


def _scan(
    graph: Graph, path: str, layer: Layer, x: str, first: Mapping[str, str], traced: list[str]
) -> tuple[Names, Names]:
    """Add the recurrence of a layer; return its last states, and the traced states by step."""
    parts = cell.project(graph, path, layer, x)
    sizes = cell.state_sizes(layer)
    body = Graph(f"{path}.step", graph.weights, scope="step.")
    before = {name: body.input(f"{path}.{name}", ["batch", size]) for name, size in sizes.items()}
    part_sizes = cell.project_sizes(layer)
    now = {name: body.input(f"{path}.{name}", ["batch", part_sizes[name]]) for name in parts}
    after = cell.advance(body, path, layer, now, before)
    for name, size in sizes.items():
        body.output(after[name], ["batch", size])
    for name in traced:
        copy = body.node("Identity", [after[name]], f"{path}.{name}.traced")
        body.output(copy, ["batch", sizes[name]])
    outputs = graph.nodes(
        "Scan",
        [first[f"{path}.{name}"] for name in sizes] + list(parts.values()),
        [f"{path}.{name}.next" for name in sizes] + [f"{path}.{name}.steps" for name in traced],
        num_scan_inputs=len(parts),
        body=body.body(),
    )
    last = dict(zip(sizes, outputs, strict=False))
    return last, dict(zip(traced, outputs[len(sizes) :], strict=True))


def _read_out(graph: Graph, network: LMUNetwork, signal: str, record: bool) -> None:
    """Add the readout: ``output``, and ``y`` if every step is recorded."""
    weights, n_out = graph.weights, network.n_out
    kernel = weights["readout.kernel"]
    bias = None if network.readout.bias is None else weights["readout.bias"]
    if not record and not network.return_sequences:
        graph.output(graph.affine(signal, kernel, bias, "output"), ["batch", n_out])
        return
    by_time = graph.affine(signal, kernel, bias, "output.by_time")
    if network.return_sequences:
        graph.output(graph.swap_time(by_time, "output"), ["batch", "time", n_out])
    else:
        graph.output(graph.last_step(by_time, "output", "last"), ["batch", n_out])
    if record:
        graph.output(graph.swap_time(by_time, "y"), ["batch", "time", n_out])


def _add_record(graph: Graph, network: LMUNetwork, traces: list[Names]) -> None:
    """Add the outputs ``m`` and ``h``: the traced states, layer after layer."""
    for kind in ("m", "h"):
        parts = [trace[kind] for trace in traces if kind in trace]
        sizes = [
            layer.n_out if kind == "h" else cell.state_sizes(layer)["m"]
            for layer, trace in zip(network.layers, traces, strict=True)
            if kind in trace
        ]
        if parts:
            joined = graph.node("Concat", parts, f"{kind}.by_time", axis=-1)
            graph.output(graph.swap_time(joined, kind), ["batch", "time", sum(sizes)])
