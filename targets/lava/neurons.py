"""Arithmetic, axons and dendrites of docs/reference/integer-semantics.md.

All arithmetic uses operations of a neuron program on int64 arrays: add, subtract, multiply,
arithmetic right shift, minimum, maximum, absolute value, comparison and selection. Nothing can
overflow 64 bits for the widths of an IntegerNetwork (32-bit values, 15-bit multipliers).
"""

from __future__ import annotations

from collections import deque

import numpy as np

from lmu_deploy.core.integer.graph import Outlet
from lmu_deploy.core.integer.layers import PiecewiseLinear
from lmu_deploy.core.integer.parts import Format, largest
from targets.lava.plan import Link


def saturate(values: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Limit integers to +-(2^(bits-1) - 1).

    Parameters
    ----------
    values : ndarray, int64
    bits : int

    Returns
    -------
    limited : ndarray, int64
    changed : int
        Number of saturated entries.
    """
    top = largest(bits)
    limited = np.minimum(np.maximum(values, -top), top)
    return limited, int(np.count_nonzero(limited != values))


def multiply_shift(
    values: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int
) -> np.ndarray:
    """Return ``floor((values * multiplier + r) / 2^shift)``, r = 2^(shift-1), or 0 for shift 0."""
    shift = np.asarray(shift, dtype=np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    product: np.ndarray = values * np.asarray(multiplier, dtype=np.int64) + half
    return product >> shift


def activate(
    function: PiecewiseLinear, drive: np.ndarray, message: Format
) -> tuple[np.ndarray, int]:
    """Apply a piecewise-linear activation; return the message and the number of saturations.

    Parameters
    ----------
    function : PiecewiseLinear
    drive : ndarray, shape (units,), int64
        z, already saturated.
    message : Format
        Format of the result.
    """
    if function.kind == "linear":
        return saturate(multiply_shift(drive, int(function.slope[0]), function.shift), message.bits)
    rectified = np.abs(drive) if function.kind == "odd" else np.maximum(drive, 0)
    lines = multiply_shift(
        rectified[None, :], function.slope.astype(np.int64)[:, None], function.shift
    )
    lowest = np.minimum.reduce(lines + function.intercept.astype(np.int64)[:, None])
    limited, changed = saturate(lowest, message.bits)
    if function.kind == "odd":
        limited = np.where(drive < 0, -limited, limited)
    return limited, changed


class Axon:
    """Sending end of an outlet: messages, or their changes above a threshold.

    Parameters
    ----------
    outlet : Outlet
    """

    def __init__(self, outlet: Outlet) -> None:
        self._threshold = outlet.threshold
        self._last_sent = np.zeros(outlet.fan_out.shape, dtype=np.int64)

    def events(self, message: np.ndarray, first: bool) -> np.ndarray:
        """Return the events, shape (neurons,), zero where nothing is sent.

        Parameters
        ----------
        message : ndarray, shape (neurons,), int64
        first : bool
            Whether it is the message of a sample's first step, whose reference is 0.
        """
        if not self._threshold:
            return message
        last_sent = np.zeros_like(message) if first else self._last_sent
        change = message - last_sent
        sent = np.where(np.abs(change) >= self._threshold, change, 0)
        self._last_sent = last_sent + sent
        return sent


class Dendrite:
    """Receiving end of a connection: delay, accumulators and gains of each slice and neuron.

    Parameters
    ----------
    link : Link
    """

    def __init__(self, link: Link) -> None:
        connection = link.edge.connection
        self._rows = link.rows
        self._bits = connection.accumulator_bits
        self._multiplier = connection.multiplier.astype(np.int64)
        self._shift = connection.shift.astype(np.int64)
        self._of_changes = connection.threshold > 0
        silence = np.zeros(self._multiplier.shape, dtype=np.int64)
        self._sums = silence
        self._delayed = deque([silence] * link.delay)
        self.places = tuple(f"{link.edge.place}/slice{k}" for k in range(len(silence)))

    def receive(self, arriving: np.ndarray) -> np.ndarray:
        """Take the arriving sums of this chip step; return those that are due.

        Parameters
        ----------
        arriving : ndarray, shape (rows of the Dense,)

        Returns
        -------
        due : ndarray, shape (slices, neurons), int64
        """
        self._delayed.append(arriving[self._rows].reshape(self._multiplier.shape).astype(np.int64))
        return self._delayed.popleft()

    def accumulate(self, due: np.ndarray, first: bool) -> tuple[np.ndarray, list[int]]:
        """Return a_k of the specification, and the number of saturations of each slice.

        The due sums are those of messages, or of changes, which are accumulated from the `first`
        step of the sample on.
        """
        self._sums = due if first or not self._of_changes else self._sums + due
        limited = [saturate(row, self._bits) for row in self._sums]
        return np.stack([row for row, _ in limited]), [changed for _, changed in limited]

    def drive(self, accumulators: np.ndarray) -> np.ndarray:
        """Return D of the specification, shape (neurons,)."""
        scaled: np.ndarray = multiply_shift(accumulators, self._multiplier, self._shift).sum(axis=0)
        return scaled
