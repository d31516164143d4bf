"""Readers of layers: linear maps, normalizations, recurrent layers and memories by transforms.

The convolution theorem gives the impulse response H of a memory from its Fourier transform
(Chilkuri, Eliasmith 2021, equation 26).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from converters.pytorch.foreign import memory_of
from converters.pytorch.registry import Call, constant, needed, numbers, reads
from converters.pytorch.signals import (
    BATCH,
    ONE,
    STEPS,
    Draft,
    LayoutError,
    Signal,
    Sketch,
    UnreadableError,
    atoms,
)
from lmu_deploy.core.graph.frames import LayerNorm, Reshape, RMSNorm
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense, Embedding
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.operator import Operator, Recurrent
from lmu_deploy.core.graph.pointwise import Activation, Concat
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Reduce, Reverse

_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


@reads("linear", modules="Linear", makes=(Dense,))
def _linear(call: Call, x: Signal, weight: Any, bias: Any = None) -> Signal:
    kernel = numbers(constant(weight, "the weight")).T
    return dense(call, needed(x), -1, kernel, numbers(constant(bias, "the bias")))


def dense(
    call: Call, signal: Signal, dim: int, kernel: np.ndarray, bias: np.ndarray | None
) -> Signal:
    """Return a dense layer on one axis of a tensor; that axis may be a whole flattened sequence."""
    axis = signal.axes[signal.at(dim)]
    if isinstance(axis, tuple) and STEPS in atoms(axis) and BATCH not in atoms(axis):
        return _dense_of_sequence(call, signal, signal.at(dim), kernel, bias)
    return call.one(Dense(kernel, bias), call.sketch.features_last(signal, dim))


def _dense_of_sequence(
    call: Call, signal: Signal, dim: int, kernel: np.ndarray, bias: np.ndarray | None
) -> Signal:
    """Return a dense layer on all steps at once: a convolution as long as the sequence."""
    sketch = call.sketch
    signal = sketch.settled(signal)
    order = list(atoms(signal.axes[dim]))
    frame, steps = signal.shape.frame, signal.draft.steps
    sizes = [signal.size(axis, sketch.batch) for axis in order]
    if int(np.prod(sizes)) != kernel.shape[0]:
        raise UnreadableError(f"it takes {kernel.shape[0]} features and is given {np.prod(sizes)}")
    own = [axis for axis in range(len(frame)) if axis in order]
    taps = kernel.reshape(*sizes, -1)
    taps = taps.transpose(*(order.index(axis) for axis in (STEPS, *own)), len(order))
    draft = sketch.reshaped(signal.draft, Reshape(frame, (int(np.prod(frame)),)))
    draft = sketch.add(Conv1d(taps.reshape(steps, -1, kernel.shape[1]), bias), draft, suffix="")
    sketch.note(f"{draft.name} reads a whole sequence, which must have {steps} steps")
    draft = sketch.add(Reduce("last"), draft, suffix="last")
    return Signal(draft, (*signal.axes[:dim], 0, *signal.axes[dim + 1 :]))


@reads("matmul", "rmatmul", "mm", "bmm", makes=(Dense,))
def _matmul(call: Call, x: Any, other: Any = None, **kwargs: Any) -> Signal:
    other = kwargs.get("mat2", other)
    if call.name == "rmatmul":
        x, other = other, x
    if isinstance(x, Signal) and isinstance(other, Signal):
        raise UnreadableError("it multiplies two signals as matrices, as attention does")
    if isinstance(x, Signal):
        kernel = _matrix(other)
        if kernel.ndim == 1:
            found = dense(call, x, -1, kernel[:, None], None)
            return found.with_axes(found.axes[:-1])
        return dense(call, x, -1, kernel, None)
    kernel = _matrix(x)
    if kernel.ndim == 1:
        raise UnreadableError("it multiplies a vector by a signal; write it as x @ w")
    return dense(call, other, -2, kernel.T, None)


def _matrix(weight: Any) -> np.ndarray:
    kernel = numbers(weight)
    while kernel.ndim > 2 and kernel.shape[0] == 1:
        kernel = kernel[0]
    if kernel.ndim > 2:
        raise UnreadableError("it multiplies by another matrix in every sample or step")
    return kernel


@reads("einsum", makes=(Dense,))
def _einsum(call: Call, equation: str, *operands: Any) -> Signal:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    left, _, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    signals = [i for i, each in enumerate(operands) if isinstance(each, Signal)]
    problem = f"the product {equation!r} is none of a signal with one matrix"
    if len(operands) != 2 or len(signals) != 1 or not out or "." in equation:
        raise UnreadableError(problem)
    (which,) = signals
    own, matrix = terms[which], terms[1 - which]
    kernel = numbers(operands[1 - which])
    summed = [letter for letter in matrix if letter in own and letter not in out]
    made = [letter for letter in matrix if letter not in own]
    if len(matrix) != 2 or len(summed) != 1 or len(made) != 1:
        raise UnreadableError(problem)
    signal: Signal = operands[which]
    dim = own.index(summed[0])
    found = dense(call, signal, dim, kernel if matrix[0] == summed[0] else kernel.T, None)
    letters = own.replace(summed[0], made[0])
    if sorted(letters) != sorted(out):
        raise UnreadableError(problem)
    return found.with_axes([found.axes[letters.index(letter)] for letter in out])


@reads("embedding", modules="Embedding", makes=(Embedding,))
def _embedding(
    call: Call,
    x: Signal,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    *rest: Any,
    **kwargs: Any,
) -> Signal:
    if max_norm is not None:
        raise UnreadableError("it rescales its own table (max_norm)")
    return _looked_up(call, needed(x), numbers(constant(weight, "the table")))


@reads("one_hot", makes=(Embedding,))
def _one_hot(call: Call, x: Signal, num_classes: int = -1) -> Signal:
    classes = call.result.shape[-1]
    if num_classes < 0:
        call.sketch.note(f"{call.sketch.place or 'one_hot'} has {classes} classes")
    return _looked_up(call, x, np.eye(classes, dtype=np.float32))


def _looked_up(call: Call, tokens: Signal, table: np.ndarray) -> Signal:
    signal = tokens.with_axes([*tokens.axes, ONE])
    return call.one(Embedding(table), call.sketch.features_last(signal, -1))


# Normalizations


@reads(
    "batch_norm",
    modules="BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm",
    makes=(Affine,),
)
def _batch_norm(
    call: Call,
    x: Signal,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *rest: Any,
) -> Signal:
    if training or running_mean is None:
        raise UnreadableError("it normalizes with the statistics of the batch; none are stored")
    mean, variance, gamma, beta = (
        numbers(constant(value, "a statistic"), narrow=False)
        for value in (running_mean, running_var, weight, bias)
    )
    operator = Affine.from_batch_norm(mean, variance, gamma, beta, eps)
    return call.one(operator, call.sketch.features_last(x, 1))


@reads("layer_norm", modules="LayerNorm", makes=(LayerNorm,))
def _layer_norm(
    call: Call,
    x: Signal,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Signal:
    size = int(np.prod(normalized_shape))
    scale, offset = numbers(constant(weight, "a weight")), numbers(constant(bias, "a weight"))
    one, zero = np.ones(size, np.float32), np.zeros(size, np.float32)
    operator = LayerNorm(
        one if scale is None else scale.reshape(-1),
        zero if offset is None else offset.reshape(-1),
        eps,
    )
    return _normalized(call, x, len(normalized_shape), operator)


@reads("rms_norm", modules="RMSNorm", makes=(RMSNorm,))
def _rms_norm(
    call: Call, x: Signal, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Signal:
    scale = numbers(constant(weight, "a weight"))
    size = int(np.prod(normalized_shape))
    scale = np.ones(size, np.float32) if scale is None else scale.reshape(-1)
    operator = RMSNorm(scale, _FLOAT32_EPSILON if eps is None else eps)
    return _normalized(call, x, len(normalized_shape), operator)


def _normalized(call: Call, signal: Signal, rank: int, operator: Operator) -> Signal:
    """Return a normalization of the last axes of a tensor."""
    if rank == 1:
        return call.one(operator, call.sketch.features_last(signal, -1))
    places = range(len(signal.axes) - rank, len(signal.axes))
    return call.flat(call.sketch.framed(signal, places), operator)


# Memories as products of Fourier transforms


@reads("fft_rfft", "fft_fft")
def _transformed(
    call: Call, x: Signal, n: int | None = None, dim: int = -1, norm: Any = None
) -> Signal:
    if x.axes[x.at(dim)] != STEPS or norm not in (None, "backward"):
        raise UnreadableError("a Fourier transform is read over steps alone")
    signal = call.sketch.settled(x)
    length = signal.draft.steps if n is None else n
    if length < 2 * signal.draft.steps - 1:
        raise UnreadableError(
            "the product of its Fourier transforms wraps around: they must be twice as long as the "
            "sequence"
        )
    size = call.result.shape[x.at(dim)]
    return replace(signal, spectrum=length, behind=size - signal.draft.steps)


def filtered(call: Call, signal: Signal, factor: Any) -> Signal:
    """Return the states of a memory, whose impulse response has `factor` as its transform."""
    array = numbers(factor, narrow=False)
    array = array.reshape((1,) * (len(signal.axes) - array.ndim) + array.shape)
    dim, length = signal.axes.index(STEPS), signal.spectrum or 0
    wide = [d for d, size in enumerate(array.shape) if size > 1 and d != dim]
    fits = all(signal.size(signal.axes[d], call.sketch.batch) == 1 for d in wide)
    if len(wide) > 1 or not fits or array.shape[dim] == 1:
        raise UnreadableError("it convolves every channel with a different kernel")
    rows = np.moveaxis(array, dim, -1).reshape(-1, array.shape[dim])
    inverse = np.fft.irfft if rows.shape[1] == length // 2 + 1 else np.fft.ifft
    response = inverse(rows, n=length).real[:, : signal.draft.steps]
    memory = memory_of(response, call.scopes, call.sketch)
    if memory is None:
        raise UnreadableError("the impulse response is none of a linear memory")
    channels = [d for d, axis in enumerate(signal.axes) if isinstance(axis, int)]
    plain = replace(signal, spectrum=None, behind=0)
    size = int(np.prod(plain.shape.frame))
    if len(plain.shape.frame) > 1:
        flat = Reshape(plain.shape.frame, (size,))
        plain = replace(plain, draft=call.sketch.reshaped(plain.draft, flat))
    operator = LinearMemory(replace(memory, channels=size), np.eye(size, dtype=np.float32))
    draft = call.sketch.add(operator, plain.draft, suffix="memory")
    frame = tuple(signal.shape.frame) if size > 1 else ()
    order = len(rows)
    draft = call.sketch.reshaped(draft, Reshape((size * order,), (*frame, order)))
    axes = list(signal.axes)
    for d in channels if size == 1 else []:
        axes[d] = ONE
    if wide:
        axes[wide[0]] = len(frame)
    return replace(signal, draft=draft, axes=tuple(axes), parts=())


@reads("fft_irfft", "fft_ifft", makes=(LinearMemory,))
def _back(call: Call, x: Signal, n: int | None = None, dim: int = -1, norm: Any = None) -> Signal:
    if x.spectrum is None or (n is not None and n != x.spectrum):
        raise UnreadableError("it transforms back what was not transformed over steps")
    length = call.result.shape[x.at(dim)]
    return replace(x, spectrum=None, behind=length - x.draft.steps)


# Recurrent layers


@reads(
    "lstm", "gru", "rnn_tanh", "rnn_relu", modules="LSTM GRU RNN",
    makes=(LSTM, GRU, SimpleRNN, Reverse, Concat, Reduce),
)  # fmt: skip
def _layers(
    call: Call,
    x: Signal,
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool = False,
) -> tuple[Any, ...]:
    if not isinstance(num_layers, int) or isinstance(hx, bool):
        raise UnreadableError("it takes packed sequences; give it padded ones")
    sketch, signal = call.sketch, sequence_of(call.sketch, x, batch_first)
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    initial = [_initial(each) for each in states]
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    if each in (3, 5):
        raise UnreadableError("it projects its outputs (proj_size)")
    single = num_layers * directions == 1
    draft, lasts = signal.draft, []
    for layer in range(num_layers):
        found = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = [numbers(constant(w, "a weight")) for w in params[number * each :][:each]]
            starts = [None if rows is None else rows[number] for rows in initial]
            operator = cell_of(call.name, weights, starts)
            name = "" if single else f"l{layer}{'_reverse' if direction else ''}"
            given = sketch.add(Reverse(), draft, suffix=f"{name}.in") if direction else draft
            made = sketch.add(operator, given, suffix=name)
            lasts.append((made, f"{name}.last".strip(".")))
            found.append(sketch.add(Reverse(), made, suffix=f"{name}.out") if direction else made)
        joint = f"l{layer}"
        draft = sketch.add(Concat(), *found, suffix=joint) if bidirectional else found[0]
    axes = (BATCH, STEPS, 0) if batch_first else (STEPS, BATCH, 0)
    last = _stacked(call, lasts)
    return (Signal(draft, axes), last) if call.name != "lstm" else (Signal(draft, axes), last, None)


def sequence_of(sketch: Sketch, signal: Any, batch_first: bool) -> Signal:
    """Return a sequence of vectors whose axes are in the order that a layer takes.

    Raises
    ------
    UnreadableError
        When they are in another order, or it is no sequence.
    """
    if not isinstance(signal, Signal):
        raise UnreadableError("its input does not depend on that of the module")
    axes = (BATCH, STEPS) if batch_first else (STEPS, BATCH)
    if len(signal.axes) != 3 or signal.axes[:2] != axes:
        order = "(batch, steps, features)" if batch_first else "(steps, batch, features)"
        raise LayoutError(f"it takes sequences {order} and is given other axes")
    return sketch.features_last(signal, 2)


def _initial(state: Any) -> np.ndarray | None:
    """Return the initial states (layers, units) of all samples; None where they are zero."""
    if state is None:
        return None
    rows = numbers(constant(state, "its initial state"))
    if not rows.any():
        return None
    if (rows != rows[:, :1]).any():
        raise UnreadableError("its samples start from different states")
    return np.asarray(rows[:, 0])


def cell_of(name: str, weights: list[np.ndarray], initial: list[np.ndarray | None]) -> Recurrent:
    """Return the operator of weights (w_ih, w_hh, b_ih, b_hh) as torch stores them."""
    kernel, recurrent = (np.ascontiguousarray(w.T) for w in weights[:2])
    biases = [bias for bias in weights[2:4] if bias is not None]
    both = sum(biases[1:], biases[0]) if biases else None
    if name.startswith("lstm"):
        h, c = (*initial, None, None)[:2]
        return LSTM(kernel, recurrent, both, initial_h=h, initial_c=c)
    if name.startswith("gru"):
        first, second = (*biases, None, None)[:2]
        return GRU(kernel, recurrent, first, second, initial=(*initial, None)[0])
    activation = Activation("relu" if "relu" in name else "tanh")
    return SimpleRNN(kernel, recurrent, both, activation, (*initial, None)[0])


def _stacked(call: Call, lasts: list[tuple[Draft, str]]) -> Signal:
    """Return the last states of all layers and directions, (layers, batch, units)."""
    sketch = call.sketch
    signals = []
    for draft, suffix in lasts:
        last = sketch.add(Reduce("last"), draft, suffix=suffix)
        signals.append(Signal(last, (BATCH, 0)))
    if len(signals) == 1:
        return signals[0].with_axes((ONE, BATCH, 0))
    from converters.pytorch.shapes import joined, unsqueezed

    return joined(replace(call, name="h_n"), [unsqueezed(each, 0) for each in signals], 0)
