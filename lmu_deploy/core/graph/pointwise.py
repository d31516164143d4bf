r"""Elementwise operators: activation functions, sum, product and concatenation of signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, reduce
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


_CHUNK = 16384
"""Values that are computed at once, so that they stay in the cache."""
_NODES, _LIMIT = 512, 20
"""Nodes per unit, and the number from which on the hyperbolic tangent is one in float64."""
_ROUNDING = 1.5 * 2.0**52
"""A sum with it has the nearest whole number in its last bits."""


@cache
def _tanh_nodes() -> np.ndarray:
    return np.tanh(np.arange(-_LIMIT * _NODES, _LIMIT * _NODES + 1) / _NODES)


def _fill_tanh(z: np.ndarray, out: np.ndarray) -> None:
    r"""Compute the hyperbolic tangent in less than half the time of NumPy's, to 4e-16.

    With the nearest node a of a table and :math:`b = z - a`, it is
    :math:`(\tanh a + \tanh b) / (1 + \tanh a \tanh b)`, and :math:`\tanh b = b - b^3 / 3` to
    2e-17 because :math:`|b| \le 2^{-10}`.

    Parameters
    ----------
    z, out : ndarray, shape (values,)
        Contiguous.
    """
    nodes = _tanh_nodes()
    first_node = np.float64(_ROUNDING).view(np.int64) - _LIMIT * _NODES
    room = np.empty((3, min(z.size, _CHUNK)))
    for first in range(0, z.size, _CHUNK):
        x, y = z[first : first + _CHUNK], out[first : first + _CHUNK]
        b, a, p = room[:, : x.size]
        np.multiply(x, _NODES, out=b)
        if not (b.max() <= _LIMIT * _NODES and b.min() >= -_LIMIT * _NODES):  # or not a number
            np.clip(b, -_LIMIT * _NODES, _LIMIT * _NODES, out=b)
        np.add(b, _ROUNDING, out=a)
        index = np.subtract(a.view(np.int64), first_node, out=p.view(np.int64))
        a -= _ROUNDING
        b -= a
        nodes.take(index, out=a, mode="clip")
        np.multiply(b, b, out=p)
        p *= -1.0 / (3.0 * _NODES**3)
        p += 1.0 / _NODES
        p *= b
        np.multiply(a, p, out=b)
        b += 1.0
        a += p
        np.divide(a, b, out=y)


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

    def fill(self, z: np.ndarray, out: np.ndarray) -> None:
        """Compute z of shape (features, samples) into `out`; both are contiguous."""
        if self.name == "tanh" and z.size >= _CHUNK:
            _fill_tanh(z.reshape(-1), out.reshape(-1))
        else:
            out[:] = self.apply(z.T).T

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
