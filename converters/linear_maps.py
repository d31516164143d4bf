r"""Fold linear maps into the layer or linear map that follows them.

If a layer with input weights :math:`E_x` and :math:`W_x` takes :math:`s = x W + b`, the layer that
takes x instead has the weights :math:`W E_x` and :math:`W W_x`, and :math:`b E_x`, :math:`b W_x`
are added to its biases. Products are computed in float64 and rounded once. A map is represented by
a :class:`Readout`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Layer, LSTMLayer, Readout

_LARGEST_IDENTITY = 4096


def identity(size: int) -> np.ndarray:
    """Return an identity matrix, for a model that has no linear map at this place.

    Raises
    ------
    InputError
        When it would be far larger than the file that needs it.
    """
    if size > _LARGEST_IDENTITY:
        raise InputError(
            f"{size} signals are passed on unchanged, more than {_LARGEST_IDENTITY}; "
            "give the model a linear layer (in Keras a kernel or a Dense layer) there."
        )
    return np.eye(size, dtype=np.float32)


def join(first: Readout | None, second: Readout) -> Readout:
    """Return the composition of two maps, the first of which may be missing.

    Raises
    ------
    InputError
        When the output size of the first is not the input size of the second.
    """
    if first is None:
        return second
    return Readout(_compose(first, second.kernel), _shift(first, second.kernel, second.bias))


def feed(linear: Readout | None, layer: Layer) -> Layer:
    """Return the layer that does to x what `layer` does to ``x kernel + bias``.

    Raises
    ------
    InputError
        When the output size of the map is not the input size of the layer.
    """
    if linear is None:
        return layer
    if isinstance(layer, LSTMLayer):
        kernel, bias = _compose(linear, layer.kernel), _shift(linear, layer.kernel, layer.bias)
        return replace(layer, kernel=kernel, bias=layer.bias if bias is None else bias)
    hidden = layer.hidden
    if hidden is not None and hidden.input_kernel is not None:
        hidden = replace(
            hidden,
            input_kernel=_compose(linear, hidden.input_kernel),
            bias=_shift(linear, hidden.input_kernel, hidden.bias),
        )
    return replace(
        layer,
        input_encoders=_compose(linear, layer.input_encoders),
        memory_bias=_shift(linear, layer.input_encoders, layer.memory_bias),
        hidden=hidden,
    )


def _compose(linear: Readout, kernel: np.ndarray) -> np.ndarray:
    if linear.kernel.shape[1] != kernel.shape[0]:
        raise InputError(
            f"it takes {kernel.shape[0]} features and the linear layer before it gives "
            f"{linear.kernel.shape[1]}"
        )
    return (linear.kernel.astype(np.float64) @ kernel).astype(kernel.dtype)


def _shift(linear: Readout, kernel: np.ndarray, bias: np.ndarray | None) -> np.ndarray | None:
    if linear.bias is None:
        return bias
    moved = linear.bias.astype(np.float64) @ kernel + (0.0 if bias is None else bias)
    return moved.astype(kernel.dtype)
