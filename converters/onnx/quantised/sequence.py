"""A quantised network as a model of whole sequences, with batch and time of any length.

Each layer is one Scan over time (`scans.py`), whose body is the step of `cell.py`. Inside, time
comes first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from converters.onnx.graph import Graph
from converters.onnx.quantised import cell
from converters.onnx.quantised.changes import held_name
from converters.onnx.quantised.kinds import Kind
from converters.onnx.quantised.numbers import Messages, Numbers
from converters.onnx.quantised.scans import Traces, hold_input, run_layer, saturations
from converters.onnx.weights import Weights
from lmu_deploy.integer_network import IntegerNetwork


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
    states = _states(numbers, network)
    first = _first_states(graph, states, x, stateful)
    messages = numbers.receive(_swap_time(graph, x, "input/by_time"), network.input)
    sent, counted = hold_input(graph, kind, network, messages, first)
    traces: Traces = {}
    for each in cell.cells(network):
        found, counts = run_layer(graph, kind, each, sent, first, record)
        sent = {
            threshold: Messages(found[f"{each.place}/{name}"].tensor, each.formats[name])
            for threshold, name in each.sent_on.items()
        }
        traces |= found
        counted |= counts
    _read_out(
        graph, kind, numbers, network, sent[network.chip_readout.connection.threshold], record
    )
    for name, (size, element) in states.items():
        graph.output(f"{name}.next", ["batch", size], element)
    if record:
        _add_record(graph, traces)
    if kind.tally:
        counted |= saturations(kind, numbers)
        kind.tally.declare(graph, counted)
    return kind.model(graph, network, "sequence")


def _states(numbers: Numbers, network: IntegerNetwork) -> dict[str, tuple[int, int]]:
    """Name, size and type of all that is carried from step to step."""
    found = {
        held_name(cell.INPUT, threshold): (network.n_in, numbers.message_type(network.input))
        for threshold in cell.held_thresholds(network)["input"]
    }
    for each in cell.cells(network):
        for name, size in each.sizes.items():
            found[f"{each.place}/{name}"] = size, each.element(numbers, name)
    return found


def _first_states(
    graph: Graph, states: Mapping[str, tuple[int, int]], x: str, stateful: bool
) -> dict[str, str]:
    """Name the states before the first step: inputs of the model, or zeros."""
    names = {}
    batch = "" if stateful else graph.node("Shape", [x], "batch_size", start=0, end=1)
    for name, (size, element) in states.items():
        if stateful:
            names[name] = graph.input(name, ["batch", size], element)
            continue
        dtype = helper.tensor_dtype_to_np_dtype(element)
        zero = graph.weights.constant(f"start/{dtype}", np.zeros((1, 1), dtype=dtype))
        width = graph.weights.constant(f"width/{size}", np.array([size], dtype=np.int64))
        shape = graph.node("Concat", [batch, width], f"{name}/shape", axis=0)
        names[name] = graph.node("Expand", [zero, shape], f"{name}/first")
    return names


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
