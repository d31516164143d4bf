"""A quantised network as a streaming model: one step, its states as inputs and outputs.

Start with states of zero; give each output ``layer0/memory/state.next`` back as the input
``layer0/memory/state`` of the next step.
"""

from __future__ import annotations

import onnx

from converters.onnx.graph import Graph
from converters.onnx.quantised import cell
from converters.onnx.quantised.kinds import Kind
from converters.onnx.quantised.numbers import Messages
from converters.onnx.weights import Weights
from lmu_deploy.integer_network import IntegerNetwork


def step_model(network: IntegerNetwork, kind: Kind) -> onnx.ModelProto:
    """Give the network as a model of one step in one kind of numbers."""
    graph = Graph(f"lmu_{kind.form}_step", Weights())
    numbers = kind.numbers(graph)
    x = graph.input("input", ["batch", network.n_in], numbers.input_type(network.input))
    sent = numbers.receive(x, network.input)
    following = {}
    for number, layer in enumerate(network.layers):
        place = f"layer{number}"
        before = {}
        for name, size in cell.state_sizes(layer).items():
            element = cell.state_type(numbers, layer, name)
            before[name] = graph.input(f"{place}/{name}", ["batch", size], element)
            following[f"{place}/{name}"] = size, element
        after = cell.advance(numbers, place, layer, sent, before)
        name, message = cell.sent_on(layer)
        sent = Messages(after[name], message)
    graph.output(
        cell.read_out(numbers, network, sent, "output"), ["batch", network.n_out], numbers.real
    )
    for name, (size, element) in following.items():
        graph.output(f"{name}.next", ["batch", size], element)
    return kind.model(graph, network, "step")
