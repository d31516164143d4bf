"""Arithmetic in real numbers, with QuantizeLinear and DequantizeLinear for weights and messages.

A runtime for int8 networks recognizes the pairs and may compute in integers between them; any other
runtime computes the same in float32. Weights are the slices of the IntegerNetwork, with a scale for
each row. Messages are int8 up to 8 bits and int16 beyond, which needs opset 21. States are float32,
as those of the chip have 24 bits, since a Legendre memory does not tolerate rounding of its states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory, SeriesMemory
from onnx import TensorProto

from converters.onnx.graph import Graph
from converters.onnx.quantized.arithmetic import Messages, send_changes
from lmu_deploy.core.integer.parts import Connection, Format

INT8_BITS, INT16_BITS = 8, 16


class Dequantized:
    """Operations on real numbers as nodes of one graph; see :class:`.arithmetic.Numbers`.

    Parameters
    ----------
    graph : Graph
    activations : mapping of place to {"linear", "relu", "tanh", "hard-tanh"}
        Activations of the hidden units in the float network, by places such as
        ``layer0/hidden/message``.
    """

    real: int = TensorProto.FLOAT

    def __init__(self, graph: Graph, activations: Mapping[str, str]) -> None:
        self.graph = graph
        self._activations = activations

    def message_type(self, message: Format) -> int:
        """Return int8 if it is wide enough, otherwise int16."""
        return int(TensorProto.INT8 if message.bits <= INT8_BITS else TensorProto.INT16)

    def input_type(self, message: Format) -> int:
        """Return float32, since inputs are real numbers."""
        return int(TensorProto.FLOAT)

    def receive(self, x: str, message: Format) -> Messages:
        """Quantize inputs."""
        return self._quantize("input/message", x, message)

    def changes(self, name: str, sent: Messages, held: str, threshold: int) -> Messages:
        """Return the held messages."""
        kind = self.message_type(sent.format)
        now, _ = send_changes(self.graph, name, sent, held, threshold, kind)
        return Messages(now, sent.format)

    def drive(self, place: str, connection: Connection, sent: Messages, unit: Format) -> str:
        """Add ``sum_k (W_k s_k) x``, with s_k the real value of a unit weight of each row."""
        graph, weights = self.graph, self.graph.weights
        scale, zero = self._scale(sent.format)
        drives = []
        for k, integers in enumerate(connection.slices):
            part = f"{place}/slice{k}"
            stored = weights.constant(f"{part}/weights", np.ascontiguousarray(integers.T))
            row = (connection.gains[k] * unit.scale / sent.format.scale).astype(np.float32)
            rows = weights.constant(f"{part}/scale", row)
            none = weights.constant(f"{part}/zero", np.zeros(len(row), dtype=np.int8))
            matrix = graph.node("DequantizeLinear", [stored, rows, none], f"{part}/matrix", axis=1)
            x = graph.node("DequantizeLinear", [sent.tensor, scale, zero], f"{part}/messages")
            drives.append(graph.node("MatMul", [x, matrix], f"{part}/drive"))
        return graph.total(drives, place)

    def as_term(self, name: str, state: str) -> str:
        """Return the state itself."""
        return state

    def total(
        self, place: str, name: str, terms: Sequence[str], bias: np.ndarray | None, to: Format
    ) -> str:
        """Add the sum of terms and bias; nothing saturates."""
        if bias is not None:
            real = (bias * to.scale).astype(np.float32)
            terms = [*terms, self.graph.weights.constant(f"{place}/bias", real)]
        if len(terms) == 1:
            return self.graph.node("Identity", terms, name)
        return self.graph.total(terms, name)

    def send(self, place: str, state: str, memory: IntegerMemory | SeriesMemory) -> Messages:
        """Quantize a memory's states."""
        return self._quantize(place, state, memory.message)

    def activate(self, place: str, z: str, hidden: IntegerHidden) -> Messages:
        """Quantize f(z), with the activation f of the float network."""
        real = self.graph.activation(self._activations[place], z, f"{place}/value")
        return self._quantize(place, real, hidden.message)

    def _quantize(self, place: str, real: str, message: Format) -> Messages:
        scale, zero = self._scale(message)
        tensor = self.graph.node("QuantizeLinear", [real, scale, zero], f"{place}.next")
        return Messages(tensor, message)

    def _scale(self, message: Format) -> tuple[str, str]:
        """Return the constants of a message's scale and zero; the zero has the message's type."""
        weights = self.graph.weights
        dtype = np.int8 if message.bits <= INT8_BITS else np.int16
        scale = weights.constant(
            f"scale/{message.scale!r}", np.array(message.scale, dtype=np.float32)
        )
        return scale, weights.constant(f"zero/{np.dtype(dtype)}", np.array(0, dtype=dtype))
