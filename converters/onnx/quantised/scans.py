"""The recurrences of a quantised network as Scans over time: each layer, and held inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from converters.onnx.graph import Graph
from converters.onnx.quantised import cell
from converters.onnx.quantised.changes import held_name
from converters.onnx.quantised.integers import Integers
from converters.onnx.quantised.kinds import Kind
from converters.onnx.quantised.numbers import Messages, Numbers, Sent
from converters.onnx.quantised.tally import Traced
from lmu_deploy.integer_network import IntegerNetwork

Traces = dict[str, Traced]


def hold_input(
    graph: Graph,
    kind: Kind,
    network: IntegerNetwork,
    messages: Messages,
    first: Mapping[str, str],
) -> tuple[Sent, Traces]:
    """Add what connections with a threshold hold of the input.

    Parameters
    ----------
    graph : Graph
    kind : Kind
    network : IntegerNetwork
    messages : Messages
        Of every step, time first.
    first : mapping
        What is held before the first step.

    Returns
    -------
    sent : Sent
        Of every step.
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
    """Add the recurrence of a layer; give its states and its counts at every step, time first."""
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
    """Give what `numbers` has counted of limited values, if that is wanted."""
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
    """Give a copy of a state: a tensor can be only one output of a body."""
    return replace(traced, tensor=body.node("Identity", [traced.tensor], f"{name}.traced"))


def _scan(
    graph: Graph,
    body: Graph,
    after: Traces,
    first: Mapping[str, str],
    inputs: Sequence[str],
    kept: Traces,
) -> Traces:
    """Run a body over time; give what is kept of every step, time first.

    Parameters
    ----------
    graph, body : Graph
    after : Traces
        The states after a step, in the order of the body's inputs.
    first : mapping
        The states before the first step.
    inputs : sequence of tensor
        What the body takes a step of, time first.
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
