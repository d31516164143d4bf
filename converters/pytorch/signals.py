r"""Signals of a traced module, and the graph of nodes that grows while it is traced.

A torch tensor has its axes in any order; a node of a :class:`Network` has frames with the channels
last, one for every step. A :class:`Signal` has the meaning of every axis of a tensor, so that a
permutation costs no node: the axes of a tensor (batch, features, steps) are ``(BATCH, 0, STEPS)``,
where the number is an axis of the node's frame. Other labels are ONE, for an axis of length one
that the frame does not have, and a tuple of labels, for axes that were merged into one. Axes of a
frame that no axis of the tensor names have length one.

The graph is a sketch until the tracing is done: what cannot be read is a :class:`Draft` with a
problem instead of an operator, which matters only if the output depends on it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import Permute, Reshape, Slice
from lmu_deploy.core.graph.linear import Conv1d, Dense
from lmu_deploy.core.graph.network import INPUT
from lmu_deploy.core.graph.operator import Operator, Shape
from lmu_deploy.core.graph.time import Delay, Reduce

BATCH, STEPS, ONE = "batch", "steps", "one"
ONE_STEP = "of the sequence alone"
Axis = Any
"""BATCH, STEPS, ONE, the number of an axis of the frame, or a tuple of these."""


class UnreadableError(Exception):
    """A computation of a module that no operator has; the text is a clause with the reason."""


class LayoutError(UnreadableError):
    """Axes of samples, steps and features that a module confuses, or that are not what we think."""


@dataclass(eq=False)
class Draft:
    """A node that may become one of the network.

    Attributes
    ----------
    name : str
    operator : Operator or None
        None for the input, and where there is a problem.
    inputs : tuple of Draft
    shape : Shape or None
        None behind a problem that changes the shape.
    steps : int
        Length of the sequence in the trace.
    problem : str
        Why there is no operator.
    logits : Signal or None
        For a softmax, what it is taken of.
    value : ndarray or None
        What the module computed here, shape (samples, steps, *frame) or (samples, *frame).
    """

    name: str
    operator: Operator | None
    inputs: tuple[Draft, ...]
    shape: Shape | None
    steps: int
    problem: str = ""
    logits: Signal | None = None
    value: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Signal:
    """Meaning of a tensor of the traced module.

    Attributes
    ----------
    draft : Draft
    axes : tuple of Axis
        One for each axis of the tensor.
    before, behind : int
        Steps of zeros that were added to the sequence before its first and behind its last step,
        or, if negative, how many of its own steps were left out.
    step : int or None
        The one step of the sequence that this is; None for all of them.
    parts : tuple of Signal
        Signals that were stacked along the last axis but one of the frame.
    spectrum : int or None
        For a Fourier transform over the steps, its length; the axis of frequencies is STEPS.
    """

    draft: Draft
    axes: tuple[Axis, ...]
    before: int = 0
    behind: int = 0
    step: int | None = None
    parts: tuple[Signal, ...] = ()
    spectrum: int | None = None

    @property
    def shape(self) -> Shape:
        """Shape of the draft's output."""
        if self.draft.shape is None:
            raise UnreadableError("")
        return self.draft.shape

    def size(self, axis: Axis, batch: int) -> int:
        """Return the length of an axis."""
        if isinstance(axis, tuple):
            return math.prod(self.size(part, batch) for part in axis)
        if axis == STEPS:
            return self.draft.steps + self.before + self.behind
        if axis == BATCH:
            return batch
        return 1 if axis == ONE else self.shape.frame[axis]

    def at(self, dim: int) -> int:
        """Return the position of an axis that may be counted from the end."""
        if not -len(self.axes) <= dim < len(self.axes):
            raise UnreadableError(f"axis {dim} is none of its {len(self.axes)}")
        return dim % len(self.axes)

    def with_axes(self, axes: Sequence[Axis]) -> Signal:
        """Return the same signal with its axes named otherwise."""
        return replace(self, axes=tuple(axes))

    @property
    def hidden(self) -> list[int]:
        """Axes of the frame, all of length one, that the tensor does not have."""
        shown = set(atoms(self.axes))
        return [axis for axis in range(len(self.shape.frame)) if axis not in shown]


def atoms(axes: Sequence[Axis]) -> Iterator[Axis]:
    """Yield the labels of axes, those of merged axes one by one."""
    for axis in axes:
        if isinstance(axis, tuple):
            yield from atoms(axis)
        else:
            yield axis


def mapped(axes: Sequence[Axis], new: dict[Any, Any]) -> tuple[Axis, ...]:
    """Return axes with some labels replaced."""
    return tuple(
        mapped(axis, new) if isinstance(axis, tuple) else new.get(axis, axis) for axis in axes
    )


@dataclass(frozen=True, eq=False)
class Loop:
    """State of a cell that is called step by step.

    Attributes
    ----------
    step : int
        Of the latest call.
    state : object
        Of the operator after it.
    hidden : tuple of Draft
        Placeholders for states that no node outputs, one for each result of a call.
    """

    step: int
    state: Any
    hidden: tuple[Draft, ...]


@dataclass
class Sketch:
    """The graph so far.

    Attributes
    ----------
    batch, steps : int
        Samples and steps of the traced input.
    place : str
        Name for the next node: that of the module that runs.
    drafts : list of Draft
    notes : list of str
        What had to be assumed.
    loops : dict of Draft to Loop
        The cells that are called step by step.
    rounded : bool
        Whether the module computes with a response of a memory that it stored, as a rule in
        float32, so that its outputs are less exact than those of the memory.
    """

    batch: int
    steps: int
    place: str = ""
    drafts: list[Draft] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    loops: dict[Draft, Loop] = field(default_factory=dict)
    rounded: bool = False
    _known: dict[Any, Draft] = field(default_factory=dict)
    _names: set[str] = field(default_factory=lambda: {INPUT})

    def note(self, text: str) -> None:
        """Keep what had to be assumed, once."""
        if text not in self.notes:
            self.notes.append(text)

    def begin(self, frame: tuple[int, ...]) -> Draft:
        """Return the input as a draft."""
        draft = Draft(INPUT, None, (), Shape(frame), self.steps)
        self.drafts.append(draft)
        return draft

    def add(self, operator: Operator, *inputs: Draft, suffix: str = "") -> Draft:
        """Return the node of an operator on drafts, the one that there is if there is one.

        Raises
        ------
        UnreadableError
            When the operator does not take inputs of these shapes.
        """
        shapes = [draft.shape for draft in inputs]
        if None in shapes:
            raise UnreadableError("")
        key = (_key(operator), tuple(map(id, inputs)))
        if key in self._known:
            return self._known[key]
        try:
            shape = operator.shape(*(shape for shape in shapes if shape is not None))
        except InputError as error:
            raise UnreadableError(str(error).rstrip(".")) from error
        steps = int(operator.lengths(np.array(inputs[0].steps)))
        draft = Draft(self._name(suffix), operator, inputs, shape, steps)
        self.drafts.append(draft)
        self._known[key] = draft
        return draft

    def fail(
        self,
        problem: str,
        inputs: Sequence[Draft],
        shape: Shape | None = None,
        steps: int = 1,
        suffix: str = "",
    ) -> Draft:
        """Return a draft of what cannot be read; what follows is read on if its shape is known."""
        draft = Draft(self._name(suffix), None, tuple(inputs), shape, steps, problem)
        self.drafts.append(draft)
        return draft

    def _name(self, suffix: str) -> str:
        base = f"{self.place}.{suffix}" if suffix and self.place else suffix or self.place
        name, number = base, 1
        while name in self._names or not name:
            number += 1
            name = f"{base or 'node'}_{number}"
        self._names.add(name)
        return name

    def framewise(self, operator: Operator, signal: Signal, suffix: str = "") -> Signal:
        """Return the output of an operator that keeps the axes of its input."""
        signal = self.settled(signal)
        return replace(signal, draft=self.add(operator, signal.draft, suffix=suffix), parts=())

    def settled(self, signal: Signal) -> Signal:
        """Return a signal whose sequence is its node's own, without steps added or left out.

        Raises
        ------
        UnreadableError
            When no node does that.
        """
        before, behind = signal.before, signal.behind
        if signal.spectrum is not None:
            raise UnreadableError("it acts on a Fourier transform")
        if not before and not behind:
            return signal
        done = replace(signal, before=0, behind=0)
        if before > 0 and behind == -before:
            return replace(done, draft=self.add(Delay(before), signal.draft, suffix="delay"))
        if before <= 0 and behind <= 0:
            draft = self._trimmed(signal.draft, -before, -behind)
            if draft is not None:
                return replace(done, draft=draft)
            raise UnreadableError(f"it leaves out {-before - behind} steps of the sequence")
        raise UnreadableError(
            f"it takes a sequence with {before} steps of zeros before and {behind} behind it, "
            "which only a convolution can"
        )

    def _trimmed(self, draft: Draft, first: int, last: int) -> Draft | None:
        """Return the node whose output lacks the first or last steps; None if there is none."""
        operator = draft.operator
        if isinstance(operator, Conv1d) and operator.stride == 1:
            left, right = operator.left - first, operator.right - last
            if left < 0 or right < 0:
                return None
            return self._again(draft, replace(operator, left=left, right=right), draft.inputs)
        if operator is None or not operator.framewise or not draft.inputs:
            return None
        inputs = [self._trimmed(each, first, last) for each in draft.inputs]
        found = tuple(each for each in inputs if each is not None)
        return self._again(draft, operator, found) if len(found) == len(inputs) else None

    def _again(self, draft: Draft, operator: Operator, inputs: tuple[Draft, ...]) -> Draft:
        """Add a variant of a node under its name; the node itself becomes unused."""
        key = (_key(operator), tuple(map(id, inputs)))
        if key not in self._known:
            steps = int(operator.lengths(np.array(inputs[0].steps)))
            self._known[key] = Draft(draft.name, operator, inputs, draft.shape, steps)
            self.drafts.append(self._known[key])
        return self._known[key]

    def whole(self, signal: Signal) -> Signal:
        """Return a signal that is no longer one of many steps: the last step becomes a node.

        Raises
        ------
        UnreadableError
            When it is another step.
        """
        signal = self.settled(signal)
        if signal.step is None:
            return signal
        if signal.step != signal.draft.steps - 1:
            raise UnreadableError(
                f"it takes step {signal.step} {ONE_STEP}; only the last step, and loops over steps "
                "with linear memories, LMUs, simple recurrent units, LSTM or GRU, can be read"
            )
        draft = self.add(Reduce("last"), signal.draft, suffix="last")
        return replace(signal, draft=draft, step=None)

    def features_last(self, signal: Signal, dim: int) -> Signal:
        """Return a signal in whose frames an axis of the tensor comes last.

        Raises
        ------
        UnreadableError
            When the axis is not one of the frame.
        """
        signal = self.settled(signal)
        dim = signal.at(dim)
        axis, frame = signal.axes[dim], signal.shape.frame
        if axis == ONE:
            if hidden := signal.hidden:
                axis = hidden[-1]
            else:
                axis = len(frame)
                shape = Reshape(frame, (*frame, 1))
                signal = replace(signal, draft=self.reshaped(signal.draft, shape))
            signal = signal.with_axes([*signal.axes[:dim], axis, *signal.axes[dim + 1 :]])
        if not isinstance(axis, int):
            raise LayoutError(f"it acts on the axis of {_named(axis)}, not on one of features")
        order = [k for k in range(len(signal.shape.frame)) if k != axis]
        return self.permuted(signal, [*order, axis])

    def permuted(self, signal: Signal, order: Sequence[int]) -> Signal:
        """Return a signal with the axes of its frames in another order."""
        if list(order) == sorted(order):
            return signal
        draft = self.add(Permute(tuple(order)), signal.draft, suffix="transpose")
        new = {axis: place for place, axis in enumerate(order)}
        return replace(signal, draft=draft, axes=mapped(signal.axes, new), parts=())

    def reshaped(self, draft: Draft, operator: Reshape) -> Draft:
        """Return the node of a reshape; two in a row become one, or none."""
        before = draft.operator
        if isinstance(before, Reshape):
            draft, operator = draft.inputs[0], Reshape(before.before, operator.after)
        if operator.before == operator.after:
            return draft
        return self.add(operator, draft, suffix="reshape")

    def framed(self, signal: Signal, places: Sequence[int]) -> Signal:
        """Return a signal whose frame has exactly the axes of the tensor at `places`, in order."""
        signal = self.settled(signal)
        wanted = [signal.axes[place] for place in places]
        order = [axis for axis in wanted if isinstance(axis, int)]
        if [axis for axis in wanted if not isinstance(axis, int) and axis != ONE]:
            raise LayoutError("it combines axes of steps with axes of features")
        rest = [axis for axis in range(len(signal.shape.frame)) if axis not in order]
        frame = signal.shape.frame
        if any(frame[axis] > 1 for axis in rest):
            raise LayoutError("it combines axes of steps with axes of features")
        signal = self.permuted(signal, [*rest, *order])
        after = [1 if axis == ONE else frame[axis] for axis in wanted] or [1]
        draft = self.reshaped(signal.draft, Reshape(signal.shape.frame, tuple(after)))
        axes = list(signal.axes)
        for number, place in enumerate(places):
            axes[place] = number
        return replace(signal, draft=draft, axes=tuple(axes), parts=())

    def widened(self, signal: Signal, dim: int, size: int) -> Signal:
        """Return a signal with an axis of length one repeated."""
        signal = self.features_last(signal, dim)
        return self.framewise(Dense(np.ones((1, size))), signal, "repeat")

    def select(self, signal: Signal, dim: int, which: np.ndarray, suffix: str) -> Signal:
        """Return some entries of an axis of features: a slice, or a product with zeros and ones."""
        signal = self.features_last(signal, dim)
        first, last = int(which[0]), int(which[-1])
        if np.array_equal(which, np.arange(first, last + 1)):
            return self.framewise(Slice(first, last + 1), signal, suffix)
        kernel = np.eye(signal.shape.features, dtype=np.float32)[:, which]
        return self.framewise(Dense(kernel), signal, suffix)


def _named(axis: Axis) -> str:
    if isinstance(axis, tuple):
        return " and ".join(_named(part) for part in axis)
    return "features" if isinstance(axis, int) else str(axis)


def _key(value: Any) -> Any:
    """Return what is equal for operators that compute the same."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        return type(value), *(_key(getattr(value, f.name)) for f in dataclasses.fields(value))
    return value
