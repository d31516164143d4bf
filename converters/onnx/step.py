"""LMUNetwork to a streaming ONNX model: one step, its states as inputs and outputs.

Start with states of zero; give each output ``layers.0.m.next`` back as the input ``layers.0.m`` of
the next step. ``output`` is the readout of this step.
"""

from __future__ import annotations

import onnx

from converters.onnx import cell
from converters.onnx.graph import Graph
from converters.onnx.metadata import describe
from converters.onnx.weights import Weights
from lmu_deploy.network import LMUNetwork


def network_states(network: LMUNetwork) -> dict[str, int]:
    """Name and size of every state of a network's ONNX models, such as ``layers.0.m``."""
    return {
        f"layers.{number}.{name}": size
        for number, layer in enumerate(network.layers)
        for name, size in cell.state_sizes(layer).items()
    }


def to_onnx_step(network: LMUNetwork) -> onnx.ModelProto:
    """Give the network as a model of one step.

    Parameters
    ----------
    network : LMUNetwork

    Returns
    -------
    model : onnx.ModelProto
        Inputs: ``input``, (batch, n_in), and each state of :func:`network_states`,
        (batch, size). Outputs: ``output``, (batch, n_out), and each state after the step, with
        ``.next`` behind its name. All float32.

    Raises
    ------
    InputError
        When a weight is beyond float32.
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
