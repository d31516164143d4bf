"""Readers of functions that move values about: permutations, reshapes, indices, concatenation.

Permutations and added axes of length one cost no node: they rename the axes of a signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from converters.pytorch.registry import Call, numbers, reads
from converters.pytorch.signals import (
    ONE,
    STEPS,
    Axis,
    LayoutError,
    Signal,
    Sketch,
    UnreadableError,
    atoms,
    mapped,
)
from lmu_deploy.core.graph.frames import Permute, Reshape, Slice
from lmu_deploy.core.graph.linear import Conv1d, Dense
from lmu_deploy.core.graph.pointwise import Concat
from lmu_deploy.core.graph.time import Delay, Pool, Reduce, Reverse


def _several(first: Any, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments that may be given one by one or as one sequence."""
    return tuple(first) if isinstance(first, list | tuple) else (first, *rest)


@reads("permute")
def _permute(call: Call, x: Signal, dims: Any, *rest: Any) -> Signal:
    return _reordered(x, _several(dims, rest))


def _reordered(signal: Signal, order: Sequence[int]) -> Signal:
    return signal.with_axes([signal.axes[signal.at(dim)] for dim in order])


@reads("transpose")
def _transpose(call: Call, x: Signal, dim0: int, dim1: int) -> Signal:
    axes = list(x.axes)
    one, two = x.at(dim0), x.at(dim1)
    axes[one], axes[two] = axes[two], axes[one]
    return x.with_axes(axes)


@reads("t", "T", "mT", "adjoint")
def _turned(call: Call, x: Signal) -> Signal:
    axes = x.axes
    return x.with_axes(axes[::-1] if call.name in "tT" else (*axes[:-2], axes[-1], axes[-2]))


@reads("movedim")
def _movedim(call: Call, x: Signal, source: Any, destination: Any) -> Signal:
    numbered = np.empty((0, *range(1, len(x.axes))))  # every axis as long as its number
    return _reordered(x, np.moveaxis(numbered, source, destination).shape)


@reads("unsqueeze")
def _unsqueeze(call: Call, x: Signal, dim: int) -> Signal:
    return unsqueezed(x, dim)


def unsqueezed(signal: Signal, dim: int) -> Signal:
    """Return a signal with an axis of length one more."""
    axes = list(signal.axes)
    axes.insert(dim if dim >= 0 else len(axes) + 1 + dim, ONE)
    return signal.with_axes(axes)


@reads("squeeze")
def _squeeze(call: Call, x: Signal, dim: Any = None) -> Signal:
    wanted = range(len(x.axes)) if dim is None else [x.at(d) for d in _several(dim, ())]
    gone = [d for d in wanted if x.size(x.axes[d], call.sketch.batch) == 1]
    return x.with_axes([axis for d, axis in enumerate(x.axes) if d not in gone])


@reads("reshape", "view", "flatten", "unflatten", "view_as", "reshape_as", "ravel",
       modules="Flatten Unflatten", makes=(Reshape, Permute))  # fmt: skip
def _reshape(call: Call, x: Signal, *args: Any, **kwargs: Any) -> Signal:
    return reshaped(call.sketch, x, tuple(call.result.shape))


def reshaped(sketch: Sketch, signal: Signal, target: Sequence[int]) -> Signal:
    """Return a signal whose tensor has another shape and the same values in the same order.

    Raises
    ------
    UnreadableError
        When steps or samples are mixed with features.
    """
    signal = replace(signal, parts=())
    batch = sketch.batch
    if tuple(signal.size(axis, batch) for axis in signal.axes) == tuple(target):
        return signal
    old = [(axis, signal.size(axis, batch)) for axis in atoms(signal.axes)]
    old = [(axis, size) for axis, size in old if size > 1]
    groups = _groups([size for _, size in old], [size for size in target if size > 1])
    pairs = [([old[i] for i in sources], sizes) for sources, sizes in groups]
    frames = [
        (sources, sizes)
        for sources, sizes in pairs
        if all(isinstance(axis, int) for axis, _ in sources) and len(sources) + len(sizes) > 2
    ]
    if frames:
        signal, pairs = _reframed(sketch, signal, pairs)
    labels: list[Axis] = []
    for sources, sizes in pairs:
        names = [axis for axis, _ in sources]
        if len(sizes) == 1:
            labels.append(names[0] if len(names) == 1 else tuple(names))
        elif all(isinstance(axis, int) for axis in names):  # of the frame, with its new axes
            labels += names
        else:
            raise LayoutError("it mixes steps or samples with features")
    waiting = iter(labels)
    return signal.with_axes([next(waiting) if size > 1 else ONE for size in target])


_Pair = tuple[list[tuple[Axis, int]], list[int]]


def _groups(old: list[int], new: list[int]) -> list[tuple[list[int], list[int]]]:
    """Return runs of old axes (by number) and new sizes that hold the same values."""
    found = []
    i = j = 0
    while i < len(old) or j < len(new):
        sources, sizes = [i], [new[j]]
        product, wanted = old[i], new[j]
        i, j = i + 1, j + 1
        while product != wanted:
            if product < wanted:
                product *= old[i]
                sources.append(i)
                i += 1
            else:
                wanted *= new[j]
                sizes.append(new[j])
                j += 1
        found.append((sources, sizes))
    return found


def _reframed(sketch: Sketch, signal: Signal, pairs: list[_Pair]) -> tuple[Signal, list[_Pair]]:
    """Reshape frames; return the signal and the groups with the new axes of the frame."""
    signal = sketch.settled(signal)
    order = [axis for sources, _ in pairs for axis, _ in sources if isinstance(axis, int)]
    rest = [axis for axis in range(len(signal.shape.frame)) if axis not in order]
    permuted = sketch.permuted(signal, [*rest, *order])
    after: list[int] = []
    groups: list[_Pair] = []
    for sources, sizes in pairs:
        if all(isinstance(axis, int) for axis, _ in sources):
            first = len(after)
            after += sizes
            groups.append(([(first + k, size) for k, size in enumerate(sizes)], sizes))
            continue
        kept: list[tuple[Axis, int]] = []
        for axis, size in sources:
            kept.append((len(after), size) if isinstance(axis, int) else (axis, size))
            after += [size] if isinstance(axis, int) else []
        groups.append((kept, sizes))
    draft = sketch.reshaped(permuted.draft, Reshape(permuted.shape.frame, tuple(after)))
    return replace(permuted, draft=draft), groups


@reads("expand", "expand_as", "repeat", "tile", "broadcast_to", makes=(Dense,))
def _expand(call: Call, x: Signal, *args: Any, **kwargs: Any) -> Signal:
    target = call.result.shape
    found = x.with_axes([ONE] * (len(target) - len(x.axes)) + [*x.axes])
    for dim, size in enumerate(target):
        own = found.size(found.axes[dim], call.sketch.batch)
        if own == size:
            continue
        if own > 1 or (found.axes[dim] == ONE and size in (call.sketch.batch, call.sketch.steps)):
            raise LayoutError("it repeats samples, steps or whole axes of features")
        found = call.sketch.widened(found, dim, size)
    return found


# Indices


@reads("getitem", makes=(Reduce, Slice, Dense, Pool, Delay))
def _getitem(call: Call, x: Signal, index: Any) -> Signal:
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(part, Tensor | Signal | list | np.ndarray) for part in parts):
        raise UnreadableError("it selects by the values of a tensor")
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    if Ellipsis in parts:
        gap = parts.index(Ellipsis)
        parts[gap : gap + 1] = [slice(None)] * (len(x.axes) - taken)
    signal, dim = x, 0
    for part in parts:
        if part is None:
            signal = unsqueezed(signal, dim)
            dim += 1
        elif isinstance(part, slice):
            signal = sliced(call, signal, dim, part)
            dim += 1
        else:
            signal = picked(call, signal, dim, int(part))
    return signal


@reads("select", makes=(Reduce, Slice))
def _select(call: Call, x: Signal, dim: int, index: int) -> Signal:
    return picked(call, x, x.at(dim), index)


@reads("narrow", makes=(Slice,))
def _narrow(call: Call, x: Signal, dim: int, start: int, length: int) -> Signal:
    return sliced(call, x, x.at(dim), slice(start, start + length))


@reads("index_select", makes=(Reduce, Slice))
def _index_select(call: Call, x: Signal, dim: int, index: Any) -> Signal:
    dim, which = x.at(dim), numbers(index).astype(int)
    if isinstance(x.axes[dim], int):
        return call.sketch.select(x, dim, which, "select")
    if len(which) != 1:
        raise LayoutError("it selects several samples or steps")
    return unsqueezed(picked(call, x, dim, int(which[0])), dim)


def picked(call: Call, signal: Signal, dim: int, index: int) -> Signal:
    """Return one entry of an axis, which is then gone: one step, or one feature."""
    axis = signal.axes[dim]
    axes = [*signal.axes[:dim], *signal.axes[dim + 1 :]]
    if axis == STEPS:
        signal = call.sketch.settled(signal)
        if index == -1:
            draft = call.sketch.add(Reduce("last"), signal.draft, suffix="last")
            return replace(signal, draft=draft, axes=tuple(axes), parts=())
        return replace(signal, axes=tuple(axes), step=index % signal.draft.steps, parts=())
    if axis == ONE:
        return signal.with_axes(axes)
    if not isinstance(axis, int):
        raise LayoutError("it selects single samples")
    if signal.parts and axis == 0:
        part = signal.parts[index]
        return part.with_axes(mapped(axes, {1: part.axes[-1]}))
    size = signal.shape.frame[axis]
    if size > 1:
        signal = call.sketch.select(signal, dim, np.array([index % size]), "select")
    return signal.with_axes([*signal.axes[:dim], *signal.axes[dim + 1 :]])


def sliced(call: Call, signal: Signal, dim: int, part: slice) -> Signal:
    """Return a range of an axis: features, or steps at the ends of a sequence."""
    axis = signal.axes[dim]
    size = signal.size(axis, call.sketch.batch)
    start, stop, stride = part.indices(size)
    if (start, stop, stride) == (0, size, 1):
        return signal
    if axis == STEPS:
        if signal.spectrum is not None or stop <= start:
            raise UnreadableError("it leaves out frequencies of a Fourier transform")
        found = replace(
            signal, before=signal.before - start, behind=signal.behind - (size - stop), parts=()
        )
        if stride > 1:
            found = replace(found, behind=signal.behind)
            return call.one(Pool("max", 1, stride), found)
        return found
    if not isinstance(axis, int):
        raise LayoutError("it leaves out samples")
    return call.sketch.select(signal, dim, np.arange(start, stop, stride), "select")


@reads("unbind", makes=(Reduce, Slice))
def _unbind(call: Call, x: Signal, dim: int = 0) -> tuple[Signal, ...]:
    return tuple(picked(call, x, x.at(dim), k) for k in range(len(call.result)))


@reads("chunk", "split", "split_with_sizes", "tensor_split", makes=(Slice,))
def _split(call: Call, x: Signal, size: Any, dim: int = 0) -> tuple[Signal, ...]:
    dim, found, first = x.at(dim), [], 0
    for piece in call.result:
        last = first + piece.shape[dim]
        found.append(sliced(call, x, dim, slice(first, last)))
        first = last
    return tuple(found)


@reads("flip", "fliplr", makes=(Reverse, Dense))
def _flip(call: Call, x: Signal, dims: Any = 1, *rest: Any) -> Signal:
    found = x
    for dim in _several(dims, rest):
        axis = found.axes[found.at(dim)]
        if axis == STEPS:
            found = call.one(Reverse(), found)
        elif isinstance(axis, int):
            backwards = np.arange(found.shape.frame[axis])[::-1]
            found = call.sketch.select(found, dim, backwards, "flip")
        elif axis != ONE:
            raise LayoutError("it reverses the order of samples")
    return found


# Joining


@reads("cat", makes=(Concat,))
def _cat(call: Call, tensors: Sequence[Any], dim: int = 0) -> Signal:
    return joined(call, list(tensors), dim)


@reads("stack", makes=(Concat, Reshape))
def _stack(call: Call, tensors: Sequence[Any], dim: int = 0) -> Signal:
    if any(not isinstance(each, Signal) for each in tensors):
        raise UnreadableError("it stacks signals and constants")
    dim = dim if dim >= 0 else len(tensors[0].axes) + 1 + dim
    return joined(call, [unsqueezed(each, dim) for each in tensors], dim)


@reads("hstack", "column_stack", makes=(Concat,))
def _hstack(call: Call, tensors: Sequence[Any]) -> Signal:
    return joined(call, list(tensors), 1)


def joined(call: Call, given: list[Any], dim: int) -> Signal:
    """Return signals one behind the other: the steps of a loop, or features side by side."""
    signals = [each for each in given if isinstance(each, Signal)]
    first = signals[0]
    dim = first.at(dim)
    if (steps := _all_steps(call, given, dim)) is not None:
        return steps
    if any(signal.axes[dim] == STEPS for signal in signals):
        return _extended(given, dim)
    if len(signals) < len(given):
        raise UnreadableError("it puts constants beside a signal")
    sketch = call.sketch
    if any(signal.step != first.step for signal in signals):
        signals = [sketch.whole(signal) for signal in signals]
    lasts = [sketch.features_last(signal, dim) for signal in signals]
    if any(each.axes != lasts[0].axes for each in lasts):
        places = [d for d, axis in enumerate(lasts[0].axes) if isinstance(axis, int) and d != dim]
        lasts = [sketch.framed(each, [*places, dim]) for each in lasts]
    draft = (
        sketch.add(Concat(), *(each.draft for each in lasts), suffix=call.suffix)
        if len(lasts) > 1
        else lasts[0].draft
    )
    found = replace(lasts[0], draft=draft, parts=())
    one_each = all(each.shape.features == 1 for each in lasts)
    if one_each and len(found.shape.frame) == 2 and len(signals) > 1:
        # Vectors that were stacked: the stack goes first in the frame, so that one can be taken.
        parts = tuple(_without(signal, dim) for signal in signals)
        found = replace(sketch.permuted(found, [1, 0]), parts=parts)
    return found


def _without(signal: Signal, dim: int) -> Signal:
    return signal.with_axes([*signal.axes[:dim], *signal.axes[dim + 1 :]])


def _all_steps(call: Call, given: list[Any], dim: int) -> Signal | None:
    """Return the sequence of which signals are all the steps, forward or backward, if they are."""
    if not all(isinstance(each, Signal) and each.axes[dim] == ONE for each in given):
        return None
    first = given[0]
    same = all(each.draft is first.draft and each.axes == first.axes for each in given)
    steps = [each.step for each in given]
    order = list(range(first.draft.steps))
    if not same or steps not in (order, order[::-1]):
        return None
    axes = [*first.axes[:dim], STEPS, *first.axes[dim + 1 :]]
    found = replace(first, axes=tuple(axes), step=None, parts=())
    return found if steps == order else call.one(Reverse(), found)


def _extended(given: list[Any], dim: int) -> Signal:
    """Return a sequence with steps of zeros before or behind it."""
    signals = [i for i, each in enumerate(given) if isinstance(each, Signal)]
    zeros = all(not numbers(each).any() for i, each in enumerate(given) if i not in signals)
    if len(signals) != 1 or not zeros:
        raise UnreadableError("it puts sequences one behind the other")
    (which,) = signals
    added = [each.shape[dim] if i != which else 0 for i, each in enumerate(given)]
    return _padded(given[which], sum(added[:which]), sum(added[which + 1 :]))


def _padded(signal: Signal, before: int, behind: int) -> Signal:
    if (before and signal.before < 0) or (behind and signal.behind < 0):
        raise UnreadableError("it replaces steps of a sequence by zeros")
    return replace(signal, before=signal.before + before, behind=signal.behind + behind, parts=())


@reads(
    "pad", modules="ConstantPad1d ZeroPad1d ConstantPad2d ZeroPad2d", makes=(Conv1d, Delay, Concat)
)
def _pad(
    call: Call, x: Signal, pad: Sequence[int], mode: str = "constant", value: Any = None
) -> Signal:
    found = x
    for number in range(0, len(pad), 2):
        before, behind = pad[number], pad[number + 1]
        dim = len(x.axes) - 1 - number // 2
        if not before and not behind:
            continue
        if mode != "constant" or value not in (None, 0, 0.0):
            raise UnreadableError(f"it pads with other values than zeros (mode {mode!r})")
        if found.axes[dim] == STEPS:
            if before >= 0 and behind >= 0:
                found = _padded(found, before, behind)
            else:
                size = found.size(STEPS, call.sketch.batch)
                found = _padded(found, max(before, 0), max(behind, 0))
                kept = slice(max(-before, 0), size + max(before, 0) + min(behind, 0))
                found = sliced(call, found, dim, kept)
            continue
        found = call.sketch.features_last(found, dim)
        size = found.shape.features
        kernel = np.eye(size, dtype=np.float32)
        kernel = np.pad(kernel, ((0, 0), (max(before, 0), max(behind, 0))))
        kernel = kernel[:, max(-before, 0) : kernel.shape[1] - max(-behind, 0)]
        found = call.one(Dense(kernel), found)
    return found
