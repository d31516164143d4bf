r"""A step of a series for a whole batch, compiled by Numba; the equations are series.py's.

A sample goes through all substeps before the next one does, so that its vectors, of some kilobytes,
stay in the processor's nearest memory. Entries of S are -1, but for +1 below the diagonal
where i - j is odd, so that one running sum for each parity is enough:

.. math:: (S v)_i = 2 \sum_{j < i,\; i - j\ \mathrm{odd}} v_j - \sum_j v_j .

Everything is int64, where nothing can overflow (bounds.py). Each operation is a loop of its own
over contiguous memory, of which the compiler makes vector instructions; of all in one it made none.
"""

from __future__ import annotations

import numba
import numpy as np

_compiled = numba.njit(nogil=True, cache=True)

DRIVE, ACCUMULATOR, TERM, TERM_MESSAGE, STATE, MESSAGE = range(6)
"""Where saturations are counted."""


@_compiled
def advance(
    m: np.ndarray,
    messages: np.ndarray,
    drives: np.ndarray,
    sent: np.ndarray,
    gains: tuple[np.ndarray, np.ndarray, np.ndarray],
    shifts: np.ndarray,
    steps: tuple[int, int],
    limits: tuple[int, int, int],
    saturations: np.ndarray,
) -> None:
    """Advance states and messages by one sample step, in place.

    Parameters
    ----------
    m, messages, drives : ndarray, shape (batch, states), int32
        The drives unlimited.
    sent : ndarray, shape (batch, states), int32
        Is given how many messages each neuron sent to the series itself.
    gains : tuple of three ndarrays, shape (terms, states), int32
        Multiplier, half and shift.
    shifts : ndarray, shape (terms,), int64
        From each term to the messages of the next, and last from the state to its own.
    steps : tuple of two int
        Substeps, and the channels that the states are of.
    limits : tuple of three int
        Of accumulators, states and messages.
    saturations : ndarray, shape (6,), int64
        Is added to.
    """
    n, (substeps, channels), (most, largest, loudest) = m.shape[1], steps, limits
    c, state = np.empty(n, np.int64), np.empty(n, np.int64)
    vector, sums = np.empty(n, np.int64), np.empty(n, np.int64)
    parts, their_sums = vector.reshape(channels, -1), sums.reshape(channels, -1)
    evens, odds = parts[:, ::2], parts[:, 1::2]
    at_even, at_odd = their_sums[:, ::2], their_sums[:, 1::2]
    for b in range(m.shape[0]):
        times = sent[b]
        c[:], state[:], vector[:], times[:] = drives[b], m[b], messages[b], 0
        saturations[DRIVE] += _limit(c, largest)
        for _ in range(substeps):
            for k in range(shifts.size):
                _count(vector, times)
                _sum_parities(evens, odds, at_even, at_odd)
                _subtract_totals(parts, their_sums)
                saturations[ACCUMULATOR] += _limit(sums, most)
                _scale(sums, *gains, k)
                if k == 0:
                    _add(sums, c)
                saturations[TERM] += _limit(sums, largest)
                _add(state, sums)
                saturations[STATE] += _limit(state, largest)
                if k < shifts.size - 1:
                    saturations[TERM_MESSAGE] += _emit(sums, shifts[k], loudest, vector)
            saturations[MESSAGE] += _emit(state, shifts[-1], loudest, vector)
        m[b], messages[b] = state, vector


@_compiled
def _count(vector: np.ndarray, times: np.ndarray) -> None:
    """Add one for each message that is not zero."""
    for i in range(vector.size):
        times[i] += vector[i] != 0


@_compiled
def _sum_parities(
    evens: np.ndarray, odds: np.ndarray, at_even: np.ndarray, at_odd: np.ndarray
) -> None:
    """Write for each message, by channel, the sum of those before it of the other parity."""
    pairs = odds.shape[1]
    for c in range(evens.shape[0]):
        even, odd = 0, 0
        for i in range(pairs):
            at_even[c, i] = odd
            even += evens[c, i]
            at_odd[c, i] = even
            odd += odds[c, i]
        if evens.shape[1] > pairs:
            at_even[c, pairs] = odd


@_compiled
def _subtract_totals(vector: np.ndarray, sums: np.ndarray) -> None:
    """Double the sums and take the sum of all messages of their channel away."""
    for c in range(vector.shape[0]):
        total = 0
        for i in range(vector.shape[1]):
            total += vector[c, i]
        for i in range(vector.shape[1]):
            sums[c, i] = 2 * sums[c, i] - total


@_compiled
def _limit(values: np.ndarray, limit: int) -> int:
    """Limit values in place; give how many that changed."""
    limited = 0
    for i in range(values.size):
        within = max(-limit, min(limit, values[i]))
        limited += within != values[i]
        values[i] = within
    return limited


@_compiled
def _scale(
    sums: np.ndarray, multiplier: np.ndarray, half: np.ndarray, shift: np.ndarray, k: int
) -> None:
    """Multiply sums by the gains of term k and shift them, in place."""
    for i in range(sums.size):
        product = sums[i] * np.int64(multiplier[k, i]) + np.int64(half[k, i])
        sums[i] = product >> np.int64(shift[k, i])


@_compiled
def _add(values: np.ndarray, others: np.ndarray) -> None:
    for i in range(values.size):
        values[i] += others[i]


@_compiled
def _emit(values: np.ndarray, shift: int, limit: int, messages: np.ndarray) -> int:
    """Write the messages of values; give how many were limited."""
    half, limited = (1 << shift) >> 1, 0
    for i in range(values.size):
        message = (values[i] + half) >> shift
        within = max(-limit, min(limit, message))
        limited += within != message
        messages[i] = within
    return limited
