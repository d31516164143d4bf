"""What the host computes in float around a memory on the chip: channels in, hidden units out.

Every sample is computed by itself: a product of a whole batch is summed in another order than that
of a single sample, and a spiking memory carries the last bit on into its spikes.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.network import LMULayer, LMUNetwork, LSTMLayer, Readout
from lmu_deploy.reference import activate, run_reference


class HostLayer:
    """The float part of one LMU layer for a batch; the chip supplies m once a hold.

    Parameters
    ----------
    layer : LMULayer
    signal : ndarray, shape (samples, steps, n_in)
        What reaches the layer.
    """

    def __init__(self, layer: LMULayer, signal: np.ndarray) -> None:
        self.layer, self.signal = layer, signal
        samples, steps, _ = signal.shape
        units = 0 if layer.hidden is None else layer.hidden.units
        self.m = np.zeros((samples, steps, layer.memory.size))
        self.h = np.zeros((samples, steps, units))

    def channels(self, step: int) -> np.ndarray:
        """Input of the memory for `step`, shape (samples, channels); earlier steps are observed."""
        layer = self.layer
        u = each(self.signal[:, step], layer.input_encoders)
        if layer.memory_bias is not None:
            u = u + layer.memory_bias
        if step and layer.hidden_encoders is not None:
            u = u + each(self.h[:, step - 1], layer.hidden_encoders)
        if step and layer.memory_encoders is not None:
            u = u + each(self.m[:, step - 1], layer.memory_encoders)
        return u

    def observe(self, step: int, m: np.ndarray) -> None:
        """Take the memory at the end of `step`, shape (samples, states), and go on to the units."""
        self.m[:, step] = m
        hidden = self.layer.hidden
        if hidden is None:
            return
        z = each(m, hidden.memory_kernel)
        if hidden.input_kernel is not None:
            z = z + each(self.signal[:, step], hidden.input_kernel)
        if step and hidden.recurrent_kernel is not None:
            z = z + each(self.h[:, step - 1], hidden.recurrent_kernel)
        if hidden.bias is not None:
            z = z + hidden.bias
        self.h[:, step] = activate(hidden.activation, z)

    @property
    def output(self) -> np.ndarray:
        """What the layer sends on, shape (samples, steps, n_out)."""
        return self.m if self.layer.hidden is None else self.h


def each(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Give ``rows @ matrix`` in float64, each row by itself; shape (samples, columns)."""
    product: np.ndarray = rows[:, None, :] @ matrix.astype(np.float64)
    return product[:, 0]


def run_lstm(layer: LSTMLayer, signal: np.ndarray) -> np.ndarray:
    """Hidden states of an LSTM layer at every step, shape (samples, steps, units)."""
    alone = LMUNetwork((layer,), Readout(np.eye(layer.n_out), None), return_sequences=True)
    return np.concatenate([run_reference(alone, sample[None]).outputs for sample in signal])
