r"""How wrong the memory is, at which step and in which Legendre order.

With e = m_target - m_reference over samples s, steps t and states i:

.. math::
   \epsilon(t) = \sqrt{\overline{e_{s,t,i}^2}^{\,s,i} \Big/
                       \overline{m_{s,t,i}^2}^{\,s,t,i}}, \qquad
   \epsilon_k = \sqrt{\overline{e_{s,t,i}^2}^{\,s,t,i \in k} \Big/
                      \overline{m_{s,t,i}^2}^{\,s,t,i \in k}}

The error of a step is relative to the memory's rms value over the whole run, not to that step's:
before the first input arrives the memory is zero, and a relative error there means nothing. The
mean square of the first over t is thus the square of the error overall. The error of order k takes
all channels' states of that order together and is relative to their own rms value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.errors import InputError

_SAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class MemoryShape:
    """One layer's part of the states: `channels` times `order`, channel by channel."""

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
        None when the reference is zero throughout, here and below.
    by_step : ndarray, shape (steps,), or None
    by_order : ndarray, shape (order,)
        NaN where the reference's states of that order are zero throughout.
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
    """Relative rms error of every layer's memory.

    Parameters
    ----------
    states : ndarray, shape (samples, steps, states)
        As the target holds them; integers for integer targets.
    scale : ndarray, shape (states,)
        Real value of one unit.
    reference : ndarray, shape (at least samples, steps, states), float64
        Of the same first samples.
    shapes : sequence of MemoryShape
        Layers in the order in which their states stand.
    basis : ndarray, shape (the reference's states, states), optional
        ``basis @ (states * scale)`` is comparable with the reference; by default the identity.

    Raises
    ------
    InputError
        When the shapes do not fit each other.
    """
    size = sum(shape.size for shape in shapes)
    reference = reference[: len(states)]
    held = size if basis is None else basis.shape[1]
    if (
        states.shape[:2] != reference.shape[:2]
        or reference.shape[2] != size
        or states.shape[2] != held
        or scale.shape != (held,)
        or (basis is not None and len(basis) != size)
    ):
        raise InputError(
            f"memory states have shape {states.shape}, the reference's {reference.shape}, their "
            f"scales {scale.shape}, and the layers hold {size}; all must fit each other."
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
    """From squares summed over samples, (steps, states), to ratios of roots."""
    power = float(powers.sum())
    overall = math.sqrt(float(errors.sum()) / power) if power > 0 else None
    by_step = np.sqrt(errors.mean(axis=1) / powers.mean()) if power > 0 else None
    order_errors = errors.reshape(-1, shape.channels, shape.order).sum(axis=(0, 1))
    order_powers = powers.reshape(-1, shape.channels, shape.order).sum(axis=(0, 1))
    by_order = np.full(shape.order, np.nan)
    np.divide(order_errors, order_powers, out=by_order, where=order_powers > 0)
    return LayerError(shape.layer, overall, by_step, np.sqrt(by_order))
