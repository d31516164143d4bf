"""LMUNetwork: a trained recurrent network as plain arrays, the float truth of everything else.

Its layers (see layers.py) follow one another, and after the last one ``y_t = h_t W_y + b_y``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lmu_deploy.checks import check_array, check_flag, check_text, set_fields
from lmu_deploy.errors import InputError
from lmu_deploy.layers import ACTIVATIONS, Hidden, Layer, LMULayer, LSTMLayer, Memory

__all__ = [
    "ACTIVATIONS",
    "FLOAT_CLASSES",
    "Hidden",
    "LMULayer",
    "LMUNetwork",
    "LSTMLayer",
    "Layer",
    "Memory",
    "Readout",
]


@dataclass(frozen=True)
class Readout:
    """The last, linear map ``y = h W_y + b_y``.

    Attributes
    ----------
    kernel : ndarray, shape (n_hidden, n_out)
    bias : ndarray, shape (n_out,), or None
    """

    kernel: np.ndarray
    bias: np.ndarray | None

    def __post_init__(self) -> None:
        kernel = check_array("readout kernel", self.kernel, (None, None))
        set_fields(self, kernel=kernel)
        if self.bias is not None:
            set_fields(self, bias=check_array("readout bias", self.bias, (kernel.shape[1],)))


@dataclass(frozen=True)
class LMUNetwork:
    """A whole network, free of any framework.

    Attributes
    ----------
    layers : tuple of LMULayer or LSTMLayer
    readout : Readout
    return_sequences : bool
        Whether the network's answer is y at every step, or y at the last one.
    task : str or None
        Name of the task that it was trained for.
    provenance : mapping of str to str
        Where it comes from: command, seed, versions, figures.

    Raises
    ------
    InputError
        At construction, when a shape, type or value does not fit.
    """

    layers: tuple[Layer, ...]
    readout: Readout
    return_sequences: bool = False
    task: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers = tuple(self.layers)
        if not layers or not all(isinstance(layer, LMULayer | LSTMLayer) for layer in layers):
            raise InputError("a network needs at least one LMU or LSTM layer and nothing else.")
        for number, (before, after) in enumerate(pairwise(layers)):
            if before.n_out != after.n_in:
                raise InputError(
                    f"layer {number} gives {before.n_out} features and layer {number + 1} "
                    f"takes {after.n_in}; the two must be equal."
                )
        if not isinstance(self.readout, Readout):
            raise InputError("a network needs a Readout; mend the file.")
        if self.readout.kernel.shape[0] != layers[-1].n_out:
            raise InputError(
                f"readout kernel takes {self.readout.kernel.shape[0]} features and the last "
                f"layer gives {layers[-1].n_out}; the two must be equal."
            )
        if self.task is not None:
            check_text("task", self.task, 200)
        if not isinstance(self.provenance, Mapping):
            raise InputError("provenance must map names to texts.")
        for key, value in self.provenance.items():
            check_text("provenance key", key, 200)
            check_text(f"provenance {key}", value)
        check_flag("return_sequences", self.return_sequences)
        set_fields(self, layers=layers, provenance=dict(self.provenance))

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return int(self.readout.kernel.shape[1])

    @property
    def n_parameters(self) -> int:
        """Weights, encoders, kernels and biases; the memory's a_bar and b_bar count if trained."""
        return sum(array.size for array in _trained_arrays(self))


def _trained_arrays(network: LMUNetwork) -> list[np.ndarray]:
    parts: list[np.ndarray | None] = [network.readout.kernel, network.readout.bias]
    for layer in network.layers:
        if isinstance(layer, LSTMLayer):
            parts += [layer.kernel, layer.recurrent_kernel, layer.bias]
            continue
        parts += [layer.input_encoders, layer.hidden_encoders, layer.memory_encoders]
        parts += [layer.memory_bias]
        if layer.memory.discretiser == "trained":
            parts += [layer.memory.a_bar, layer.memory.b_bar]
        if (hidden := layer.hidden) is not None:
            parts += [hidden.memory_kernel, hidden.input_kernel, hidden.recurrent_kernel]
            parts += [hidden.bias]
    return [part for part in parts if part is not None]


FLOAT_CLASSES: tuple[type, ...] = (LMUNetwork, LMULayer, LSTMLayer, Memory, Hidden, Readout)
"""Every class that a file of this representation may hold; for :func:`lmu_deploy.files.load`."""
