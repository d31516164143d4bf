"""Real numbers with QuantizeLinear and DequantizeLinear around weights and messages.

A runtime for int8 networks reads the pairs and may run what lies between them in integers; one that
does not, runs the same in float32. Weights are the slices of the IntegerNetwork, with a scale for
each row. Messages are int8 up to 8 bits, int16 beyond, where the opset has to be 21. States keep
float32, as the chip's keep 24 bits: rounding those is what a Legendre memory does not survive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto

from converters.onnx.graph import Graph
from converters.onnx.quantized.arithmetic import Messages, send_changes
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.parts import Connection, Format

INT8_BITS, INT16_BITS = 8, 16


class Dequantized:
    """Operations on real numbers as nodes of one graph; see :class:`..numbers.Numbers`.

    Parameters
    ----------
    graph : Graph
    activations : mapping of place to {"linear", "relu", "tanh", "hard-tanh"}
        Of the hidden units, such as ``layer0/hidden/message``, in the float network.
    """

    real: int = TensorProto.FLOAT

    def __init__(self, graph: Graph, activations: Mapping[str, str]) -> None:
        self.graph = graph
        self._activations = activations

    def message_type(self, message: Format) -> int:
        """Give int8 where it is wide enough, else int16."""
        return int(TensorProto.INT8 if message.bits <= INT8_BITS else TensorProto.INT16)

    def input_type(self, message: Format) -> int:
        """Give float32, for inputs are real numbers."""
        return int(TensorProto.FLOAT)

    def receive(self, x: str, message: Format) -> Messages:
        """Quantize inputs."""
        return self._quantize("input/message", x, message)

    def changes(self, name: str, sent: Messages, held: str, threshold: int) -> Messages:
        """Give what is held now."""
        kind = self.message_type(sent.format)
        now, _ = send_changes(self.graph, name, sent, held, threshold, kind)
        return Messages(now, sent.format)

    def drive(self, place: str, connection: Connection, sent: Messages, unit: Format) -> str:
        """``sum_k (W_k s_k) x``, s_k the real value of a unit weight of each row."""
        graph, weights = self.graph, self.graph.weights
        scale, zero = self._scale(sent.format)
        drives = []
        for k, integers in enumerate(connection.slices):
            part = f"{place}/slice{k}"
            held = weights.constant(f"{part}/weights", np.ascontiguousarray(integers.T))
            row = (connection.gains[k] * unit.scale / sent.format.scale).astype(np.float32)
            rows = weights.constant(f"{part}/scale", row)
            none = weights.constant(f"{part}/zero", np.zeros(len(row), dtype=np.int8))
            matrix = graph.node("DequantizeLinear", [held, rows, none], f"{part}/matrix", axis=1)
            x = graph.node("DequantizeLinear", [sent.tensor, scale, zero], f"{part}/messages")
            drives.append(graph.node("MatMul", [x, matrix], f"{part}/drive"))
        return graph.total(drives, place)

    def hold(self, name: str, state: str) -> str:
        """Give the state itself."""
        return state

    def total(
        self, place: str, name: str, terms: Sequence[str], bias: np.ndarray | None, to: Format
    ) -> str:
        """Sum of terms and bias; nothing is limited."""
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
        """Quantize f(z), f being the float network's own."""
        activation, value = self._activations[place], f"{place}/value"
        if activation == "hard-tanh":
            limits = [
                self.graph.weights.constant(f"limit/{v:+d}", np.array(v, dtype=np.float32))
                for v in (-1, 1)
            ]
            real = self.graph.node("Clip", [z, *limits], value)
        else:
            op = {"linear": "Identity", "relu": "Relu", "tanh": "Tanh"}[activation]
            real = self.graph.node(op, [z], value)
        return self._quantize(place, real, hidden.message)

    def _quantize(self, place: str, real: str, message: Format) -> Messages:
        scale, zero = self._scale(message)
        tensor = self.graph.node("QuantizeLinear", [real, scale, zero], f"{place}.next")
        return Messages(tensor, message)

    def _scale(self, message: Format) -> tuple[str, str]:
        """Name the constants of a message's scale and of its zero, whose type is the message's."""
        weights = self.graph.weights
        dtype = np.int8 if message.bits <= INT8_BITS else np.int16
        scale = weights.constant(
            f"scale/{message.scale!r}", np.array(message.scale, dtype=np.float32)
        )
        return scale, weights.constant(f"zero/{np.dtype(dtype)}", np.array(0, dtype=dtype))
