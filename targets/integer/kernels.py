"""The specification's operations on whole batches, each in one pass, compiled by Numba.

All arrays lie row by row and hold int32; what is worked out in between is int64, where nothing can
overflow. Rows are taken apart before the innermost loops, so that those go over contiguous memory
and the compiler makes vector instructions of them. No kernel holds Python's lock.
"""

from __future__ import annotations

import numba
import numpy as np

from targets.integer.int8_products import BASE_BITS, HALF_BASE

_compiled = numba.njit(nogil=True, cache=True)


@_compiled
def split(messages: np.ndarray, digits: np.ndarray) -> None:
    """Cut messages, (batch, n), into digits of base 128, (digits, batch, n), lowest first."""
    n, top = messages.shape[1], digits.shape[0] - 1
    rest = np.empty(n, np.int32)
    for b in range(messages.shape[0]):
        row = messages[b]
        for i in range(n):
            rest[i] = row[i]
        for p in range(top):
            digit = digits[p, b]
            for i in range(n):
                upper = np.int32(rest[i] + HALF_BASE) >> BASE_BITS
                digit[i] = rest[i] - (upper << BASE_BITS)
                rest[i] = upper
        digit = digits[top, b]
        for i in range(n):
            digit[i] = rest[i]


@_compiled
def fold(products: np.ndarray) -> None:
    """Add the products of all digits from the second on up in those of the second."""
    for p in range(products.shape[0] - 1, 1, -1):
        for b in range(products.shape[1]):
            upper, lower = products[p, b], products[p - 1, b]
            for i in range(lower.size):
                lower[i] += upper[i] << BASE_BITS


@_compiled
def add_drive(
    products: np.ndarray,
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
        Of one digit, or of two, the second of which counts 128 times.
    first : int
        Column of the connection's first row.
    multiplier, half, shift : ndarray, shape (slices, n_out)
    total : ndarray, shape (batch, n_out)
    """
    n = total.shape[1]
    base = (1 << BASE_BITS) if products.shape[0] > 1 else 0
    other = min(1, products.shape[0] - 1)
    for b in range(total.shape[0]):
        into = total[b]
        for k in range(multiplier.shape[0]):
            start = first + k * n
            low, high = products[0, b, start : start + n], products[other, b, start : start + n]
            g, r, s = multiplier[k], half[k], shift[k]
            for i in range(n):
                into[i] += ((low[i] + high[i] * base) * g[i] + r[i]) >> s[i]


@_compiled
def add_limited_drive(
    products: np.ndarray,
    first: int,
    multiplier: np.ndarray,
    half: np.ndarray,
    shift: np.ndarray,
    limit: int,
    total: np.ndarray,
    limited: np.ndarray,
) -> bool:
    """Do the same with sums that may have to be limited; count them by slice in `limited`."""
    n = total.shape[1]
    base = (1 << BASE_BITS) if products.shape[0] > 1 else 0
    other = min(1, products.shape[0] - 1)
    limited[:] = 0
    for b in range(total.shape[0]):
        into = total[b]
        for k in range(multiplier.shape[0]):
            start, count = first + k * n, 0
            low, high = products[0, b, start : start + n], products[other, b, start : start + n]
            g, r, s = multiplier[k], half[k], shift[k]
            for i in range(n):
                a = low[i] + high[i] * base
                within = max(-limit, min(limit, a))
                count += within != a
                into[i] += (within * g[i] + r[i]) >> s[i]
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
    """Do the same straight from messages, of which there are few, most of them zero.

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
    """Limit values, (batch, n), in place; give how many that changed."""
    limited = 0
    for b in range(values.shape[0]):
        row, count = values[b], 0
        for i in range(row.size):
            within = max(-limit, min(limit, row[i]))
            count += within != row[i]
            row[i] = within
        limited += count
    return limited


@_compiled
def emit(
    m: np.ndarray, limit: int, shift: int, message_limit: int, messages: np.ndarray
) -> tuple[int, int]:
    """Limit states in place, write their limited messages, and count what was limited of each."""
    half = (1 << shift) >> 1
    states, unsent = 0, 0
    for b in range(m.shape[0]):
        row, out, count, cut = m[b], messages[b], 0, 0
        for i in range(row.size):
            state = max(-limit, min(limit, row[i]))
            message = (state + half) >> shift
            within = max(-message_limit, min(message_limit, message))
            count += state != row[i]
            cut += within != message
            row[i], out[i] = state, within
        states += count
        unsent += cut
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
    """Write H = f(z) and count what the message's width limited.

    The least of roundings down is the rounding down of the least: there is one shift for all lines.

    Parameters
    ----------
    z : ndarray, shape (batch, units)
    slope, offset : ndarray, shape (lines,), int32 or int64
        An offset is ``(intercept << shift) + half``. Their type holds every ``p * slope + offset``
        of a p up to `flat`. Four lines at a time are taken, so there are a multiple of four.
    flat, last_unlimited : int
        See :class:`targets.integer.lines.Flat`.
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
        limited += count
    return limited


@_compiled
def tally(sent: np.ndarray, fan_out: np.ndarray, events: np.ndarray) -> int:
    """Count what is not zero in each sample, and give the synapses that all of it meets."""
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
