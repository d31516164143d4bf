"""The two kinds of quantized model, and their metadata_props.

Scales and widths are JSON by the names of docs/reference/integer-semantics.md: an integer n
represents ``n * scale``. Lists have an entry for each layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import onnx

from converters.onnx.graph import (
    IR_VERSION,
    OPSET,
    PREFIX,
    Graph,
    describe_memories,
)
from converters.onnx.quantized.arithmetic import Numbers
from converters.onnx.quantized.dequantized import Dequantized
from converters.onnx.quantized.integers import Integers, Tally
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory


def describe(network: IntegerNetwork, form: str) -> dict[str, str]:
    """Return the metadata of a model of a form, such as ``integer-sequence``."""
    memories = [layer.memory for _, layer in network.on_chip]
    values: dict[str, Any] = {
        "format": "1",
        "form": form,
        "task": network.task or "",
        "profile": network.profile,
        "return_sequences": json.dumps(network.return_sequences),
        "dt": "1",
        "states": json.dumps([memory.size for memory in memories]),
        "realization": json.dumps([memory.realization for memory in memories]),
        "formats": json.dumps(_formats(network)),
        **({} if network.source is None else describe_memories(_memories(network.source))),
    }
    return {PREFIX + key: value for key, value in values.items()}


def _memories(network: LMUNetwork) -> list[Memory]:
    return [layer.memory for layer in network.layers if isinstance(layer, LMULayer)]


def _formats(network: IntegerNetwork) -> dict[str, dict[str, Any]]:
    formats = {"input": network.input, "output": network.chip_readout.output}
    for number, layer in network.on_chip:
        formats[f"layer{number}/memory/state"] = layer.memory.state
        formats[f"layer{number}/memory/message"] = layer.memory.message
        if layer.hidden is not None:
            formats[f"layer{number}/hidden/message"] = layer.hidden.message
    return {name: _as_json(value) for name, value in formats.items()}


def _as_json(value: Format) -> dict[str, Any]:
    return {"bits": value.bits, "scale": value.scale}


OPSET_OF_INT16, IR_VERSION_OF_INT16 = 21, 10
"""Needed by QuantizeLinear to int16; supported by ONNX Runtime 1.18 and later."""


class Kind(Protocol):
    """A kind of model.

    Attributes
    ----------
    form : str
        ``integer`` or ``qdq``.
    tally : Tally or None
        Counts to add as outputs, if any.
    """

    form: str
    tally: Tally | None

    def numbers(self, graph: Graph) -> Numbers:
        """Return the arithmetic for a graph, or for the body of a Scan in it."""

    def model(self, graph: Graph, network: IntegerNetwork, shape: str) -> onnx.ModelProto:
        """Finish a graph of a shape, ``sequence`` or ``step``."""


class IntegerKind:
    """Only integers; see :class:`Kind`."""

    form = "integer"

    def __init__(self, tally: Tally | None = None) -> None:
        self.tally = tally

    def numbers(self, graph: Graph) -> Integers:
        """Return integer arithmetic, which counts if there is a tally."""
        return Integers(graph, counting=self.tally is not None)

    def model(self, graph: Graph, network: IntegerNetwork, shape: str) -> onnx.ModelProto:
        """Finish the graph."""
        return graph.model(describe(network, f"{self.form}-{shape}"))


class DequantizedKind:
    """Real numbers with quantized weights and messages; see :class:`Kind`."""

    form = "qdq"
    tally: Tally | None = None

    def __init__(self, activations: Mapping[str, str], opset: int) -> None:
        self._activations, self._opset = activations, opset

    def numbers(self, graph: Graph) -> Dequantized:
        """Return arithmetic in real numbers."""
        return Dequantized(graph, self._activations)

    def model(self, graph: Graph, network: IntegerNetwork, shape: str) -> onnx.ModelProto:
        """Finish the graph."""
        ir_version = IR_VERSION if self._opset == OPSET else IR_VERSION_OF_INT16
        metadata = describe(network, f"{self.form}-{shape}")
        return graph.model(metadata, self._opset, ir_version)
