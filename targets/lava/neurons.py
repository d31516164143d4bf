"""The arithmetic of docs/reference/integer-semantics.md, with operations that a neuron program has.

Add, subtract, multiply, arithmetic right shift, minimum, maximum, absolute value, comparison and
selection on int64 arrays; nothing here can overflow 64 bits for the widths that an IntegerNetwork
allows (32-bit values, 15-bit multipliers).

The sending end of an outlet: of each message itself, or of its change once that is large.

The receiving end of a population's connections: hold, add up, saturate and scale.
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
        How many entries were limited.
    """
    top = largest(bits)
    limited = np.minimum(np.maximum(values, -top), top)
    return limited, int(np.count_nonzero(limited != values))


def multiply_shift(
    values: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int
) -> np.ndarray:
    """Give ``floor((values * multiplier + r) / 2^shift)``, r = 2^(shift-1), or 0 for shift 0."""
    shift = np.asarray(shift, dtype=np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    product: np.ndarray = values * np.asarray(multiplier, dtype=np.int64) + half
    return product >> shift


def activate(
    function: PiecewiseLinear, drive: np.ndarray, message: Format
) -> tuple[np.ndarray, int]:
    """Apply a piecewise-linear activation; the message, and how many of its entries saturated.

    Parameters
    ----------
    function : PiecewiseLinear
    drive : ndarray, shape (units,), int64
        z, already saturated.
    message : Format
        Of the result.
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
    """What leaves a population under one threshold.

    Parameters
    ----------
    outlet : Outlet
    """

    def __init__(self, outlet: Outlet) -> None:
        self._threshold = outlet.threshold
        self._held = np.zeros(outlet.fan_out.shape, dtype=np.int64)

    def events(self, message: np.ndarray, first: bool) -> np.ndarray:
        """Give what is sent, shape (neurons,), zero where nothing is.

        Parameters
        ----------
        message : ndarray, shape (neurons,), int64
        first : bool
            Whether it is that of a sample's first step, before which 0 is held.
        """
        if not self._threshold:
            return message
        held = np.zeros_like(message) if first else self._held
        change = message - held
        sent = np.where(np.abs(change) >= self._threshold, change, 0)
        self._held = held + sent
        return sent


class Dendrite:
    """The accumulators of one connection, one for each slice and neuron.

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
        self._held = deque([silence] * link.delay)
        self.places = tuple(f"{link.edge.place}/slice{k}" for k in range(len(silence)))

    def receive(self, arriving: np.ndarray) -> np.ndarray:
        """Take what arrives at this chip step; give what is due.

        Parameters
        ----------
        arriving : ndarray, shape (rows of the Dense,)

        Returns
        -------
        due : ndarray, shape (slices, neurons), int64
        """
        self._held.append(arriving[self._rows].reshape(self._multiplier.shape).astype(np.int64))
        return self._held.popleft()

    def accumulate(self, due: np.ndarray, first: bool) -> tuple[np.ndarray, list[int]]:
        """Give a_k of docs/reference/integer-semantics.md, and how often each slice's saturated.

        What is due are sums of messages, or of changes, which are added to those since the `first`
        step of the sample.
        """
        self._sums = due if first or not self._of_changes else self._sums + due
        limited = [saturate(row, self._bits) for row in self._sums]
        return np.stack([row for row, _ in limited]), [changed for _, changed in limited]

    def drive(self, accumulators: np.ndarray) -> np.ndarray:
        """Give D of docs/reference/integer-semantics.md, shape (neurons,)."""
        scaled: np.ndarray = multiply_shift(accumulators, self._multiplier, self._shift).sum(axis=0)
        return scaled
