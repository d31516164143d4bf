"""LIF neurons and first-order filters in one pass over memory, compiled by Numba if installed.

The results are bit-identical to those of the NumPy code in :mod:`converters.spiking.neurons` and
:mod:`converters.spiking.dynamic`, which is the definition and is used without Numba, for small
arrays, and for neurons with noise, whose random numbers take most of the time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

LEAST_NEURONS = 30_000
"""Neurons of all copies from which compiled code is used; it takes a second to load."""
_LOADED_SHARE = 20
"""Part of these that suffices once it is loaded."""


@cache
def _kernels() -> tuple[Callable[..., None], Callable[..., None]] | None:
    """Compile both kernels; None without Numba."""
    if importlib.util.find_spec("numba") is None:
        return None
    import numba

    compiled: Any = numba.njit(nogil=True, cache=True)
    return compiled(_advance), compiled(_filter)


def kernels_for(neurons: int) -> tuple[Callable[..., None], Callable[..., None]] | None:
    """Return the compiled :func:`_advance` and :func:`_filter`, or None to use NumPy.

    Parameters
    ----------
    neurons : int
        Neurons of all copies.
    """
    is_loaded = _kernels.cache_info().currsize > 0
    least = LEAST_NEURONS // _LOADED_SHARE if is_loaded else LEAST_NEURONS
    return _kernels() if neurons >= least else None


def _advance(
    x: np.ndarray,
    slopes: np.ndarray,
    offsets: np.ndarray,
    kept: np.ndarray,
    refractory_steps: int,
    v: np.ndarray,
    waiting: np.ndarray,
    spikes: np.ndarray,
) -> None:
    """Advance LIF neurons by one step, in place.

    Parameters
    ----------
    x : ndarray, shape (copies, states), float32
        Scaled states.
    slopes, offsets, kept : ndarray, shape (states, neurons), float32
        Currents, and the decay factors of the membranes.
    refractory_steps : int
    v, waiting, spikes : ndarray, shape (copies, states, neurons), float32, int16, bool
        Membranes, remaining refractory steps, and the result.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    last, nothing, again = np.int16(1), np.int16(0), np.int16(refractory_steps)
    copies, states, neurons = v.shape
    for copy in range(copies):
        for state in range(states):
            shown = x[copy, state]
            for j in range(neurons):
                current = shown * slopes[state, j] + offsets[state, j]
                moved = (v[copy, state, j] - current) * kept[state, j] + current
                left = waiting[copy, state, j] - last
                now = moved if left <= nothing else v[copy, state, j]
                fires = now > one
                v[copy, state, j] = zero if fires else now
                waiting[copy, state, j] = again if fires else max(left, nothing)
                spikes[copy, state, j] = fires


def _filter(
    filtered: np.ndarray, decay: np.float32, gained: np.float32, spikes: np.ndarray
) -> None:
    """Advance filters of spikes in place; all arrays are flat."""
    zero = np.float32(0.0)
    for number in range(filtered.size):
        filtered[number] = filtered[number] * decay + (gained if spikes[number] else zero)
