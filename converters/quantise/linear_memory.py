r"""An integer memory as the linear map that it approximates, in real units and without rounding.

.. math:: n_t = T\, n_{t-1} + X\, x_t + H\, h_{t-1} + b

where n are the neurons' own coordinates (`basis @ n` are the Legendre states): what is left of a
memory when messages have all the bits they want, and what a training has to go through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.quantise.predict import series_matrices
from converters.quantise.rounding import real_matrix
from lmu_deploy.integer_network import Format, IntegerMemory, SeriesMemory


@dataclass(frozen=True)
class LinearMemory:
    """The map of a memory of n neurons.

    Attributes
    ----------
    step : ndarray, shape (n, n)
        T.
    input : ndarray, shape (n, n_in)
        X; n_in are the messages that reach the layer.
    hidden : ndarray, shape (n, units), or None
        H.
    bias : ndarray, shape (n,), or None
        b.
    """

    step: np.ndarray
    input: np.ndarray
    hidden: np.ndarray | None
    bias: np.ndarray | None


def linear_memory(
    memory: IntegerMemory | SeriesMemory, x: Format, h: Format | None
) -> LinearMemory:
    """Read the map off a memory's integers.

    Parameters
    ----------
    memory : IntegerMemory or SeriesMemory
    x : Format
        Of the messages that reach the layer.
    h : Format or None
        Of its hidden messages.
    """
    unit = memory.state.scale
    parts = [real_matrix(memory.input, x.scale, unit)]
    if memory.hidden is not None and h is not None:
        parts.append(real_matrix(memory.hidden, h.scale, unit))
    if memory.bias is not None:
        parts.append(memory.bias[:, None] * unit)
    if isinstance(memory, SeriesMemory):
        step, entering, _ = series_matrices(memory, np.hstack(parts))
        parts = np.split(entering, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)
    else:
        recurrent = real_matrix(memory.recurrent, memory.message.scale, unit)
        step = np.eye(memory.size) + recurrent
    rest = iter(parts[1:])
    hidden = None if memory.hidden is None else next(rest)
    bias = None if memory.bias is None else next(rest)[:, 0]
    return LinearMemory(step, parts[0], hidden, bias)
