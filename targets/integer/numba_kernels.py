r"""Operations of the specification on whole batches, each in one pass, compiled by Numba.

All arrays are row-major and contain int32. Intermediate values are int32 where engine.py proves
that they fit, and int64 elsewhere. Numba promotes int32 to int64, so each operation converts back:
a processor multiplies two to six times as many int32 at once. Rows are separated before the
innermost loops, so that these iterate over contiguous memory and the compiler vectorizes them. The
kernels release the global interpreter lock.

A step of a series processes all substeps of one sample before the next sample, so that its vectors,
of some kilobytes, stay in the processor's first cache. Entries of S are -1, except +1 below the
diagonal where i - j is odd, so that one running sum for each parity suffices:

.. math:: (S v)_i = 2 \sum_{j < i,\; i - j\ \mathrm{odd}} v_j - \sum_j v_j .

Each operation of it is a separate loop over contiguous memory, because the compiler does not
vectorize one loop with all of them.
"""

from __future__ import annotations

import numba
import numpy as np

_compiled = numba.njit(nogil=True, cache=True)


@_compiled
def split(messages: np.ndarray, digits: np.ndarray, base_bits: int) -> None:
    """Split messages, (batch, n), into digits, (digits, batch, n), lowest first."""
    n, top = messages.shape[1], digits.shape[0] - 1
    bits, half = np.int32(base_bits), np.int32(1 << base_bits >> 1)
    rest = np.empty(n, np.int32)
    for b in range(messages.shape[0]):
        row = messages[b]
        for i in range(n):
            rest[i] = row[i]
        for p in range(top):
            digit = digits[p, b]
            for i in range(n):
                upper = np.int32(rest[i] + half) >> bits
                digit[i] = np.int32(rest[i] - (upper << bits))
                rest[i] = upper
        digit = digits[top, b]
        for i in range(n):
            digit[i] = rest[i]


@_compiled
def fold(products: np.ndarray, base_bits: int) -> None:
    """Sum the products of all digits from the second on, in place of those of the second."""
    for p in range(products.shape[0] - 1, 1, -1):
        for b in range(products.shape[1]):
            upper, lower = products[p, b], products[p - 1, b]
            for i in range(lower.size):
                lower[i] += upper[i] << base_bits


@_compiled
def add_drive(
    products: np.ndarray,
    base_bits: int,
    first: int,
    multiplier: np.ndarray,
    half: np.ndarray,
    shift: np.ndarray,
    total: np.ndarray,
) -> None:
    """Add ms(a_k, g_k, s_k) of all slices k of a connection to `total`.

    Parameters
    ----------
    products : ndarray, shape (digits, batch, rows)
        Of one digit, or of two, the second of which counts 2^base_bits times.
    base_bits : int
    first : int
        Column of the connection's first row.
    multiplier, half, shift : ndarray, shape (slices, n_out)
    total : ndarray, shape (batch, n_out)
    """
    n = total.shape[1]
    base = np.int32((1 << base_bits) if products.shape[0] > 1 else 0)
    other = min(1, products.shape[0] - 1)
    for b in range(total.shape[0]):
        into = total[b]
        for k in range(multiplier.shape[0]):
            start = first + k * n
            low, high = products[0, b, start : start + n], products[other, b, start : start + n]
            g, r, s = multiplier[k], half[k], shift[k]
            for i in range(n):
                a = np.int32(low[i] + high[i] * base)
                scaled = np.int32(np.int32(a * g[i]) + r[i])
                into[i] = np.int32(into[i] + np.int32(scaled >> (s[i] & 31)))


@_compiled
def add_limited_drive(
    products: np.ndarray,
    base_bits: int,
    first: int,
    multiplier: np.ndarray,
    half: np.ndarray,
    shift: np.ndarray,
    limit: int,
    total: np.ndarray,
    limited: np.ndarray,
) -> bool:
    """Do the same with sums that may saturate; count saturations by slice in `limited`."""
    n = total.shape[1]
    base = np.int32((1 << base_bits) if products.shape[0] > 1 else 0)
    other = min(1, products.shape[0] - 1)
    least, most = np.int32(-limit), np.int32(limit)
    limited[:] = 0
    for b in range(total.shape[0]):
        into = total[b]
        for k in range(multiplier.shape[0]):
            start, count = first + k * n, np.int32(0)
            low, high = products[0, b, start : start + n], products[other, b, start : start + n]
            g, r, s = multiplier[k], half[k], shift[k]
            for i in range(n):
                a = np.int32(low[i] + high[i] * base)
                within = max(least, min(most, a))
                count = np.int32(count + np.int32(within != a))
                scaled = np.int32(np.int32(within * g[i]) + r[i])
                into[i] = np.int32(into[i] + np.int32(scaled >> (s[i] & 31)))
            limited[k] += count
    return bool(limited.any())


@_compiled
def add_narrow_drive(
    messages: np.ndarray,
    weights: np.ndarray,
    multiplier: np.ndarray,
    half: np.ndarray,
    shift: np.ndarray,
    limit: int,
    total: np.ndarray,
    limited: np.ndarray,
) -> bool:
    """Do the same from few messages, most of which are zero.

    Parameters
    ----------
    messages : ndarray, shape (batch, n_in)
    weights : ndarray, shape (slices, n_in, n_out)
    """
    n = total.shape[1]
    a = np.empty(n, np.int64)
    limited[:] = 0
    for b in range(total.shape[0]):
        if not messages[b].any():
            continue
        into = total[b]
        for k in range(weights.shape[0]):
            a[:] = 0
            for j in range(weights.shape[1]):
                message, w = np.int64(messages[b, j]), weights[k, j]
                for i in range(n):
                    a[i] += w[i] * message
            g, r, s, count = multiplier[k], half[k], shift[k], 0
            for i in range(n):
                within = max(-limit, min(limit, a[i]))
                count += within != a[i]
                into[i] += (within * g[i] + r[i]) >> s[i]
            limited[k] += count
    return bool(limited.any())


@_compiled
def saturate(values: np.ndarray, limit: int) -> int:
    """Limit values, (batch, n), in place; return the number of saturations."""
    least, most, limited = np.int32(-limit), np.int32(limit), 0
    for b in range(values.shape[0]):
        row, count = values[b], np.int32(0)
        for i in range(row.size):
            within = max(least, min(most, row[i]))
            count = np.int32(count + np.int32(within != row[i]))
            row[i] = within
        limited += int(count)
    return limited


@_compiled
def emit(
    m: np.ndarray, limit: int, shift: int, message_limit: int, messages: np.ndarray
) -> tuple[int, int]:
    """Limit states in place and write their messages; return the saturations of both."""
    half, places = np.int32((1 << shift) >> 1), np.int32(shift & 31)
    least, most = np.int32(-limit), np.int32(limit)
    quietest, loudest = np.int32(-message_limit), np.int32(message_limit)
    states, unsent = 0, 0
    for b in range(m.shape[0]):
        row, out, count, cut = m[b], messages[b], np.int32(0), np.int32(0)
        for i in range(row.size):
            state = max(least, min(most, row[i]))
            message = np.int32(np.int32(state + half) >> places)
            within = max(quietest, min(loudest, message))
            count = np.int32(count + np.int32(state != row[i]))
            cut = np.int32(cut + np.int32(within != message))
            row[i], out[i] = state, within
        states += int(count)
        unsent += int(cut)
    return states, unsent


@_compiled
def activate(
    z: np.ndarray,
    slope: np.ndarray,
    offset: np.ndarray,
    shift: int,
    odd: bool,
    flat: int,
    last_unlimited: int,
    limit: int,
    h: np.ndarray,
) -> int:
    """Write H = f(z); return the number of saturations.

    The least of roundings down is the rounding down of the least: there is one shift for all lines.

    Parameters
    ----------
    z : ndarray, shape (batch, units)
    slope, offset : ndarray, shape (lines,), int32 or int64
        An offset is ``(intercept << shift) + half``. Their type holds every ``p * slope + offset``
        of a p up to `flat`. Four lines at a time are taken, so there are a multiple of four.
    flat, last_unlimited : int
        See :class:`targets.integer.operands.Flat`.
    h : ndarray, shape (batch, units)
    """
    n, limited = z.shape[1], 0
    fitting = slope.dtype.type
    p, least = np.empty(n, slope.dtype), np.empty(n, slope.dtype)
    for b in range(z.shape[0]):
        row, out, count = z[b], h[b], 0
        for i in range(n):
            magnitude = abs(row[i]) if odd else max(row[i], 0)
            count += magnitude > last_unlimited
            p[i] = min(magnitude, flat)
            least[i] = fitting(p[i] * slope[0] + offset[0])
        for k in range(0, slope.size, 4):
            g0, g1, g2, g3 = slope[k], slope[k + 1], slope[k + 2], slope[k + 3]
            c0, c1, c2, c3 = offset[k], offset[k + 1], offset[k + 2], offset[k + 3]
            for i in range(n):
                one, two = fitting(p[i] * g0 + c0), fitting(p[i] * g1 + c1)
                three, four = fitting(p[i] * g2 + c2), fitting(p[i] * g3 + c3)
                least[i] = min(least[i], min(one, two), min(three, four))
        for i in range(n):
            value = min(limit, least[i] >> shift)
            out[i] = -value if odd and row[i] < 0 else value
        limited += int(count)
    return limited


@_compiled
def tally(sent: np.ndarray, fan_out: np.ndarray, events: np.ndarray) -> int:
    """Count the events of each sample; return the synaptic operations of all."""
    synapses = 0
    for b in range(sent.shape[0]):
        row, count, met = sent[b], 0, 0
        for i in range(row.size):
            if row[i] != 0:
                count += 1
                met += fan_out[i]
        events[b] = count
        synapses += met
    return synapses


DRIVE, ACCUMULATOR, TERM, TERM_MESSAGE, STATE, MESSAGE = range(6)
"""Indices of the counters of saturations."""


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
    """Count nonzero messages."""
    for i in range(vector.size):
        times[i] += vector[i] != 0


@_compiled
def _sum_parities(
    evens: np.ndarray, odds: np.ndarray, at_even: np.ndarray, at_odd: np.ndarray
) -> None:
    """Write, for each message of a channel, the sum of previous ones of the other parity."""
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
    """Double the sums and subtract the sum of all messages of their channel."""
    for c in range(vector.shape[0]):
        total = 0
        for i in range(vector.shape[1]):
            total += vector[c, i]
        for i in range(vector.shape[1]):
            sums[c, i] = 2 * sums[c, i] - total


@_compiled
def _limit(values: np.ndarray, limit: int) -> int:
    """Limit values in place; return the number of saturations."""
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
    """Write the messages of values; return the number of saturations."""
    half, limited = (1 << shift) >> 1, 0
    for i in range(values.size):
        message = (values[i] + half) >> shift
        within = max(-limit, min(limit, message))
        limited += within != message
        messages[i] = within
    return limited
