"""Float64 computations on the host around layers on a chip.

Every target calls this code for channels, hidden units, LSTM layers and the readout. Each sample is
computed by itself: a product of a whole batch is summed in another order than that of a single
sample, and spiking memories amplify a difference in the last bit.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.core.integer.segments import HostSegment
from lmu_deploy.core.network import LMULayer, LMUNetwork, LSTMLayer, Readout
from lmu_deploy.core.reference import activate, run_reference


class HostLayer:
    """Float part of one LMU layer for a batch; the chip supplies m once per presentation.

    Parameters
    ----------
    layer : LMULayer
    signal : ndarray, shape (samples, steps, n_in)
        Inputs of the layer.
    """

    def __init__(self, layer: LMULayer, signal: np.ndarray) -> None:
        self.layer, self.signal = layer, signal
        samples, steps, _ = signal.shape
        units = 0 if layer.hidden is None else layer.hidden.units
        self.m = np.zeros((samples, steps, layer.memory.size))
        self.h = np.zeros((samples, steps, units))

    def channels(self, step: int) -> np.ndarray:
        """Return the input of the memory for `step`, shape (samples, channels)."""
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
        """Store the memory at the end of `step`, shape (samples, states); compute hidden units."""
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
        """Outputs of the layer, shape (samples, steps, n_out)."""
        return self.m if self.layer.hidden is None else self.h


def each(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return ``rows @ matrix`` in float64, each row by itself; shape (samples, columns)."""
    return _by_row(rows, matrix.astype(np.float64))


def _by_row(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    product: np.ndarray = rows[:, None, :] @ matrix
    return product[:, 0]


def observed(layer: LMULayer, signal: np.ndarray, m: np.ndarray) -> HostLayer:
    """Return the float part of a layer after the states m of all steps."""
    host = HostLayer(layer, signal)
    for step in range(signal.shape[1]):
        host.observe(step, m[:, step])
    return host


def apply_readout(readout: Readout, signal: np.ndarray) -> np.ndarray:
    """Return the outputs of a readout in float64, shape (samples, steps, n_out)."""
    y = signal @ readout.kernel.astype(np.float64)
    return np.asarray(y if readout.bias is None else y + readout.bias)


def feedback_notes(host: LMUNetwork) -> list[str]:
    """Return the note on feedback through the host, if a layer has any."""
    if not any(isinstance(layer, LMULayer) and layer.feeds_back for layer in host.layers):
        return []
    return [
        "Feedback from hidden units or memory into the memory's input went through the host once "
        "per presentation."
    ]


def lstm_notes(host: LMUNetwork) -> list[str]:
    """Return the note on LSTM layers, if there are any."""
    if all(isinstance(layer, LMULayer) for layer in host.layers):
        return []
    return ["LSTM layers ran on the host in float."]


def run_lstm(layer: LSTMLayer, signal: np.ndarray) -> np.ndarray:
    """Compute the hidden states of an LSTM layer, shape (samples, steps, units)."""
    alone = LMUNetwork((layer,), Readout(np.eye(layer.n_out), None), return_sequences=True)
    return np.concatenate([run_reference(alone, sample[None]).outputs for sample in signal])


class HostSteps:
    """A segment on the host, step by step.

    Parameters
    ----------
    segment : HostSegment
    samples : int

    Attributes
    ----------
    h : list of ndarray, shape (samples, units)
        Outputs of each layer after the last step.
    """

    def __init__(self, segment: HostSegment, samples: int) -> None:
        self._basis = None if segment.basis is None else _matrix(segment.basis.T)
        self._layers = [_LSTM(layer) for layer in segment.layers]
        self._readout = None if segment.readout is None else _matrix(segment.readout.kernel)
        bias = None if segment.readout is None else segment.readout.bias
        self._bias = None if bias is None else bias.astype(np.float64)
        self.h = [np.zeros((samples, layer.n_out)) for layer in segment.layers]
        self._c = [np.zeros_like(h) for h in self.h]

    def advance(self, x: np.ndarray, remembered: np.ndarray | None = None) -> np.ndarray:
        """Advance by one step.

        Parameters
        ----------
        x : ndarray, shape (samples, n)
            Real values of the messages from the segment before, or real inputs.
        remembered : ndarray, shape (samples, features), optional
            Added to the features, to study what messages leave out.

        Returns
        -------
        output : ndarray, shape (samples, n_out)
            Outputs of the readout, or of the last layer if there is none.
        """
        signal = x if self._basis is None else _each(x, self._basis)
        if remembered is not None:
            signal = signal + remembered
        for number, layer in enumerate(self._layers):
            signal, self._c[number] = layer.advance(signal, self.h[number], self._c[number])
            self.h[number] = signal
        if self._readout is None:
            return signal
        y = _each(signal, self._readout)
        return y if self._bias is None else y + self._bias

    def copy(self) -> HostSteps:
        """Return an independent copy."""
        other: HostSteps = object.__new__(HostSteps)
        other.__dict__.update(self.__dict__)
        other.h, other._c = list(self.h), list(self._c)
        return other


class _LSTM:
    """Equations of :class:`lmu_deploy.core.network.LSTMLayer`."""

    def __init__(self, layer: LSTMLayer) -> None:
        self._kernel, self._recurrent = _matrix(layer.kernel), _matrix(layer.recurrent_kernel)
        self._bias, self._units = layer.bias.astype(np.float64), layer.n_out

    def advance(self, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return h and c after a step; both are new arrays."""
        z = _each(x, self._kernel) + _each(h, self._recurrent) + self._bias
        g = np.tanh(np.ascontiguousarray(z[:, 2 * self._units : 3 * self._units]))
        i, f, _, o = np.split(0.5 * (1.0 + np.tanh(0.5 * z)), 4, axis=1)
        c = f * c + i * g
        return o * np.tanh(c), c


def _matrix(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float64)


def _each(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return ``rows @ matrix``, each row by itself; shape (samples, columns)."""
    return _by_row(np.ascontiguousarray(rows), matrix)
