"""Messages that are sent as changes: what a connection with a threshold holds of its source.

docs/integer-semantics.md, "Sigma-delta messages". The same for integers and for quantised real
numbers, whose messages are integers too.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from converters.onnx.graph import Graph
from converters.onnx.quantised.numbers import Messages

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
