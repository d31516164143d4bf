"""Convert an IntegerNetwork to each of its ONNX forms.

Models of one step have the states as inputs and outputs: start with states of zero, and pass each
output ``layer0/memory/state.next`` as the input ``layer0/memory/state`` of the next step.
"""

from __future__ import annotations

import onnx
from lmu_deploy.core.integer.layers import SeriesMemory

from converters.onnx.graph import OPSET, Graph, Weights
from converters.onnx.quantized import cell
from converters.onnx.quantized.arithmetic import Messages, held_name
from converters.onnx.quantized.dequantized import INT8_BITS, INT16_BITS
from converters.onnx.quantized.integers import Tally
from converters.onnx.quantized.kinds import OPSET_OF_INT16, DequantizedKind, IntegerKind, Kind
from converters.onnx.quantized.sequence import sequence_model
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import populations
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import LMULayer, LMUNetwork


def step_model(network: IntegerNetwork, kind: Kind) -> onnx.ModelProto:
    """Build a model of one step in one kind of arithmetic."""
    graph = Graph(f"lmu_{kind.form}_step", Weights())
    numbers = kind.numbers(graph)
    x = graph.input("input", ["batch", network.n_in], numbers.input_type(network.input))
    messages = numbers.receive(x, network.input)
    sent = {0: messages}
    following = {}
    for threshold in cell.held_thresholds(network)["input"]:
        name = held_name(cell.INPUT, threshold)
        following[name] = network.n_in, numbers.message_type(network.input)
        held = graph.input(name, ["batch", network.n_in], following[name][1])
        sent[threshold] = numbers.changes(name, messages, held, threshold)
    for each in cell.cells(network):
        before = {}
        for name, size in each.sizes.items():
            element = each.element(numbers, name)
            before[name] = graph.input(f"{each.place}/{name}", ["batch", size], element)
            following[f"{each.place}/{name}"] = size, element
        after = each.advance(numbers, sent, before)
        sent = {t: Messages(after[name], each.formats[name]) for t, name in each.sent_on.items()}
    last = sent[network.chip_readout.connection.threshold]
    graph.output(
        cell.read_out(numbers, network, last, "output"), ["batch", network.n_out], numbers.real
    )
    for name, (size, element) in following.items():
        graph.output(f"{name}.next", ["batch", size], element)
    return kind.model(graph, network, "step")


def to_onnx_integer(
    network: IntegerNetwork, *, record: bool = False, stateful: bool = False, tally: bool = False
) -> onnx.ModelProto:
    """Convert a network to a model of sequences with only integer operators.

    In ONNX Runtime every state is bit-identical to the specification
    (docs/reference/integer-semantics.md).

    Parameters
    ----------
    network : IntegerNetwork
    record : bool
        Add outputs ``m``, ``h`` and ``y``, (batch, time, size): states, hidden messages and
        readouts of every step, layer after layer. ``h`` is missing if there are no hidden units.
    stateful : bool
        Take the initial states as inputs instead of zeros, so that a long stream can be run in
        chunks.
    tally : bool
        Add the counts of :class:`converters.onnx.quantized.integers.Tally` as outputs.

    Returns
    -------
    model : onnx.ModelProto
        Input ``input``, (batch, time, n_in): the input *messages*, ``clip(rint(real / scale))``
        with the ``formats`` of the metadata. Outputs: ``output``,
        (batch, n_out), or (batch, time, n_out) if the network returns sequences, to be multiplied
        by the scale of ``output``; then the states after the last step, named
        ``layer0/memory/state.next`` and so on, (batch, size). All int32.

    Raises
    ------
    InputError
        When a part of the network is on the host.
    """
    _refuse_host_layers(network, "onnx-int")
    kind = IntegerKind(Tally(network) if tally else None)
    return sequence_model(network, kind, record=record, stateful=stateful)


def to_onnx_integer_step(network: IntegerNetwork) -> onnx.ModelProto:
    """Convert a network to a model of one step with only integer operators.

    Returns
    -------
    model : onnx.ModelProto
        Inputs: ``input``, (batch, n_in), messages as for :func:`to_onnx_integer`, and each state,
        (batch, size), such as ``layer0/memory/state``. Outputs: ``output``, (batch, n_out), and
        each state after the step, named with the suffix ``.next``. All int32.

    Raises
    ------
    InputError
        When a part of the network is on the host.
    """
    _refuse_host_layers(network, "onnx-int-step")
    return step_model(network, IntegerKind())


def to_onnx_qdq(network: IntegerNetwork, *, record: bool = False) -> onnx.ModelProto:
    """Convert a network to real numbers with QuantizeLinear and DequantizeLinear for int8 runtimes.

    Weights and scales are those of `network`, activations those of its float network. With messages
    of at most 8 bits, int8 runtimes can compute in int8; wider ones, which are the default of
    `quantize`, are int16 and need opset 21.

    Parameters
    ----------
    network : IntegerNetwork
    record : bool
        Add outputs ``m``, ``h`` and ``y`` of every step. ``m`` is in real numbers, ``h`` in
        quantized ones, so int8 or int16.

    Returns
    -------
    model : onnx.ModelProto
        Input ``input``, (batch, time, n_in), real numbers. Outputs: ``output``, (batch, n_out), or
        (batch, time, n_out) if the network returns sequences; then the states after the last step.

    Raises
    ------
    InputError
        When a part is on the host, the file does not have the float network, a message is wider
        than 16 bits, or a memory is a series, which is defined in integers only.
    """
    _refuse_host_layers(network, "onnx-qdq")
    if network.source is None:
        raise InputError(
            "onnx-qdq needs the float network from which the integers were made, and this file "
            "does not have it; quantize it again."
        )
    for number, layer in network.on_chip:
        if isinstance(layer.memory, SeriesMemory):
            raise InputError(
                f"layer {number} has a memory of realization {layer.memory.realization}, whose "
                "substeps cannot be computed in real numbers; quantize with --realization "
                "dense-incremental."
            )
    bits = {name: population.message.bits for name, population in populations(network).items()}
    widest = max(bits, key=lambda name: bits[name])
    if bits[widest] > INT16_BITS:
        raise InputError(
            f"{widest} has messages of {bits[widest]} bits, and onnx-qdq can have {INT16_BITS}; "
            "quantize with narrower messages."
        )
    opset = OPSET if bits[widest] <= INT8_BITS else OPSET_OF_INT16
    kind = DequantizedKind(_activations(network.source), opset)
    return sequence_model(network, kind, record=record, stateful=False)


def _refuse_host_layers(network: IntegerNetwork, form: str) -> None:
    """Raise InputError when a part of the network is on the host, in float64."""
    if numbers := [str(number) for number, _ in network.on_host]:
        raise InputError(
            f"{form} has only integers, and LSTM layers {', '.join(numbers)} stay on the host; "
            "export the float network with --to onnx, or run this one on target onnxruntime, which "
            "makes a graph of each part on the chip."
        )


def _activations(source: LMUNetwork) -> dict[str, str]:
    """Return the activations of the hidden units by the place of their messages."""
    return {
        f"layer{number}/hidden/message": layer.hidden.activation
        for number, layer in enumerate(source.layers)
        if isinstance(layer, LMULayer) and layer.hidden is not None
    }
