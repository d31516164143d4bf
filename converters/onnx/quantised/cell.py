"""One step of one layer of a quantised network, whatever its arithmetic.

The equations are those of docs/integer-semantics.md. Tensors have the names of its places, such as
``layer0/memory/state``.
"""

from __future__ import annotations

from collections.abc import Mapping

from converters.onnx.quantised.integers import Integers
from converters.onnx.quantised.numbers import Messages, Numbers
from converters.onnx.quantised.series import advance_series
from lmu_deploy.integer_network import (
    Format,
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerNetwork,
    SeriesMemory,
)

STATE, SENT, HIDDEN = "memory/state", "memory/message", "hidden/message"


def recurs(layer: IntegerLayer) -> bool:
    """Whether the hidden messages of the step before are needed."""
    if layer.hidden is None:
        return False
    return layer.hidden.recurrent is not None or layer.memory.hidden is not None


def state_sizes(layer: IntegerLayer) -> dict[str, int]:
    """Name and size of all that a layer carries from step to step."""
    size = layer.memory.size
    return {STATE: size, SENT: size} | ({HIDDEN: layer.n_out} if recurs(layer) else {})


def message_formats(layer: IntegerLayer) -> dict[str, Format]:
    """Give the formats of a layer's messages."""
    formats = {SENT: layer.memory.message}
    return formats if layer.hidden is None else formats | {HIDDEN: layer.hidden.message}


def state_type(numbers: Numbers, layer: IntegerLayer, name: str) -> int:
    """ONNX element type of one of `state_sizes`."""
    formats = message_formats(layer)
    return numbers.message_type(formats[name]) if name in formats else numbers.real


def advance(
    numbers: Numbers, place: str, layer: IntegerLayer, x: Messages, before: Mapping[str, str]
) -> dict[str, str]:
    """Add the nodes of one step and give the layer's state and messages after it.

    Parameters
    ----------
    numbers : Numbers
    place : str
        Of the layer, such as ``layer0``.
    layer : IntegerLayer
    x : Messages
        That reach it, (batch, n_in).
    before : mapping
        The tensors of `state_sizes`, (batch, size), after the step before.
    """
    hidden = layer.hidden
    earlier = {
        name: Messages(before[name], message)
        for name, message in message_formats(layer).items()
        if name in before
    }
    state, sent = _memory(numbers, place, layer.memory, x, before[STATE], earlier)
    after = {STATE: state, SENT: sent.tensor}
    if hidden is not None:
        after[HIDDEN] = _hidden(numbers, f"{place}/hidden", hidden, x, sent, earlier).tensor
    return after


def _memory(
    numbers: Numbers,
    place: str,
    memory: IntegerMemory | SeriesMemory,
    x: Messages,
    state: str,
    earlier: Mapping[str, Messages],
) -> tuple[str, Messages]:
    """Give m and M after the step, of a memory in either form."""
    if isinstance(memory, SeriesMemory):
        assert isinstance(numbers, Integers)  # export.py refuses it in other numbers
        carried = {"input": x, "feedback": earlier[SENT]}
        if HIDDEN in earlier:
            carried["hidden"] = earlier[HIDDEN]
        return advance_series(numbers, place, memory, state, carried)
    at = f"{place}/memory"
    terms = [
        numbers.hold(f"{at}/state", state),
        numbers.drive(f"{at}/recurrent", memory.recurrent, earlier[SENT], memory.state),
        numbers.drive(f"{at}/input", memory.input, x, memory.state),
    ]
    if memory.hidden is not None:
        drive = numbers.drive(f"{at}/hidden", memory.hidden, earlier[HIDDEN], memory.state)
        terms.append(drive)
    state = numbers.total(f"{at}/state", f"{at}/state.next", terms, memory.bias, memory.state)
    return state, numbers.send(f"{at}/message", state, memory)


def _hidden(
    numbers: Numbers,
    place: str,
    hidden: IntegerHidden,
    x: Messages,
    m: Messages,
    earlier: Mapping[str, Messages],
) -> Messages:
    """``H = f(D_memory(M) + D_input(x) + D_recurrent(H before) + bias)``."""
    terms = [numbers.drive(f"{place}/memory", hidden.memory, m, hidden.drive)]
    if hidden.input is not None:
        terms.append(numbers.drive(f"{place}/input", hidden.input, x, hidden.drive))
    if hidden.recurrent is not None:
        h = earlier[HIDDEN]
        terms.append(numbers.drive(f"{place}/recurrent", hidden.recurrent, h, hidden.drive))
    at = f"{place}/drive"
    z = numbers.total(at, at, terms, hidden.bias, hidden.drive)
    return numbers.activate(f"{place}/message", z, hidden)


def sent_on(layer: IntegerLayer) -> tuple[str, Format]:
    """Name and format of the messages that a layer sends on."""
    return (SENT if layer.hidden is None else HIDDEN), layer.output


def read_out(numbers: Numbers, network: IntegerNetwork, sent: Messages, name: str) -> str:
    """``y = D(H) + b`` of messages of any rank, as a tensor called `name`."""
    readout = network.readout
    drive = numbers.drive("readout", readout.connection, sent, readout.output)
    return numbers.total("readout/output", name, [drive], readout.bias, readout.output)
