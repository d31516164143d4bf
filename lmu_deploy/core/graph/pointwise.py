r"""Elementwise operators: activation functions, sum, product and concatenation of signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np
from scipy.special import erf

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.operator import Framewise, Shape
from lmu_deploy.core.validation import check_choice, check_number, set_fields


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Return the logistic function, written with tanh so that it never overflows."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, z)


def _softmax(z: np.ndarray) -> np.ndarray:
    exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def _gelu(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * z * (1.0 + erf(z / math.sqrt(2.0))))


def _gelu_tanh(z: np.ndarray) -> np.ndarray:
    inner = math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)
    return np.asarray(0.5 * z * (1.0 + np.tanh(inner)))


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0.0),
    "relu6": lambda z: np.clip(z, 0.0, 6.0),
    "tanh": np.tanh,
    "hard-tanh": lambda z: np.clip(z, -1.0, 1.0),
    "sigmoid": sigmoid,
    "hard-sigmoid": lambda z: np.clip(z / 6.0 + 0.5, 0.0, 1.0),
    "hard-sigmoid-keras2": lambda z: np.clip(0.2 * z + 0.5, 0.0, 1.0),
    "gelu": _gelu,
    "gelu-tanh": _gelu_tanh,
    "silu": lambda z: z * sigmoid(z),
    "softsign": lambda z: z / (1.0 + np.abs(z)),
    "softplus": _softplus,
    "step": lambda z: np.where(z >= 0.0, 1.0, 0.0),
    "softmax": _softmax,
}
"""Activation functions without a parameter. ``gelu`` is the exact form and ``gelu-tanh`` its
approximation (Hendrycks, Gimpel 2016); ``hard-sigmoid`` is clip(z / 6 + 1/2) of PyTorch and Keras
3, ``hard-sigmoid-keras2`` clip(z / 5 + 1/2); ``step`` is 1 from zero on and 0 below; ``softmax``
acts on the last axis."""

_WITH_SLOPE: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "leaky-relu": lambda z, slope: np.where(z < 0.0, slope * z, z),
    "elu": lambda z, slope: np.where(z < 0.0, slope * np.expm1(np.minimum(z, 0.0)), z),
}
NAMES = (*FUNCTIONS, *_WITH_SLOPE)


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Framewise):
    """A nonlinear function of every value.

    Attributes
    ----------
    name : str
        One of `NAMES`.
    slope : float
        Of leaky-relu and elu, for negative values; of no effect otherwise.
    """

    name: str
    slope: float = 1.0

    def __post_init__(self) -> None:
        set_fields(
            self,
            name=check_choice("activation", self.name, NAMES),
            slope=check_number("activation slope", self.slope, -1e6, 1e6),
        )

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        return inputs[0]

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Compute on an array of any shape."""
        if self.name in _WITH_SLOPE:
            return _WITH_SLOPE[self.name](frames[0], self.slope)
        return FUNCTIONS[self.name](frames[0])

    def describe(self) -> str:
        """Return the name of the function."""
        return f"{self.name} {self.slope:g}" if self.name in _WITH_SLOPE else self.name


class _Combination(Framewise):
    """An operator on two or more signals of the same shape."""

    fewest: ClassVar[int] = 2
    most: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape that all inputs have."""
        if any(other != inputs[0] for other in inputs):
            shapes = ", ".join(map(str, inputs))
            raise InputError(f"{type(self).__name__} needs inputs of one shape, not {shapes}.")
        return inputs[0]


@dataclass(frozen=True, eq=False, repr=False)
class Add(_Combination):
    """The sum of all inputs."""

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Add, from the first input to the last."""
        return reduce(np.add, frames)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "sum"


@dataclass(frozen=True, eq=False, repr=False)
class Multiply(_Combination):
    """The product of all inputs, value by value."""

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Multiply, from the first input to the last."""
        return reduce(np.multiply, frames)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "product"


@dataclass(frozen=True, eq=False, repr=False)
class Concat(_Combination):
    """All inputs one behind the other, on the last axis."""

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape with the sum of all features."""
        first = inputs[0]
        for other in inputs:
            if other.sequence != first.sequence or other.frame[:-1] != first.frame[:-1]:
                shapes = ", ".join(map(str, inputs))
                raise InputError(
                    f"Concat needs inputs that differ in their last axis alone, not {shapes}."
                )
        features = sum(other.features for other in inputs)
        return Shape((*first.frame[:-1], features), first.sequence)

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Concatenate the last axes."""
        return np.concatenate(frames, axis=-1)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "concatenation"
