"""Arithmetic, axons and dendrites of docs/reference/integer-semantics.md.

All arithmetic uses operations of a neuron program on int64 arrays: add, subtract, multiply,
arithmetic right shift, minimum, maximum, absolute value, comparison and selection. Nothing can
overflow 64 bits for the widths of an IntegerNetwork (32-bit values, 15-bit multipliers).
"""

from __future__ import annotations

from collections import deque

import numpy as np

from lmu_deploy.core.integer.functions import Function, PiecewiseLinear
from lmu_deploy.core.integer.parts import largest
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


def evaluate(function: Function, z: np.ndarray) -> np.ndarray:
    """Return the values of a function, which are not yet limited to a width.

    Parameters
    ----------
    function : PiecewiseLinear or Segments
    z : ndarray, shape (neurons,), int64
    """
    slope, intercept = function.slope.astype(np.int64), function.intercept.astype(np.int64)
    if not isinstance(function, PiecewiseLinear):
        reached = z[:, None] >= function.breakpoints
        piece = np.count_nonzero(reached, axis=1)
        return multiply_shift(z, slope[piece], function.shift) + intercept[piece]
    if function.kind == "linear":
        return multiply_shift(z, slope[0], function.shift)
    rectified = np.abs(z) if function.kind == "odd" else np.maximum(z, 0)
    lines = multiply_shift(rectified[None, :], slope[:, None], function.shift)
    lowest: np.ndarray = np.minimum.reduce(lines + intercept[:, None])
    return np.where(z < 0, -lowest, lowest) if function.kind == "odd" else lowest


class Axon:
    """Sending end of an outlet: messages, or their changes above a threshold.

    Parameters
    ----------
    threshold : int
    before : ndarray, shape (neurons,), int64
        Message at the receivers before a sample's first frame.
    """

    def __init__(self, threshold: int, before: np.ndarray) -> None:
        self._threshold = threshold
        self._before = self._last_sent = before

    def events(self, message: np.ndarray, first: bool) -> np.ndarray:
        """Return the events, shape (neurons,), zero where nothing is sent.

        Parameters
        ----------
        message : ndarray, shape (neurons,), int64
        first : bool
            Whether it is the message of a sample's first frame.
        """
        if not self._threshold:
            return message
        last_sent = self._before if first else self._last_sent
        change = message - last_sent
        sent = np.where(np.abs(change) >= self._threshold, change, 0)
        self._last_sent = last_sent + sent
        return sent


class Dendrite:
    """Receiving end of an edge: delays, accumulators and gains of each slice and neuron.

    Parameters
    ----------
    link : Link
    """

    def __init__(self, link: Link) -> None:
        edge, connection = link.edge, link.edge.connection
        slices, n_out = connection.multiplier.shape
        self._link, self._bits = link, connection.accumulator_bits
        self._multiplier = connection.multiplier.astype(np.int64)
        self._shift = connection.shift.astype(np.int64)
        self._of_changes = connection.threshold > 0
        self._silence = np.zeros((len(edge.offsets), slices, n_out), np.int64)
        self._sums = self._before = self._silence  # what the message before the first frame causes
        if link.exit.before.any():
            weights = connection.slices.reshape(slices, n_out, len(edge.offsets), -1)
            self._before = (weights.astype(np.int64) @ link.exit.before).transpose(2, 0, 1)
        self._arrived = deque([self._silence] * (max(link.delays) + 1), max(link.delays) + 1)
        self.row = slice(edge.row, edge.row + n_out)
        self.places = tuple(edge.accumulators)

    def receive(self, arriving: np.ndarray, frame: int | None) -> np.ndarray:
        """Take the arriving sums of this chip step; return those that are due.

        Parameters
        ----------
        arriving : ndarray, shape (rows of the synapses,)
        frame : int or None
            Frame of the source that was sent at the chip step before; None if there was none.

        Returns
        -------
        due : ndarray, shape (slices, neurons), int64
            Sums over all offsets.
        """
        sums = arriving[self._link.rows].reshape(self._silence.shape).astype(np.int64)
        if self._of_changes:
            # Changes add up to the sums of messages, which end with the source's frames.
            if frame is not None:
                self._sums = sums + (self._sums if frame else self._before)
            sums = self._silence if frame is None else self._sums
        self._arrived.append(sums)
        due = [self._arrived[-1 - delay][n] for n, delay in enumerate(self._link.delays)]
        return np.asarray(sum(due[1:], due[0]))

    def accumulate(self, due: np.ndarray, first: bool) -> tuple[np.ndarray, list[int]]:
        """Return a_k of the specification, and the number of saturations of each slice.

        Parameters
        ----------
        due : ndarray, shape (slices, neurons), int64
        first : bool
            Whether they are for a sample's first frame.
        """
        if first and self._link.recalls:
            due = due + self._before[0]
        limited = [saturate(row, self._bits) for row in due]
        return np.stack([row for row, _ in limited]), [changed for _, changed in limited]

    def drive(self, accumulators: np.ndarray) -> np.ndarray:
        """Return D of the specification, shape (neurons,)."""
        scaled: np.ndarray = multiply_shift(accumulators, self._multiplier, self._shift).sum(axis=0)
        return scaled
