"""Readers of functions of single values: activations, dropout, arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from converters.pytorch.layers import filtered
from converters.pytorch.registry import Call, constant, needed, numbers, reads
from converters.pytorch.signals import ONE, LayoutError, Signal, UnreadableError
from lmu_deploy.core.graph.frames import Slice
from lmu_deploy.core.graph.linear import Affine
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add, Multiply


@reads(
    "contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "type", "type_as",
    "cpu", "cuda", "data", "requires_grad", "long", "int",
    modules="Identity",
)  # fmt: skip
def _same(call: Call, x: Signal, *args: Any, **kwargs: Any) -> Signal:
    signal = needed(x)
    if call.tensors[id(x)].is_floating_point() and not call.result.is_floating_point():
        raise UnreadableError("it rounds a signal to whole numbers")
    return signal


@reads(
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    modules="Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout",
)  # fmt: skip
def _dropout(
    call: Call, x: Signal, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Signal:
    if training and p:
        raise UnreadableError("dropout stays active in evaluation mode")
    return x


# Activations


_PLAIN = {"hardsigmoid": "hard-sigmoid", "expit": "sigmoid"}
"""Functions without a parameter that have another name in torch."""


@reads(
    "relu", "relu6", "tanh", "sigmoid", "expit", "hardsigmoid", "silu", "softsign",
    modules="ReLU ReLU6 Tanh Sigmoid Hardsigmoid SiLU Softsign",
    makes=(Activation,),
)  # fmt: skip
def _plain(call: Call, x: Signal, inplace: bool = False) -> Signal:
    return call.one(Activation(_PLAIN.get(call.name, call.name)), x)


@reads("gelu", modules="GELU", makes=(Activation,))
def _gelu(call: Call, x: Signal, approximate: str = "none") -> Signal:
    return call.one(Activation("gelu-tanh" if approximate == "tanh" else "gelu"), x)


@reads("leaky_relu", modules="LeakyReLU", makes=(Activation,))
def _leaky(call: Call, x: Signal, negative_slope: float = 0.01, inplace: bool = False) -> Signal:
    return call.one(Activation("leaky-relu", negative_slope), x)


@reads("prelu", modules="PReLU", makes=(Activation,))
def _prelu(call: Call, x: Signal, weight: Any) -> Signal:
    slopes = numbers(constant(weight, "the slope"))
    if slopes.size != 1:
        raise UnreadableError("it has another slope for every feature")
    return call.one(Activation("leaky-relu", float(slopes.reshape(()))), x)


@reads("elu", "celu", modules="ELU", makes=(Activation,))
def _elu(call: Call, x: Signal, alpha: float = 1.0, inplace: bool = False) -> Signal:
    if call.name == "celu" and alpha != 1.0:
        raise UnreadableError("celu is read with alpha = 1 alone")
    return call.one(Activation("elu", alpha), x)


@reads("selu", modules="SELU", makes=(Activation, Affine))
def _selu(call: Call, x: Signal, inplace: bool = False) -> Signal:
    """Read the function of Klambauer et al. 2017, equation 2."""
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return scaled(call, call.one(Activation("elu", alpha), x), scale, 0.0)


@reads("softplus", modules="Softplus", makes=(Activation,))
def _softplus(call: Call, x: Signal, beta: float = 1.0, threshold: float = 20.0) -> Signal:
    if beta != 1.0:
        raise UnreadableError("softplus is read with beta = 1 alone")
    return call.one(Activation("softplus"), x)


@reads("hardtanh", "clamp", modules="Hardtanh", makes=(Activation,))
def _clamp(
    call: Call,
    x: Signal,
    min: float | None = None,  # noqa: A002 (torch's names)
    max: float | None = None,  # noqa: A002
    inplace: bool = False,
    **kwargs: Any,
) -> Signal:
    default: tuple[Any, Any] = (-1.0, 1.0) if call.name == "hardtanh" else (None, None)
    low = kwargs.get("min_val", default[0] if min is None else min)
    high = kwargs.get("max_val", default[1] if max is None else max)
    names: dict[Any, str] = {(-1.0, 1.0): "hard-tanh", (0.0, 6.0): "relu6", (0.0, None): "relu"}
    try:
        name = names[low, high]
    except (KeyError, TypeError) as error:
        raise UnreadableError(
            f"it clips to {low} and {high}; known are -1 to 1, 0 to 6 and 0 to infinity"
        ) from error
    return call.one(Activation(name), x)


@reads("hardswish", "mish", modules="Hardswish Mish", makes=(Activation, Multiply))
def _gated_by_itself(call: Call, x: Signal, inplace: bool = False) -> Signal:
    if call.name == "hardswish":
        gate = call.one(Activation("hard-sigmoid"), x)
    else:
        gate = call.one(Activation("tanh"), call.one(Activation("softplus"), x))
    return combined(call, Multiply(), x, gate)


@reads("softmax", "log_softmax", modules="Softmax LogSoftmax", makes=(Activation,))
def _softmax(call: Call, x: Signal, dim: int | None = None, *rest: Any, **more: Any) -> Signal:
    if dim is None:
        dim = -1
    signal = call.sketch.features_last(x, dim)
    if call.name == "softmax":
        found = call.one(Activation("softmax"), signal)
    else:
        problem = "a log_softmax before the end has no operator"
        draft = call.sketch.fail(
            problem, [signal.draft], signal.shape, signal.draft.steps, "log_softmax"
        )
        found = replace(signal, draft=draft)
    found.draft.logits = x
    return found


@reads("glu", modules="GLU", makes=(Slice, Activation, Multiply))
def _glu(call: Call, x: Signal, dim: int = -1) -> Signal:
    sketch, signal = call.sketch, call.sketch.features_last(x, dim)
    half = np.arange(signal.shape.features // 2)
    value = sketch.select(signal, dim, half, "value")
    gate = sketch.select(signal, dim, half + len(half), "gate")
    return combined(
        call, Multiply(), value, sketch.framewise(Activation("sigmoid"), gate, "sigmoid")
    )


# Arithmetic


@reads("add", "sub", "rsub", makes=(Add, Affine))
def _add(call: Call, x: Any, other: Any, alpha: float = 1.0) -> Signal:
    if call.name == "rsub":
        x, other = other, x
    sign = -alpha if call.name != "add" else alpha
    if not isinstance(x, Signal):
        return with_constant(call, other, lambda c: (np.full_like(c, sign), c), x)
    if not isinstance(other, Signal):
        return with_constant(call, x, lambda c: (np.ones_like(c), sign * c), other)
    if sign != 1.0:
        other = scaled(call, other, sign, 0.0)
    return combined(call, Add(), x, other)


@reads("mul", makes=(Multiply, Affine))
def _multiply(call: Call, x: Any, other: Any) -> Signal:
    if isinstance(x, Signal) and isinstance(other, Signal):
        return combined(call, Multiply(), x, other)
    signal, factor = (x, other) if isinstance(x, Signal) else (other, x)
    if signal.spectrum is not None:
        return filtered(call, signal, factor)
    return with_constant(call, signal, lambda c: (c, np.zeros_like(c)), factor)


@reads("neg", makes=(Affine,))
def _negative(call: Call, x: Signal) -> Signal:
    return scaled(call, x, -1.0, 0.0)


@reads("square", "pow", makes=(Multiply,))
def _power(call: Call, x: Any, exponent: Any = 2) -> Signal:
    if not isinstance(x, Signal) or exponent not in (1, 2, 3, 4):
        raise UnreadableError("only powers of a signal from 1 to 4 have an operator")
    found = x
    for _ in range(int(exponent) - 1):
        found = combined(call, Multiply(), found, x)
    return found


def scaled(call: Call, signal: Signal, scale: float, offset: float) -> Signal:
    """Return a signal times a number plus a number."""
    whole = partial(np.full, signal.shape.features)
    return call.one(Affine(whole(float(scale)), whole(float(offset))), signal)


def combined(call: Call, operator: Operator, first: Signal, second: Signal) -> Signal:
    """Return an operator on two signals whose axes torch would broadcast."""
    sketch = call.sketch
    first, second = sketch.settled(first), sketch.settled(second)
    if first.step != second.step:
        first, second = sketch.whole(first), sketch.whole(second)
    if first.axes != second.axes or first.shape.frame != second.shape.frame:
        first, second = _aligned(call, first, second)
    if first.shape.sequence != second.shape.sequence:
        raise UnreadableError("it combines a sequence with one frame for all its steps")
    return replace(
        first, draft=sketch.add(operator, first.draft, second.draft, suffix=call.suffix), parts=()
    )


def _aligned(call: Call, first: Signal, second: Signal) -> tuple[Signal, Signal]:
    """Return two signals with the same axes and frames."""
    rank = max(len(first.axes), len(second.axes))
    pair = [
        each.with_axes([ONE] * (rank - len(each.axes)) + [*each.axes]) for each in (first, second)
    ]
    places = []
    for place in range(rank):
        labels = [each.axes[place] for each in pair]
        sizes = [each.size(each.axes[place], call.sketch.batch) for each in pair]
        if sizes[0] != sizes[1]:
            small = int(sizes[0] > sizes[1])
            if not isinstance(labels[1 - small], int):
                raise UnreadableError("it combines a sequence with one frame for all its steps")
            pair[small] = call.sketch.widened(pair[small], place, max(sizes))
        labels = [each.axes[place] for each in pair]
        if any(isinstance(label, int) for label in labels):
            places.append(place)
        elif labels[0] != labels[1]:
            raise LayoutError("it combines an axis of steps with one of another kind")
    one, two = (call.sketch.framed(each, places) for each in pair)
    return one, two


def with_constant(
    call: Call,
    signal: Signal,
    affine: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    value: Any,
) -> Signal:
    """Return scale times a signal plus offset, both of which follow from a constant tensor.

    Raises
    ------
    UnreadableError
        When the constant differs from step to step or from sample to sample.
    """
    array = np.asarray(numbers(value, narrow=False), np.float64)
    signal = call.sketch.settled(signal)
    if array.ndim > len(signal.axes):
        extra = array.ndim - len(signal.axes)
        signal = signal.with_axes([ONE] * extra + [*signal.axes])
    array = array.reshape((1,) * (len(signal.axes) - array.ndim) + array.shape)
    for place, size in enumerate(array.shape):
        axis = signal.axes[place]
        if size == 1:
            continue
        if not isinstance(axis, int) and axis != ONE:
            array = np.take(array, [0], place) if _same_along(array, place) else array
            if array.shape[place] > 1:
                raise LayoutError("it takes numbers that differ from step to step or by sample")
        elif signal.size(axis, call.sketch.batch) != size:
            signal = call.sketch.widened(signal, place, size)
    frame = signal.shape.frame
    shown = [place for place, axis in enumerate(signal.axes) if isinstance(axis, int)]
    array = array.reshape([array.shape[place] for place in shown])
    order = sorted(range(len(shown)), key=lambda k: signal.axes[shown[k]])
    axes = [signal.axes[shown[k]] for k in order]
    array = array.transpose(order)
    sizes = [array.shape[axes.index(k)] if k in axes else 1 for k in range(len(frame))]
    array = np.broadcast_to(array.reshape(sizes), frame)
    rows = array.reshape(-1, frame[-1])
    if (rows == rows[0]).all():
        scale, offset = affine(rows[0])
        if (scale == 1).all() and not offset.any():
            return signal
        return call.one(Affine(scale, offset), signal)
    return call.flat(signal, Affine(*affine(array.reshape(-1))))


def _same_along(array: np.ndarray, axis: int) -> bool:
    return bool((array == np.take(array, [0], axis)).all())
