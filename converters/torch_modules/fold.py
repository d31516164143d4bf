r"""Linear maps that stand between layers, as part of the layers.

With :math:`s = x W + b` going into a layer whose own weights are applied to s, the layer that takes
x instead has the weights :math:`W E_x` and :math:`W W_x`, and :math:`b E_x`, :math:`b W_x` join its
biases. Products are made in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.errors import InputError
from lmu_deploy.network import Layer, LSTMLayer

_LARGEST_IDENTITY = 4096


@dataclass(frozen=True)
class Linear:
    """``y = x kernel + bias``.

    Attributes
    ----------
    kernel : ndarray, shape (n_in, n_out)
    bias : ndarray, shape (n_out,), or None
    """

    kernel: np.ndarray
    bias: np.ndarray | None


def identity(size: int) -> Linear:
    """Give the map that passes signals on, for a network that ends with its last layer."""
    if size > _LARGEST_IDENTITY:
        raise InputError(
            f"the network ends with {size} signals and no linear layer, more than "
            f"{_LARGEST_IDENTITY}; give it a readout."
        )
    return Linear(np.eye(size, dtype=np.float32), None)


def join(first: Linear, second: Linear) -> Linear:
    """Give one map for two in a row.

    Raises
    ------
    InputError
        When the second does not take what the first gives.
    """
    kernel = _through(first, second.kernel)
    bias = _shift(first, second.kernel, second.bias)
    return Linear(kernel, bias)


def feed(layer: Layer, linear: Linear) -> Layer:
    """Give the layer that does to x what `layer` does to ``x kernel + bias``.

    Raises
    ------
    InputError
        When the layer does not take what the map gives.
    """
    if isinstance(layer, LSTMLayer):
        bias = _shift(linear, layer.kernel, layer.bias)
        assert bias is not None
        return replace(layer, kernel=_through(linear, layer.kernel), bias=bias)
    hidden = layer.hidden
    if hidden is not None and hidden.input_kernel is not None:
        hidden = replace(
            hidden,
            input_kernel=_through(linear, hidden.input_kernel),
            bias=_shift(linear, hidden.input_kernel, hidden.bias),
        )
    return replace(
        layer,
        input_encoders=_through(linear, layer.input_encoders),
        memory_bias=_shift(linear, layer.input_encoders, layer.memory_bias),
        hidden=hidden,
    )


def _through(linear: Linear, kernel: np.ndarray) -> np.ndarray:
    if linear.kernel.shape[1] != kernel.shape[0]:
        raise InputError(
            f"it takes {kernel.shape[0]} features and the linear layer before it gives "
            f"{linear.kernel.shape[1]}"
        )
    return (linear.kernel.astype(np.float64) @ kernel).astype(kernel.dtype)


def _shift(linear: Linear, kernel: np.ndarray, bias: np.ndarray | None) -> np.ndarray | None:
    if linear.bias is None:
        return bias
    moved = linear.bias.astype(np.float64) @ kernel + (0.0 if bias is None else bias)
    return moved.astype(kernel.dtype)
