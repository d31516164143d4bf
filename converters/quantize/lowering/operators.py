"""One function for each operator: from the forms of its inputs to its own form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from converters.quantize.calibration import Signal, clip_range
from converters.quantize.connections import Source
from converters.quantize.formats import FAINTEST, bias_limit
from converters.quantize.lowering.cells import linear_memory, lmu, recurrent
from converters.quantize.lowering.forms import Form, added, concatenated, synapses_behind, too_large
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import FramePool, Permute, Reshape, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Delay, Pool, Reduce, Reverse
from lmu_deploy.core.integer.parts import Edge, Format, Place, largest
from lmu_deploy.core.integer.populations import GATE, Product
from lmu_deploy.core.integer.reductions import Maximum, Reduction

if TYPE_CHECKING:
    from converters.quantize.lowering.lower import Lowering

Lowered = Callable[["Lowering", Node, list[Form]], Form]


def host_nodes(network: Network) -> set[str]:
    """Return the nodes that have no integer form, or that compute a sequence in reverse."""
    found: set[str] = set()
    backward: dict[str, bool] = {INPUT: False}
    for node in network.nodes:
        reversed_input = any(backward[name] for name in node.inputs)
        turns = isinstance(node.operator, Reverse)
        backward[node.name] = reversed_input != turns
        if reversed_input or turns or not on_chip(node.operator):
            found.add(node.name)
    return found


def on_chip(operator: Operator) -> bool:
    """Return whether an operator has an integer form."""
    if any(activation.name == "softmax" for activation in _activations(operator)):
        return False
    if isinstance(operator, Pool) and (operator.left or operator.right):
        return operator.kind == "average" and operator.count_padding
    return type(operator) in LOWERED


def _activations(operator: Operator) -> Iterator[Activation]:
    """Yield the activations of an operator and of the operators inside it."""
    if isinstance(operator, Activation):
        yield operator
    for each in fields(operator):  # type: ignore[arg-type]
        if isinstance(inner := getattr(operator, each.name), Operator):
            yield from _activations(inner)


def linear_map(operator: Operator, frame: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the matrix (n_out, n_in) and the constant of an operator that is linear per frame."""
    if isinstance(operator, Dense) and len(frame) == 1:
        bias = None if operator.bias is None else operator.bias.astype(np.float64)
        return operator.kernel.T.astype(np.float64), bias
    size = int(np.prod(frame))
    if too_large(size, size):
        raise InputError(
            f"quantize: frames of {size} values are too large for a chip's connections; use "
            "smaller frames."
        )
    zero = operator.forward(np.zeros((1, 1, *frame)))[0, 0].ravel()
    columns = operator.forward(np.eye(size).reshape(1, size, *frame))[0].reshape(size, -1) - zero
    return columns.T, zero if zero.any() else None


def _linear(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    """Lower a node that is linear in every frame."""
    matrix, bias = linear_map(node.operator, lowering.network.shapes[node.inputs[0]].frame)
    return lowering.folded(node, 0, matrix).through(matrix, bias)


def _embedding(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    assert isinstance(node.operator, Embedding)
    return forms[0].through(node.operator.table.T.astype(np.float64))


def _add(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    return added(forms)


def _concat(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    frames = [lowering.network.shapes[name].frame for name in node.inputs]
    starts = np.cumsum([0, *(form.size for form in forms)])
    numbers = [
        start + np.arange(form.size).reshape(frame)
        for start, form, frame in zip(starts[:-1], forms, frames, strict=True)
    ]
    order = np.concatenate(numbers, axis=-1).ravel()
    together = concatenated(forms)
    if np.array_equal(order, np.arange(len(order))):
        return together
    return together.through(np.eye(len(order))[order])


def _activation(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    assert isinstance(node.operator, Activation)
    if node.operator.name == "linear":
        return forms[0]
    bits = lowering.settings.hidden_bits, "--hidden-bits"
    signal = lowering.signal(node.name)
    inputs = [("input", forms[0])]
    return Form.of(lowering.pointwise(Place(node.name), inputs, node.operator, signal, bits))


def _multiply(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    product, signal = forms[0], lowering.signal(node.inputs[0])
    for number, form in enumerate(forms[1:], start=1):
        last = number == len(forms) - 1
        place = Place(node.name, "" if last else f"factor_{number}")
        factors = signal, lowering.signal(node.inputs[number])
        signal = lowering.signal(node.name) if last else factors[0].times(factors[1])
        product = Form.of(_product(lowering, place, (product, form), factors, signal))
    return product


def _product(
    lowering: Lowering,
    place: Place,
    forms: tuple[Form, Form],
    given: tuple[Signal, Signal],
    signal: Signal,
) -> Source:
    """Add the product of two forms, whose signals are `given`; `signal` is that of the product."""
    settings = lowering.settings
    bits = settings.message_bits
    biases = [np.zeros(form.size) if form.bias is None else form.bias for form in forms]
    # The least units with which the factors, what enters them, and their biases fit.
    units = [
        max(
            margin * max(factor.largest, form.inflow * FAINTEST, 2.0**-30) / largest(width),
            float(np.abs(own).max(initial=0.0)) / bias_limit(24),
        )
        for margin, factor, form, own, width in zip(
            (4.0, 1.25), given, forms, biases, (settings.state_bits, GATE.bits), strict=True
        )
    ]
    second = Format(GATE.bits, units[1])
    clip = clip_range(signal, settings.calibration_method, bits)
    message = Format(bits, max(clip / largest(bits), units[0] * units[1]))
    shift = int(np.clip(np.floor(np.log2(message.scale / (units[0] * units[1]))), 0, 31))
    first = Format(settings.state_bits, message.scale * 2.0**-shift / second.scale)
    bias = lowering.constants(place, (biases[0], first), (biases[1], Format(24, second.scale)))
    lowering.assembly.populations.append(
        Product(place, forms[0].size, first, second, message, shift, None, None, bias)
    )
    lowering.connect(place, [("first", forms[0])], first)
    lowering.connect(place, [("second", forms[1])], second, row=forms[0].size)
    return Source(signal, message, "--message-bits", None, place)


def _convolution(
    lowering: Lowering,
    node: Node,
    taps: dict[int, np.ndarray],
    bias: np.ndarray | None,
    stride: int,
    ends: tuple[int, int],
) -> Form:
    """Lower a node that is linear in several frames; `ends` are the frames added at both."""
    name = node.inputs[0]
    form = lowering.forms[name]
    whole = np.concatenate(list(taps.values()))
    costs = sum(synapses_behind(whole, term) * len(term.offsets) for term in form.terms)
    dear = form.single is None and costs > form.synapses + np.count_nonzero(whole)
    if dear or not form.foldable(bool(ends[0] or ends[1])):
        lowering.materialized(name)
    return lowering.forms[name].convolved(taps, bias, stride, ends[1])


def _conv1d(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    operator = node.operator
    assert isinstance(operator, Conv1d)
    kernel = operator.kernel.astype(np.float64)
    groups, (_, per_group, n_out) = operator.groups, kernel.shape
    wide = np.zeros((len(kernel), n_out, per_group * groups))
    each = n_out // groups
    for g in range(groups):
        rows, columns = slice(g * each, (g + 1) * each), slice(g * per_group, (g + 1) * per_group)
        wide[:, rows, columns] = kernel[:, :, rows].swapaxes(1, 2)
    taps = {k * operator.dilation - operator.left: tap for k, tap in enumerate(wide)}
    bias = None if operator.bias is None else operator.bias.astype(np.float64)
    return _convolution(
        lowering, node, taps, bias, operator.stride, (operator.left, operator.right)
    )


def _delay(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    assert isinstance(node.operator, Delay)
    taps = {-node.operator.steps: np.eye(forms[0].size)}
    return _convolution(lowering, node, taps, None, 1, (node.operator.steps, -node.operator.steps))


def _pool(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    pool = node.operator
    assert isinstance(pool, Pool)
    offsets = range(-pool.left, pool.width - pool.left)
    if pool.kind == "average":
        taps = {offset: np.eye(forms[0].size) / pool.width for offset in offsets}
        return _convolution(lowering, node, taps, None, pool.stride, (pool.left, pool.right))
    source = _without_basis(lowering, node)
    choices = [(np.eye(source.features, dtype=np.int8), (n,), pool.stride) for n in offsets]
    return _maximum(lowering, node, source, choices)


def _without_basis(lowering: Lowering, node: Node) -> Source:
    """Return a node's input as one population whose messages are the values themselves."""
    source = lowering.alone(node)
    if source.basis is None:
        return source
    name = node.inputs[0]
    bits = lowering.settings.message_bits, "--message-bits"
    linear, inputs = Activation("linear"), [("input", Form.of(source))]
    source = lowering.pointwise(Place(name, "values"), inputs, linear, lowering.signal(name), bits)
    lowering.forms[name] = Form.of(source)
    return source


def _maximum(
    lowering: Lowering,
    node: Node,
    source: Source,
    choices: Sequence[tuple[np.ndarray, tuple[int, ...], int]],
) -> Form:
    """Add the greatest of several choices, each of which is a message of the source."""
    place, size = Place(node.name), len(choices[0][0])
    lowering.assembly.populations.append(Maximum(place, size, source.format, len(choices)))
    for number, (weights, offsets, stride) in enumerate(choices):
        connection = lowering.exact(weights)
        edge = Edge(
            source.place,
            place,
            f"choice_{number}",
            connection,
            offsets,
            stride,
            row=number * size,
        )
        lowering.assembly.edges.append(edge)
    signal = lowering.signal(node.name)
    return Form.of(Source(signal, source.format, source.option, None, place))


def _frame_pool(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    pool = node.operator
    assert isinstance(pool, FramePool)
    if pool.kind == "average":
        return _linear(lowering, node, forms)
    source = _without_basis(lowering, node)
    frame = lowering.network.shapes[node.inputs[0]].frame
    numbers = np.arange(source.features).reshape(frame)
    windows: np.ndarray = numbers
    for axis, (width, stride) in enumerate(zip(pool.widths, pool.strides, strict=True)):
        every = np.lib.stride_tricks.sliding_window_view(windows, width, axis=axis)
        windows = every[(slice(None),) * axis + (slice(None, None, stride),)]
    picked = windows.reshape(-1, int(np.prod(pool.widths)))
    weights = np.eye(source.features, dtype=np.int8)
    choices = [(weights[column], (0,), 1) for column in picked.T]
    return _maximum(lowering, node, source, choices)


SUM_MARGIN = 4.0
"""Range of a state that computes a mean, relative to the largest calibrated sum."""


def _reduce(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    assert isinstance(node.operator, Reduce)
    kind, form = node.operator.kind, forms[0]
    if kind == "last" and lowering.at_every_step:
        return form
    settings, signal = lowering.settings, lowering.signal(node.name)
    bits = settings.message_bits
    clip = clip_range(signal, "max", bits)
    bias = 0.0 if form.bias is None else float(np.abs(form.bias).max(initial=0.0))
    unit = max(clip / largest(bits), bias / bias_limit(settings.state_bits))
    if kind == "mean":  # its sum has to fit the state, with room for partial and unseen sums
        frames = lowering.signal(node.inputs[0]).sequences.shape[1]
        unit = max(unit, SUM_MARGIN * frames * clip / largest(settings.state_bits))
    message, state = Format(bits, unit), Format(settings.state_bits, unit)
    place = Place(node.name)
    own = None
    if form.bias is not None:
        own = lowering.constants(place, (form.bias, Format(24, unit)))
    population = Reduction(place, form.size, state, message, kind, own)
    lowering.assembly.populations.append(population)
    lowering.connect(place, [("input", form)], state)
    return Form.of(Source(signal, message, "--message-bits", None, place))


LOWERED: dict[type[Operator], Lowered] = {
    Dense: _linear,
    Affine: _linear,
    Conv2d: _linear,
    Reshape: _linear,
    Permute: _linear,
    Slice: _linear,
    FramePool: _frame_pool,
    Embedding: _embedding,
    Conv1d: _conv1d,
    Delay: _delay,
    Pool: _pool,
    Activation: _activation,
    Add: _add,
    Concat: _concat,
    Multiply: _multiply,
    Reduce: _reduce,
    LinearMemory: linear_memory,
    LMU: lmu,
    SimpleRNN: recurrent,
    LSTM: recurrent,
    GRU: recurrent,
}
"""Lowering of each operator to integers; an operator without one runs on the host."""
