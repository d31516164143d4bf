r"""Normalizations whose statistics are those of every single frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.graph.operator import Framewise, Shape, check_vector, count
from lmu_deploy.core.validation import check_array, check_number, set_fields


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
