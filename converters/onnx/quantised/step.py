"""A quantised network as a streaming model: one step, its states as inputs and outputs.

Start with states of zero; give each output ``layer0/memory/state.next`` back as the input
``layer0/memory/state`` of the next step.
"""

from __future__ import annotations

import onnx

from converters.onnx.graph import Graph
from converters.onnx.quantised import cell
from converters.onnx.quantised.changes import held_name
from converters.onnx.quantised.kinds import Kind
from converters.onnx.quantised.numbers import Messages
from converters.onnx.weights import Weights
from lmu_deploy.integer_network import IntegerNetwork


def step_model(network: IntegerNetwork, kind: Kind) -> onnx.ModelProto:
    """Give the network as a model of one step in one kind of numbers."""
    graph = Graph(f"lmu_{kind.form}_step", Weights())
    numbers = kind.numbers(graph)
    x = graph.input("input", ["batch", network.n_in], numbers.input_type(network.input))
    messages = numbers.receive(x, network.input)
    sent = {0: messages}
    following = {}
    for threshold in cell.held_thresholds(network)["input"]:
        name = held_name(cell.INPUT, threshold)
        following[name] = network.n_in, numbers.message_type(network.input)
        held = graph.input(name, ["batch", network.n_in], following[name][1])
        sent[threshold] = numbers.changes(name, messages, held, threshold)
    for each in cell.cells(network):
        before = {}
        for name, size in each.sizes.items():
            element = each.element(numbers, name)
            before[name] = graph.input(f"{each.place}/{name}", ["batch", size], element)
            following[f"{each.place}/{name}"] = size, element
        after = each.advance(numbers, sent, before)
        sent = {t: Messages(after[name], each.formats[name]) for t, name in each.sent_on.items()}
    last = sent[network.chip_readout.connection.threshold]
    graph.output(
        cell.read_out(numbers, network, last, "output"), ["batch", network.n_out], numbers.real
    )
    for name, (size, element) in following.items():
        graph.output(f"{name}.next", ["batch", size], element)
    return kind.model(graph, network, "step")
