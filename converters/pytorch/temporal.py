"""Readers of functions over steps: convolutions, pooling, reductions, Fourier transforms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from converters.pytorch.foreign import memory_of
from converters.pytorch.layers import dense
from converters.pytorch.pointwise import with_constant
from converters.pytorch.registry import Call, constant, numbers, reads
from converters.pytorch.signals import BATCH, ONE, STEPS, LayoutError, Signal, UnreadableError
from lmu_deploy.core.graph.frames import FramePool, Reshape
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.time import Pool, Reduce, RunningMean
from lmu_deploy.core.network import Memory

_MEMORY_TAPS = 8
"""Steps of a convolution from which on it may be the impulse response of a memory."""


def _pair(value: Any, number: int = 2) -> tuple[int, ...]:
    return (
        tuple(value) * (number // len(value))
        if isinstance(value, list | tuple)
        else ((value,) * number)
    )


# Convolutions


@reads("conv1d", modules="Conv1d", makes=(Conv1d, Dense, Conv2d, LinearMemory))
def _conv1d(
    call: Call,
    x: Signal,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Signal:
    taps = numbers(constant(weight, "the kernel")).transpose(2, 1, 0)  # (K, n_in / groups, n_out)
    offset = numbers(constant(bias, "the bias"))
    (stride,), (dilation,) = _pair(stride, 1), _pair(dilation, 1)
    left, right = _sides(padding, dilation * (taps.shape[0] - 1))
    signal, reach = x, dilation * (taps.shape[0] - 1) + 1
    if reach == 1 and stride == 1 and groups == 1 and not left + right:
        return dense(call, signal, 1, taps[0], offset)
    if len(signal.axes) != 3 or signal.axes[2] != STEPS:
        if len(signal.axes) == 3 and isinstance(signal.axes[2], int):
            kernel = taps[None]
            pads = (0, 0, left, right)
            conv = Conv2d(kernel, offset, (1, stride), (1, dilation), pads, groups)
            return _within_frames(call, signal, conv)
        raise LayoutError(_no_steps(signal))
    if signal.before < 0 or signal.behind < 0:
        signal = call.sketch.settled(signal)
    before, behind = signal.before, signal.behind
    signal = call.sketch.features_last(replace(signal, before=0, behind=0), 1)
    plain = stride == dilation == 1 and offset is None and taps.shape[1] == 1
    if plain and not behind and left + before == reach - 1 and reach > _MEMORY_TAPS:
        memory = memory_of(taps[::-1, 0].T, call.scopes, call.sketch)
        if memory is not None and groups == 1:
            draft = call.sketch.add(
                LinearMemory(memory, np.ones((1, 1))), signal.draft, suffix="memory"
            )
            return Signal(draft, (BATCH, 0, STEPS), behind=right)
    operator = Conv1d(taps, offset, stride, dilation, groups, left + before, right + behind)
    return call.one(operator, signal)


def _sides(padding: Any, reach: int) -> tuple[int, int]:
    if padding == "same":
        return reach // 2, reach - reach // 2
    (size,) = _pair(0 if padding == "valid" else padding, 1)
    return size, size


def _no_steps(signal: Signal) -> str:
    if STEPS in signal.axes[:2]:
        return "it convolves over features and takes the steps as channels; transpose its input"
    return "it convolves over an axis that is not that of the steps"


def _within_frames(call: Call, signal: Signal, operator: Conv2d) -> Signal:
    """Return a convolution over one axis of the frames: over images of height one."""
    sketch = call.sketch
    signal = sketch.framed(signal, [2, 1])
    long, channels = signal.shape.frame
    draft = sketch.reshaped(signal.draft, Reshape((long, channels), (1, long, channels)))
    draft = sketch.add(operator, draft, suffix=call.suffix)
    assert draft.shape is not None
    _, long, channels = draft.shape.frame
    draft = sketch.reshaped(draft, Reshape((1, long, channels), (long, channels)))
    return replace(signal, draft=draft)


@reads("conv2d", modules="Conv2d", makes=(Conv2d,))
def _conv2d(
    call: Call,
    x: Signal,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Signal:
    kernel = numbers(constant(weight, "the kernel")).transpose(2, 3, 1, 0)
    strides, dilations = _pair(stride), _pair(dilation)
    sizes = [dilations[k] * (kernel.shape[k] - 1) for k in (0, 1)]
    sides = _pair(padding) if not isinstance(padding, str) else (padding, padding)
    pads = [side for k in (0, 1) for side in _sides(sides[k], sizes[k])]
    operator = Conv2d(
        kernel,
        numbers(constant(bias, "the bias")),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        (pads[0], pads[1], pads[2], pads[3]),
        groups,
    )
    return call.one(operator, _image(call, x))


def _image(call: Call, signal: Signal) -> Signal:
    """Return a signal whose frames are images, channels last."""
    if len(signal.axes) != 4 or STEPS in signal.axes:
        raise LayoutError(
            "it takes the steps as a side of an image or as channels; frames that are images must "
            "be (batch * steps, channels, height, width)"
        )
    return call.sketch.framed(signal, [2, 3, 1])


# Pooling


@reads("avg_pool1d", "max_pool1d", modules="AvgPool1d MaxPool1d", makes=(Pool, FramePool))
def _pool1d(
    call: Call,
    x: Signal,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *rest: Any,
    **more: Any,
) -> Signal:
    (width,), (side,) = _pair(kernel_size, 1), _pair(padding, 1)
    (stride,) = _pair(stride, 1) if stride not in (None, [], ()) else (width,)
    kind, counted = _pool_options(call, rest, more)
    axis = x.axes[-1]
    size = x.size(axis, call.sketch.batch)
    if call.result.shape[-1] != (size + 2 * side - width) // stride + 1:
        raise UnreadableError("it rounds the number of windows up (ceil_mode)")
    if axis == STEPS:
        return call.one(Pool(kind, width, stride, side, side, counted), x)
    if not isinstance(axis, int) or side:
        raise UnreadableError("it pools an axis that is neither of steps nor of features")
    places = [k for k, label in enumerate(x.axes) if isinstance(label, int)]
    signal = call.sketch.framed(x, places)
    frame = signal.shape.frame
    draft = call.sketch.reshaped(signal.draft, Reshape(frame, (*frame, 1)))
    ones = (1,) * (len(frame) - 1)
    draft = call.sketch.add(
        FramePool(kind, (*ones, width), (*ones, stride)), draft, suffix=call.suffix
    )
    assert draft.shape is not None
    draft = call.sketch.reshaped(draft, Reshape(draft.shape.frame, draft.shape.frame[:-1]))
    return replace(signal, draft=draft)


def _pool_options(call: Call, rest: tuple[Any, ...], more: dict[str, Any]) -> tuple[str, bool]:
    """Return the kind of pooling and whether an average counts padding."""
    if call.name.startswith("avg"):
        names = ("ceil_mode", "count_include_pad", "divisor_override")
        given = {**dict(zip(names, rest, strict=False)), **more}
        if given.get("divisor_override") is not None:
            raise UnreadableError(
                "it divides by another number than the window's size (divisor_override)"
            )
        return "average", bool(given.get("count_include_pad", True))
    names = ("dilation", "ceil_mode", "return_indices")
    given = {**dict(zip(names, rest, strict=False)), **more}
    if set(_pair(given.get("dilation", 1))) != {1}:
        raise UnreadableError("it takes the maximum of steps that are not adjacent (dilation)")
    return "max", False


@reads("avg_pool2d", "max_pool2d", modules="AvgPool2d MaxPool2d", makes=(FramePool,))
def _pool2d(
    call: Call,
    x: Signal,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *rest: Any,
    **more: Any,
) -> Signal:
    widths = _pair(kernel_size)
    strides = _pair(stride) if stride not in (None, [], ()) else widths
    kind, _ = _pool_options(call, rest, more)
    if any(_pair(padding)):
        raise UnreadableError("it pads the frames that it pools")
    found = call.one(FramePool(kind, widths, strides), _image(call, x))
    if found.shape.frame[:2] != tuple(call.result.shape[-2:]):
        raise UnreadableError("it rounds the number of windows up (ceil_mode)")
    return found


@reads(
    "adaptive_avg_pool1d", "adaptive_max_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
    modules="AdaptiveAvgPool1d AdaptiveMaxPool1d AdaptiveAvgPool2d AdaptiveMaxPool2d",
    makes=(Reduce, FramePool),
)  # fmt: skip
def _adaptive(call: Call, x: Signal, output_size: Any, *rest: Any, **more: Any) -> Signal:
    rank = 1 if call.name.endswith("1d") else 2
    if set(_pair(output_size, rank)) != {1}:
        raise UnreadableError("adaptive pooling is read with an output of size 1 alone")
    kind = "mean" if "avg" in call.name else "max"
    return reduced(call, x, kind, list(range(-rank, 0)), keep=True)


# Reductions


@reads("mean", "sum", "amax", makes=(Reduce, FramePool, Dense))
def _reduce(call: Call, x: Signal, dim: Any = None, keepdim: bool = False, **more: Any) -> Signal:
    return reduced(call, x, {"amax": "max"}.get(call.name, call.name), dim, keepdim)


@reads("max", makes=(Reduce, FramePool))
def _max(call: Call, x: Signal, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Signal):
        raise UnreadableError("the maximum of two signals has no operator")
    return reduced(call, x, "max", dim, keepdim), None


def reduced(call: Call, signal: Signal, kind: str, dim: Any, keep: bool) -> Signal:
    """Return a reduction over steps, over axes of features, or both.

    Raises
    ------
    UnreadableError
        When it is over samples too.
    """
    sketch = call.sketch
    if dim is None:
        raise UnreadableError(f"{call.name} over all axes mixes the samples; name the axes")
    dims = [signal.at(d) for d in (dim if isinstance(dim, list | tuple) else [dim])]
    labels = [signal.axes[d] for d in dims]
    if any(label == BATCH or isinstance(label, tuple) for label in labels):
        raise LayoutError(f"{call.name} mixes the samples")
    signal = sketch.settled(signal)
    places = [d for d in dims if isinstance(signal.axes[d], int)]
    if places:
        signal = _reduced_frames(call, signal, kind, places)
    if STEPS in labels:
        draft = sketch.add(Reduce(kind), signal.draft, suffix=call.suffix)
        signal = replace(signal, draft=draft, parts=())
    axes = [ONE if d in dims else axis for d, axis in enumerate(signal.axes)]
    return signal.with_axes(axes if keep else [a for d, a in enumerate(axes) if d not in dims])


def _reduced_frames(call: Call, signal: Signal, kind: str, places: list[int]) -> Signal:
    """Return frames with some axes reduced to length one."""
    sketch = call.sketch
    frame = signal.shape.frame
    axes = sorted(signal.axes[place] for place in places)
    if kind == "sum" or (len(frame) == 1 and kind == "mean"):
        for place in places:
            signal = sketch.features_last(signal, place)
            size = signal.shape.features
            value = 1.0 if kind == "sum" else 1.0 / size
            signal = call.one(Dense(np.full((size, 1), value)), signal)
        return signal
    name = "average" if kind == "mean" else "max"
    leading = len(frame) - 1 not in axes
    widths = tuple(size if k in axes else 1 for k, size in enumerate(frame))
    draft = signal.draft
    if leading:
        pool = FramePool(name, widths[:-1], widths[:-1])
        return replace(signal, draft=sketch.add(pool, draft, suffix=call.suffix), parts=())
    draft = sketch.reshaped(draft, Reshape(frame, (*frame, 1)))
    draft = sketch.add(FramePool(name, widths, widths), draft, suffix=call.suffix)
    after = tuple(1 if k in axes else size for k, size in enumerate(frame))
    return replace(signal, draft=sketch.reshaped(draft, Reshape((*after, 1), after)), parts=())


@reads("cumsum", makes=(LinearMemory,))
def _cumsum(call: Call, x: Signal, dim: int, dtype: Any = None) -> Signal:
    if x.axes[x.at(dim)] != STEPS:
        raise UnreadableError("a cumulative sum is read over steps alone")
    signal = call.sketch.settled(x)
    if len(signal.shape.frame) > 1:
        raise UnreadableError("a cumulative sum of frames with several axes has no operator")
    channels = signal.shape.features
    memory = Memory(1, channels, float(signal.draft.steps), "trained", np.eye(1), np.ones(1))
    operator = LinearMemory(memory, np.eye(channels, dtype=np.float32))
    return call.one(operator, signal)


@reads("div", "rdiv", makes=(Affine, RunningMean))
def _divide(call: Call, x: Any, other: Any, rounding_mode: Any = None) -> Signal:
    if call.name == "rdiv":
        x, other = other, x
    if rounding_mode is not None or not isinstance(x, Signal) or isinstance(other, Signal):
        raise UnreadableError("only a division of a signal by constants has an operator")
    if (mean := _running_mean(call, x, other)) is not None:
        return mean
    return with_constant(call, x, lambda c: (1.0 / c, np.zeros_like(c)), other)


def _running_mean(call: Call, signal: Signal, divisor: Any) -> Signal | None:
    """Return the mean so far, if a sum so far is divided by the number of the step."""
    operator, array = signal.draft.operator, numbers(divisor)
    if STEPS not in signal.axes or array.ndim > len(signal.axes):
        return None
    if not isinstance(operator, LinearMemory) or operator.memory.order > 1:
        return None
    dim = signal.axes.index(STEPS)
    counts = np.arange(1.0, signal.draft.steps + 1.0)
    array = array.reshape((1,) * (len(signal.axes) - array.ndim) + array.shape)
    if operator.memory.a_bar[0, 0] != 1.0 or array.shape[dim] != array.size:
        return None
    if array.size != counts.size or (array.reshape(-1) != counts).any():
        return None
    draft = call.sketch.add(RunningMean(), signal.draft.inputs[0], suffix="mean")
    return replace(signal, draft=draft)
