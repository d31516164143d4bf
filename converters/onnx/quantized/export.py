"""Convert an IntegerNetwork to each of its ONNX forms."""

from __future__ import annotations

import json
from typing import Any

import onnx

from converters.onnx.graph import (
    IR_VERSION,
    OPSET,
    PREFIX,
    Graph,
    Weights,
    describe_memories,
)
from converters.onnx.quantized.dequantized import INT8_BITS, INT16_BITS, RULES, Dequantized
from converters.onnx.quantized.integers import Integers, Tally
from converters.onnx.quantized.sequence import Sequences, write_sequences
from converters.onnx.quantized.stages import Stage, whole_stage
from converters.onnx.quantized.step import write_step
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Node
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.network import LMUNetwork, Memory

FORMAT = 1
OPSET_OF_INT16, IR_VERSION_OF_INT16 = 21, 10
"""Needed by QuantizeLinear to int16; supported by ONNX Runtime 1.18 and later."""


def to_onnx_integer(network: IntegerNetwork, *, record: bool = False) -> onnx.ModelProto:
    """Convert a network to a model of sequences in integer operators.

    In ONNX Runtime every state is bit-identical to the specification
    (docs/reference/integer-semantics.md). Nodes on the host are float64 operators between them; see
    :mod:`converters.onnx.quantized.hosts` for what that means for their last bits.

    Parameters
    ----------
    network : IntegerNetwork
    record : bool
        Add an output for every population, called by its place, (batch, frames, size): its states,
        or its messages where it has none.

    Returns
    -------
    model : onnx.ModelProto
        Input ``input``, (batch, time, n_in): the input *messages*, ``clip(rint(real / scale))``
        with the ``formats`` of the metadata; or tokens, (batch, time, 1); or, where the host reads
        it, the real input in float64. Output: ``output``, (batch, n_out), or (batch, frames, n_out)
        if the network returns sequences, to be multiplied by the scale of ``output``; real numbers
        where the host computes it. Messages, states and outputs in integers are int32.

    Raises
    ------
    InputError
        When ONNX Runtime has no float64 kernel for a node on the host.
    """
    return sequence_stage(network, whole_stage(network), record=record, tally=False)[0]


def sequence_stage(
    network: IntegerNetwork, stage: Stage, *, record: bool, tally: bool
) -> tuple[onnx.ModelProto, Sequences]:
    """Convert a stage of a network; return the names of its inputs and outputs, too.

    Parameters
    ----------
    network : IntegerNetwork
    stage : Stage
    record : bool
        As in :func:`to_onnx_integer`.
    tally : bool
        Add the counts of :class:`converters.onnx.quantized.integers.Tally` as outputs.
    """
    graph = Graph("lmu_integer_sequence", Weights())
    numbers = Integers(graph, by_time=True, counting=tally)
    counts = Tally(network, numbers) if tally else None
    found = write_sequences(network, numbers, stage, record, counts)
    return graph.model(describe(network, "integer-sequence")), found


def to_onnx_integer_step(network: IntegerNetwork) -> onnx.ModelProto:
    """Convert a network to a model of one step in integer operators.

    Nodes on the host are float64 operators between them.

    Returns
    -------
    model : onnx.ModelProto
        Inputs: ``input``, (batch, n_in), messages as for :func:`to_onnx_integer`, and each state,
        (batch, size) or (batch, frames, size), such as ``lmu_1/memory/state``. Outputs: ``output``,
        (batch, n_out), and each state after the step, named with the suffix ``.next``. All int32,
        but for states of nodes on the host, float64. Start with states of zero. A network that does
        not answer at every step, because of a stride or because it reads later steps, has ``ready``
        too, (batch, 1), bool: whether there is an output at this step. A network that answers once
        gives its answer for the steps so far.

    Raises
    ------
    InputError
        When there is no rule of when the network has a frame (see
        :func:`converters.onnx.quantized.step.timings`), or ONNX Runtime has no float64 kernel for a
        node on the host.
    """
    graph = Graph("lmu_integer_step", Weights())
    write_step(network, Integers(graph))
    return graph.model(describe(network, "integer-step"))


def to_onnx_qdq(network: IntegerNetwork, *, record: bool = False) -> onnx.ModelProto:
    """Convert a network to real numbers with QuantizeLinear and DequantizeLinear for int8 runtimes.

    Weights, scales and functions are those of `network`. With messages of at most 8 bits, int8
    runtimes can compute in int8; wider ones, which are the default of `quantize`, are int16 and
    need opset 21.

    Parameters
    ----------
    network : IntegerNetwork
    record : bool
        Add an output for every population, called by its place: states in real numbers, or
        messages, int8 or int16, where it has none.

    Returns
    -------
    model : onnx.ModelProto
        Input ``input``, (batch, time, n_in), real numbers. Output: ``output``, (batch, n_out), or
        (batch, frames, n_out) if the network returns sequences.

    Raises
    ------
    InputError
        When populations have no such form: nodes on the host, series, which are defined in
        integers only, and messages wider than 16 bits. All are named.
    """
    if reasons := [reason for p in network.populations if (reason := _not_real(p))]:
        raise InputError(
            f"onnx-qdq cannot have {'; '.join(reasons)}; export it as onnx-int, or quantize with "
            "another realization and narrower messages."
        )
    bits = [p.message.bits for p in network.populations if p.message is not None and p.sends]
    wide = max(bits) > INT8_BITS
    opset = OPSET_OF_INT16 if wide else OPSET
    graph = Graph("lmu_qdq_sequence", Weights())
    numbers = Dequantized(graph, by_time=True, opset=opset)
    write_sequences(network, numbers, whole_stage(network), record)
    metadata = describe(network, "qdq-sequence")
    return graph.model(metadata, opset, IR_VERSION_OF_INT16 if wide else IR_VERSION)


def _not_real(population: Node) -> str | None:
    """Return what of a population has no form with Q/DQ pairs."""
    if isinstance(population, HostNodes):
        return f"nodes on the host ({_host_nodes(population)})"
    if not isinstance(population, Input) and type(population) not in RULES:
        return f"{population.place}, whose substeps are defined in integers only"
    bits = population.message.bits
    if population.sends and bits > INT16_BITS:
        return f"{population.place}, whose messages have {bits} bits and not {INT16_BITS} or fewer"
    return None


def _host_nodes(host: HostNodes) -> str:
    return ", ".join(f"{node.name}: {node.operator.describe()}" for node in host.network.nodes)


def describe(network: IntegerNetwork, form: str) -> dict[str, str]:
    """Return the metadata of a model of a form, such as ``integer-sequence``.

    Formats are JSON by place and part: an integer n represents ``n * scale``. Lists have an entry
    for each memory.
    """
    values: dict[str, Any] = {
        "format": str(FORMAT),
        "form": form,
        "task": network.task or "",
        "profile": network.profile,
        "return_sequences": json.dumps(network.return_sequences),
        "dt": "1",
        "states": json.dumps([memory.size for memory in network.memories]),
        "realization": json.dumps([memory.realization for memory in network.memories]),
        "formats": json.dumps(_formats(network)),
    }
    if memories := _float_memories(network.source):
        values.update(describe_memories(memories))
    return {PREFIX + key: value for key, value in values.items()}


def _float_memories(source: Network | LMUNetwork | None) -> list[Memory]:
    """Return the memories of the float network, in its order."""
    if source is None:
        return []
    parts = source.nodes if isinstance(source, Network) else source.layers
    operators = [getattr(part, "operator", part) for part in parts]
    found = [getattr(operator, "memory", None) for operator in operators]
    return [memory for memory in found if isinstance(memory, Memory)]


def _formats(network: IntegerNetwork) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for population in network.populations:
        state = getattr(population, "state", None)
        if isinstance(state, Format):
            found[f"{population.place}/state"] = _as_json(state)
        if population.message is not None:
            found[f"{population.place}/message"] = _as_json(population.message)
    answer = network[network.output].message
    found["input"] = _as_json(network.input.message)
    for name in ("gain", "offset"):  # messages are rint((gain * real + offset) / scale)
        if (values := getattr(network.input, name)) is not None:
            found["input"][name] = values.tolist()
    return found if answer is None else {**found, "output": _as_json(answer)}


def _as_json(value: Format) -> dict[str, Any]:
    return {"bits": value.bits, "scale": value.scale}
