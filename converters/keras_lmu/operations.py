"""Readers of operations on tensors in Functional models: ``x[:, -1]``, ``x + y``, ``ops.mean(x)``.

Keras 3 stores them as operations beside its layers, TensorFlow's Keras 2 as layers TFOpLambda and
SlicingOpLambda; :mod:`.architecture` gives both the same names. In every operation axis 0 is that
of samples and, in a sequence, axis 1 that of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from converters.keras_lmu.build import FLAT, FRAME, OPEN, SEQUENCE, Call, Reader, Signal, settle
from converters.keras_lmu.configuration import numbers
from converters.keras_lmu.frames import READERS
from converters.keras_lmu.pointwise import (
    absolute,
    concatenated,
    larger,
    scaled,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import Reshape, Slice
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.pointwise import Activation, Add, Multiply
from lmu_deploy.core.graph.time import Reduce, Reverse
from lmu_deploy.core.validation import check_integer

_MOST_AXES = 16


def _signal(call: Call, place: int = 0) -> Signal:
    """Return an operand that is a signal; no operation tells what becomes of a mask."""
    found = call.operands[place] if place < len(call.operands) else None
    if not isinstance(found, Signal):
        raise InputError("it acts on no output of a layer; use layers of Keras")
    return _unmasked(settle(found))


def _unmasked(signal: Signal) -> Signal:
    if signal.mask is not None:
        raise InputError("it acts on a masked sequence; use the layer of Keras that does the same")
    return signal


def _operands(call: Call) -> tuple[Signal | np.ndarray, Signal | np.ndarray]:
    """Return both operands of arithmetic, of which one may be numbers."""
    if len(call.operands) != 2:
        raise InputError(f"it has {len(call.operands)} operands; two are needed")
    first, second = (
        _unmasked(settle(each)) if isinstance(each, Signal) else numbers(each, "an operand")
        for each in call.operands
    )
    if isinstance(first, Signal) and isinstance(second, Signal):
        return _wide(call, first, second), _wide(call, second, first)
    return first, second


def _wide(call: Call, signal: Signal, other: Signal) -> Signal:
    """Return a signal of one feature as one of as many as another signal has."""
    features = call.known(other)[-1:]
    if not features or call.known(signal)[-1:] != (1,) or features == (1,):
        return signal
    return call.add(Dense(np.ones((1, *features)), None), signal, part="repeated")


def _commuted(call: Call) -> tuple[Signal, Signal | np.ndarray]:
    """Return the operands of arithmetic whose order does not matter, numbers last."""
    first, second = _operands(call)
    if isinstance(first, Signal):
        return first, second
    assert isinstance(second, Signal)
    return second, first


def _add(call: Call) -> Signal:
    first, second = _commuted(call)
    if isinstance(second, Signal):
        return call.add(Add(), first, second)
    return scaled(call, first, 1.0, second, "")


def _subtract(call: Call) -> Signal:
    first, second = _operands(call)
    if not isinstance(second, Signal):
        assert isinstance(first, Signal)
        return scaled(call, first, 1.0, -second, "")
    if not isinstance(first, Signal):
        return scaled(call, second, -1.0, first, "")
    return call.add(Add(), first, scaled(call, second, -1.0, 0.0, "negative"))


def _multiply(call: Call) -> Signal:
    first, second = _commuted(call)
    if isinstance(second, Signal):
        return call.add(Multiply(), first, second)
    return scaled(call, first, second, 0.0, "")


def _divide(call: Call) -> Signal:
    first, second = _operands(call)
    if isinstance(second, Signal) or not second.all():
        raise InputError("it divides by a signal or by zero; no operator does")
    assert isinstance(first, Signal)
    return scaled(call, first, 1.0 / second, 0.0, "")


def _negate(call: Call) -> Signal:
    return scaled(call, _signal(call), -1.0, 0.0, "")


def _square(call: Call) -> Signal:
    signal = _signal(call)
    return call.add(Multiply(), signal, signal)


def _power(call: Call) -> Signal:
    if len(call.operands) != 2 or call.operands[1] not in (2, 2.0):
        raise InputError("only the power 2 has a counterpart")
    return _square(call)


def _maximum(sign: float) -> Callable[[Call], Signal]:
    def read(call: Call) -> Signal:
        first, second = _commuted(call)
        if not isinstance(second, Signal):
            second = scaled(call, first, 0.0, second, "bound")
        return larger(call, first, second, sign)

    return read


def _clip(call: Call) -> Signal:
    """Read a clip between two bounds, as the smaller of the larger."""
    names = (("x_min", "clip_value_min"), ("x_max", "clip_value_max"))
    bounds = [
        next((call.options.get(name) for name in pair if name in call.options.values), None)
        for pair in names
    ]
    given = list(call.operands[1:])
    bounds = [given.pop(0) if bound is None and given else bound for bound in bounds]
    low, high = (numbers(bound, "a bound") for bound in bounds)
    signal = _signal(call)
    above = larger(call, signal, scaled(call, signal, 0.0, low, "low"), 1.0, "above")
    return larger(call, above, scaled(call, signal, 0.0, high, "high"), -1.0)


def _function(name: str, slope: float = 1.0, *options: str) -> Callable[[Call], Signal]:
    """Return the reader of an activation, whose slope may be an option or an operand."""

    def read(call: Call) -> Signal:
        found = [call.options.get(each) for each in options if each in call.options.values]
        found += [each for each in call.operands[1:2] if isinstance(each, int | float)]
        value = float(numbers(found[0], "slope").reshape(-1)[0]) if found else slope
        return call.add(Activation(name, value), _signal(call))

    return read


def _composed(name: str) -> Callable[[Call], Signal]:
    """Return the reader of an activation by its name in layers."""
    return lambda call: call.activate_as(name, _signal(call), "")


def _relu(call: Call) -> Signal:
    if any(call.options.get(each) for each in ("max_value", "threshold", "alpha")):
        raise InputError("a relu with options; use the layer ReLU")
    return call.add(Activation("relu"), _signal(call))


def _gelu(call: Call) -> Signal:
    """Read gelu, whose usual form is the approximate one in Keras 3 and not in TensorFlow."""
    given = [each for each in call.operands[1:2] if isinstance(each, bool)]
    default = given[0] if given else call.layer.kind == "Gelu"
    approximate = call.options.flag("approximate", default)
    return call.add(Activation("gelu-tanh" if approximate else "gelu"), _signal(call))


def _softmax(call: Call) -> Signal:
    signal = _signal(call)
    if _axis(call, signal, -1) != len(signal.axes):
        raise InputError("it normalizes another axis than the last")
    return call.add(Activation("softmax"), signal)


def _axis(call: Call, signal: Signal, default: int | None = None) -> int:
    """Return the axis of an operation, counted from that of samples."""
    value = call.options.get("axis", call.options.get("dim", default))
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    axis = check_integer("axis", value, -_MOST_AXES, _MOST_AXES)
    return axis if axis >= 0 else len(signal.axes) + 1 + axis


def _reduced(kind: str) -> Callable[[Call], Signal]:
    """Return the reader of a mean, sum or maximum, over steps or over the features of a frame."""

    def read(call: Call) -> Signal:
        signal = _signal(call)
        axis, keeps = _axis(call, signal), call.options.flag("keepdims")
        if signal.time == SEQUENCE and axis == 1:
            if keeps:
                raise InputError("keepdims makes a sequence of one step; leave it out")
            return call.add(Reduce(kind), signal)
        features = call.known(signal)[-1:]
        if signal.time == FLAT or axis != len(signal.axes) or kind == "max" or not features:
            raise InputError(f"its axis {axis} of {signal}; only that of steps has a counterpart")
        weight = 1.0 / features[0] if kind == "mean" else 1.0
        found = call.add(Dense(np.full((*features, 1), weight), None), signal)
        return found if keeps else _squeezed(call, found)

    return read


def _squeezed(call: Call, signal: Signal) -> Signal:
    """Return a signal without its last axis, which has length one."""
    frame = call.known(signal)
    if len(frame) > 1:
        return call.add(Reshape(frame, frame[:-1]), signal, part="squeezed")
    if signal.time == SEQUENCE:
        return replace(signal, time=FLAT)
    return signal  # one value for each sample, which a frame holds in an axis


def _squeeze(call: Call) -> Signal:
    signal = _signal(call)
    if _axis(call, signal, -1) != len(signal.axes) or call.known(signal)[-1:] != (1,):
        raise InputError(f"it takes an axis from {signal}; only the last, of length one, works")
    return _squeezed(call, signal)


def _expand(call: Call) -> Signal:
    found = call.operands[0] if call.operands else None
    if not isinstance(found, Signal):
        raise InputError("it acts on no output of a layer; use layers of Keras")
    signal = _unmasked(found)
    axis = call.options.get("axis")
    axis = call.operands[1] if axis is None and len(call.operands) > 1 else axis
    number = check_integer("axis", axis, -_MOST_AXES, _MOST_AXES)
    last = len(signal.axes) + 1
    return _with_axis(call, signal, number if number >= 0 else last + 1 + number)


def _with_axis(call: Call, signal: Signal, axis: int) -> Signal:
    """Return a signal with a further axis of length one, which has to be the last."""
    frame = call.known(signal)
    if axis != len(signal.axes) + 1:
        raise InputError(f"it puts an axis into {signal}; only behind the last works")
    if signal.time == FLAT and signal.size == 1:
        return replace(signal, time=SEQUENCE)
    if signal.time == OPEN and len(frame) == 1:
        return replace(signal, frame=(*frame, 1))
    if signal.time not in (SEQUENCE, FRAME):
        raise InputError(f"it puts an axis behind {signal}, whose time is not known")
    return call.add(Reshape(frame, (*frame, 1)), signal)


def _get_item(call: Call) -> Signal:
    """Read an index: the last step, a reversal of steps, some features, a new last axis."""
    found = call.operands[0] if call.operands else None
    if not isinstance(found, Signal):
        raise InputError("it indexes no output of a layer; use layers of Keras")
    spec = call.options.get("slice_spec", call.operands[1] if len(call.operands) > 1 else None)
    spec = [_index(each) for each in (spec if isinstance(spec, tuple | list) else (spec,))]
    signal = _unmasked(found)
    if spec and spec[-1] is None:  # a new axis, x[..., None]
        axis = len(signal.axes) + 1
        whole = all(each in (_ALL, ...) for each in spec[:-1])
        if not whole or (... not in spec and len(spec) - 1 != axis):
            return _refused(call)
        return _with_axis(call, signal, axis)
    signal = settle(signal)
    rank = len(signal.axes) + 1
    if ... in spec:
        place = spec.index(...)
        spec[place : place + 1] = [_ALL] * (rank + 1 - len(spec))
    spec += [_ALL] * (rank - len(spec))
    if len(spec) != rank or signal.time == FLAT or spec[0] != _ALL:
        return _refused(call)
    return _indexed(call, signal, spec[1:])


_ALL = slice(None)
"""The index of a whole axis."""


def _index(value: Any) -> Any:
    """Return an index as a number, a slice, an ellipsis or None for a new axis."""
    if isinstance(value, dict) and {"start", "stop", "step"} <= set(value):
        return slice(value["start"], value["stop"], value["step"])
    if isinstance(value, dict) and value.get("class_name") == "__ellipsis__":
        return ...
    return value


def _refused(call: Call) -> Signal:
    raise InputError(
        f"no operator takes this part of {call.operands[0]}; the last step (x[:, -1]), features "
        "(x[:, :, 1:3]), a reversal (x[:, ::-1]) and a new last axis have one"
    )


def _indexed(call: Call, signal: Signal, spec: list[Any]) -> Signal:
    frame = call.known(signal)
    features = spec[-1] if frame else _ALL
    middle = spec[:-1] if signal.time == FRAME else spec[1:-1]
    over_time = _ALL if signal.time == FRAME else spec[0]
    if any(each != _ALL for each in middle) or not frame:
        return _refused(call)
    if features != _ALL:
        is_last = over_time == _ALL
        signal = _some_features(call, signal, features, frame[-1], "" if is_last else "features")
    if over_time == _ALL:
        return signal
    if over_time == slice(None, None, -1):
        return call.add(Reverse(), signal)
    if over_time == slice(-1, None) and signal.time == SEQUENCE:
        found = call.add(Reduce("last"), signal, part="last")
        frame = call.known(found)
        return call.add(Reshape(frame, (1, *frame)), found)
    last = -1 if signal.steps is None else signal.steps - 1
    if over_time not in (-1, last) or isinstance(over_time, bool) or signal.time == FLAT:
        return _refused(call)
    return call.add(Reduce("last"), signal)


def _some_features(call: Call, signal: Signal, which: Any, count: int, part: str) -> Signal:
    if isinstance(which, int) and not isinstance(which, bool):
        begin = which + count if which < 0 else which
        return _squeezed(call, call.add(Slice(begin, begin + 1), signal, part=part))
    if not isinstance(which, slice) or which.step not in (None, 1):
        return _refused(call)
    if not all(n is None or isinstance(n, int) for n in (which.start, which.stop)):
        return _refused(call)
    begin, end, _ = which.indices(count)
    if begin >= end:
        return _refused(call)
    return call.add(Slice(begin, end), signal, part=part)


def _concatenate(call: Call) -> Signal:
    given = call.operands[0] if call.operands and isinstance(call.operands[0], tuple) else ()
    signals = [each for each in given if isinstance(each, Signal)]
    if not signals or len(signals) < len(given):
        raise InputError("it joins what is no output of a layer; use Concatenate")
    return concatenated(call, [_unmasked(settle(each)) for each in signals])


def _flip(call: Call) -> Signal:
    signal = _signal(call)
    if signal.time != SEQUENCE or _axis(call, signal) != 1:
        raise InputError(f"it reverses an axis of {signal}; only that of steps works")
    return call.add(Reverse(), signal)


def _as_layer(kind: str, name: str, *options: str) -> Callable[[Call], Signal | list[Signal]]:
    """Return the reader of an operation that a layer does too, with axes from the first on."""

    def read(call: Call) -> Signal | list[Signal]:
        axes = next((call.options.get(o) for o in options if o in call.options.values), None)
        axes = call.operands[1] if axes is None and len(call.operands) > 1 else axes
        if not isinstance(axes, list | tuple) or not axes:
            raise InputError("it does not say its axes in numbers; use the layer of Keras")
        own = {**call.layer.config, name: list(axes[1:])}
        if kind == "Permute" and axes[0] != 0:
            raise InputError("it exchanges samples with another axis; no operator does")
        if isinstance(call.operands[0], Signal):
            _unmasked(call.operands[0])
        layer = replace(call.layer, kind=kind, config=own, operation="")
        return READERS[kind].read(replace(call, layer=layer))

    return read


def _identity(call: Call) -> Signal:
    return call.input


OPERATIONS: dict[str, Reader] = {
    "getitem": Reader(_get_item, (Slice, Reduce, Reverse, Reshape)),
    "add": Reader(_add),
    "subtract": Reader(_subtract),
    "multiply": Reader(_multiply),
    "divide": Reader(_divide),
    "negate": Reader(_negate),
    "square": Reader(_square),
    "power": Reader(_power),
    "absolute": Reader(lambda call: absolute(call, _signal(call))),
    "maximum": Reader(_maximum(1.0)),
    "minimum": Reader(_maximum(-1.0)),
    "clip": Reader(_clip),
    "relu": Reader(_relu),
    "relu6": Reader(_function("relu6")),
    "leakyrelu": Reader(_function("leaky-relu", 0.2, "negative_slope", "alpha")),
    "elu": Reader(_function("elu", 1.0, "alpha")),
    "gelu": Reader(_gelu),
    "silu": Reader(_function("silu")),
    "sigmoid": Reader(_function("sigmoid")),
    "hardsigmoid": Reader(_function("hard-sigmoid")),
    "hardtanh": Reader(_function("hard-tanh")),
    "tanh": Reader(_function("tanh")),
    "softplus": Reader(_function("softplus")),
    "softsign": Reader(_function("softsign")),
    "softmax": Reader(_softmax),
    "selu": Reader(_composed("selu")),
    "mish": Reader(_composed("mish")),
    "hardsilu": Reader(_composed("hard_silu")),
    "mean": Reader(_reduced("mean")),
    "sum": Reader(_reduced("sum")),
    "max": Reader(_reduced("max")),
    "concatenate": Reader(_concatenate),
    "expanddims": Reader(_expand),
    "squeeze": Reader(_squeeze),
    "transpose": Reader(_as_layer("Permute", "dims", "axes", "perm")),
    "reshape": Reader(_as_layer("Reshape", "target_shape", "newshape", "shape")),
    "flip": Reader(_flip),
    "identity": Reader(_identity),
}
"""Reader of each operation, by the name that Keras 3 and TensorFlow share."""
