"""Reference implementation: a float64 forward pass of an LMUNetwork, step by step in NumPy.

It follows the equations of :mod:`lmu_deploy.core.network` literally; every other implementation
is compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs


@dataclass(frozen=True)
class Trace:
    """Outputs and, if recorded, states of a run of the reference.

    Attributes
    ----------
    outputs : ndarray, shape (samples, n_out), or (samples, steps, n_out) for sequence networks
    m : ndarray, shape (samples, steps, states), or None
        Memory states of all LMU layers, concatenated; None unless recorded.
    h : ndarray, shape (samples, steps, units), or None
        Hidden states of all layers that have them, concatenated; None unless recorded.
    y : ndarray, shape (samples, steps, n_out), or None
        The readout at every step; None unless recorded.
    """

    outputs: np.ndarray
    m: np.ndarray | None
    h: np.ndarray | None
    y: np.ndarray | None


def activate(name: str, z: np.ndarray) -> np.ndarray:
    """Return f(z) for a hidden activation f, one of ``network.ACTIVATIONS``."""
    if name == "tanh":
        return np.tanh(z)
    if name == "relu":
        return np.maximum(z, 0.0)
    return np.clip(z, -1.0, 1.0) if name == "hard-tanh" else z


def run_reference(
    network: Network | LMUNetwork,
    inputs: np.ndarray,
    record: bool = False,
    batch_size: int = 500,
    progress: Progress | None = None,
) -> Trace:
    """Run `network` in float64.

    Parameters
    ----------
    network : Network or LMUNetwork
    inputs : ndarray, shape (samples, steps, n_in)
    record : bool
        Store m, h and y of every step (samples * steps * (states + units + n_out) * 8 bytes).
    batch_size : int
        Number of samples computed at once.
    progress : callable, optional
        Called with (samples done, total samples).

    Raises
    ------
    InputError
        When the inputs have a wrong number of features or are not finite.
    """
    network = as_layers(network, "reference")
    inputs = check_inputs(inputs, network.n_in)
    samples, steps, _ = inputs.shape
    keep_y = record or network.return_sequences
    y = np.empty((samples, steps if keep_y else 1, network.n_out))
    n_m = sum(layer.memory.size for layer in network.layers if isinstance(layer, LMULayer))
    n_h = sum(layer.n_out for layer in network.layers if has_hidden(layer))
    m = np.empty((samples, steps, n_m)) if record else None
    h = np.empty((samples, steps, n_h)) if record else None
    bias = 0.0 if network.readout.bias is None else network.readout.bias.astype(np.float64)
    kernel = network.readout.kernel.astype(np.float64)
    for start in range(0, samples, batch_size):
        batch = slice(start, min(start + batch_size, samples))
        states = [LayerSteps(layer, len(inputs[batch])) for layer in network.layers]
        for t in range(steps):
            signal = inputs[batch, t]
            for state in states:
                signal = state.advance(signal)
            if keep_y or t == steps - 1:
                y[batch, t if keep_y else 0] = signal @ kernel + bias
            if m is not None and h is not None:
                memories = [s.m for s in states if isinstance(s.layer, LMULayer)]
                m[batch, t] = np.concatenate(memories, axis=1) if memories else 0.0
                hiddens = [s.h for s in states if has_hidden(s.layer)]
                h[batch, t] = np.concatenate(hiddens, axis=1) if hiddens else 0.0
        if progress:
            progress(batch.stop, samples)
    return Trace(y if network.return_sequences else y[:, -1], m, h, y if record else None)


def has_hidden(layer: LMULayer | LSTMLayer) -> bool:
    """Return whether a layer has hidden units."""
    return isinstance(layer, LSTMLayer) or layer.hidden is not None


class LayerSteps:
    """States of one layer for a batch, and the update of one step, as its equations are written."""

    def __init__(self, layer: LMULayer | LSTMLayer, batch: int) -> None:
        self.layer = layer
        self.m = np.zeros((batch, layer.memory.size if isinstance(layer, LMULayer) else 0))
        self.h = np.zeros((batch, layer.n_out if has_hidden(layer) else 0))
        self.c = np.zeros_like(self.h)

    def advance(self, x: np.ndarray) -> np.ndarray:
        """Take an input, shape (batch, n_in); return the output of the layer."""
        if isinstance(self.layer, LSTMLayer):
            return self._advance_lstm(self.layer, x)
        self._advance_memory(self.layer, x)
        if self.layer.hidden is None:
            return self.m
        self._advance_hidden(self.layer.hidden, x)
        return self.h

    def signals(self) -> dict[str, np.ndarray]:
        """Return what the layer holds after a step, by name: memory, hidden, cell."""
        if isinstance(self.layer, LSTMLayer):
            return {"hidden": self.h, "cell": self.c}
        hidden = {} if self.layer.hidden is None else {"hidden": self.h}
        return {"memory": self.m, **hidden}

    def _advance_memory(self, layer: LMULayer, x: np.ndarray) -> None:
        u = x @ layer.input_encoders.astype(np.float64)
        if layer.hidden_encoders is not None:
            u = u + self.h @ layer.hidden_encoders
        if layer.memory_encoders is not None:
            u = u + self.m @ layer.memory_encoders
        if layer.memory_bias is not None:
            u = u + layer.memory_bias
        memory = layer.memory
        m = self.m.reshape(-1, memory.channels, memory.order) @ memory.a_bar.T
        self.m = (m + u[:, :, None] * memory.b_bar).reshape(self.m.shape)

    def _advance_hidden(self, hidden: Hidden, x: np.ndarray) -> None:
        z = self.m @ hidden.memory_kernel
        if hidden.input_kernel is not None:
            z = z + x @ hidden.input_kernel
        if hidden.recurrent_kernel is not None:
            z = z + self.h @ hidden.recurrent_kernel
        if hidden.bias is not None:
            z = z + hidden.bias
        self.h = activate(hidden.activation, z)

    def _advance_lstm(self, layer: LSTMLayer, x: np.ndarray) -> np.ndarray:
        gates = x @ layer.kernel.astype(np.float64) + self.h @ layer.recurrent_kernel + layer.bias
        i, f, g, o = np.split(gates, 4, axis=1)
        self.c = _sigmoid(f) * self.c + _sigmoid(i) * np.tanh(g)
        self.h = _sigmoid(o) * np.tanh(self.c)
        return self.h


def _sigmoid(z: np.ndarray) -> np.ndarray:
    """Return the logistic function, computed with tanh to avoid overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))
