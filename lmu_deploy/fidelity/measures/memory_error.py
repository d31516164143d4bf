r"""Error of the memory over time and by Legendre order, its growth, and the decoded window.

With e = m_target - m_reference over samples s, steps t and states i:

.. math::
   \epsilon(t) = \sqrt{\overline{e_{s,t,i}^2}^{\,s,i} \Big/
                       \overline{m_{s,t,i}^2}^{\,s,t,i}}, \qquad
   \epsilon_k = \sqrt{\overline{e_{s,t,i}^2}^{\,s,t,i \in k} \Big/
                      \overline{m_{s,t,i}^2}^{\,s,t,i \in k}}

The error of a step is relative to the rms of the memory over the whole run, not of the step: before
the first input the memory is zero, and a relative error would be undefined. Therefore the
mean square of :math:`\epsilon(t)` over t is the square of the overall error. The error of order k
covers the states of that order in all channels and is relative to their own rms.

The growth of the error is the exponent g in :math:`\epsilon(t) \sim t^g`, from a least squares fit
of logarithms over the second half of the steps: g = 0 is a constant error, 1/2 a random walk, 1 a
linear accumulation.

The window of a channel is decoded from its states as

.. math:: u(t - r\theta) \approx \sum_i P_i(2r - 1)\, m_i(t)

(Voelker, Kajic, Eliasmith 2019, equation 3). The true input of the channel in the reference run is

.. math:: u_t = x_t E_x + h_{t-1} E_h + m_{t-1} E_m + b_u .
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.legendre import window_decoders
from lmu_deploy.core.network import Memory
from targets.base import States

_SAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class MemoryShape:
    """Shape of the states of one layer: `channels` times `order`, channel by channel."""

    layer: str
    channels: int
    order: int

    @property
    def size(self) -> int:
        """Number of states."""
        return self.channels * self.order


@dataclass(frozen=True)
class LayerError:
    """Relative rms error of one layer's memory.

    Attributes
    ----------
    layer : str
    overall : float or None
        None when all states of the reference are zero; likewise below.
    by_step : ndarray, shape (steps,), or None
    by_order : ndarray, shape (order,)
        NaN where all states of that order are zero in the reference.
    """

    layer: str
    overall: float | None
    by_step: np.ndarray | None
    by_order: np.ndarray


def memory_errors(
    states: np.ndarray,
    scale: np.ndarray,
    reference: np.ndarray,
    shapes: Sequence[MemoryShape],
    basis: np.ndarray | None = None,
) -> list[LayerError]:
    """Compute the relative rms error of the memory of every layer.

    Parameters
    ----------
    states : ndarray, shape (samples, steps, states)
        States in units of the target; integers for integer targets.
    scale : ndarray, shape (states,)
        Real value of one unit.
    reference : ndarray, shape (at least samples, steps, states), float64
        Of the same first samples.
    shapes : sequence of MemoryShape
        Layers in the order of their states.
    basis : ndarray, shape (the reference's states, states), optional
        ``basis @ (states * scale)`` is comparable with the reference; by default the identity.

    Raises
    ------
    InputError
        When the shapes do not match.
    """
    size = sum(shape.size for shape in shapes)
    reference = reference[: len(states)]
    width = size if basis is None else basis.shape[1]
    if (
        states.shape[:2] != reference.shape[:2]
        or reference.shape[2] != size
        or states.shape[2] != width
        or scale.shape != (width,)
        or (basis is not None and len(basis) != size)
    ):
        raise InputError(
            f"memory states have shape {states.shape}, the reference's {reference.shape}, their "
            f"scales {scale.shape}, and the layers have {size} states; all must match."
        )
    errors, powers = np.zeros(reference.shape[1:]), np.zeros(reference.shape[1:])
    for start in range(0, len(states), _SAMPLES_AT_ONCE):
        batch = slice(start, start + _SAMPLES_AT_ONCE)
        truth = reference[batch].astype(np.float64)
        found = states[batch] * scale
        errors += (((found if basis is None else found @ basis.T) - truth) ** 2).sum(axis=0)
        powers += (truth**2).sum(axis=0)
    starts = np.cumsum([0, *(shape.size for shape in shapes)])
    return [
        _layer_error(shape, errors[:, a : a + shape.size], powers[:, a : a + shape.size])
        for shape, a in zip(shapes, starts[:-1], strict=True)
    ]


def _layer_error(shape: MemoryShape, errors: np.ndarray, powers: np.ndarray) -> LayerError:
    """Compute relative errors from squares summed over samples; shape (steps, states)."""
    power = float(powers.sum())
    overall = math.sqrt(float(errors.sum()) / power) if power > 0 else None
    by_step = np.sqrt(errors.mean(axis=1) / powers.mean()) if power > 0 else None
    order_errors = errors.reshape(-1, shape.channels, shape.order).sum(axis=(0, 1))
    order_powers = powers.reshape(-1, shape.channels, shape.order).sum(axis=(0, 1))
    by_order = np.full(shape.order, np.nan)
    np.divide(order_errors, order_powers, out=by_order, where=order_powers > 0)
    return LayerError(shape.layer, overall, by_step, np.sqrt(by_order))


MOST_ORDERS, MOST_TIMES = 32, 96
_MAP_SAMPLES_AT_ONCE = 16


@dataclass(frozen=True)
class ErrorMap:
    """Relative error of one layer by Legendre order and time.

    Attributes
    ----------
    layer : str
    orders : ndarray, shape (rows + 1,), int64
        Boundaries of the groups of orders of the rows.
    times : ndarray, shape (columns + 1,), int64
        Boundaries of the groups of steps of the columns.
    values : ndarray, shape (rows, columns)
        Root mean square error over samples and channels, relative to the rms of the memory.
    growth : float or None
        Exponent of the error over time; None with too few steps or without error.
    growth_by_order : list of float or None
        Exponent of each row.
    """

    layer: str
    orders: np.ndarray
    times: np.ndarray
    values: np.ndarray
    growth: float | None
    growth_by_order: Sequence[float | None]


def error_map(
    name: str,
    memory: Memory,
    columns: slice,
    states: States,
    reference: States,
    both: int,
) -> ErrorMap:
    """Compute the error map of one memory.

    Parameters
    ----------
    name : str
        Name of the node.
    memory : Memory
    columns : slice
        Columns of its states in the reference.
    states, reference : States
    both : int
        Number of samples that both recorded.
    """
    steps = reference.m.shape[1]
    squares, power = np.zeros((steps, memory.order)), 0.0
    for begin in range(0, both, _MAP_SAMPLES_AT_ONCE):
        part = slice(begin, min(begin + _MAP_SAMPLES_AT_ONCE, both))
        truth = reference.m[part, :, columns].astype(np.float64)
        wrong = (states.real_m(part)[:, :, columns] - truth) ** 2
        squares += wrong.reshape(-1, steps, memory.channels, memory.order).sum(axis=(0, 2))
        power += float((truth**2).sum())
    squares /= both * memory.channels
    mean = power / (both * steps * memory.size)
    orders = np.linspace(0, memory.order, min(memory.order, MOST_ORDERS) + 1).astype(np.int64)
    times = np.linspace(0, steps, min(steps, MOST_TIMES) + 1).astype(np.int64)
    if mean > 0:
        squares /= mean
    by_row = np.add.reduceat(squares, orders[:-1], axis=1) / np.diff(orders)
    cells = np.add.reduceat(by_row, times[:-1], axis=0) / np.diff(times)[:, None]
    growths = [growth(row) for row in by_row.T]
    return ErrorMap(name, orders, times, np.sqrt(cells.T), growth(squares.mean(axis=1)), growths)


def growth(squares: np.ndarray) -> float | None:
    """Fit the exponent of an error over time from its squares at each step, shape (steps,).

    Returns
    -------
    float, or None
        None with fewer than 8 steps, or when the error of a step of the second half is zero.
    """
    steps = len(squares)
    later = squares[steps // 2 :]
    if steps < 8 or not (later > 0).all():
        return None
    time = np.log(np.arange(steps // 2, steps) + 1.0)
    error = 0.5 * np.log(later)
    time = time - time.mean()
    return float(time @ error / (time @ time))


POINTS = 65


def delays(theta: float, points: int = POINTS) -> np.ndarray:
    """Return the delays, in steps from 0 (now) to theta, at which a window is decoded."""
    return np.linspace(0.0, theta, points)


def decode_window(m: np.ndarray, memory: Memory, channel: int, points: int = POINTS) -> np.ndarray:
    """Decode the window of one channel from the states of one step.

    Parameters
    ----------
    m : ndarray, shape (states,)
        Its states in real units.
    memory : Memory
    channel : int
    points : int

    Returns
    -------
    window : ndarray, shape (points,), most recent first
    """
    order = memory.order
    states = m[channel * order : (channel + 1) * order]
    decoders = window_decoders(order, np.linspace(0.0, 1.0, points))
    return np.asarray(decoders @ states)


def true_window(
    operator: LMU | LinearMemory,
    inputs: np.ndarray,
    m: np.ndarray,
    h: np.ndarray | None,
    channel: int,
    points: int = POINTS,
) -> np.ndarray:
    """Return the input of one channel over the last theta steps, constant within a step.

    Parameters
    ----------
    operator : LMU or LinearMemory
    inputs : ndarray, shape (steps, n_in)
    m : ndarray, shape (steps, states)
        States of its memory in the reference run.
    h : ndarray, shape (steps, units), or None
        Its hidden units there; not used without hidden encoders.
    channel : int
    points : int

    Returns
    -------
    window : ndarray, shape (points,), most recent first; zero before the first step
    """
    steps = len(inputs)
    u = operator.channel_inputs(inputs.astype(np.float64), m, h)[:, channel]
    back = np.floor(delays(operator.memory.theta, points)).astype(np.int64)
    return np.where(back < steps, u[np.maximum(steps - 1 - back, 0)], 0.0)


def strongest_channel(m: np.ndarray, memory: Memory) -> int:
    """Return the channel with the largest squared states at one step; `m` has shape (states,)."""
    energy = (m.reshape(memory.channels, memory.order) ** 2).sum(axis=1)
    return int(energy.argmax())
