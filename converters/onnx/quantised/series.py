"""One step of a memory that is a series (realisation sign-taylor), in integers.

The substeps are a Loop, whose body is one of them; docs/integer-semantics.md has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from converters.onnx.graph import Graph
from converters.onnx.quantised.integers import Integers
from converters.onnx.quantised.numbers import Messages
from converters.onnx.quantised.tally import count_fired
from lmu_deploy.integer_memory import SeriesMemory


def advance_series(
    numbers: Integers,
    place: str,
    memory: SeriesMemory,
    state: str,
    carried: Mapping[str, Messages],
    message: str,
) -> tuple[str, Messages]:
    """Add the nodes of one step and give the memory's state and messages after it.

    Parameters
    ----------
    numbers : Integers
    place : str
        Of the layer, such as ``layer0``.
    memory : SeriesMemory
    state : str
        m after the step before, (batch, states).
    carried : mapping of connection's name to Messages
        What ``input``, ``feedback`` and ``hidden`` carry.
    message : str
        M of the step before, (batch, states).
    """
    graph, at = numbers.graph, f"{place}/series"
    connections = {"input": memory.input, "feedback": memory.feedback, "hidden": memory.hidden}
    drives = [
        numbers.drive(f"{at}/{name}", connection, carried[name], memory.state)
        for name, connection in connections.items()
        if connection is not None
    ]
    drive = numbers.total(f"{at}/drive", f"{at}/drive", drives, memory.bias, memory.state)
    substep = Graph(f"{at}/substep", graph.weights, scope="substep/")
    inner = Integers(substep, numbers.counting)
    places = _substep(inner, place, memory, drive)
    trips = graph.weights.constant(f"{at}/substeps", np.array(memory.substeps, dtype=np.int64))
    first = {"memory/state": state, "memory/message": message}
    if numbers.counting:
        first["series/fired"] = graph.node("Sub", [state, state], f"{at}/none_fired")
    outputs = graph.nodes(
        "Loop",
        [trips, "", *first.values()],
        [f"{place}/{name}.next" for name in first] + [f"{name}/substeps" for name in places],
        body=substep.body(),
    )
    if numbers.counting:
        numbers.fired[at, 0] = outputs[2]
    for name, each in zip(places, outputs[len(first) :], strict=True):
        total = graph.node("ReduceSum", [each], f"{name}/all_substeps", keepdims=0)
        numbers.limited[name].append(total)
    return outputs[0], Messages(outputs[1], memory.message)


def _substep(numbers: Integers, place: str, memory: SeriesMemory, drive: str) -> list[str]:
    """Write the body of the Loop; give the places where it counts saturations."""
    body, at, whole = numbers.graph, f"{place}/series", TensorProto.INT32
    body.input(f"{at}/number", [], TensorProto.INT64)
    proceed = body.input(f"{at}/proceed", [], TensorProto.BOOL)
    shape = ("batch", memory.size)
    m = body.input(f"{place}/memory/state", shape, whole)
    v = Messages(body.input(f"{place}/memory/message", shape, whole), memory.message)
    fired = [body.input(f"{at}/fired", shape, whole)] if numbers.counting else []
    for k in range(memory.terms):
        term = f"{at}/term{k + 1}"
        if numbers.counting:
            fired.append(count_fired(body, f"{term}/sent", v.tensor))
        parts = [_apply(numbers, term, at, memory, k, v)]
        if k == 0:
            parts.append(numbers.hold(f"{at}/drive", drive))
        w = numbers.total(f"{at}/term", term, parts, None, memory.state)
        parts = [numbers.hold(f"{term}/m", m), numbers.hold(f"{term}/w", w)]
        m = numbers.total(f"{place}/memory/state", f"{term}/state", parts, None, memory.state)
        if k < memory.terms - 1:
            shift = int(memory.term_shift[k])
            v = numbers.message(f"{term}/message", w, shift, memory.message, f"{at}/message")
    v = numbers.send(f"{place}/memory/message", m, memory)
    body.output(body.node("Identity", [proceed], f"{at}/proceed.next"), [], TensorProto.BOOL)
    after = [m, v.tensor]
    if fired:
        after.append(body.total(fired, f"{at}/fired.next"))
    for state in after:
        body.output(state, shape, whole)
    for where, counts in numbers.limited.items():
        body.output(body.total(counts, f"{where}/all"), [], whole)
    return list(numbers.limited)


def _apply(numbers: Integers, name: str, at: str, memory: SeriesMemory, k: int, v: Messages) -> str:
    """``G_k(v) = ms(sat(S v), multiplier_k, shift_k)``, int64; S holds a block for each channel."""
    signs, place = memory.recurrent, f"{at}/recurrent/slice0"
    bits = signs.accumulator_bits
    sums = numbers.accumulate(f"{name}/signs", signs.slices[0], v, bits, place)
    gains, shifts = (np.tile(of[k], memory.channels) for of in (memory.multiplier, memory.shift))
    return numbers.multiply_shift(f"{name}/drive", sums, gains, shifts)
