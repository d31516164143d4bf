"""What a graph of a quantised network asks of its arithmetic; there are two.

`integers.py` has integers alone, exactly as docs/integer-semantics.md says; `dequantised.py` has
real numbers with QuantizeLinear and DequantizeLinear around the same weights and messages. The
equations of a step (`cell.py`) and the graphs around it (`sequence.py`, `step.py`) are common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from converters.onnx.graph import Graph
from lmu_deploy.integer_network import Connection, Format, IntegerHidden, IntegerMemory


@dataclass(frozen=True)
class Messages:
    """A tensor of integer messages, (..., size), and their format."""

    tensor: str
    format: Format


Sent = Mapping[int, Messages]
"""What the connections of a population hold of its messages, by threshold; 0 is the messages."""


class Numbers(Protocol):
    """Nodes of one graph that compute the parts of a step.

    `place` names a part as docs/integer-semantics.md does; tensors are named after it.

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
