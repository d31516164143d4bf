r"""Linear operators: dense, scale and offset, convolutions over time and over frames, embedding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.operator import (
    Framewise,
    Operator,
    Shape,
    State,
    check_vector,
    count,
    plus,
    through,
)
from lmu_deploy.core.validation import check_array, check_integer, set_fields

_LONGEST = 1_000_000
"""Steps or pixels that a kernel, a stride or a padding may have at most."""


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Framewise):
    """``y = x W + b`` on the last axis of every frame; also a 1x1 convolution.

    Attributes
    ----------
    kernel : ndarray, shape (n_in, n_out)
    bias : ndarray, shape (n_out,), or None
    """

    kernel: np.ndarray
    bias: np.ndarray | None = None

    def __post_init__(self) -> None:
        kernel = check_array("dense kernel", self.kernel, (None, None))
        set_fields(self, kernel=kernel)
        if self.bias is not None:
            set_fields(self, bias=check_array("dense bias", self.bias, (kernel.shape[1],)))

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape with the last axis replaced."""
        (given,) = inputs
        check_vector(given, self.kernel.shape[0], "Dense")
        return Shape((*given.frame[:-1], self.kernel.shape[1]), given.sequence)

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Compute on arrays of shape (..., n_in), as one product of two matrices."""
        (x,) = frames
        product = x.reshape(-1, x.shape[-1]) @ self.kernel.astype(np.float64)
        if self.bias is not None:
            product += self.bias
        return product.reshape(*x.shape[:-1], self.kernel.shape[1])

    def absorb(self, kernel: np.ndarray, bias: np.ndarray) -> Dense:
        """Return a dense operator with the product of both kernels."""
        return Dense(through(kernel, self.kernel), plus(self.bias, bias @ self.kernel))

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return count(self.kernel, self.bias)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"dense, {self.kernel.shape[1]:,} units"


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Framewise):
    """``y = x * scale + offset`` for every feature: a normalization with fixed statistics.

    Attributes
    ----------
    scale, offset : ndarray, shape (features,)
    """

    scale: np.ndarray
    offset: np.ndarray

    def __post_init__(self) -> None:
        scale = check_array("affine scale", self.scale, (None,))
        set_fields(self, scale=scale, offset=check_array("affine offset", self.offset, scale.shape))

    @classmethod
    def from_batch_norm(
        cls,
        mean: np.ndarray,
        variance: np.ndarray,
        gamma: np.ndarray | None,
        beta: np.ndarray | None,
        epsilon: float,
    ) -> Affine:
        r"""Build the map of a batch normalization at inference.

        It is :math:`y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta` (Ioffe, Szegedy
        2015, algorithm 2).
        """
        scale = 1.0 / np.sqrt(np.asarray(variance, np.float64) + epsilon)
        scale = scale if gamma is None else scale * gamma
        offset = -np.asarray(mean, np.float64) * scale
        return cls(scale, offset if beta is None else offset + beta)

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the input."""
        check_vector(inputs[0], len(self.scale), "Affine")
        return inputs[0]

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Compute on arrays of shape (..., features)."""
        return frames[0] * self.scale + self.offset

    def absorb(self, kernel: np.ndarray, bias: np.ndarray) -> Operator:
        """Return the scale and offset, or the dense operator, of both maps."""
        offset = bias * self.scale + self.offset
        if kernel.ndim == 1:
            return Affine(kernel * self.scale, offset)
        return Dense(kernel * self.scale, offset)

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return count(self.scale, self.offset)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return "scale and offset"


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Framewise):
    """Row ``x`` of a table, for frames that are one whole number.

    Attributes
    ----------
    table : ndarray, shape (tokens, n_out)
    """

    table: np.ndarray

    def __post_init__(self) -> None:
        set_fields(self, table=check_array("embedding table", self.table, (None, None)))

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of a row of the table."""
        (given,) = inputs
        check_vector(given, 1, "Embedding")
        return Shape((*given.frame[:-1], self.table.shape[1]), given.sequence)

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Look up tokens of shape (..., 1).

        Raises
        ------
        InputError
            When a token is no whole number or lies outside the table.
        """
        tokens = frames[0][..., 0]
        index = tokens.astype(np.int64)
        wrong = (index != tokens) | (index < 0) | (index >= len(self.table))
        if wrong.any():
            raise InputError(
                f"token {tokens[wrong].flat[0]:g} is outside 0 to {len(self.table) - 1}; give "
                "whole numbers that the embedding has a row for."
            )
        return self.table.astype(np.float64)[index]

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return self.table.size

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"embedding, {len(self.table):,} tokens"


@dataclass(frozen=True, eq=False, repr=False)
class Conv1d(Operator):
    r"""A convolution over time (a cross-correlation, as frameworks have it).

    .. math:: y_t = b + \sum_{k=0}^{K-1} x_{s t + d k - l} W_k

    with stride s, dilation d, and l frames of zeros before the sequence and r behind it. A causal
    convolution has l = d (K - 1) and r = 0.

    Attributes
    ----------
    kernel : ndarray, shape (K, n_in / groups, n_out)
    bias : ndarray, shape (n_out,), or None
    stride, dilation, groups : int
    left, right : int
        Frames of zeros before and behind the sequence.
    """

    kernel: np.ndarray
    bias: np.ndarray | None = None
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    left: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        kernel = check_array("convolution kernel", self.kernel, (None, None, None))
        set_fields(self, kernel=kernel)
        if self.bias is not None:
            set_fields(self, bias=check_array("convolution bias", self.bias, (kernel.shape[2],)))
        for name, low in (("stride", 1), ("dilation", 1), ("groups", 1), ("left", 0), ("right", 0)):
            value = check_integer(f"convolution {name}", getattr(self, name), low, _LONGEST)
            set_fields(self, **{name: value})
        if kernel.shape[0] < 1 or kernel.shape[2] % self.groups:
            raise InputError(
                f"a convolution with a kernel of shape {kernel.shape} cannot have {self.groups} "
                "groups; the number of outputs must be a multiple of it."
            )

    @property
    def reach(self) -> int:
        """Number of steps from the first to the last tap, both counted."""
        return self.dilation * (self.kernel.shape[0] - 1) + 1

    def shape(self, *inputs: Shape) -> Shape:
        """Return a sequence of n_out features."""
        (given,) = inputs
        n_in = self.kernel.shape[1] * self.groups
        check_vector(given, n_in, "Conv1d")
        if not given.sequence or len(given.frame) != 1:
            raise InputError(f"Conv1d takes a sequence of vectors and is given {given}.")
        return Shape((self.kernel.shape[2],))

    def lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Return the number of steps of the output for each sequence."""
        return np.maximum((lengths + self.left + self.right - self.reach) // self.stride + 1, 0)

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Sum one product for each tap."""
        (x,) = signals
        padded = np.pad(x, ((0, 0), (self.left, self.right), (0, 0)))
        steps = int(self.lengths(np.array(x.shape[1])))
        y = np.zeros((len(x), steps, self.kernel.shape[2]))
        for k in range(self.kernel.shape[0]):
            first = k * self.dilation
            taps = padded[:, first : first + steps * self.stride : self.stride]
            y += grouped_product(taps, self.kernel[k], self.groups)
        return y if self.bias is None else y + self.bias

    def absorb(self, kernel: np.ndarray, bias: np.ndarray) -> Conv1d | None:
        """Return the convolution with every tap multiplied, if no padding meets the bias."""
        padded = self.left or self.right
        if self.groups > 1 or (padded and bias.any()):
            return None
        taps = np.stack([through(kernel, tap) for tap in self.kernel])
        return replace(self, kernel=taps, bias=plus(self.bias, (bias @ self.kernel).sum(axis=0)))

    def start(self, samples: int) -> State:
        """Return the number of samples, `left` frames of zeros, and how many frames to skip."""
        n_in = self.kernel.shape[1] * self.groups
        return samples, [np.zeros((samples, n_in)) for _ in range(self.left)], 0

    def step(self, state: State, *frames: np.ndarray) -> tuple[State, list[np.ndarray]]:
        """Take a frame; return one where the kernel fits into the frames so far."""
        samples, waiting, to_skip = state
        waiting = [*waiting, frames[0]]
        found: list[np.ndarray] = []
        while True:
            gone = min(to_skip, len(waiting))
            waiting, to_skip = waiting[gone:], to_skip - gone
            if to_skip or len(waiting) < self.reach:
                return (samples, waiting, to_skip), found
            y = np.zeros((samples, self.kernel.shape[2]))
            for k in range(len(self.kernel)):
                y += grouped_product(waiting[k * self.dilation], self.kernel[k], self.groups)
            found.append(y if self.bias is None else y + self.bias)
            to_skip = self.stride

    def finish(self, state: State) -> list[np.ndarray]:
        """Return what `right` frames of zeros give."""
        found: list[np.ndarray] = []
        zeros = np.zeros((state[0], self.kernel.shape[1] * self.groups))
        for _ in range(self.right):
            state, ready = self.step(state, zeros)
            found += ready
        return found

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return count(self.kernel, self.bias)

    def describe(self) -> str:
        """Return the operator in a few words."""
        causal = self.right == 0 and self.left == self.reach - 1
        kind = "causal " if causal and self.reach > 1 else ""
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{kind}convolution of {len(self.kernel)} steps{stride}{groups}"


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(Framewise):
    """A convolution over the two axes of every frame, channels last.

    Attributes
    ----------
    kernel : ndarray, shape (height, width, n_in / groups, n_out)
    bias : ndarray, shape (n_out,), or None
    strides, dilations : tuple of two ints
    padding : tuple of four ints
        Zeros at the top, bottom, left and right of each frame.
    groups : int
    """

    kernel: np.ndarray
    bias: np.ndarray | None = None
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    def __post_init__(self) -> None:
        kernel = check_array("convolution kernel", self.kernel, (None, None, None, None))
        set_fields(self, kernel=kernel)
        if self.bias is not None:
            set_fields(self, bias=check_array("convolution bias", self.bias, (kernel.shape[3],)))
        for name, number, low in (("strides", 2, 1), ("dilations", 2, 1), ("padding", 4, 0)):
            values = tuple(getattr(self, name))
            if len(values) != number:
                raise InputError(f"convolution {name} has {len(values)} entries, not {number}.")
            checked = tuple(check_integer(f"convolution {name}", v, low, _LONGEST) for v in values)
            set_fields(self, **{name: checked})
        groups = check_integer("convolution groups", self.groups, 1, _LONGEST)
        if kernel.shape[3] % groups:
            raise InputError(
                f"a convolution of {kernel.shape[3]} outputs cannot have {groups} groups; the "
                "number of outputs must be a multiple of it."
            )

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the frames (height, width, n_out)."""
        (given,) = inputs
        if len(given.frame) != 3:
            raise InputError(f"Conv2d takes frames (height, width, channels), not {given}.")
        check_vector(given, self.kernel.shape[2] * self.groups, "Conv2d")
        sides = tuple(
            (given.frame[axis] + self.padding[2 * axis] + self.padding[2 * axis + 1] - reach)
            // self.strides[axis]
            + 1
            for axis, reach in enumerate(self._reach)
        )
        if min(sides) < 1:
            raise InputError(f"the kernel of Conv2d is larger than its frames, {given}.")
        return Shape((*sides, self.kernel.shape[3]), given.sequence)

    @property
    def _reach(self) -> tuple[int, int]:
        height, width = (
            self.dilations[axis] * (self.kernel.shape[axis] - 1) + 1 for axis in (0, 1)
        )
        return height, width

    def apply(self, *frames: np.ndarray) -> np.ndarray:
        """Sum one product for each entry of the kernel."""
        (x,) = frames
        top, bottom, left, right = self.padding
        edges = [*([(0, 0)] * (x.ndim - 3)), (top, bottom), (left, right), (0, 0)]
        padded = np.pad(x, edges)
        height, width, n_out = self.shape(Shape(x.shape[-3:])).frame
        y = np.zeros((*x.shape[:-3], height, width, n_out))
        for i in range(self.kernel.shape[0]):
            rows = slice(i * self.dilations[0], None, self.strides[0])
            for j in range(self.kernel.shape[1]):
                columns = slice(j * self.dilations[1], None, self.strides[1])
                part = padded[..., rows, columns, :][..., :height, :width, :]
                y += grouped_product(part, self.kernel[i, j], self.groups)
        return y if self.bias is None else y + self.bias

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return count(self.kernel, self.bias)

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"convolution of {self.kernel.shape[0]}x{self.kernel.shape[1]} pixels"


def grouped_product(x: np.ndarray, weights: np.ndarray, groups: int) -> np.ndarray:
    """Return the product of frames (..., n_in) with weights (n_in / groups, n_out), by groups."""
    weights = weights.astype(np.float64)
    if groups == 1:
        return np.asarray(x @ weights)
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    each = weights.reshape(weights.shape[0], groups, -1)
    return np.einsum("...gi,igo->...go", grouped, each).reshape(*x.shape[:-1], -1)
