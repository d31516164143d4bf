"""The interface of the arithmetic of a quantized graph, and sigma-delta messages.

There are two implementations of :class:`Numbers`: `integers.py` has only integers, exactly as
docs/reference/integer-semantics.md defines; `dequantized.py` has real numbers with QuantizeLinear
and DequantizeLinear around the same weights and messages. They share the equations of a step
(`cell.py`) and the models around it (`sequence.py`, `export.py`).

:func:`send_changes` implements "Sigma-delta messages" of docs/reference/integer-semantics.md for
both, since the messages of quantized real numbers are integers too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory
from onnx import TensorProto

from converters.onnx.graph import Graph
from lmu_deploy.core.integer.parts import Connection, Format


@dataclass(frozen=True)
class Messages:
    """A tensor of integer messages, (..., size), and their format."""

    tensor: str
    format: Format


Sent = Mapping[int, Messages]
"""Held messages of a population by threshold of its connections; 0 is the messages themselves."""


class Numbers(Protocol):
    """Arithmetic of one graph: adds the nodes that compute the parts of a step.

    `place` names a part as in docs/reference/integer-semantics.md; tensors are named after it.

    Attributes
    ----------
    graph : Graph
        Graph to which nodes are added.
    real : int
        ONNX element type of states and readouts.
    """

    graph: Graph
    real: int

    def message_type(self, message: Format) -> int:
        """Return the ONNX element type of messages of a format."""

    def input_type(self, message: Format) -> int:
        """Return the ONNX element type of the graph's input."""

    def receive(self, x: str, message: Format) -> Messages:
        """Convert the graph's input to messages."""

    def changes(self, name: str, sent: Messages, held: str, threshold: int) -> Messages:
        """Return the held messages of connections with a threshold; `held` are the previous ones.

        `name` is that of the held messages, such as ``layer0/memory/held_4``.
        """

    def drive(self, place: str, connection: Connection, sent: Messages, unit: Format) -> str:
        """Return the drive of a connection; `unit` is the format of its target."""

    def as_term(self, name: str, state: str) -> str:
        """Return a state as a term for `total`."""

    def total(
        self, place: str, name: str, terms: Sequence[str], bias: np.ndarray | None, to: Format
    ) -> str:
        """Return the sum of states, drives and a bias, of format `to`, called `name`."""

    def send(self, place: str, state: str, memory: IntegerMemory) -> Messages:
        """Return the messages of a memory with states `state`, called ``<place>.next``."""

    def activate(self, place: str, z: str, hidden: IntegerHidden) -> Messages:
        """Return the messages of hidden units with drive `z`, called ``<place>.next``."""


_INT32 = 2**31 - 1


def held_name(message: str, threshold: int) -> str:
    """Return the name of a held message: ``memory/held_4`` for ``memory/message``."""
    return f"{message.rpartition('/')[0]}/held_{threshold}"


def send_changes(
    graph: Graph, name: str, messages: Messages, held: str, threshold: int, element: int
) -> tuple[str, str]:
    """Add the nodes that hold a message until it has changed by a threshold.

    Parameters
    ----------
    graph : Graph
    name : str
        Name of the held messages, such as ``layer0/memory/held_4``.
    messages : Messages
        Messages of this step, (batch, size).
    held : str
        Held messages after the previous step.
    threshold : int
        1 or more.
    element : int
        ONNX type of the messages.

    Returns
    -------
    held : str
        Held messages now, called ``<name>.next``, of the type of the messages.
    sent : str
        Which messages were sent; bool.
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
