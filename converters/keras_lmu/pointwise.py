"""Readers of layers that act on every frame by itself: dense, activations, normalizations, merges.

What Keras does in training alone (dropout, noise) is an identity and becomes no node.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from converters.importers import ASSUMED
from converters.keras_lmu.build import FLAT, OPEN, SEQUENCE, Call, Reader, Signal, settle
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
        signal = _shift(call, signal, 1.0, -threshold, "shifted")
    name = Activation("leaky-relu", slope) if slope else Activation("relu")
    found = call.add(name, signal, part=part)
    if threshold:
        jump = call.add(Activation("step"), signal, part="step")
        jump = _shift(call, jump, threshold, 0.0, "jump")
        found = call.add(Add(), found, jump, part="" if most is None else "above")
    if most is not None:
        found = _shift(call, found, -1.0, most, "room")
        found = call.add(Activation("relu"), found, part="limit")
        found = _shift(call, found, -1.0, most, "")
    return found


def _shift(call: Call, signal: Signal, scale: float, offset: float, part: str) -> Signal:
    """Return ``scale * x + offset``, the same for every feature."""
    features = call.known(signal)[-1]
    return call.add(Affine(np.full(features, scale), np.full(features, offset)), signal, part=part)


def _leaky_relu(call: Call) -> Signal:
    name = "negative_slope" if "negative_slope" in call.options.values else "alpha"
    slope = call.options.number(name, -_LARGEST, _LARGEST, 0.3)
    return call.add(Activation("leaky-relu", slope))


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


def _normalization(call: Call) -> Signal:
    """Read Normalization: ``(x - mean) / max(sqrt(variance), 1e-7)``, or its inverse."""
    options, signal = call.options, settle(call.input)
    features = call.known(signal)[-1]
    if options.get("axis", -1) is not None and options.get("mean") is None:
        _check_last(call, signal, "normalizes")
    if options.get("mean") is not None:
        mean, variance = (_numbers(options.get(name), name) for name in ("mean", "variance"))
        call.arrays.pass_over()
    else:
        weights = call.arrays.reals().take("mean", "variance")
        call.arrays.pass_over()
        mean, variance = (weights[name].astype(np.float64) for name in ("mean", "variance"))
    mean, variance = (_spread(array, features) for array in (mean, variance))
    if variance.min() < 0.0:
        raise InputError("its variance is negative; adapt it to the data again")
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    if options.flag("invert"):
        return call.add(Affine(deviation, mean), signal)
    return call.add(Affine(1.0 / deviation, -mean / deviation), signal)


def _rescaling(call: Call) -> Signal:
    signal = settle(call.input)
    features = call.known(signal)[-1]
    values = (_numbers(call.options.get(name), name) for name in ("scale", "offset"))
    return call.add(Affine(*(_spread(each, features) for each in values)), signal)


def _numbers(value: Any, name: str) -> np.ndarray:
    """Return numbers that a configuration lists, in however many axes."""
    if isinstance(value, dict):  # an array of Keras 3
        value = value.get("config", {}).get("value") if "config" in value else None
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {str(value)[:80]}; numbers are needed") from error
    if not np.isfinite(found).all():
        raise InputError(f"{name} is {str(value)[:80]}; numbers are needed")
    return found


def _spread(values: np.ndarray, features: int) -> np.ndarray:
    """Return one value for every feature, from one for all or one for each."""
    flat = values.reshape(-1)
    if flat.size not in (1, features):
        raise InputError(
            f"it has {flat.size} values and its input has {features} features; one for each is "
            "needed"
        )
    return np.broadcast_to(flat, (features,)).copy()


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
    return _shift(call, _merge(call, Add(), "sum"), 1.0 / len(call.inputs), 0.0, "")


def _subtract(call: Call) -> Signal:
    if len(call.inputs) != 2:
        raise InputError("it needs two inputs")
    first, second = (settle(signal) for signal in call.inputs)
    return call.add(Add(), first, _shift(call, second, -1.0, 0.0, "negative"))


def _concatenate(call: Call) -> Signal:
    signals = [settle(signal) for signal in call.inputs]
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
    "ELU": Reader(_elu, (Activation,)),
    "Softmax": Reader(_softmax, (Activation,), limits=_LAST_AXIS),
    "BatchNormalization": Reader(_batch_norm, (Affine,), weights=True, limits=_LAST_AXIS),
    "LayerNormalization": Reader(
        _layer_norm, (LayerNorm, Reshape), weights=True, limits="the last axis or a whole frame"
    ),
    "RMSNormalization": Reader(_rms_norm, (RMSNorm,), weights=True, limits=_LAST_AXIS),
    "Normalization": Reader(_normalization, (Affine,), weights=True, limits=_LAST_AXIS),
    "Rescaling": Reader(_rescaling, (Affine,)),
    "Embedding": Reader(_embedding, (Embedding, Mask, Reshape), weights=True),
    "Masking": Reader(_masking, (Mask,)),
    "Add": Reader(_add, (Add,)),
    "Subtract": Reader(_subtract, (Add, Affine)),
    "Multiply": Reader(_multiply, (Multiply,)),
    "Average": Reader(_average, (Add, Affine)),
    "Concatenate": Reader(_concatenate, (Concat,), limits=_LAST_AXIS),
    "Dropout": _IDENTITY,
    "SpatialDropout1D": _IDENTITY,
    "SpatialDropout2D": _IDENTITY,
    "GaussianNoise": _IDENTITY,
    "GaussianDropout": _IDENTITY,
    "AlphaDropout": _IDENTITY,
    "ActivityRegularization": _IDENTITY,
}
"""Reader of each class of layer that acts on every frame by itself."""
