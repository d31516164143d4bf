"""Synapses of the compiled engine, whose drives wait in what they are made of until they are used.

Then limits, gains, shifts and the sum over slices take one pass (kernels.py). From most populations
drives are made of products of int8; from a few neurons, straight of their messages, most of which
are zero where the neurons are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.integer_network import Connection, largest
from targets.integer import kernels
from targets.integer.drives import Drive
from targets.integer.int8_products import Int8Products
from targets.integer.stack import Stack

_MOST_NARROW = 8
_ROWS_FOR_NARROW = 16
"""Rows a neuron from which on a product of int8 takes longer to write and read than to make."""


def compiled_fan(connections: Mapping[str, Connection], limit: int) -> WideFan | NarrowFan:
    """Make the synapses of an outlet ready.

    Parameters
    ----------
    connections : mapping of place to Connection
        All with as many inputs as the population has neurons.
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
    """A connection as the kernels take it.

    Attributes
    ----------
    place : str
    gains : tuple of three ndarrays, shape (slices, n_out), int32
        Multiplier, half and shift.
    limit : int
        Of its accumulators.
    limited : ndarray, shape (slices,), int64
        Room to count saturations in.
    """

    place: str
    gains: tuple[np.ndarray, np.ndarray, np.ndarray]
    limit: int
    limited: np.ndarray

    @classmethod
    def of(cls, place: str, connection: Connection) -> _Link:
        """Take over a connection."""
        half = (np.int64(1) << connection.shift.astype(np.int64)) >> 1
        gains = connection.multiplier, half.astype(np.int32), connection.shift
        room = np.zeros(len(half), np.int64)
        return cls(place, gains, largest(connection.accumulator_bits), room)

    def saturations(self) -> dict[str, int]:
        """Name what was counted."""
        return {f"{self.place}/slice{k}": int(n) for k, n in enumerate(self.limited)}


class WideFan:
    """Synapses whose drives wait in products of int8."""

    def __init__(self, connections: Mapping[str, Connection], stack: Stack, limit: int) -> None:
        may_saturate = stack.may_saturate(limit)
        self._links = [
            (_Link.of(place, connection), slices[0].start, bool(may_saturate[rows].any()))
            for (place, connection), slices in zip(
                connections.items(), stack.places.values(), strict=True
            )
            for rows in [slice(slices[0].start, slices[-1].stop)]
        ]
        self._buffers = Int8Products(stack.weights, limit)
        self._resize(0)

    def deliver(self, messages: np.ndarray) -> Mapping[str, Drive]:
        """Give each connection's drive, good until the next call."""
        if self._buffers.batch != len(messages):
            self._resize(len(messages))
        kernels.split(messages, self._digits)
        self._buffers.multiply()
        if len(self._products) > 2:
            kernels.fold(self._products)
        return self._drives

    def _resize(self, batch: int) -> None:
        self._buffers.resize(batch)
        self._digits, self._products = self._buffers.digits.numpy(), self._buffers.products.numpy()
        self._drives = {
            link.place: DriveInProducts(link, first, limited, self._products)
            for link, first, limited in self._links
        }


@dataclass(frozen=True)
class DriveInProducts:
    """What a connection brings, still in products of digits of messages.

    Attributes
    ----------
    link : _Link
    first : int
        Column of the connection's first row.
    may_saturate : bool
    products : ndarray, shape (digits, batch, rows), int32
    """

    link: _Link
    first: int
    may_saturate: bool
    products: np.ndarray

    def add_to(self, total: np.ndarray) -> Mapping[str, int]:
        """Limit the sums, shift them and add them up."""
        link = self.link
        if not self.may_saturate:
            kernels.add_drive(self.products, self.first, *link.gains, total)
        elif kernels.add_limited_drive(
            self.products, self.first, *link.gains, link.limit, total, link.limited
        ):
            return link.saturations()
        return {}

    def kept(self) -> DriveInProducts:
        """Copy the products."""
        return replace(self, products=self.products.copy())


class NarrowFan:
    """Synapses of a few neurons, whose drives wait in their messages."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        self._links = [
            (
                _Link.of(place, connection),
                connection.slices.transpose(0, 2, 1).astype(np.int32, order="C"),
            )
            for place, connection in connections.items()
        ]

    def deliver(self, messages: np.ndarray) -> Mapping[str, Drive]:
        """Give each connection's drive."""
        return {
            link.place: DriveInMessages(link, weights, messages) for link, weights in self._links
        }


@dataclass(frozen=True)
class DriveInMessages:
    """What a connection brings, still in messages.

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
        """Multiply by the weights, limit the sums, shift them and add them up."""
        link = self.link
        saturated = kernels.add_narrow_drive(
            self.messages, self.weights, *link.gains, link.limit, total, link.limited
        )
        return link.saturations() if saturated else {}

    def kept(self) -> DriveInMessages:
        """Give itself: messages stay as they are."""
        return self
