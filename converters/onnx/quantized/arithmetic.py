"""What a graph of a quantized network asks of its arithmetic; there are two.

`integers.py` has integers alone, exactly as integer-semantics.md says; `dequantized.py` has
real numbers with QuantizeLinear and DequantizeLinear around the same weights and messages. The
equations of a step (`cell.py`) and the graphs around it (`sequence.py`, `step.py`) are common.

Messages that are sent as changes: what a connection with a threshold holds of its source.

integer-semantics.md, "Sigma-delta messages". The same for integers and for quantized real
numbers, whose messages are integers too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import TensorProto

from converters.onnx.graph import Graph
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory
from lmu_deploy.core.integer.parts import Connection, Format


@dataclass(frozen=True)
class Messages:
    """A tensor of integer messages, (..., size), and their format."""

    tensor: str
    format: Format


Sent = Mapping[int, Messages]
"""What the connections of a population hold of its messages, by threshold; 0 is the messages."""


class Numbers(Protocol):
    """Nodes of one graph that compute the parts of a step.

    `place` names a part as docs/reference/integer-semantics.md does; tensors are named after it.

    Attributes
    ----------
    graph : Graph
        Where the nodes go.
    real : int
        ONNX element type of states and readouts.
    """

    graph: Graph
    real: int

    def message_type(self, message: Format) -> int:
        """ONNX element type of messages of a format."""

    def input_type(self, message: Format) -> int:
        """ONNX element type of the graph's input."""

    def receive(self, x: str, message: Format) -> Messages:
        """Take the graph's input as messages."""

    def changes(self, name: str, sent: Messages, held: str, threshold: int) -> Messages:
        """Give what connections of a threshold hold of messages, `held` being what they held.

        `name` is that of what is held, such as ``layer0/memory/held_4``.
        """

    def drive(self, place: str, connection: Connection, sent: Messages, unit: Format) -> str:
        """Give what a connection drives its target by; `unit` is the target's format."""

    def hold(self, name: str, state: str) -> str:
        """Give a state as a term for `total`."""

    def total(
        self, place: str, name: str, terms: Sequence[str], bias: np.ndarray | None, to: Format
    ) -> str:
        """Give the sum of states, drives and a bias, of format `to`, called `name`."""

    def send(self, place: str, state: str, memory: IntegerMemory) -> Messages:
        """Give the messages of a memory with states `state`, called ``<place>.next``."""

    def activate(self, place: str, z: str, hidden: IntegerHidden) -> Messages:
        """Give the messages of hidden units driven by `z`, called ``<place>.next``."""


_INT32 = 2**31 - 1


def held_name(message: str, threshold: int) -> str:
    """Name what is held of a message, such as ``memory/held_4`` of ``memory/message``."""
    return f"{message.rpartition('/')[0]}/held_{threshold}"


def send_changes(
    graph: Graph, name: str, messages: Messages, held: str, threshold: int, element: int
) -> tuple[str, str]:
    """Add the nodes that hold a message until it has changed enough.

    Parameters
    ----------
    graph : Graph
    name : str
        Of what is held, such as ``layer0/memory/held_4``.
    messages : Messages
        Of this step, (batch, size).
    held : str
        What was held after the step before.
    threshold : int
        1 or more.
    element : int
        ONNX type of the messages.

    Returns
    -------
    held : str
        What is held now, called ``<name>.next``, of the type of the messages.
    sent : str
        Which of them were sent; bool.
    """
    if threshold == 1:
        same = graph.node("Equal", [messages.tensor, held], f"{name}/same")
        sent = graph.node("Not", [same], f"{name}/sent")
        return graph.node("Identity", [messages.tensor], f"{name}.next"), sent
    wide = TensorProto.INT32 if 2 * messages.format.limit <= _INT32 else TensorProto.INT64
    now, before = messages.tensor, held
    if element != wide:
        now = graph.node("Cast", [now], f"{name}/now", to=wide)
        before = graph.node("Cast", [before], f"{name}/before", to=wide)
    dtype = np.int32 if wide == TensorProto.INT32 else np.int64
    up, down = (
        graph.weights.constant(f"threshold/{dtype.__name__}/{v}", np.array(v, dtype=dtype))
        for v in (threshold - 1, 1 - threshold)
    )
    change = graph.node("Sub", [now, before], f"{name}/change")
    above = graph.node("Greater", [change, up], f"{name}/above")
    below = graph.node("Less", [change, down], f"{name}/below")
    sent = graph.node("Or", [above, below], f"{name}/sent")
    if element == wide:
        return graph.node("Where", [sent, now, before], f"{name}.next"), sent
    kept = graph.node("Where", [sent, now, before], f"{name}/kept")
    return graph.node("Cast", [kept], f"{name}.next", to=element), sent
