r"""Operators within single frames: reshape, transpose, slice, pooling, layer and RMS norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.operator import Framewise, Shape, check_vector, count
from lmu_deploy.core.graph.time import POOLS
from lmu_deploy.core.validation import (
    check_array,
    check_choice,
    check_integer,
    check_number,
    set_fields,
)

_LONGEST = 1_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(Framewise):
    """The values of every frame, in their order, with other axes.

    Attributes
    ----------
    before, after : tuple of int
        Axes of the frames, of as many values.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("before", "after"):
            axes = tuple(check_integer("frame axis", n, 1, _LONGEST) for n in getattr(self, name))
            if not axes:
                raise InputError("a frame needs at least one axis.")
            set_fields(self, **{name: axes})
        if math.prod(self.before) != math.prod(self.after):
            raise InputError(f"frames of shape {self.before} cannot have the axes {self.after}.")

    def shape(self, *inputs: Shape) -> Shape:
        """Return the new shape."""
        (given,) = inputs
        if given.frame != self.before:
            raise InputError(f"Reshape takes frames of shape {self.before}, not {given}.")
        return Shape(self.after, given.sequence)

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Reshape the trailing axes."""
        (x,) = frames
        return x.reshape(*x.shape[: x.ndim - len(self.before)], *self.after)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "flatten" if len(self.after) == 1 else "reshape"


@dataclass(frozen=True, eq=False, repr=False)
class Permute(Framewise):
    """The axes of every frame in another order.

    Attributes
    ----------
    order : tuple of int
        Which axis of the input each axis of the output is.
    """

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        order = tuple(check_integer("frame axis", n, 0, 16) for n in self.order)
        if sorted(order) != list(range(len(order))):
            raise InputError(f"axes {order} are no permutation; name every axis once.")
        set_fields(self, order=order)

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape with its axes permuted."""
        (given,) = inputs
        if len(given.frame) != len(self.order):
            raise InputError(f"frames {given} do not have {len(self.order)} axes.")
        return Shape(tuple(given.frame[axis] for axis in self.order), given.sequence)

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Permute the trailing axes."""
        (x,) = frames
        leading = x.ndim - len(self.order)
        return x.transpose(*range(leading), *(leading + axis for axis in self.order))

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "transpose"


@dataclass(frozen=True, eq=False, repr=False)
class Slice(Framewise):
    r"""Some features of every frame, :math:`y_i = x_{begin + i}` for :math:`begin + i < end`.

    Attributes
    ----------
    begin, end : int
        The first of them, and the first behind them, on the last axis.
    """

    begin: int
    end: int

    def __post_init__(self) -> None:
        begin = check_integer("slice begin", self.begin, 0, _LONGEST - 1)
        end = check_integer("slice end", self.end, begin + 1, _LONGEST)
        set_fields(self, begin=begin, end=end)

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape with fewer features."""
        (given,) = inputs
        if given.features < self.end:
            raise InputError(f"features {self.begin} to {self.end - 1} are not all in {given}.")
        return Shape((*given.frame[:-1], self.end - self.begin), given.sequence)

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Take the features."""
        return frames[0][..., self.begin : self.end]

    def absorb(self, kernel: np.ndarray, bias: np.ndarray) -> Dense | None:
        """Return the dense operator with some of its units."""
        some = slice(self.begin, self.end)
        return None if kernel.ndim == 1 else Dense(kernel[:, some], bias[some])

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"features {self.begin:,} to {self.end - 1:,}"


@dataclass(frozen=True, eq=False, repr=False)
class FramePool(Framewise):
    """Average or maximum over windows of the leading axes of every frame, channel by channel.

    Attributes
    ----------
    kind : {"average", "max"}
    widths, strides : tuple of int
        One for each axis but the last.
    """

    kind: str
    widths: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        check_choice("pooling", self.kind, POOLS)
        for name in ("widths", "strides"):
            values = tuple(
                check_integer(f"pooling {name}", v, 1, _LONGEST) for v in getattr(self, name)
            )
            set_fields(self, **{name: values})
        if not self.widths or len(self.widths) != len(self.strides):
            raise InputError("pooling needs as many strides as widths, and at least one.")

    def shape(self, *inputs: Shape) -> Shape:
        """Return the number of windows along each axis."""
        (given,) = inputs
        if len(given.frame) != len(self.widths) + 1:
            raise InputError(f"frames {given} do not have {len(self.widths)} axes to pool.")
        sides = tuple(
            (length - width) // stride + 1
            for length, width, stride in zip(
                given.frame[:-1], self.widths, self.strides, strict=True
            )
        )
        if min(sides) < 1:
            raise InputError(f"windows of {self.widths} are larger than the frames {given}.")
        return Shape((*sides, given.features), given.sequence)

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Pool one axis after the other."""
        (x,) = frames
        for number, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True)):
            axis = x.ndim - 1 - len(self.widths) + number
            windows = np.lib.stride_tricks.sliding_window_view(x, width, axis=axis)
            picked = windows[(slice(None),) * axis + (slice(None, None, stride),)]
            x = picked.max(axis=-1) if self.kind == "max" else picked.mean(axis=-1)
        return np.asarray(x)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"{self.kind} over windows of {'x'.join(map(str, self.widths))}"


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Framewise):
    r"""Layer normalization over the features of a frame (Ba, Kiros, Hinton 2016, equation 3).

    .. math:: y = \gamma \frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}} + \beta

    Attributes
    ----------
    scale, offset : ndarray, shape (features,)
    epsilon : float
    """

    scale: np.ndarray
    offset: np.ndarray
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        scale = check_array("normalization scale", self.scale, (None,))
        set_fields(
            self,
            scale=scale,
            offset=check_array("normalization offset", self.offset, scale.shape),
            epsilon=check_number("normalization epsilon", self.epsilon, 0.0, 1.0),
        )

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        check_vector(inputs[0], len(self.scale), "LayerNorm")
        return inputs[0]

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Normalize the last axis."""
        centered = frames[0] - frames[0].mean(axis=-1, keepdims=True)
        variance = np.square(centered).mean(axis=-1, keepdims=True)
        return centered / np.sqrt(variance + self.epsilon) * self.scale + self.offset

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return count(self.scale, self.offset)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "layer normalization"


@dataclass(frozen=True, eq=False, repr=False)
class RMSNorm(Framewise):
    r"""Root mean square normalization (Zhang, Sennrich 2019, equation 4).

    .. math:: y = \gamma \frac{x}{\sqrt{\mathrm{E}[x^2] + \epsilon}}

    Attributes
    ----------
    scale : ndarray, shape (features,)
    epsilon : float
    """

    scale: np.ndarray
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        set_fields(
            self,
            scale=check_array("normalization scale", self.scale, (None,)),
            epsilon=check_number("normalization epsilon", self.epsilon, 0.0, 1.0),
        )

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        check_vector(inputs[0], len(self.scale), "RMSNorm")
        return inputs[0]

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Normalize the last axis."""
        power = np.square(frames[0]).mean(axis=-1, keepdims=True)
        return frames[0] / np.sqrt(power + self.epsilon) * self.scale

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return self.scale.size

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "RMS normalization"
