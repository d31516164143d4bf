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
from lmu_deploy.integer_memory import SeriesMemory, sign_matrix
from lmu_deploy.integer_network import largest


def advance_series(
    numbers: Integers,
    place: str,
    memory: SeriesMemory,
    state: str,
    carried: Mapping[str, Messages],
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
        What ``input``, ``feedback`` and ``hidden`` carry; ``feedback``, M of the step before, is
        needed in any case.
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
    results, kept = _substep(inner, place, memory, drive)
    trips = np.array(memory.substeps, dtype=np.int64)
    outputs = graph.nodes(
        "Loop",
        [graph.weights.constant(f"{at}/substeps", trips), "", state, carried["feedback"].tensor],
        [*results, *(f"{name}/each" for name in kept)],
        body=substep.body(),
    )
    for name, each in zip(kept, outputs[len(results) :], strict=True):
        axis = graph.weights.constant("first_axis", np.array([0], dtype=np.int64))
        total = graph.node("ReduceSum", [each, axis], f"{name}/all_substeps", keepdims=0)
        if name == at:
            numbers.fired[at] = total
        else:
            numbers.limited[name].append(total)
    return outputs[0], Messages(outputs[1], memory.message)


def _substep(
    numbers: Integers, place: str, memory: SeriesMemory, drive: str
) -> tuple[list[str], list[str]]:
    """Write the body of the Loop; give the names of its results, and of what it counts."""
    body, at = numbers.graph, f"{place}/series"
    body.input(f"{at}/number", [], TensorProto.INT64)
    proceed = body.input(f"{at}/proceed", [], TensorProto.BOOL)
    shape = ("batch", memory.size)
    m = body.input(f"{place}/memory/state", shape, TensorProto.INT32)
    v = Messages(body.input(f"{place}/memory/message", shape, TensorProto.INT32), memory.message)
    fired = []
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
    for state in (m, v.tensor):
        body.output(state, shape, TensorProto.INT32)
    for where, counts in numbers.limited.items():
        body.output(body.total(counts, f"{where}/all"), [], TensorProto.INT32)
    if fired:
        body.output(body.total(fired, f"{at}/fired"), shape, TensorProto.INT32)
    results = [f"{place}/memory/state.next", f"{place}/memory/message.next"]
    return results, [*numbers.limited, *([at] if fired else [])]


def _apply(numbers: Integers, name: str, at: str, memory: SeriesMemory, k: int, v: Messages) -> str:
    """``G_k(v) = ms(sat(S v), multiplier_k, shift_k)`` of each channel, int64."""
    graph, place = numbers.graph, f"{at}/recurrent/slice0"
    if memory.channels > 1:
        v = Messages(
            _reshape(graph, v.tensor, memory.channels, memory.order, f"{name}/v"), v.format
        )
    sums = numbers.sums(f"{name}/signs", sign_matrix(memory.order), v)
    sums = numbers.saturate(f"{name}/signs", sums, largest(memory.accumulator_bits), place)
    drive = numbers.multiply_shift(f"{name}/drive", sums, memory.multiplier[k], memory.shift[k])
    if memory.channels > 1:
        drive = _reshape(graph, drive, memory.size, None, f"{name}/drive/flat")
    return drive


def _reshape(graph: Graph, x: str, size: int, rest: int | None, name: str) -> str:
    sizes = np.array([-1, size] if rest is None else [-1, size, rest], dtype=np.int64)
    shape = graph.weights.constant(f"shape/{'x'.join(map(str, sizes[1:]))}", sizes)
    return graph.node("Reshape", [x, shape], name)
