"""Convert a quantized network to a model of whole sequences, with batch and time of any length.

Each layer, and the held messages of the input, is one Scan over time, whose body is the step of
`cell.py`. Internally, time is the first axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from converters.onnx.graph import Graph, Weights
from converters.onnx.quantized import cell
from converters.onnx.quantized.arithmetic import Messages, Numbers, Sent, held_name
from converters.onnx.quantized.integers import Integers, Traced
from converters.onnx.quantized.kinds import Kind
from lmu_deploy.core.integer.network import IntegerNetwork

Traces = dict[str, Traced]


def held_input(
    graph: Graph,
    kind: Kind,
    network: IntegerNetwork,
    messages: Messages,
    first: Mapping[str, str],
) -> tuple[Sent, Traces]:
    """Add the held messages of the input for connections with a threshold.

    Parameters
    ----------
    graph : Graph
    kind : Kind
    network : IntegerNetwork
    messages : Messages
        Input messages of every step, time first.
    first : mapping
        Initial held messages.

    Returns
    -------
    sent : Sent
        Messages and held messages of every step.
    counts : Traces
        Events of the input.
    """
    thresholds = cell.held_thresholds(network)["input"]
    if not thresholds:
        numbers = kind.numbers(graph)
        counts = kind.tally.events(graph, "input", messages.tensor, numbers) if kind.tally else {}
        return {0: messages}, counts
    body = Graph("input/step", graph.weights, scope="step/")
    numbers = kind.numbers(body)
    element, shape = numbers.message_type(network.input), ("batch", network.n_in)
    names = {threshold: held_name(cell.INPUT, threshold) for threshold in thresholds}
    before = {name: body.input(name, shape, element) for name in names.values()}
    now = Messages(body.input("input/x", shape, element), network.input)
    after: Traces = {}
    for threshold, name in names.items():
        held = numbers.changes(name, now, before[name], threshold)
        after[name] = Traced(held.tensor, shape, element)
    traces = {name: _copied(body, name, traced) for name, traced in after.items()}
    counts = kind.tally.events(body, "input", now.tensor, numbers) if kind.tally else {}
    kept = _scan(graph, body, after, first, [messages.tensor], traces | counts)
    sent = {t: Messages(kept[name].tensor, network.input) for t, name in names.items()}
    return {0: messages, **sent}, {name: kept[name] for name in counts}


def run_layer(
    graph: Graph,
    kind: Kind,
    each: cell.Cell,
    sent: Sent,
    first: Mapping[str, str],
    record: bool,
) -> tuple[Traces, Traces]:
    """Add the recurrence of a layer; return its states and counts by step, time first."""
    place, n_in = each.place, each.layer.n_in
    body = Graph(f"{place}/step", graph.weights, scope="step/")
    numbers = kind.numbers(body)
    before = {
        name: body.input(f"{place}/{name}", ["batch", size], each.element(numbers, name))
        for name, size in each.sizes.items()
    }
    x: dict[int, Messages] = {}
    for threshold in sorted(cell.entering(each.layer)):
        form = sent[threshold].format
        name = f"{place}/x" + (f"_held_{threshold}" if threshold else "")
        tensor = body.input(name, ["batch", n_in], numbers.message_type(form))
        x[threshold] = Messages(tensor, form)
    after = {
        name: Traced(tensor, ("batch", each.size(name)), each.element(numbers, name))
        for name, tensor in each.advance(numbers, x, before).items()
    }
    wanted = {*each.sent_on.values()} | ({cell.STATE, cell.HIDDEN} if record else set())
    traces = {
        f"{place}/{name}": _copied(body, f"{place}/{name}", traced)
        for name, traced in after.items()
        if name in wanted
    }
    counts = _counts(kind, numbers, each, after)
    states = {f"{place}/{name}": after[name] for name in each.sizes}
    inputs = [sent[threshold].tensor for threshold in x]
    kept = _scan(graph, body, states, first, inputs, traces | counts)
    return {name: kept[name] for name in traces}, {name: kept[name] for name in counts}


def saturations(kind: Kind, numbers: Numbers) -> Traces:
    """Return the saturations that `numbers` counted, if there is a tally."""
    if kind.tally and isinstance(numbers, Integers):
        return kind.tally.saturations(numbers)
    return {}


def _counts(kind: Kind, numbers: Numbers, each: cell.Cell, after: Traces) -> Traces:
    """Add the counts of a step of a layer."""
    counts = saturations(kind, numbers)
    if not kind.tally or not isinstance(numbers, Integers):
        return counts
    for name in (cell.SENT, cell.HIDDEN):
        if name in after:
            population = f"{each.place}/{name.partition('/')[0]}"
            counts |= kind.tally.events(numbers.graph, population, after[name].tensor, numbers)
    series = f"{each.place}/series"
    if (series, 0) in numbers.fired:
        counts |= kind.tally.fired(numbers.graph, series, {0: numbers.fired[series, 0]})
    return counts


def _copied(body: Graph, name: str, traced: Traced) -> Traced:
    """Return a copy of a state, since a tensor can be only one output of a body."""
    return replace(traced, tensor=body.node("Identity", [traced.tensor], f"{name}.traced"))


def _scan(
    graph: Graph,
    body: Graph,
    after: Traces,
    first: Mapping[str, str],
    inputs: Sequence[str],
    kept: Traces,
) -> Traces:
    """Add a Scan over time; return the tensors that are output for every step, time first.

    Parameters
    ----------
    graph, body : Graph
    after : Traces
        The states after a step, in the order of the body's inputs.
    first : mapping
        Initial states.
    inputs : sequence of tensor
        Inputs of the body for every step, time first.
    kept : Traces
    """
    for traced in (*after.values(), *kept.values()):
        body.output(traced.tensor, traced.shape, traced.element)
    outputs = graph.nodes(
        "Scan",
        [*(first[name] for name in after), *inputs],
        [f"{name}.next" for name in after] + [f"{name}.steps" for name in kept],
        num_scan_inputs=len(inputs),
        body=body.body(),
    )
    tensors = iter(outputs[len(after) :])
    return {name: replace(traced, tensor=next(tensors)) for name, traced in kept.items()}


def sequence_model(
    network: IntegerNetwork, kind: Kind, *, record: bool, stateful: bool
) -> onnx.ModelProto:
    """Build a model of sequences in one kind of arithmetic.

    Parameters
    ----------
    network : IntegerNetwork
    kind : Kind
    record : bool
        Add outputs ``m``, ``h`` and ``y`` of every step.
    stateful : bool
        Take the initial states as inputs instead of zeros.
    """
    graph = Graph(f"lmu_{kind.form}_sequence", Weights())
    numbers = kind.numbers(graph)
    x = graph.input("input", ["batch", "time", network.n_in], numbers.input_type(network.input))
    states = _states(numbers, network)
    first = _first_states(graph, states, x, stateful)
    messages = numbers.receive(graph.swap_time(x, "input/by_time"), network.input)
    sent, counted = held_input(graph, kind, network, messages, first)
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
    """Return name, size and type of everything that is carried from step to step."""
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
    """Return the names of the initial states: inputs of the model, or zeros."""
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
        last = Messages(graph.last_step(sent.tensor, "readout/messages", "last_step"), sent.format)
        graph.output(cell.read_out(numbers, network, last, "output"), ["batch", n_out], real)
        return
    by_time = cell.read_out(numbers, network, sent, "output/by_time")
    if network.return_sequences:
        output = graph.swap_time(by_time, "output")
        graph.output(output, ["batch", "time", n_out], real)
    else:
        graph.output(graph.last_step(by_time, "output", "last_step"), ["batch", n_out], real)
    if record:
        graph.output(graph.swap_time(by_time, "y"), ["batch", "time", n_out], real)


def _add_record(graph: Graph, traces: Traces) -> None:
    """Add the outputs ``m`` and ``h``: states and hidden messages, layer after layer."""
    for kind, part in (("m", cell.STATE), ("h", cell.HIDDEN)):
        parts = [traced for name, traced in traces.items() if name.endswith(part)]
        if parts:
            tensors = [traced.tensor for traced in parts]
            joined = graph.node("Concat", tensors, f"{kind}/by_time", axis=-1)
            width = sum(int(traced.shape[-1]) for traced in parts)
            swapped = graph.swap_time(joined, kind)
            graph.output(swapped, ["batch", "time", width], parts[0].element)
