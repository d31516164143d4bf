"""What reaches each memory of a float network: the channels u of every step."""

from __future__ import annotations

import numpy as np

from lmu_deploy.network import LMULayer, LMUNetwork, Readout
from lmu_deploy.reference import has_hidden, run_reference


def memory_inputs(network: LMUNetwork, inputs: np.ndarray) -> list[np.ndarray | None]:
    """Channels that the float network feeds to its memories.

    Parameters
    ----------
    network : LMUNetwork
    inputs : ndarray, shape (samples, steps, n_in)

    Returns
    -------
    list, one entry for each layer
        ndarray, shape (samples, steps, channels), or None for a layer without a memory.
    """
    trace = run_reference(network, inputs, record=True)
    assert trace.m is not None and trace.h is not None
    signal = np.asarray(inputs, dtype=np.float64)
    first_m = first_h = 0
    found: list[np.ndarray | None] = []
    for layer in network.layers:
        m = h = trace.h[:, :, :0]
        if has_hidden(layer):
            h = trace.h[:, :, first_h : first_h + layer.n_out]
            first_h += layer.n_out
        if isinstance(layer, LMULayer):
            m = trace.m[:, :, first_m : first_m + layer.memory.size]
            first_m += layer.memory.size
            found.append(_channels(layer, signal, m, h))
        else:
            found.append(None)
        signal = h if has_hidden(layer) else m
    return found


def reaching_last(network: LMUNetwork, inputs: np.ndarray) -> np.ndarray:
    """Give what the float network feeds to its last layer, shape (samples, steps, n_in)."""
    *before, last = network.layers
    if not before:
        return np.asarray(inputs, dtype=np.float64)
    passed_on = Readout(np.eye(last.n_in), None)
    return run_reference(LMUNetwork(tuple(before), passed_on, True), inputs).outputs


def _channels(layer: LMULayer, x: np.ndarray, m: np.ndarray, h: np.ndarray) -> np.ndarray:
    u = x @ layer.input_encoders.astype(np.float64)
    if layer.hidden_encoders is not None:
        u[:, 1:] += h[:, :-1] @ layer.hidden_encoders
    if layer.memory_encoders is not None:
        u[:, 1:] += m[:, :-1] @ layer.memory_encoders
    return u if layer.memory_bias is None else u + layer.memory_bias
