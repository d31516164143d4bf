"""Readers of layers that act on every frame by itself: dense, activations, normalizations, merges.

What Keras does in training alone (dropout, noise) is an identity and becomes no node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converters.importers import ASSUMED
from converters.keras_lmu.build import FLAT, OPEN, SEQUENCE, Call, Reader, Signal, settle
from converters.keras_lmu.configuration import numbers, spread
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import LayerNorm, Reshape, RMSNorm
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense, Embedding
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.time import Mask, Reduce
from lmu_deploy.core.validation import check_array

_LARGEST = 1e6


def _identity(call: Call) -> Signal:
    return call.input


def _dense(call: Call) -> Signal:
    roles = ("kernel", "bias") if call.options.flag("use_bias", True) else ("kernel",)
    weights = call.arrays.take(*roles)
    kernel, bias = weights["kernel"], weights.get("bias")
    if call.input.time == FLAT:
        return call.activate(_dense_over_time(call, kernel, bias))
    return call.activate(call.add(Dense(kernel, bias)))


def _dense_over_time(call: Call, kernel: np.ndarray, bias: np.ndarray | None) -> Signal:
    """Return a dense layer of a whole sequence, which is a convolution as long as the sequence.

    With frames :math:`x_t` one behind the other, :math:`(x_1, ..., x_T) W = sum_t x_t W_t`.
    """
    signal = call.input
    if signal.steps is None:
        raise InputError(
            "it reads a flattened sequence of any length; save the model with a fixed number of "
            "steps"
        )
    kernel = check_array("dense kernel", kernel, (signal.steps * signal.size, None))
    rows = replace(signal, time=SEQUENCE)
    if len(signal.frame or ()) > 1:
        rows = call.add(Reshape(signal.frame or (), (signal.size,)), rows, part="flatten")
    taps = kernel.reshape(signal.steps, signal.size, -1)
    call.graph.note(
        ASSUMED, f"sequences of {signal.steps} steps, which {call.layer.name} reads at once"
    )
    return call.last(call.add(Conv1d(taps, bias), rows), keep=False)


def _activation(call: Call) -> Signal:
    return call.activate(call.input, part="")


def _relu(call: Call) -> Signal:
    """Read ReLU with its three options.

    With slope a, threshold s and maximum M it is x for s <= x, a (x - s) below, and M at most.
    """
    options = call.options
    slope = options.number("negative_slope", 0.0, _LARGEST, 0.0)
    threshold = options.number("threshold", 0.0, _LARGEST, 0.0)
    most = options.get("max_value")
    most = None if most is None else options.number("max_value", 0.0, _LARGEST)
    if not threshold and not slope and most == 6.0:
        return call.add(Activation("relu6"))
    part = "" if most is None and not threshold else "relu"
    signal = settle(call.input)
    if threshold:
        signal = scaled(call, signal, 1.0, -threshold, "shifted")
    name = Activation("leaky-relu", slope) if slope else Activation("relu")
    found = call.add(name, signal, part=part)
    if threshold:
        jump = call.add(Activation("step"), signal, part="step")
        jump = scaled(call, jump, threshold, 0.0, "jump")
        found = call.add(Add(), found, jump, part="" if most is None else "above")
    if most is not None:
        found = scaled(call, found, -1.0, most, "room")
        found = call.add(Activation("relu"), found, part="limit")
        found = scaled(call, found, -1.0, most, "")
    return found


def scaled(
    call: Call, signal: Signal, scale: np.ndarray | float, offset: np.ndarray | float, part: str
) -> Signal:
    """Return ``scale * x + offset``, with one number for every feature or one for each."""
    features = call.known(signal)[-1]
    factors, terms = (spread(np.asarray(each, np.float64), features) for each in (scale, offset))
    return call.add(Affine(factors, terms), signal, part=part)


def larger(call: Call, first: Signal, second: Signal, sign: float, part: str = "") -> Signal:
    """Return the larger (sign 1) or smaller (sign -1) of two signals, value by value.

    The larger is ``y + relu(x - y)``, the smaller ``y - relu(y - x)``.
    """

    def named(name: str) -> str:
        return f"{part}.{name}" if part else name

    pair = [
        scaled(call, each, s, 0.0, named(name))
        for each, s, name in ((first, sign, "first"), (second, -sign, "second"))
    ]
    excess = call.add(
        Activation("relu"), call.add(Add(), *pair, part=named("difference")), part=named("excess")
    )
    if sign < 0:
        excess = scaled(call, excess, -1.0, 0.0, named("less"))
    return call.add(Add(), second, excess, part=part)


def absolute(call: Call, signal: Signal) -> Signal:
    """Return absolute values, as leaky units of slope -1."""
    return call.add(Activation("leaky-relu", -1.0), signal)


def _leaky_relu(call: Call) -> Signal:
    name = "negative_slope" if "negative_slope" in call.options.values else "alpha"
    slope = call.options.number(name, -_LARGEST, _LARGEST, 0.3)
    return call.add(Activation("leaky-relu", slope))


def _thresholded_relu(call: Call) -> Signal:
    theta = call.options.number("theta", 0.0, _LARGEST, 1.0)
    layer = replace(call.layer, config={"threshold": theta})
    return _relu(replace(call, layer=layer))


def _prelu(call: Call) -> Signal:
    """Read PReLU: slopes for each value of a frame, ``relu(x) - a relu(-x)``."""
    signal = settle(call.input)
    slopes = call.arrays.take("alpha")["alpha"]
    frame = call.known(signal)
    if slopes.shape == (*(1,) * (len(signal.axes) - 1), *frame[-1:]):
        slopes = slopes.reshape(-1)
    if slopes.size == 1:
        return call.add(Activation("leaky-relu", float(slopes.reshape(()))), signal)
    if slopes.shape != frame[-1:]:
        raise InputError(
            f"its slopes {slopes.shape} differ from step to step; train with shared_axes=[1]"
        )
    above = call.add(Activation("relu"), signal, part="above")
    below = call.add(Activation("relu"), scaled(call, signal, -1.0, 0.0, "negative"), part="below")
    return call.add(Add(), above, scaled(call, below, -slopes, 0.0, "sloped"))


def _elu(call: Call) -> Signal:
    return call.add(Activation("elu", call.options.number("alpha", -_LARGEST, _LARGEST, 1.0)))


def _softmax(call: Call) -> Signal:
    signal = settle(call.input)
    _check_last(call, signal, "normalizes")
    return call.add(Activation("softmax"), signal)


def _check_last(call: Call, signal: Signal, verb: str) -> None:
    """Raise InputError unless the option `axis` is the last axis of the signal."""
    axes = call.options.axes()
    last = {-1} if signal.frame is None else {-1, len(signal.axes)}
    if signal.frame is None and len(axes) == 1 and axes[0] > 0:
        return  # the file does not tell the axes; the weights tell whether it is the last
    if len(axes) != 1 or axes[0] not in last:
        raise InputError(
            f"{verb} axis {', '.join(map(str, axes))} of {signal}; only the last, that of the "
            "features, works"
        )
    if signal.time == FLAT and signal.size > 1:
        raise InputError(f"{verb} the flattened sequence {signal}; put it before Flatten")


def _batch_norm(call: Call) -> Signal:
    options, signal = call.options, settle(call.input)
    _check_last(call, signal, "normalizes")
    roles = [
        *(["gamma"] if options.flag("scale", True) else []),
        *(["beta"] if options.flag("center", True) else []),
        "moving_mean",
        "moving_variance",
    ]
    weights = call.arrays.take(*roles)
    epsilon = options.number("epsilon", 0.0, 1.0, 1e-3)
    mean, variance = (_checked(weights, role, None) for role in roles[-2:])
    gamma, beta = (_checked(weights, role, len(mean)) for role in ("gamma", "beta"))
    if len(variance) != len(mean) or variance.min(initial=0.0) < 0.0:
        raise InputError("its moving variance is negative or of another size; save it again")
    return call.add(Affine.from_batch_norm(mean, variance, gamma, beta, epsilon), signal)


def _checked(weights: dict[str, np.ndarray], role: str, size: int | None) -> Any:
    if role not in weights:
        return None
    return check_array(role, weights[role], (size,)).astype(np.float64)


def _layer_norm(call: Call) -> Signal:
    options, signal = call.options, settle(call.input)
    if options.flag("rms_scaling"):
        raise InputError("rms_scaling is set; use RMSNormalization")
    roles = [
        *(["gamma"] if options.flag("scale", True) else []),
        *(["beta"] if options.flag("center", True) else []),
    ]
    weights = call.arrays.take(*roles)
    epsilon = options.number("epsilon", 0.0, 1.0, 1e-3)
    whole = signal.frame is not None and len(signal.frame) > 1 and _all_axes(call, signal)
    shape = signal.frame
    if whole:
        assert shape is not None
        signal = call.add(Reshape(shape, (signal.size,)), signal, part="flatten")
    else:
        _check_last(call, signal, "normalizes")
    size = weights[roles[0]].size if roles else call.known(signal)[-1]
    gamma = weights.get("gamma", np.ones(size)).reshape(-1)
    beta = weights.get("beta", np.zeros(size)).reshape(-1)
    found = call.add(LayerNorm(gamma, beta, epsilon), signal)
    return call.add(Reshape((size,), shape or ()), found, part="reshape") if whole else found


def _all_axes(call: Call, signal: Signal) -> bool:
    """Return whether the option `axis` names all axes of a frame."""
    count = len(signal.axes)
    axes = sorted(axis if axis > 0 else count + 1 + axis for axis in call.options.axes())
    return axes == list(range(count + 1 - len(signal.frame or ()), count + 1))


def _rms_norm(call: Call) -> Signal:
    signal = settle(call.input)
    _check_last(call, signal, "normalizes")
    scale = call.arrays.take("scale")["scale"]
    return call.add(RMSNorm(scale, call.options.number("epsilon", 0.0, 1.0, 1e-6)), signal)


def _unit_norm(call: Call) -> Signal:
    """Read UnitNormalization: ``x / |x|``, which is a root mean square of n features times n."""
    signal = settle(call.input)
    _check_last(call, signal, "normalizes")
    features = call.known(signal)[-1]
    scale = np.full(features, features**-0.5)
    return call.add(RMSNorm(scale, 1e-12 / features), signal)


def _normalization(call: Call) -> Signal:
    """Read Normalization: ``(x - mean) / max(sqrt(variance), 1e-7)``, or its inverse."""
    options, signal = call.options, settle(call.input)
    features = call.known(signal)[-1]
    if options.get("axis", -1) is not None and options.get("mean") is None:
        _check_last(call, signal, "normalizes")
    if options.get("mean") is not None:
        mean, variance = (numbers(options.get(name), name) for name in ("mean", "variance"))
        call.arrays.pass_over()
    else:
        weights = call.arrays.reals().take("mean", "variance")
        call.arrays.pass_over()
        mean, variance = (weights[name].astype(np.float64) for name in ("mean", "variance"))
    mean, variance = (spread(array, features) for array in (mean, variance))
    if variance.min() < 0.0:
        raise InputError("its variance is negative; adapt it to the data again")
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    if options.flag("invert"):
        return call.add(Affine(deviation, mean), signal)
    return call.add(Affine(1.0 / deviation, -mean / deviation), signal)


def _rescaling(call: Call) -> Signal:
    signal = settle(call.input)
    features = call.known(signal)[-1]
    values = (numbers(call.options.get(name), name) for name in ("scale", "offset"))
    return call.add(Affine(*(spread(each, features) for each in values)), signal)


def _embedding(call: Call) -> Signal:
    table = call.arrays.take("embeddings")["embeddings"]
    signal = call.input
    if signal.time == OPEN and signal.frame is not None and len(signal.frame) == 1:
        signal = replace(signal, time=FLAT, frame=(1,), steps=signal.frame[0] or None)
    elif signal.frame is None:
        signal = replace(settle(signal), time=FLAT, frame=(1,))
    else:
        signal = settle(signal)
    if call.options.flag("mask_zero"):
        signal = call.mask(signal, 0.0, part="mask")
    if signal.time == FLAT and signal.size == 1:
        return call.add(Embedding(table), replace(signal, time=SEQUENCE))
    frame = signal.frame or ()
    tokens = call.add(Reshape(frame, (*frame, 1)), signal, part="tokens")
    return call.add(Embedding(table), tokens)


def _masking(call: Call) -> Signal:
    return call.mask(settle(call.input), call.options.number("mask_value", -1e30, 1e30, 0.0))


def _add(call: Call) -> Signal:
    return _merge(call, Add())


def _multiply(call: Call) -> Signal:
    return _merge(call, Multiply())


def _merge(call: Call, operator: Add | Multiply, part: str = "") -> Signal:
    signals = [settle(signal) for signal in call.inputs]
    if len(signals) < 2:
        raise InputError("it has one input; it needs two or more")
    return call.add(operator, *signals, part=part)


def _average(call: Call) -> Signal:
    return scaled(call, _merge(call, Add(), "sum"), 1.0 / len(call.inputs), 0.0, "")


def _extreme(sign: float) -> Callable[[Call], Signal]:
    """Return the reader of Maximum (sign 1) or Minimum (sign -1) of two inputs or more."""

    def read(call: Call) -> Signal:
        found, *others = (settle(signal) for signal in call.inputs)
        if not others:
            raise InputError("it has one input; it needs two or more")
        for number, other in enumerate(others, 1):
            found = larger(call, found, other, sign, "" if number == len(others) else f"{number}")
        return found

    return read


def _subtract(call: Call) -> Signal:
    if len(call.inputs) != 2:
        raise InputError("it needs two inputs")
    first, second = (settle(signal) for signal in call.inputs)
    return call.add(Add(), first, scaled(call, second, -1.0, 0.0, "negative"))


def _concatenate(call: Call) -> Signal:
    return concatenated(call, call.inputs)


def concatenated(call: Call, given: Sequence[Signal]) -> Signal:
    """Return signals one behind the other on the last axis, which the option `axis` has to be."""
    signals = [settle(signal) for signal in given]
    if len(signals) == 1:
        return signals[0]
    for signal in signals:
        if signal.time == FLAT:
            raise InputError(f"it takes the flattened sequence {signal}; put a Dense layer between")
        _check_last(call, signal, "concatenates")
    return call.add(Concat(), *signals)


_IDENTITY = Reader(_identity)
_LAST_AXIS = "the last axis alone"

READERS: dict[str, Reader] = {
    "Dense": Reader(_dense, (Dense, Activation, Conv1d, Reduce), weights=True),
    "Activation": Reader(_activation, (Activation,)),
    "ReLU": Reader(_relu, (Activation, Affine, Add)),
    "LeakyReLU": Reader(_leaky_relu, (Activation,)),
    "PReLU": Reader(_prelu, (Activation, Affine, Add), weights=True, limits="one slope a feature"),
    "ThresholdedReLU": Reader(_thresholded_relu, (Activation, Affine, Add)),
    "ELU": Reader(_elu, (Activation,)),
    "Softmax": Reader(_softmax, (Activation,), limits=_LAST_AXIS),
    "BatchNormalization": Reader(_batch_norm, (Affine,), weights=True, limits=_LAST_AXIS),
    "LayerNormalization": Reader(
        _layer_norm, (LayerNorm, Reshape), weights=True, limits="the last axis or a whole frame"
    ),
    "RMSNormalization": Reader(_rms_norm, (RMSNorm,), weights=True, limits=_LAST_AXIS),
    "UnitNormalization": Reader(_unit_norm, (RMSNorm,), limits=_LAST_AXIS),
    "Normalization": Reader(_normalization, (Affine,), weights=True, limits=_LAST_AXIS),
    "Rescaling": Reader(_rescaling, (Affine,)),
    "Embedding": Reader(_embedding, (Embedding, Mask, Reshape), weights=True),
    "Masking": Reader(_masking, (Mask,)),
    "Add": Reader(_add, (Add,)),
    "Subtract": Reader(_subtract, (Add, Affine)),
    "Multiply": Reader(_multiply, (Multiply,)),
    "Maximum": Reader(_extreme(1.0), (Activation, Affine, Add)),
    "Minimum": Reader(_extreme(-1.0), (Activation, Affine, Add)),
    "Average": Reader(_average, (Add, Affine)),
    "Concatenate": Reader(_concatenate, (Concat,), limits=_LAST_AXIS),
    "Identity": _IDENTITY,
    "Dropout": _IDENTITY,
    "SpatialDropout1D": _IDENTITY,
    "SpatialDropout2D": _IDENTITY,
    "GaussianNoise": _IDENTITY,
    "GaussianDropout": _IDENTITY,
    "AlphaDropout": _IDENTITY,
    "ActivityRegularization": _IDENTITY,
}
"""Reader of each class of layer that acts on every frame by itself."""
