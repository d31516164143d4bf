"""The host's part of an integer network: LSTM layers and a readout in float64, step by step.

Every target that runs integers calls this one code, and each sample is computed by itself, so that
a sample's numbers do not depend on what runs beside it, nor on the target around it.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.network import LSTMLayer
from lmu_deploy.segments import HostSegment


class HostSteps:
    """A segment on the host, and the state that it carries from step to step.

    Parameters
    ----------
    segment : HostSegment
    samples : int

    Attributes
    ----------
    h : list of ndarray, shape (samples, units)
        Output of each layer after the last step.
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
        """Go one step on.

        Parameters
        ----------
        x : ndarray, shape (samples, n)
            What the messages before stand for, or real inputs.
        remembered : ndarray, shape (samples, features), optional
            Added to the features; for who studies what messages do not hold.

        Returns
        -------
        output : ndarray, shape (samples, n_out)
            Of the last layer, or of the readout if there is one.
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
        """Give one that stays as it is when this one is advanced."""
        other: HostSteps = object.__new__(HostSteps)
        other.__dict__.update(self.__dict__)
        other.h, other._c = list(self.h), list(self._c)
        return other


class _LSTM:
    """The equations of :class:`lmu_deploy.network.LSTMLayer`."""

    def __init__(self, layer: LSTMLayer) -> None:
        self._kernel, self._recurrent = _matrix(layer.kernel), _matrix(layer.recurrent_kernel)
        self._bias, self._units = layer.bias.astype(np.float64), layer.n_out

    def advance(self, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give h and c after a step; both are new arrays."""
        z = _each(x, self._kernel) + _each(h, self._recurrent) + self._bias
        g = np.tanh(np.ascontiguousarray(z[:, 2 * self._units : 3 * self._units]))
        i, f, _, o = np.split(0.5 * (1.0 + np.tanh(0.5 * z)), 4, axis=1)
        c = f * c + i * g
        return o * np.tanh(c), c


def _matrix(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float64)


def _each(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Give ``rows @ matrix``, each row by itself; shape (samples, columns)."""
    product: np.ndarray = np.ascontiguousarray(rows)[:, None, :] @ matrix
    return product[:, 0]
