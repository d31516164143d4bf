"""The engine in Numba: PyTorch's exact products, everything else compiled, in arrays of int32.

A drive is stored as the products or messages that it is computed from until it is used. Limits,
gains, shifts and the sum over slices then take one pass (numba_kernels.py). Most populations store
products. A few neurons store their messages, most of which are zero where the neurons are
pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.parts import Connection, accumulator_place, largest
from lmu_deploy.core.integer.populations import Pointwise
from targets.integer import numba_kernels
from targets.integer.numpy_engine import SeriesSender
from targets.integer.operands import Drive, Stack, by_lines, find_flat
from targets.integer.torch_engine import Int32Engine, exact_products

_MOST_NARROW = 8
_ROWS_FOR_NARROW = 16
"""Rows per neuron above which writing and reading a product is its main cost."""


def compiled_fan(connections: Mapping[str, Connection], limit: int) -> WideFan | NarrowFan:
    """Build the synapses of an outlet.

    Parameters
    ----------
    connections : mapping of place to Connection
        All from one population.
    limit : int
        Largest magnitude of a message.
    """
    stack = Stack.of(connections)
    rows, n_in = stack.weights.shape
    if n_in <= _MOST_NARROW and rows >= _ROWS_FOR_NARROW * n_in:
        return NarrowFan(connections)
    return WideFan(connections, stack, limit)


@dataclass(frozen=True)
class _Link:
    """Arguments of the kernels for one connection.

    Attributes
    ----------
    place : str
    gains : tuple of three ndarrays, shape (slices, n_out), int32
        Multiplier, half and shift.
    limit : int
        Largest magnitude of its accumulators.
    limited : ndarray, shape (slices,), int64
        Buffer for the count of saturations.
    """

    place: str
    gains: tuple[np.ndarray, np.ndarray, np.ndarray]
    limit: int
    limited: np.ndarray

    @classmethod
    def of(cls, place: str, connection: Connection) -> _Link:
        """Convert a connection."""
        half = (np.int64(1) << connection.shift.astype(np.int64)) >> 1
        gains = connection.multiplier, half.astype(np.int32), connection.shift
        room = np.zeros(len(half), np.int64)
        return cls(place, gains, largest(connection.accumulator_bits), room)

    def saturations(self) -> dict[str, int]:
        """Return the counted saturations by accumulator."""
        return {accumulator_place(self.place, k): int(n) for k, n in enumerate(self.limited)}


class WideFan:
    """Synapses whose drives are stored as products."""

    def __init__(self, connections: Mapping[str, Connection], stack: Stack, limit: int) -> None:
        may_saturate = stack.may_saturate(limit)
        self._links = [
            (_Link.of(place, connection), slices[0].start, bool(may_saturate[rows].any()))
            for (place, connection), slices in zip(
                connections.items(), stack.places.values(), strict=True
            )
            for rows in [slice(slices[0].start, slices[-1].stop)]
        ]
        self._buffers = exact_products(stack.weights, limit)
        self._resize(0)

    def deliver(self, messages: np.ndarray) -> Mapping[str, Drive]:
        """Return each connection's drive, by place, valid until the next call."""
        if self._buffers.batch != len(messages):
            self._resize(len(messages))
        bits = self._buffers.base_bits
        numba_kernels.split(messages, self._digits, bits)
        self._buffers.multiply()
        if len(self._products) > 2:
            numba_kernels.fold(self._products, bits)
        return self._drives

    def _resize(self, batch: int) -> None:
        self._buffers.resize(batch)
        self._digits, self._products = self._buffers.digits.numpy(), self._buffers.products.numpy()
        self._drives = {
            link.place: DriveInProducts(
                link, first, limited, self._products, self._buffers.base_bits
            )
            for link, first, limited in self._links
        }


@dataclass(frozen=True)
class DriveInProducts:
    """Drive of a connection, stored as products of digits of messages.

    Attributes
    ----------
    link : _Link
    first : int
        Column of the connection's first product.
    may_saturate : bool
    products : ndarray, shape (digits, batch, rows), int32
    base_bits : int
        Of the digits.
    """

    link: _Link
    first: int
    may_saturate: bool
    products: np.ndarray
    base_bits: int

    def add_to(self, total: np.ndarray) -> Mapping[str, int]:
        """Limit and shift the sums, and add them to `total`; return saturations."""
        link = self.link
        if not self.may_saturate:
            numba_kernels.add_drive(self.products, self.base_bits, self.first, *link.gains, total)
        elif numba_kernels.add_limited_drive(
            self.products,
            self.base_bits,
            self.first,
            *link.gains,
            link.limit,
            total,
            link.limited,
        ):
            return link.saturations()
        return {}

    def snapshot(self) -> DriveInProducts:
        """Copy the products."""
        return replace(self, products=self.products.copy())


class NarrowFan:
    """Synapses of a few neurons, whose drives are stored as messages."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        self._links = [
            (
                _Link.of(place, connection),
                connection.slices.transpose(0, 2, 1).astype(np.int32, order="C"),
            )
            for place, connection in connections.items()
        ]

    def deliver(self, messages: np.ndarray) -> Mapping[str, Drive]:
        """Return each connection's drive, by place."""
        return {
            link.place: DriveInMessages(link, weights, messages) for link, weights in self._links
        }


@dataclass(frozen=True)
class DriveInMessages:
    """Drive of a connection, stored as messages.

    Attributes
    ----------
    link : _Link
    weights : ndarray, shape (slices, n_in, n_out), int32
    messages : ndarray, shape (batch, n_in), int32
    """

    link: _Link
    weights: np.ndarray
    messages: np.ndarray

    def add_to(self, total: np.ndarray) -> Mapping[str, int]:
        """Multiply by the weights, limit and shift the sums, and add them to `total`."""
        link = self.link
        saturated = numba_kernels.add_narrow_drive(
            self.messages, self.weights, *link.gains, link.limit, total, link.limited
        )
        return link.saturations() if saturated else {}

    def snapshot(self) -> DriveInMessages:
        """Return itself, because messages are never overwritten."""
        return self


class CompiledSeries:
    """A series, compiled; a :data:`targets.integer.numpy_engine.SeriesStep`."""

    def __init__(self, series: Series) -> None:
        half = (np.int64(1) << series.shift.astype(np.int64)) >> 1
        multiplier, half, shift = (
            np.tile(gain.astype(np.int32), series.channels)
            for gain in (series.multiplier, half, series.shift)
        )
        self._gains = multiplier, half, shift
        self._shifts = np.append(series.term_shift, series.message_shift).astype(np.int64)
        self._steps = series.substeps, series.channels
        accumulators = largest(series.accumulator_bits)
        self._limits = accumulators, series.state.limit, series.message.limit
        self._driven = series.driven
        terms, own = series.inner, series.place
        self._places = {
            numba_kernels.DRIVE: f"{terms}/drive",
            numba_kernels.ACCUMULATOR: f"{terms}/recurrent/slice0",
            numba_kernels.TERM: f"{terms}/term",
            numba_kernels.TERM_MESSAGE: f"{terms}/message",
            numba_kernels.STATE: f"{own}/state",
            numba_kernels.MESSAGE: f"{own}/message",
        }

    def __call__(
        self, state: tuple[np.ndarray, ...], drive: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray, dict[str, int]]:
        """Advance by one sample step."""
        m, message = (part.astype(np.int32) for part in state[:2])
        sent, drives = np.empty_like(m), self._driven(drive).astype(np.int32)
        found = np.zeros(len(self._places), np.int64)
        numba_kernels.advance(
            m, message, drives, sent, self._gains, self._shifts, self._steps, self._limits, found
        )
        saturations = {place: int(found[index]) for index, place in self._places.items()}
        return (m, message, sent), message, saturations


class CompiledSender:
    """Count events in one pass."""

    def __init__(self, fan_out: np.ndarray) -> None:
        self._fan_out = fan_out.astype(np.int64)

    def tally(self, sent: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the number of events of each sample, and the synaptic operations of all."""
        events = np.empty(len(sent), np.int64)
        return events, numba_kernels.tally(sent, self._fan_out, events)


class CompiledActivation:
    """H = f(z) of a batch, by the least of its lines."""

    def __init__(self, hidden: Pointwise) -> None:
        self._hidden, lines = hidden, hidden.function
        self._by_lines = not isinstance(lines, PiecewiseLinear) or lines.kind == "linear"
        if self._by_lines or not isinstance(lines, PiecewiseLinear):
            return
        flat = find_flat(hidden)
        offset = (lines.intercept.astype(np.int64) << lines.shift) + (1 << lines.shift >> 1)
        most = flat.least * int(lines.slope.max()) + int(offset.max())
        dtype = np.int32 if most < 2**31 else np.int64
        filled = (0, -len(offset) % 4)
        self._slope, self._offset = (
            np.pad(part, filled, "edge").astype(dtype) for part in (lines.slope, offset)
        )
        limits = flat.least, flat.last_unlimited, hidden.message.limit
        self._rest = lines.shift, lines.kind == "odd", *limits

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        """Return H and the number of saturated entries."""
        if self._by_lines:
            h, limited = by_lines(self._hidden, z)
            return h.astype(np.int32), limited
        h = np.empty_like(z)
        return h, numba_kernels.activate(z, self._slope, self._offset, *self._rest, h)


class CompiledEngine(Int32Engine):
    """Arrays of int32; see :class:`targets.integer.engine.Engine`."""

    name = "numba"

    def zeros(self, batch: int, width: int) -> np.ndarray:
        """Build an array of zeros."""
        return np.zeros((batch, width), dtype=np.int32)

    def array(self, values: np.ndarray) -> np.ndarray:
        """Convert integers of NumPy."""
        return np.array(values, dtype=np.int32, order="C")

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """Return the array."""
        return values

    def copy(self, values: np.ndarray) -> np.ndarray:
        """Copy an array."""
        return values.copy()

    def saturate(self, values: np.ndarray, limit: int) -> int:
        """Limit values in place; return the number of saturations."""
        return numba_kernels.saturate(values, limit)

    def emit(
        self, m: np.ndarray, limit: int, shift: int, message_limit: int
    ) -> tuple[np.ndarray, int, int]:
        """Limit states in place; return their messages and the saturations of both."""
        messages = np.empty_like(m)
        return messages, *numba_kernels.emit(m, limit, shift, message_limit, messages)

    def suppress(self, values: np.ndarray, threshold: int) -> None:
        """Set values of magnitude below a threshold to zero, in place."""
        values[np.abs(values) < threshold] = 0

    def room(self, *shape: int) -> np.ndarray:
        """Return an array to be filled."""
        return np.empty(shape, dtype=np.int32)

    def side_by_side(self, signals: list[np.ndarray]) -> np.ndarray:
        """Concatenate along the last axis."""
        return np.concatenate(signals, axis=-1)

    fan = staticmethod(compiled_fan)
    sender, activation = CompiledSender, CompiledActivation
    series, series_sender = CompiledSeries, SeriesSender
