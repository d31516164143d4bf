"""Float64 computations on the host around layers on a chip.

Every target calls this code for channels, hidden units, LSTM layers and the readout. Each sample is
computed by itself: a product of a whole batch is summed in another order than that of a single
sample, and spiking memories amplify a difference in the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmu_deploy.core.graph.executor import Stream
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Format, Place
from lmu_deploy.core.integer.populations import Input
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


class HostStreams:
    """Nodes on the host for a batch; each sample is computed by itself.

    Parameters
    ----------
    network : Network
    samples : int

    Attributes
    ----------
    taken : int
        Number of frames so far.
    """

    def __init__(self, network: Network, samples: int) -> None:
        self._streams = [Stream(network) for _ in range(samples)]
        self.taken = 0

    def push(self, x: np.ndarray) -> list[np.ndarray]:
        """Take a frame of shape (samples, n_in); return those that are ready, (samples, n_out)."""
        self.taken += 1
        frame = self._streams[0].network.frame
        ready = [
            stream.push(np.ascontiguousarray(row).reshape(1, *frame))
            for stream, row in zip(self._streams, x, strict=True)
        ]
        return _together(ready)

    def finish(self) -> list[np.ndarray]:
        """Return the frames that appear at the end."""
        return _together([stream.finish() for stream in self._streams])

    def copy(self) -> HostStreams:
        """Return an independent copy."""
        other: HostStreams = object.__new__(HostStreams)
        other._streams, other.taken = [stream.copy() for stream in self._streams], self.taken
        return other


def host_values(
    network: IntegerNetwork,
    host: HostNodes,
    real: Mapping[Place, np.ndarray],
    messages: Mapping[Place, np.ndarray],
) -> np.ndarray:
    """Compute nodes on the host for whole sequences.

    Parameters
    ----------
    network : IntegerNetwork
    host : HostNodes
    real, messages : mapping of Place to ndarray, shape (samples, frames, n)
        What the nodes read: the input and nodes of the host that send no messages as real numbers,
        all else as messages.

    Returns
    -------
    ndarray, shape (samples, frames, size), float64
    """
    signals = []
    for reading in network.readings:
        if reading.target != host.place:
            continue
        source = network[reading.source]
        if source.message is None or (isinstance(source, Input) and not source.tokens):
            values = real[reading.source]
        else:
            values = messages[reading.source] * source.message.scale
        if reading.matrix is not None:
            rows = each(values.reshape(-1, values.shape[2]), reading.matrix.T)
            values = rows.reshape(*values.shape[:2], -1)
        signals.append(values)
    frames = min(values.shape[1] for values in signals)
    signal = signals[0][:, :frames]
    for other in signals[1:]:
        signal = signal + other[:, :frames]
    streams = HostStreams(host.network, len(signal))
    found = [y for t in range(frames) for y in streams.push(signal[:, t])]
    found += streams.finish()
    return np.stack(found, axis=1) if found else np.zeros((len(signal), 0, host.size))


def encoded(source: Input | HostNodes, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the messages of real values, or of tokens, int64, and the number of saturations."""
    if isinstance(source, Input) and source.tokens:
        return source.one_hot(values), 0
    assert source.message is not None
    return to_messages(values, source.message)


def to_messages(values: np.ndarray, form: Format) -> tuple[np.ndarray, int]:
    """Return messages ``sat(rint(real / scale))``, int64, and the number of saturations."""
    exact = np.rint(values / form.scale)
    limited = np.clip(exact, -form.limit, form.limit)
    return limited.astype(np.int64), int(np.count_nonzero(limited != exact))


def _together(ready: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Stack the frames of all samples, which become ready at the same steps."""
    return [
        np.concatenate([frame.reshape(1, -1) for frame in frames])
        for frames in zip(*ready, strict=True)
    ]
