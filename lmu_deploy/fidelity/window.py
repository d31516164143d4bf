r"""The window that a memory holds, read out of it: what a target still remembers of one sample.

.. math:: u(t - r\theta) \approx \sum_i P_i(2r - 1)\, m_i(t)

(Voelker, Kajic, Eliasmith 2019, equation 3), beside the channel's true input in the reference run,

.. math:: u_t = x_t E_x + h_{t-1} E_h + m_{t-1} E_m + b_u .
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.legendre import window_decoders
from lmu_deploy.network import LMULayer

POINTS = 65


def delays(theta: float, points: int = POINTS) -> np.ndarray:
    """Delays in steps, from 0 (now) to theta, at which a window is read."""
    return np.linspace(0.0, theta, points)


def decode_window(m: np.ndarray, layer: LMULayer, channel: int, points: int = POINTS) -> np.ndarray:
    """Read one channel's window from the states of one step.

    Parameters
    ----------
    m : ndarray, shape (states,)
        Real values of the layer's memory.
    layer : LMULayer
    channel : int
    points : int

    Returns
    -------
    window : ndarray, shape (points,), most recent first
    """
    order = layer.memory.order
    states = m[channel * order : (channel + 1) * order]
    decoders = window_decoders(order, np.linspace(0.0, 1.0, points))
    return np.asarray(decoders @ states)


def true_window(
    layer: LMULayer,
    inputs: np.ndarray,
    m: np.ndarray,
    h: np.ndarray,
    channel: int,
    points: int = POINTS,
) -> np.ndarray:
    """Give what went into one channel over the last theta steps, held constant within a step.

    Parameters
    ----------
    layer : LMULayer
        The first layer of its network.
    inputs : ndarray, shape (steps, n_in)
    m : ndarray, shape (steps, states)
        The layer's memory in the reference run.
    h : ndarray, shape (steps, units)
        Its hidden units there; not used without hidden encoders.
    channel : int
    points : int

    Returns
    -------
    window : ndarray, shape (points,), most recent first; zero before the first step
    """
    steps = len(inputs)
    u = inputs.astype(np.float64) @ layer.input_encoders[:, channel]
    if layer.memory_encoders is not None:
        u[1:] += m[:-1] @ layer.memory_encoders[:, channel]
    if layer.hidden_encoders is not None:
        u[1:] += h[:-1] @ layer.hidden_encoders[:, channel]
    if layer.memory_bias is not None:
        u += layer.memory_bias[channel]
    back = np.floor(delays(layer.memory.theta, points)).astype(np.int64)
    return np.where(back < steps, u[np.maximum(steps - 1 - back, 0)], 0.0)


def liveliest_channel(m: np.ndarray, layer: LMULayer) -> int:
    """Give the channel whose states are largest at one step; `m` has shape (states,)."""
    energy = (m.reshape(layer.memory.channels, layer.memory.order) ** 2).sum(axis=1)
    return int(energy.argmax())
