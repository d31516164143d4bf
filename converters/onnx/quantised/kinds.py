"""The two kinds of quantised graph, and what each says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import onnx

from converters.onnx.graph import IR_VERSION, OPSET, Graph
from converters.onnx.quantised.dequantised import Dequantised
from converters.onnx.quantised.integers import Integers
from converters.onnx.quantised.metadata import describe
from converters.onnx.quantised.numbers import Numbers
from converters.onnx.quantised.tally import Tally
from lmu_deploy.integer_network import IntegerNetwork

OPSET_OF_INT16, IR_VERSION_OF_INT16 = 21, 10
"""What QuantizeLinear to int16 needs; ONNX Runtime has it from 1.18 on."""


class Kind(Protocol):
    """A kind of graph.

    Attributes
    ----------
    form : str
        ``integer`` or ``qdq``.
    tally : Tally or None
        Counts what a run does, if that was asked for.
    """

    form: str
    tally: Tally | None

    def numbers(self, graph: Graph) -> Numbers:
        """Arithmetic for a graph, or for the body of a Scan in it."""

    def model(self, graph: Graph, network: IntegerNetwork, shape: str) -> onnx.ModelProto:
        """Finish a graph of a shape, ``sequence`` or ``step``."""


class IntegerKind:
    """Integers alone; see :class:`Kind`."""

    form = "integer"

    def __init__(self, tally: Tally | None = None) -> None:
        self.tally = tally

    def numbers(self, graph: Graph) -> Integers:
        """Give integer arithmetic that counts where a tally wants it."""
        return Integers(graph, counting=self.tally is not None)

    def model(self, graph: Graph, network: IntegerNetwork, shape: str) -> onnx.ModelProto:
        """Finish the graph."""
        return graph.model(describe(network, f"{self.form}-{shape}"))


class DequantisedKind:
    """Real numbers with weights and messages quantised; see :class:`Kind`."""

    form = "qdq"
    tally: Tally | None = None

    def __init__(self, activations: Mapping[str, str], opset: int) -> None:
        self._activations, self._opset = activations, opset

    def numbers(self, graph: Graph) -> Dequantised:
        """Give arithmetic in real numbers."""
        return Dequantised(graph, self._activations)

    def model(self, graph: Graph, network: IntegerNetwork, shape: str) -> onnx.ModelProto:
        """Finish the graph."""
        ir_version = IR_VERSION if self._opset == OPSET else IR_VERSION_OF_INT16
        metadata = describe(network, f"{self.form}-{shape}")
        return graph.model(metadata, self._opset, ir_version)
