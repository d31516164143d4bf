"""Readers of layers that mix steps or axes of a frame: convolutions, pooling, reshaping.

`same` padding of TensorFlow puts the odd frame of padding behind the sequence; with a stride, how
much there is depends on the number of steps, which then must be fixed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from converters.keras_lmu.build import (
    FLAT,
    FRAME,
    OPEN,
    SEQUENCE,
    Call,
    Reader,
    Signal,
    as_frame,
    as_sequence,
    settle,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import FramePool, Permute, Reshape
from lmu_deploy.core.graph.linear import Conv1d, Conv2d, Dense
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Pool, Reduce
from lmu_deploy.core.validation import check_array

PADDINGS = ("valid", "same", "causal")


def _conv1d(call: Call) -> Signal:
    weights = call.arrays.take("kernel", *_bias(call))
    groups = call.options.integer("groups", default=1)
    return call.activate(_over_time(call, weights["kernel"], weights.get("bias"), groups))


def _depthwise_conv1d(call: Call) -> Signal:
    weights = call.arrays.take("depthwise_kernel", *_bias(call))
    kernel, groups = _depthwise(weights["depthwise_kernel"], 3)
    return call.activate(_over_time(call, kernel, weights.get("bias"), groups))


def _separable_conv1d(call: Call) -> Signal:
    weights = call.arrays.take("depthwise_kernel", "pointwise_kernel", *_bias(call))
    kernel, groups = _depthwise(weights["depthwise_kernel"], 3)
    found = _over_time(call, kernel, None, groups)
    return call.activate(_pointwise(call, found, weights))


def _pointwise(call: Call, signal: Signal, weights: dict[str, np.ndarray]) -> Signal:
    """Return the second half of a separable convolution, which is dense."""
    pointwise = weights["pointwise_kernel"]
    if pointwise.ndim < 2 or math.prod(pointwise.shape[:-2]) != 1:
        raise InputError(f"its pointwise kernel has shape {pointwise.shape}")
    dense = Dense(pointwise.reshape(pointwise.shape[-2:]), weights.get("bias"))
    return call.add(dense, signal, part="pointwise")


def _bias(call: Call) -> tuple[str, ...]:
    return ("bias",) if call.options.flag("use_bias", True) else ()


def _depthwise(kernel: np.ndarray, axes: int) -> tuple[np.ndarray, int]:
    """Return a kernel (..., features, multiplier) as one of as many groups as features."""
    kernel = check_array("depthwise kernel", kernel, (None,) * axes)
    features, multiplier = kernel.shape[-2:]
    return kernel.reshape(*kernel.shape[:-2], 1, features * multiplier), features


def _channels_last(call: Call) -> None:
    if call.options.get("data_format") == "channels_first":
        raise InputError("data_format is channels_first; train with channels_last")


def _over_time(call: Call, kernel: np.ndarray, bias: np.ndarray | None, groups: int) -> Signal:
    """Return a convolution over time, or over the first axis of a frame in TimeDistributed."""
    options = call.options
    _channels_last(call)
    stride = options.integer("strides", default=1)
    dilation = options.integer("dilation_rate", default=1)
    padding = options.choice("padding", PADDINGS, "valid")
    kernel = check_array("convolution kernel", kernel, (None, None, None))
    reach = dilation * (len(kernel) - 1) + 1
    if call.input.time == FRAME:
        return _over_frame(call, kernel, bias, (stride, dilation, groups), padding, reach)
    signal = call.ignores_mask(as_sequence(call.input))
    if signal.frame is not None and len(signal.frame) != 1:
        raise InputError(
            f"it takes a sequence of vectors and is given {signal}; flatten its frames"
        )
    left, right = _padding(padding, signal.steps, reach, stride)
    return call.add(Conv1d(kernel, bias, stride, dilation, groups, left, right), signal)


def _over_frame(
    call: Call,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    settings: tuple[int, int, int],
    padding: str,
    reach: int,
) -> Signal:
    stride, dilation, groups = settings
    signal = call.input
    if len(call.known(signal)) != 2:
        raise InputError(f"it takes a sequence and is given one frame {signal}")
    length, features = call.known(signal)
    left, right = _padding(padding, length, reach, stride)
    wide = call.add(Reshape((length, features), (length, 1, features)), signal, part="wide")
    operator = Conv2d(
        kernel[:, None], bias, (stride, 1), (dilation, 1), (left, right, 0, 0), groups
    )
    found = call.add(operator, wide)
    frame = call.known(found)
    return call.add(Reshape(frame, (frame[0], frame[2])), found, part="narrow")


def _padding(padding: str, length: int | None, reach: int, stride: int) -> tuple[int, int]:
    """Return how many zeros stand before and behind a sequence, as TensorFlow has it."""
    if padding == "causal":
        return reach - 1, 0
    if padding == "valid":
        return 0, 0
    if stride > 1 and length is None:
        raise InputError(
            "padding is same with a stride, which depends on the number of steps; save the model "
            "with a fixed one"
        )
    rest = 0 if length is None else length % stride
    total = max(reach - (rest or stride), 0)
    return total // 2, total - total // 2


def _conv2d(call: Call) -> Signal:
    weights = call.arrays.take("kernel", *_bias(call))
    groups = call.options.integer("groups", default=1)
    return call.activate(_over_pixels(call, weights["kernel"], weights.get("bias"), groups))


def _depthwise_conv2d(call: Call) -> Signal:
    weights = call.arrays.take("depthwise_kernel", *_bias(call))
    kernel, groups = _depthwise(weights["depthwise_kernel"], 4)
    return call.activate(_over_pixels(call, kernel, weights.get("bias"), groups))


def _separable_conv2d(call: Call) -> Signal:
    weights = call.arrays.take("depthwise_kernel", "pointwise_kernel", *_bias(call))
    kernel, groups = _depthwise(weights["depthwise_kernel"], 4)
    return call.activate(_pointwise(call, _over_pixels(call, kernel, None, groups), weights))


def _over_pixels(call: Call, kernel: np.ndarray, bias: np.ndarray | None, groups: int) -> Signal:
    _channels_last(call)
    signal = _image(call)
    kernel = check_array("convolution kernel", kernel, (None,) * 4)
    strides, dilations = call.options.pair("strides"), call.options.pair("dilation_rate")
    kind = call.options.choice("padding", ("valid", "same"), "valid")
    sides = [
        _padding(kind, call.known(signal)[i], dilations[i] * (kernel.shape[i] - 1) + 1, strides[i])
        for i in range(2)
    ]
    (top, bottom), (left, right) = sides
    return call.add(
        Conv2d(kernel, bias, strides, dilations, (top, bottom, left, right), groups), signal
    )


def _image(call: Call) -> Signal:
    """Return the input as one frame of height, width and channels."""
    signal = as_frame(call.input)
    if len(call.known(signal)) != 3:
        raise InputError(f"it takes frames (height, width, channels) and is given {signal}")
    return signal


def _pool1d(kind: str) -> Reader:
    def read(call: Call) -> Signal:
        _channels_last(call)
        options = call.options
        width = options.integer("pool_size", default=2)
        stride = width if options.get("strides") is None else options.integer("strides")
        padding = options.choice("padding", ("valid", "same"), "valid")
        if call.input.time == FRAME:
            _no_padding(padding, call.known(call.input)[:1], (width,), (stride,))
            return call.add(FramePool(kind, (width,), (stride,)), call.input)
        signal = call.ignores_mask(as_sequence(call.input))
        return call.add(
            Pool(kind, width, stride, *_padding(padding, signal.steps, width, stride)), signal
        )

    return Reader(read, (Pool,))


def _pool2d(kind: str) -> Reader:
    def read(call: Call) -> Signal:
        _channels_last(call)
        signal, options = _image(call), call.options
        widths = options.pair("pool_size", 2)
        strides = widths if options.get("strides") is None else options.pair("strides")
        padding = options.choice("padding", ("valid", "same"), "valid")
        _no_padding(padding, call.known(signal)[:2], widths, strides)
        return call.add(FramePool(kind, widths, strides), signal)

    return Reader(read, (FramePool,), limits="without padding")


def _no_padding(
    padding: str, sides: tuple[int, ...], widths: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    """Raise InputError where windows reach over the edge of a frame."""
    if padding == "same" and any(
        sum(_padding(padding, side, width, stride))
        for side, width, stride in zip(sides, widths, strides, strict=True)
    ):
        raise InputError(
            f"padding is same and windows of {widths} reach over the edges of frames {sides}; use "
            "padding valid"
        )


def _global_pool1d(kind: str) -> Reader:
    def read(call: Call) -> Signal:
        _channels_last(call)
        if call.input.time == FRAME and len(call.known(call.input)) == 2:
            return _over_rows(call, "average" if kind == "mean" else kind)
        signal = as_sequence(call.input)
        signal = call.honors_mask(signal) if kind == "mean" else call.ignores_mask(signal)
        return _kept(call, call.add(Reduce(kind), signal), 1)

    return Reader(read, (Reduce, FramePool, Reshape))


def _over_rows(call: Call, kind: str) -> Signal:
    """Return the mean or maximum over the first axis of a frame in TimeDistributed."""
    length, features = call.known(call.input)
    found = call.add(FramePool(kind, (length,), (length,)), call.input)
    if call.options.flag("keepdims"):
        return found
    return call.add(Reshape((1, features), (features,)), found, part="flatten")


def _global_pool2d(kind: str) -> Reader:
    def read(call: Call) -> Signal:
        _channels_last(call)
        signal = _image(call)
        frame = call.known(signal)
        sides = frame[:2]
        found = call.add(FramePool(kind, sides, sides), signal)
        if call.options.flag("keepdims"):
            return found
        return call.add(Reshape((1, 1, frame[2]), frame[2:]), found, part="flatten")

    return Reader(read, (FramePool, Reshape))


def _kept(call: Call, signal: Signal, axes: int) -> Signal:
    """Return a signal with the axes of length one that `keepdims` keeps."""
    if not call.options.flag("keepdims"):
        return signal
    frame = call.known(signal)
    return call.add(Reshape(frame, (*(1,) * axes, *frame)), signal, part="reshape")


def _flatten(call: Call) -> Signal:
    signal = settle(call.input)
    if signal.time == FLAT:
        return signal
    signal = call.ignores_mask(signal)
    if len(call.known(signal)) > 1:
        signal = call.add(Reshape(call.known(signal), (signal.size,)), signal)
    return replace(signal, time=FLAT) if signal.time == SEQUENCE else signal


def _reshape(call: Call) -> Signal:
    target = call.options.get("target_shape")
    if not isinstance(target, list) or not all(isinstance(n, int) for n in target):
        raise InputError(f"target_shape is {str(target)[:80]}; whole numbers are needed")
    signal = call.input
    frame = call.known(signal)
    axes = _filled(target, signal)
    first = frame[0] if signal.time == OPEN and len(frame) > 1 else signal.steps
    per_frame = len(axes) > 1 and axes[0] == (first or 0)
    if signal.time == OPEN and not per_frame:
        if 0 in (*frame, *axes):
            raise InputError(f"it turns {_shown(frame)} into {_shown(axes)}; fix the axes")
        call.graph.note("input", f"reshaped from {_shown(frame)} to {_shown(axes)}")
        return replace(signal, frame=axes)
    signal = settle(signal)
    if signal.time in (SEQUENCE, FLAT):
        if len(axes) == 1:
            return _flatten(call)
        if not per_frame or math.prod(axes[1:]) != signal.size:
            raise InputError(
                f"it turns {signal} into {_shown(axes)}, which mixes steps with features; only the "
                "axes of each frame can be reshaped"
            )
        signal, axes = replace(signal, time=SEQUENCE), axes[1:]
    if axes == signal.frame:
        return signal
    return call.add(Reshape(signal.frame or (), axes), signal)


def _filled(target: list[int], signal: Signal) -> tuple[int, ...]:
    """Return the axes of a target shape, of which one may be -1; unknown steps are 0."""
    if signal.time == OPEN:
        values = math.prod(signal.frame or ())
    elif signal.time == FRAME:
        values = signal.size
    else:
        values = (signal.steps or 0) * signal.size
    rest = math.prod(n for n in target if n != -1)
    if target.count(-1) > 1 or rest < 1 or (values and values % rest):
        raise InputError(f"{signal} cannot have the axes {target}")
    return tuple(values // rest if n == -1 else n for n in target)


def _shown(axes: tuple[int, ...]) -> str:
    return f"({', '.join(str(n or '?') for n in axes)})"


def _permute(call: Call) -> Signal:
    dims = call.options.get("dims")
    if not isinstance(dims, list) or not all(isinstance(n, int) for n in dims):
        raise InputError(f"dims is {str(dims)[:80]}; whole numbers are needed")
    if sorted(dims) != list(range(1, len(dims) + 1)):
        raise InputError(f"dims {dims} are no permutation of the axes")
    signal = call.input
    if signal.time == OPEN and signal.frame is not None and dims[0] != 1:
        if len(signal.frame) != len(dims):
            raise InputError(f"dims {dims} do not fit the axes {signal}")
        axes = tuple(signal.frame[n - 1] for n in dims)
        call.graph.note("input", f"axes {_shown(signal.frame)} in the order {dims}")
        return replace(signal, frame=axes)
    signal = settle(signal)
    order = [n - 1 for n in dims]
    if signal.time == SEQUENCE:
        if dims[0] != 1:
            raise InputError(
                f"it exchanges the time of {signal} with features; a network has no such operator"
            )
        order = [n - 2 for n in dims[1:]]
    if order == sorted(order):
        return signal
    return call.add(Permute(tuple(order)), signal)


def _zero_padding(call: Call) -> Signal:
    """Read ZeroPadding1D: a convolution with identity kernels and zeros at both ends."""
    signal = call.ignores_mask(as_sequence(call.input))
    value = call.options.get("padding", 1)
    values = value if isinstance(value, list) else [value, value]
    features = call.known(signal)[-1]
    if len(call.known(signal)) != 1 or len(values) != 2:
        raise InputError(f"it pads a sequence of vectors and is given {signal}")
    return call.add(Conv1d(np.ones((1, 1, features)), None, 1, 1, features, *values), signal)


_CONV = (Conv1d, Activation)
_CONV2D = (Conv2d, Activation)
_PIXELS = "in TimeDistributed, or of a model without time"

READERS: dict[str, Reader] = {
    "Conv1D": Reader(_conv1d, _CONV, weights=True),
    "DepthwiseConv1D": Reader(_depthwise_conv1d, _CONV, weights=True),
    "SeparableConv1D": Reader(_separable_conv1d, (Conv1d, Dense, Activation), weights=True),
    "ZeroPadding1D": Reader(_zero_padding, (Conv1d,)),
    "AveragePooling1D": _pool1d("average"),
    "MaxPooling1D": _pool1d("max"),
    "GlobalAveragePooling1D": _global_pool1d("mean"),
    "GlobalMaxPooling1D": _global_pool1d("max"),
    "Conv2D": Reader(_conv2d, _CONV2D, weights=True, limits=_PIXELS),
    "DepthwiseConv2D": Reader(_depthwise_conv2d, _CONV2D, weights=True, limits=_PIXELS),
    "SeparableConv2D": Reader(
        _separable_conv2d, (Conv2d, Dense, Activation), weights=True, limits=_PIXELS
    ),
    "AveragePooling2D": _pool2d("average"),
    "MaxPooling2D": _pool2d("max"),
    "GlobalAveragePooling2D": _global_pool2d("average"),
    "GlobalMaxPooling2D": _global_pool2d("max"),
    "Flatten": Reader(_flatten, (Reshape,), limits="of a sequence only before Dense"),
    "Reshape": Reader(_reshape, (Reshape,), limits="of frames, or of the model's input"),
    "Permute": Reader(_permute, (Permute,), limits="of frames, or of the model's input"),
}
"""Reader of each class of layer that mixes steps or the axes of a frame."""
