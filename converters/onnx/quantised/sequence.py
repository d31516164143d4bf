"""A quantised network as a model of whole sequences, with batch and time of any length.

Each layer is one Scan over time, whose body is the step of `cell.py`. Inside, time comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from converters.onnx.graph import Graph
from converters.onnx.quantised import cell
from converters.onnx.quantised.integers import Integers
from converters.onnx.quantised.kinds import Kind
from converters.onnx.quantised.numbers import Messages, Numbers
from converters.onnx.quantised.tally import Traced
from converters.onnx.weights import Weights
from lmu_deploy.integer_network import IntegerLayer, IntegerNetwork

Traces = dict[str, Traced]


def sequence_model(
    network: IntegerNetwork, kind: Kind, *, record: bool, stateful: bool
) -> onnx.ModelProto:
    """Give the network as a model of sequences in one kind of numbers.

    Parameters
    ----------
    network : IntegerNetwork
    kind : Kind
    record : bool
        Give ``m``, ``h`` and ``y`` of every step too.
    stateful : bool
        Take the states before the first step as inputs instead of zeros.
    """
    graph = Graph(f"lmu_{kind.form}_sequence", Weights())
    numbers = kind.numbers(graph)
    x = graph.input("input", ["batch", "time", network.n_in], numbers.input_type(network.input))
    first = _first_states(graph, numbers, network, x, stateful)
    sent = numbers.receive(_swap_time(graph, x, "input/by_time"), network.input)
    counted = kind.tally.events(graph, "input", sent.tensor) if kind.tally else {}
    traces: Traces = {}
    for number, layer in enumerate(network.layers):
        place = f"layer{number}"
        found, counts = _scan(graph, kind, place, layer, sent, first, record)
        name, message = cell.sent_on(layer)
        sent = Messages(found[f"{place}/{name}"].tensor, message)
        traces |= found
        counted |= counts
    _read_out(graph, kind, numbers, network, sent, record)
    for number, layer in enumerate(network.layers):
        for name, size in cell.state_sizes(layer).items():
            element = cell.state_type(numbers, layer, name)
            graph.output(f"layer{number}/{name}.next", ["batch", size], element)
    if record:
        _add_record(graph, traces)
    if kind.tally:
        counted |= _saturations(kind, numbers)
        kind.tally.declare(graph, counted)
    return kind.model(graph, network, "sequence")


def _first_states(
    graph: Graph, numbers: Numbers, network: IntegerNetwork, x: str, stateful: bool
) -> dict[str, str]:
    """Name the states before the first step: inputs of the model, or zeros."""
    names = {}
    batch = "" if stateful else graph.node("Shape", [x], "batch_size", start=0, end=1)
    for number, layer in enumerate(network.layers):
        for part, size in cell.state_sizes(layer).items():
            name, element = f"layer{number}/{part}", cell.state_type(numbers, layer, part)
            if stateful:
                names[name] = graph.input(name, ["batch", size], element)
                continue
            dtype = helper.tensor_dtype_to_np_dtype(element)
            zero = graph.weights.constant(f"start/{dtype}", np.zeros((1, 1), dtype=dtype))
            width = graph.weights.constant(f"width/{size}", np.array([size], dtype=np.int64))
            shape = graph.node("Concat", [batch, width], f"{name}/shape", axis=0)
            names[name] = graph.node("Expand", [zero, shape], f"{name}/first")
    return names


def _scan(
    graph: Graph,
    kind: Kind,
    place: str,
    layer: IntegerLayer,
    sent: Messages,
    first: Mapping[str, str],
    record: bool,
) -> tuple[Traces, Traces]:
    """Add the recurrence of a layer; give its states and its counts at every step, time first."""
    body = Graph(f"{place}/step", graph.weights, scope="step/")
    numbers = kind.numbers(body)
    sizes = cell.state_sizes(layer)
    before = {
        name: body.input(f"{place}/{name}", ["batch", size], cell.state_type(numbers, layer, name))
        for name, size in sizes.items()
    }
    x_type = numbers.message_type(sent.format)
    x = Messages(body.input(f"{place}/x", ["batch", layer.n_in], x_type), sent.format)
    after = cell.advance(numbers, place, layer, x, before)
    for name, size in sizes.items():
        body.output(after[name], ["batch", size], cell.state_type(numbers, layer, name))
    traces: Traces = {}
    wanted = {cell.sent_on(layer)[0]} | ({cell.STATE, cell.HIDDEN} if record else set())
    for name, tensor in after.items():
        if name not in wanted:
            continue
        width = layer.memory.size if name in (cell.STATE, cell.SENT) else layer.n_out
        copy = body.node("Identity", [tensor], f"{place}/{name}.traced")
        element = cell.state_type(numbers, layer, name)
        traces[f"{place}/{name}"] = Traced(copy, ("batch", width), element)
    counts = _saturations(kind, numbers)
    if kind.tally:
        for name in cell.message_formats(layer):
            population = f"{place}/{name.partition('/')[0]}"
            counts |= kind.tally.events(body, population, after[name])
        if isinstance(numbers, Integers):
            for population, fired in numbers.fired.items():
                counts |= kind.tally.fired(body, population, fired)
    kept = traces | counts
    for traced in kept.values():
        body.output(traced.tensor, traced.shape, traced.element)
    outputs = graph.nodes(
        "Scan",
        [*(first[f"{place}/{name}"] for name in sizes), sent.tensor],
        [f"{place}/{name}.next" for name in sizes] + [f"{name}.steps" for name in kept],
        num_scan_inputs=1,
        body=body.body(),
    )
    tensors = iter(outputs[len(sizes) :])
    return (
        {name: replace(traced, tensor=next(tensors)) for name, traced in traces.items()},
        {name: replace(traced, tensor=next(tensors)) for name, traced in counts.items()},
    )


def _saturations(kind: Kind, numbers: Numbers) -> Traces:
    if kind.tally and isinstance(numbers, Integers):
        return kind.tally.saturations(numbers)
    return {}


def _read_out(
    graph: Graph,
    kind: Kind,
    numbers: Numbers,
    network: IntegerNetwork,
    sent: Messages,
    record: bool,
) -> None:
    """Add the readout: ``output``, and ``y`` if every step is recorded."""
    n_out, real = network.n_out, numbers.real
    if not (record or kind.tally or network.return_sequences):
        last = Messages(_last_step(graph, sent.tensor, "readout/messages"), sent.format)
        graph.output(cell.read_out(numbers, network, last, "output"), ["batch", n_out], real)
        return
    by_time = cell.read_out(numbers, network, sent, "output/by_time")
    if network.return_sequences:
        output = _swap_time(graph, by_time, "output")
        graph.output(output, ["batch", "time", n_out], real)
    else:
        graph.output(_last_step(graph, by_time, "output"), ["batch", n_out], real)
    if record:
        graph.output(_swap_time(graph, by_time, "y"), ["batch", "time", n_out], real)


def _add_record(graph: Graph, traces: Traces) -> None:
    """Add the outputs ``m`` and ``h``: states and hidden messages, layer after layer."""
    for kind, part in (("m", cell.STATE), ("h", cell.HIDDEN)):
        parts = [traced for name, traced in traces.items() if name.endswith(part)]
        if parts:
            tensors = [traced.tensor for traced in parts]
            joined = graph.node("Concat", tensors, f"{kind}/by_time", axis=-1)
            width = sum(int(traced.shape[-1]) for traced in parts)
            swapped = _swap_time(graph, joined, kind)
            graph.output(swapped, ["batch", "time", width], parts[0].element)


def _swap_time(graph: Graph, x: str, output: str) -> str:
    return graph.node("Transpose", [x], output, perm=[1, 0, 2])


def _last_step(graph: Graph, x: str, output: str) -> str:
    index = graph.weights.constant("last_step", np.array(-1, dtype=np.int64))
    return graph.node("Gather", [x, index], output, axis=0)
