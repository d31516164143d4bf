"""A float network as nodes and edges of NIR, and its arrays from the nodes again."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from converters.nir.plan import Segment, is_whole, segments
from converters.nir.principle3 import memory_matrices, memory_nodes
from converters.nir.stepping import Stepping
from lmu_deploy.network import Hidden, LMULayer, LMUNetwork

Edges = list[tuple[str, str]]


def float_nodes(network: LMUNetwork, stepping: Stepping) -> tuple[dict[str, nir.NIRNode], Edges]:
    """Give the nodes and edges of a network; where edges meet, NIR adds."""
    building = _Building(network, stepping)
    for segment in segments(network):
        building.segment(segment)
    return building.nodes, building.edges


def carried_arrays(nodes: dict[str, Any], orders: dict[int, int], stepping: Stepping) -> Any:
    """Read from the nodes the arrays that they carry, by their names in the tree.

    Parameters
    ----------
    nodes : dict of str to node
    orders : dict of int to int
        Order of the memory of each LMU layer, by the layer's number.
    stepping : Stepping

    Returns
    -------
    dict of str to ndarray
    """
    found: dict[str, np.ndarray] = {}
    for number, order in orders.items():
        name, path = f"layer{number}", f"layers.{number}"
        encoders = nodes[f"{name}_encoders"]
        features = int(encoders.metadata["features"])
        weights = np.asarray(encoders.weight).T
        found[f"{path}.input_encoders"] = weights[:features]
        found[f"{path}.hidden_encoders"] = weights[features:]
        _read_bias(encoders, f"{path}.memory_bias", found)
        matrices = memory_matrices(f"{name}_memory", nodes, order, stepping)
        found[f"{path}.memory.a_bar"], found[f"{path}.memory.b_bar"] = matrices
        for suffix, key in (
            ("memory_encoders", "memory_encoders"),
            ("kernel", "hidden.memory_kernel"),
            ("input_kernel", "hidden.input_kernel"),
        ):
            if (node := nodes.get(f"{name}_{suffix}")) is not None:
                found[f"{path}.{key}"] = np.asarray(node.weight).T
                _read_bias(node, f"{path}.hidden.bias", found)
    if (readout := nodes.get("readout")) is not None:
        found["readout.kernel"] = np.asarray(readout.weight).T
        _read_bias(readout, "readout.bias", found)
    return found


def _read_bias(node: Any, key: str, found: dict[str, np.ndarray]) -> None:
    if isinstance(node, nir.Affine):
        found[key] = np.asarray(node.bias)


class _Building:
    """A graph that grows segment by segment."""

    def __init__(self, network: LMUNetwork, stepping: Stepping) -> None:
        self.network, self.stepping = network, stepping
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: Edges = []

    def segment(self, segment: Segment) -> None:
        layers = self.network.layers
        first, last = layers[segment.first], layers[segment.last]
        assert isinstance(first, LMULayer)
        assert isinstance(last, LMULayer)
        fed_back = 0 if first.hidden_encoders is None else len(first.hidden_encoders)
        self.nodes[segment.input] = nir.Input({"input": np.array([first.n_in + fed_back])})
        sources = [segment.input]
        for number in range(segment.first, segment.last + 1):
            layer = layers[number]
            assert isinstance(layer, LMULayer)
            sources = self.layer(f"layer{number}", layer, sources)
        width = last.n_out if is_whole(last) else last.memory.size
        if segment.has_readout:
            readout = self.network.readout
            self.add("readout", _affine(readout.kernel, readout.bias), sources)
            sources, width = ["readout"], self.network.n_out
        self.add(segment.output, nir.Output({"output": np.array([width])}), sources)

    def layer(self, name: str, layer: LMULayer, sources: list[str]) -> list[str]:
        """Add a layer; return the nodes whose sum is its output, or its memory's states."""
        encoders = layer.input_encoders
        if layer.hidden_encoders is not None:
            encoders = np.concatenate([encoders, layer.hidden_encoders])
        node = _affine(encoders, layer.memory_bias)
        node.metadata = {"features": layer.n_in}
        self.add(f"{name}_encoders", node, sources)
        memory = f"{name}_memory"
        self.nodes |= memory_nodes(memory, layer.memory, self.stepping)
        self.edges += [(f"{name}_encoders", f"{memory}_input"), (f"{memory}_input", memory)]
        self.edges += [(memory, f"{memory}_recurrent"), (f"{memory}_recurrent", memory)]
        if layer.memory_encoders is not None:
            self.add(f"{memory}_encoders", _affine(layer.memory_encoders, None), [memory])
            self.edges.append((f"{memory}_encoders", f"{memory}_input"))
        if layer.hidden is None or not is_whole(layer):
            return [memory]
        return self.hidden(name, layer.hidden, sources)

    def hidden(self, name: str, hidden: Hidden, sources: list[str]) -> list[str]:
        self.add(f"{name}_kernel", _affine(hidden.memory_kernel, hidden.bias), [f"{name}_memory"])
        if hidden.input_kernel is None:
            return [f"{name}_kernel"]
        self.add(f"{name}_input_kernel", _affine(hidden.input_kernel, None), sources)
        return [f"{name}_kernel", f"{name}_input_kernel"]

    def add(self, name: str, node: nir.NIRNode, sources: list[str]) -> None:
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]


def _affine(kernel: np.ndarray, bias: np.ndarray | None) -> nir.NIRNode:
    """Turn weights that act from the right, as networks keep them, into a node of NIR's."""
    weight = np.array(kernel.T, order="C")  # a network's own arrays are read-only
    return nir.Linear(weight) if bias is None else nir.Affine(weight, np.array(bias))
