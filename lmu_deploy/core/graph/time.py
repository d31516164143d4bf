r"""Operators over time: reductions of sequences, pooling, delay, reversal, running mean, mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.operator import Operator, Shape, State
from lmu_deploy.core.validation import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    set_fields,
)

REDUCTIONS = ("last", "mean", "max", "sum")
POOLS = ("average", "max")
_LONGEST = 1_000_000


def _axes(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return values (samples, ...) with axes of length one behind them, as many as `like` has."""
    return values.reshape(*values.shape, *([1] * (like.ndim - values.ndim)))


def _sequence(given: Shape, what: str) -> Shape:
    if not given.sequence:
        raise InputError(f"{what} takes a sequence and is given {given}, one frame for all steps.")
    return given


@dataclass(frozen=True, eq=False, repr=False)
class Reduce(Operator):
    """The last frame of a sequence, or the mean, maximum or sum of all its frames.

    Attributes
    ----------
    kind : {"last", "mean", "max", "sum"}
    """

    kind: str

    def __post_init__(self) -> None:
        set_fields(self, kind=check_choice("reduction", self.kind, REDUCTIONS))

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of one frame."""
        return Shape(_sequence(inputs[0], f"Reduce {self.kind}").frame, sequence=False)

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Reduce the steps that count."""
        (x,) = signals
        if lengths is None:
            lengths = np.full(len(x), x.shape[1])
        if self.kind == "last":
            return x[np.arange(len(x)), lengths - 1]
        counts = _axes(np.arange(x.shape[1]) < lengths[:, None], x)
        if self.kind == "max":
            return np.asarray(np.where(counts, x, -np.inf).max(axis=1))
        total = np.where(counts, x, 0.0).sum(axis=1)
        return np.asarray(total / _axes(lengths, total) if self.kind == "mean" else total)

    def trace(
        self, *signals: np.ndarray, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Reduce the steps so far, at every step; behind the end of a sequence, all that count."""
        (x,) = signals
        if self.kind == "max":
            found = np.maximum.accumulate(x, axis=1)
        elif self.kind == "last":
            found = x
        else:
            found = x.cumsum(axis=1)
            if self.kind == "mean":
                found = found / _axes(np.arange(1, x.shape[1] + 1)[None], x)
        if lengths is not None:
            index = np.minimum(np.arange(x.shape[1])[None], lengths[:, None] - 1)
            found = found[np.arange(len(x))[:, None], index]
        return np.asarray(found), {}

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Take a frame; the result is ready at the end of the sequence."""
        (x,) = frames
        if state is None:
            return (1, x), []
        steps, so_far = state
        if self.kind == "max":
            so_far = np.maximum(so_far, x)
        else:
            so_far = x if self.kind == "last" else so_far + x
        return (steps + 1, so_far), []

    def finish(self, state: State) -> list[np.ndarray]:
        """Return the result; a sequence without frames has none."""
        if state is None:
            return []
        steps, so_far = state
        return [so_far / steps if self.kind == "mean" else so_far]

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "last step" if self.kind == "last" else f"{self.kind} over time"


@dataclass(frozen=True, eq=False, repr=False)
class RunningMean(Operator):
    """The mean of all frames so far, at every step."""

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        return _sequence(inputs[0], "RunningMean")

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Divide the sum so far by the number of steps."""
        (x,) = signals
        steps = np.arange(1, x.shape[1] + 1)[None]
        return np.asarray(x.cumsum(axis=1) / _axes(steps, x))

    def start(self, samples: int) -> State:
        """Return no steps and a sum of zero."""
        return 0, 0.0

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Take a frame."""
        steps, total = state[0] + 1, state[1] + frames[0]
        return (steps, total), [total / steps]

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "running mean"


@dataclass(frozen=True, eq=False, repr=False)
class Delay(Operator):
    """The frame of some steps before; zero until there is one.

    Attributes
    ----------
    steps : int
    """

    steps: int

    def __post_init__(self) -> None:
        set_fields(self, steps=check_integer("delay", self.steps, 0, _LONGEST))

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        return _sequence(inputs[0], "Delay")

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Shift the sequence."""
        (x,) = signals
        found = np.zeros_like(x)
        if self.steps < x.shape[1]:
            found[:, self.steps :] = x[:, : x.shape[1] - self.steps]
        return found

    def start(self, samples: int) -> State:
        """Return no frames."""
        return []

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Take a frame and return an earlier one."""
        waiting: list[Any] = [*state, frames[0]]
        if len(waiting) <= self.steps:
            return waiting, [np.zeros_like(frames[0])]
        return waiting[1:], [waiting[0]]

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"delay of {self.steps}"


@dataclass(frozen=True, eq=False, repr=False)
class Reverse(Operator):
    """The sequence from its last step to its first: half of a bidirectional layer."""

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        return _sequence(inputs[0], "Reverse")

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Reverse the steps that count, and leave what follows where it is."""
        (x,) = signals
        if lengths is None:
            return x[:, ::-1]
        steps = np.arange(x.shape[1])[None]
        index = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
        return x[np.arange(len(x))[:, None], index]

    def start(self, samples: int) -> State:
        """Return no frames."""
        return []

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Take a frame; all are ready at the end."""
        return [*state, frames[0]], []

    def finish(self, state: State) -> list[np.ndarray]:
        """Return all frames."""
        return list(state[::-1])

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "reversal of time"


@dataclass(frozen=True, eq=False, repr=False)
class Pool(Operator):
    """Average or maximum over windows of steps.

    Attributes
    ----------
    kind : {"average", "max"}
    width, stride : int
        Steps of a window, and from one window to the next.
    left, right : int
        Steps added before and behind the sequence; they never are the maximum.
    count_padding : bool
        Whether an average divides by the whole width where a window holds added steps.
    """

    kind: str
    width: int
    stride: int
    left: int = 0
    right: int = 0
    count_padding: bool = False

    def __post_init__(self) -> None:
        check_choice("pooling", self.kind, POOLS)
        for name, low in (("width", 1), ("stride", 1), ("left", 0), ("right", 0)):
            value = check_integer(f"pooling {name}", getattr(self, name), low, _LONGEST)
            set_fields(self, **{name: value})
        check_flag("pooling count_padding", self.count_padding)
        if max(self.left, self.right) >= self.width:
            raise InputError(
                f"pooling adds {max(self.left, self.right)} steps and its windows have "
                f"{self.width}; a window must hold a step of the sequence."
            )

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        return _sequence(inputs[0], "Pool")

    def lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Return the number of windows of each sequence."""
        return np.maximum((lengths + self.left + self.right - self.width) // self.stride + 1, 0)

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Compute every window."""
        (x,) = signals
        windows = int(self.lengths(np.array(x.shape[1])))
        found = np.empty((len(x), windows, *x.shape[2:]))
        for i in range(windows):
            first = i * self.stride - self.left
            part = x[:, max(first, 0) : first + self.width]
            found[:, i] = self._window([part[:, t] for t in range(part.shape[1])])
        return found

    def _window(self, frames: list[np.ndarray]) -> np.ndarray:
        stacked = np.stack(frames)
        if self.kind == "max":
            return np.asarray(stacked.max(axis=0))
        return np.asarray(stacked.sum(axis=0) / (self.width if self.count_padding else len(frames)))

    def start(self, samples: int) -> State:
        """Return `left` absent frames, and how many frames to skip."""
        return [None] * self.left, 0

    def step(self, state: State, *frames: np.ndarray | None) -> tuple[State, list[np.ndarray]]:
        """Take a frame; return the windows that it completes."""
        waiting, to_skip = state
        waiting = [*waiting, frames[0]]
        found: list[np.ndarray] = []
        while True:
            gone = min(to_skip, len(waiting))
            waiting, to_skip = waiting[gone:], to_skip - gone
            if to_skip or len(waiting) < self.width:
                return (waiting, to_skip), found
            there = [frame for frame in waiting[: self.width] if frame is not None]
            found.append(self._window(there))
            to_skip = self.stride

    def finish(self, state: State) -> list[np.ndarray]:
        """Return the windows that end in added steps."""
        found: list[np.ndarray] = []
        for _ in range(self.right):
            state, ready = self.step(state, None)
            found += ready
        return found

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"{self.kind} over windows of {self.width} steps"


@dataclass(frozen=True, eq=False, repr=False)
class Mask(Operator):
    r"""The frames that are not padding, in their order; padding has the same value everywhere.

    With :math:`t_1 < t_2 < ...` the steps at which some :math:`x_{t,i} \ne v`,

    .. math:: y_k = x_{t_k}

    Each sequence is as long as it has such steps, wherever they are: what is padded before, behind
    or between frames leaves the states of the operators that follow unchanged. Behind the last of
    them a whole sequence is filled with zeros, which do not count.

    Attributes
    ----------
    value : float
        v, the value of padding.
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        set_fields(self, value=check_number("mask value", self.value, -1e30, 1e30))

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        return _sequence(inputs[0], "Mask")

    def _counts(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """Return which steps count, shape (samples, steps)."""
        counts = np.asarray((x != self.value).reshape(*x.shape[:2], -1).any(axis=-1))
        if lengths is not None:
            counts &= np.arange(x.shape[1]) < lengths[:, None]
        if not counts.any(axis=1).all():
            sample = int(np.argmin(counts.any(axis=1)))
            raise InputError(
                f"sequence {sample} has only frames of {self.value:g}, which are padding; leave it "
                "out."
            )
        return counts

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Put the frames that count first."""
        (x,) = signals
        counts = self._counts(x, lengths)
        order = np.argsort(~counts, axis=1, kind="stable")
        found = np.take_along_axis(x, _axes(order, x), axis=1)
        kept = np.arange(x.shape[1]) < counts.sum(axis=1)[:, None]
        return np.where(_axes(kept, x), found, 0.0)

    def counted(self, lengths: np.ndarray | None, *signals: np.ndarray) -> np.ndarray | None:
        """Return how many frames of each sequence count."""
        return self._counts(signals[0], lengths).sum(axis=1)

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Take a frame and return it, unless it is padding."""
        (x,) = frames
        counts = (x != self.value).reshape(len(x), -1).any(axis=1)
        if counts.all():
            return state, [x]
        if counts.any():
            raise InputError(
                "sequences that are padded at different steps cannot be fed side by side; feed one "
                "at a time."
            )
        return state, []

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"frames other than {self.value:g}"
