"""What can happen to a signal on its way through a module, one small class for each.

A traced forward becomes a list of these, from the input to the answer. What is none of them cannot
be represented.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Layer:
    """A recurrent layer, or a linear map of the features.

    Attributes
    ----------
    name : str
        Of the attribute that holds it, as in a state dictionary.
    module : Module
        An LMU or LSTM of `lmu_deploy.nn`, a torch LSTM, or a torch Linear.
    """

    name: str
    module: nn.Module

    def __str__(self) -> str:
        return f"{self.name!r} ({type(self.module).__name__})"


@dataclass(frozen=True)
class Last:
    """Only the last of the steps goes on.

    Attributes
    ----------
    axis : int or None
        Along which the last was taken; None where a layer itself gave its last output.
    """

    axis: int | None


@dataclass(frozen=True)
class Swap:
    """Axes of batch and steps change places."""


@dataclass(frozen=True)
class Widen:
    """A last axis of one feature is added."""


@dataclass(frozen=True)
class Narrow:
    """A last axis of one feature is taken away."""


@dataclass(frozen=True)
class Softmax:
    """The answer becomes probabilities, or their logarithms."""

    logarithm: bool


@dataclass(frozen=True)
class Bundle:
    """A layer's outputs and states go on together, which a plain Sequential cannot run."""


Event = Layer | Last | Swap | Widen | Narrow | Softmax | Bundle
