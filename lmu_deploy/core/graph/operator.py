"""Base of every operator of a network: shape inference, a whole-sequence form, and a step.

An operator is a frozen dataclass of weights. It computes on float64 signals of shape
``(samples, steps, *frame)``; a signal that has been reduced over time has shape
``(samples, *frame)``. Each operator has two forms of its equation, which agree:

* :meth:`Operator.forward` computes all steps of a sequence at once, in its fastest exact form;
* :meth:`Operator.step` takes one frame of each input and returns the frames that are ready. An
  operator that looks ahead (a centered convolution) returns its first frame some steps later, one
  with a stride returns a frame at every few steps, and :meth:`Operator.finish` returns the rest at
  the end of the sequence. Frames wait in queues where branches meet, so that any graph can be
  executed step by step (a Kahn process network; Kahn 1974, "The semantics of a simple language for
  parallel programming").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.representation import Part

State = Any
"""State that an operator carries from step to step; None without one."""


@dataclass(frozen=True)
class Shape:
    """Shape of a signal, without its samples and steps.

    Attributes
    ----------
    frame : tuple of int
        Axes of one frame, channels last.
    sequence : bool
        Whether there is a frame for every step, or one for the whole sequence.
    """

    frame: tuple[int, ...]
    sequence: bool = True

    @property
    def features(self) -> int:
        """Size of the last axis, on which dense operators act."""
        return self.frame[-1]

    @property
    def size(self) -> int:
        """Number of values in a frame."""
        return math.prod(self.frame)

    def __str__(self) -> str:
        """Return the shape as it is printed in tables, such as ``(steps, 28, 28)``."""
        axes = [*(["steps"] if self.sequence else []), *map(str, self.frame)]
        return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


class Operator(Part):
    """One operation of a network.

    Attributes
    ----------
    fewest, most : int
        How many inputs it takes; `most` is None where there is no limit.
    """

    fewest: ClassVar[int] = 1
    most: ClassVar[int | None] = 1

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the output.

        Raises
        ------
        InputError
            When the inputs do not fit the weights.
        """
        raise NotImplementedError

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Compute all steps of whole sequences.

        Parameters
        ----------
        *signals : ndarray, shape (samples, steps, *frame), float64
        lengths : ndarray, shape (samples,), optional
            Steps of each sequence that count; what follows is padding.

        Returns
        -------
        ndarray, shape (samples, steps, *frame) or (samples, *frame)
        """
        raise NotImplementedError

    def last(self, *signals: np.ndarray) -> np.ndarray:
        """Compute the frame of the last step alone, shape (samples, *frame)."""
        return self.forward(*signals)[:, -1]

    def trace(
        self, *signals: np.ndarray, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Compute all steps, and the states of every step.

        Returns
        -------
        output : ndarray, shape (samples, steps, *frame)
            For an operator that answers once, the answer to the steps so far.
        states : mapping of part to ndarray, shape (samples, steps, size)
            Those of `states`.
        """
        return self.forward(*signals, lengths=lengths), {}

    @property
    def framewise(self) -> bool:
        """Whether the output at a step depends on the inputs at that step alone."""
        return False

    def lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Return how many steps of the output count, given how many of the input do."""
        return lengths

    def counted(self, lengths: np.ndarray | None, *signals: np.ndarray) -> np.ndarray | None:
        """Return how many steps of the output count, given the input; None if all do."""
        return None if lengths is None else self.lengths(lengths)

    def start(self, samples: int) -> State:
        """Return the state before the first step."""
        return None

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Take one frame of each input; return the new state and the frames that are ready.

        Parameters
        ----------
        state : what `start` or the step before returned
        *frames : ndarray, shape (samples, *frame), float64
        """
        raise NotImplementedError

    def finish(self, state: State) -> list[np.ndarray]:
        """Return the frames that remain when the sequence ends."""
        return []

    def absorb(self, kernel: np.ndarray, bias: np.ndarray) -> Operator | None:
        """Return the operator that computes from x what this one computes from ``x K + b``.

        Parameters
        ----------
        kernel : ndarray, shape (n_in, features), or shape (features,) for a diagonal K
        bias : ndarray, shape (features,)

        Returns
        -------
        Operator or None
            None where no operator of this kind does.
        """
        return None

    @property
    def states(self) -> Mapping[str, int]:
        """Number of states that a recording keeps, by part: ``memory`` and ``hidden``."""
        return {}

    @property
    def n_states(self) -> int:
        """Number of values that are carried from step to step for one sample."""
        return sum(self.states.values())

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return 0

    def describe(self) -> str:
        """Return the operator in a few words, for tables."""
        return type(self).__name__


class Framewise(Operator):
    """An operator that computes each frame by itself, on the trailing axes of an array."""

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Compute on arrays of shape (..., *frame)."""
        raise NotImplementedError

    @property
    def framewise(self) -> bool:
        """Return True."""
        return True

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Compute all frames; see :meth:`Operator.forward`."""
        return self.apply(*signals)

    def last(self, *signals: np.ndarray) -> np.ndarray:
        """Compute the last frame alone."""
        return self.apply(*(signal[:, -1] for signal in signals))

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Compute one frame."""
        return state, [self.apply(*frames)]


class Recurrent(Operator):
    """An operator whose output at step t follows from its state and the inputs at step t."""

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the output; the input must be a sequence of vectors."""
        (given,) = inputs
        if not given.sequence or len(given.frame) != 1 or given.features != self.n_in:
            raise InputError(
                f"takes a sequence of {self.n_in} features and is given {given}; the two must be "
                "equal."
            )
        return Shape((self.n_out,))

    @property
    def n_in(self) -> int:
        """Number of input features."""
        raise NotImplementedError

    @property
    def n_out(self) -> int:
        """Number of output features."""
        raise NotImplementedError

    @property
    def states(self) -> Mapping[str, int]:
        """Number of hidden units."""
        return {"hidden": self.n_out}

    def advance(self, state: State, x: np.ndarray) -> tuple[State, np.ndarray]:
        """Advance by one step.

        Parameters
        ----------
        state : what `start` or the step before returned
        x : ndarray, shape (samples, n_in)

        Returns
        -------
        state
        output : ndarray, shape (samples, n_out)
        """
        raise NotImplementedError

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Advance by one step; the output is ready at once."""
        state, output = self.advance(state, frames[0])
        return state, [output]

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Advance step by step through whole sequences."""
        (x,) = signals
        state = self.start(len(x))
        outputs = np.empty((*x.shape[:2], self.n_out))
        for t in range(x.shape[1]):
            state, outputs[:, t] = self.advance(state, x[:, t])
        return outputs

    def trace(
        self, *signals: np.ndarray, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Compute all steps; the output is the only state that is kept."""
        output = self.forward(*signals)
        return output, dict.fromkeys(self.states, output)

    def last(self, *signals: np.ndarray) -> np.ndarray:
        """Advance through whole sequences without keeping the outputs between."""
        (x,) = signals
        state = self.start(len(x))
        output = np.zeros((len(x), self.n_out))
        for t in range(x.shape[1]):
            state, output = self.advance(state, x[:, t])
        return output


def through(kernel: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``K W`` in float64; K is diagonal where it has one axis."""
    weights = weights.astype(np.float64)
    return np.asarray(kernel[:, None] * weights if kernel.ndim == 1 else kernel @ weights)


def plus(bias: np.ndarray | None, more: np.ndarray) -> np.ndarray:
    """Return the sum of a bias, which may be None, and another."""
    return more if bias is None else bias + more


def count(*arrays: np.ndarray | None) -> int:
    """Return the number of values of all arrays that are there."""
    return sum(array.size for array in arrays if array is not None)


def check_vector(given: Shape, features: int, what: str) -> None:
    """Raise InputError when the last axis of a signal does not have `features` entries."""
    if not given.frame or given.features != features:
        raise InputError(
            f"{what} takes {features} features and is given {given}; the two must be equal."
        )
