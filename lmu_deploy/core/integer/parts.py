r"""Parts of integer networks: integer formats, and connections between populations.

The operations are specified in integer-semantics.md. With :math:`\mathrm{sat}_b` saturating to
:math:`\pm(2^{b-1}-1)` and :math:`\mathrm{ms}(v, g, s) = \lfloor (v g + 2^{s-1}) / 2^s \rfloor` (no
offset when s = 0), a connection drives its target by

.. math:: D_i = \sum_k \mathrm{ms}\Big(\mathrm{sat}_{24}\big(\sum_j W_{kij} X_j\big),
          g_{ki}, s_{ki}\Big)

where X is the message of the source or, with a threshold, the message that it sent last
(sigma-delta).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER
from lmu_deploy.core.representation import Part
from lmu_deploy.core.validation import (
    check_array,
    check_integer,
    check_number,
    check_text,
    set_fields,
)

LARGEST_MULTIPLIER = 2**15 - 1
LARGEST_OFFSET = 1_000_000
LARGEST_SHIFT = 31
LARGEST_THRESHOLD = 2**31 - 1


@dataclass(frozen=True, order=True)
class Place:
    """A population of an integer network: the node of the float network and the part of it.

    Its text, such as ``lmu_1/memory``, names it in results, ONNX tensors and reports; code passes
    the value and never takes a text apart.

    Attributes
    ----------
    node : str
        Name of the node that the population computes.
    part : str
        Empty where the node has one population.
    """

    node: str
    part: str = ""

    def __post_init__(self) -> None:
        check_text("place node", self.node, 200)
        check_text("place part", self.part, 40)

    def __str__(self) -> str:
        """Return the text of the place."""
        return f"{self.node}/{self.part}" if self.part else self.node


def edge_place(target: Place, name: str) -> str:
    """Return the text that identifies an edge, such as ``lmu_1/memory/recurrent``."""
    return f"{target}/{name}" if name else str(target)


def accumulator_place(place: str, number: int) -> str:
    """Return the name of the accumulator of a slice of a connection."""
    return f"{place}/slice{number}"


def real_gains(multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return the real gains ``multiplier / 2**shift`` as float64."""
    return np.asarray(multiplier * np.exp2(-shift.astype(np.float64)))


def largest(bits: int) -> int:
    """Return the largest magnitude of a symmetric signed integer: 2^(bits-1) - 1."""
    return int(2 ** (bits - 1) - 1)


@dataclass(frozen=True)
class Format:
    """Fixed-point format: ``value = integer * scale`` with a bounded integer.

    Attributes
    ----------
    bits : int
        Width including the sign, 2 to 32; |integer| <= 2^(bits-1) - 1.
    scale : float
        Real value of the integer 1.
    """

    bits: int
    scale: float

    def __post_init__(self) -> None:
        set_fields(
            self,
            bits=check_integer("format bits", self.bits, 2, 32),
            scale=check_number("format scale", self.scale, 1e-30, 1e30),
        )

    @property
    def limit(self) -> int:
        """Largest magnitude."""
        return largest(self.bits)


@dataclass(frozen=True, eq=False, repr=False)
class Connection(Part):
    """Synaptic weights as slices of small integers, each slice with one gain per target row.

    Attributes
    ----------
    slices : ndarray, shape (n_slices, n_out, n_in), int8
        Most significant slice first.
    multiplier : ndarray, shape (n_slices, n_out), int32, 1 to 32767
    shift : ndarray, shape (n_slices, n_out), int32, 0 to 31
        Row i receives the sum over slices of ``ms(sat(slice @ message), g, s)``.
    weight_bits : int
        Width of a weight including the sign, 2 to 8; |weight| <= 2^(weight_bits-1) - 1.
    accumulator_bits : int
        Width at which the sum of each slice saturates, 8 to 32.
    threshold : int
        If 0, every nonzero message is sent as it is. Otherwise the change of a message since the
        last transmission is sent once it reaches the threshold, and the target accumulates the
        changes.
    """

    slices: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    weight_bits: int = 8
    accumulator_bits: int = 24
    threshold: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        bits = check_integer("weight_bits", self.weight_bits, 2, 8)
        accumulator = check_integer("accumulator_bits", self.accumulator_bits, 8, 32)
        slices = check_array("connection slices", self.slices, (None, None, None), "i")
        if not 1 <= slices.shape[0] <= 4:
            raise InputError(f"a connection has {slices.shape[0]} slices; give 1 to 4.")
        check_range("connection slices", slices, -largest(bits), largest(bits))
        rows = slices.shape[:2]
        multiplier = check_array("connection multiplier", self.multiplier, rows, "i")
        shift = check_array("connection shift", self.shift, rows, "i")
        check_range("connection multiplier", multiplier, 1, LARGEST_MULTIPLIER)
        check_range("connection shift", shift, 0, LARGEST_SHIFT)
        set_fields(
            self,
            slices=slices.astype(np.int8),
            multiplier=multiplier.astype(np.int32),
            shift=shift.astype(np.int32),
            weight_bits=bits,
            accumulator_bits=accumulator,
            threshold=check_integer("threshold", self.threshold, 0, LARGEST_THRESHOLD),
        )

    @property
    def n_out(self) -> int:
        """Number of targets."""
        return int(self.slices.shape[1])

    @property
    def n_in(self) -> int:
        """Number of sources."""
        return int(self.slices.shape[2])

    @property
    def gains(self) -> np.ndarray:
        """Real gains of each slice and row; shape (n_slices, n_out), float64."""
        return real_gains(self.multiplier, self.shift)

    @property
    def dequantized(self) -> np.ndarray:
        """The weights as real numbers, target integers per source integer; (n_out, n_in), float64.

        For real units, multiply by the scale of the target format and divide by that of the
        source format.
        """
        return np.einsum("koi,ko->oi", self.slices.astype(np.float64), self.gains)

    def slice_drives(self, messages: np.ndarray) -> np.ndarray:
        """Return what each slice drives the targets by, ``ms(sat(W X), g, s)``.

        Parameters
        ----------
        messages : ndarray, shape (rows, n_in), int64
            Below 2^52 / (127 n_in), so that float64 holds all sums.

        Returns
        -------
        ndarray, shape (n_slices, rows, n_out), int64
        """
        weights = self.slices.astype(np.float64)
        limit = largest(self.accumulator_bits)
        sums = messages.astype(np.float64) @ weights.transpose(0, 2, 1)
        sums = np.clip(sums, -limit, limit).astype(np.int64)
        shift = self.shift[:, None].astype(np.int64)
        half = (np.int64(1) << shift) >> 1
        return np.asarray((sums * self.multiplier[:, None].astype(np.int64) + half) >> shift)

    def drive(self, messages: np.ndarray) -> np.ndarray:
        """Return the drive of every target, shape (rows, n_out), int64; see `slice_drives`."""
        return np.asarray(self.slice_drives(messages).sum(axis=0))

    @property
    def fan_out(self) -> np.ndarray:
        """Number of synapses (nonzero weights of all slices) of each source; (n_in,), int64."""
        return np.asarray((self.slices != 0).sum(axis=(0, 1)), dtype=np.int64)


def check_type(name: str, value: object, expected: type) -> None:
    """Raise InputError unless `value` is an instance of `expected`."""
    if not isinstance(value, expected):
        raise InputError(f"{name} needs a {expected.__name__}, not {type(value).__name__}.")


def check_connection(name: str, value: object, rows: int | None, columns: int | None) -> None:
    """Raise InputError unless `value` is a Connection of the shape; None means any size."""
    if not isinstance(value, Connection):
        raise InputError(f"{name} needs a Connection, not {type(value).__name__}.")
    check_array(f"{name} slices", value.slices, (None, rows, columns), "i")


def check_bias(name: str, value: np.ndarray | None, size: int) -> np.ndarray | None:
    """Return a bias as int32, shape (size,), or None; raise InputError if it is invalid."""
    if value is None:
        return None
    bias = check_array(name, value, (size,), "i")
    check_range(name, bias, -largest(24), largest(24))
    return bias.astype(np.int32)


def check_range(name: str, value: np.ndarray, low: int, high: int) -> None:
    """Raise InputError when an entry lies outside [low, high]."""
    if value.size and not (value.min() >= low and value.max() <= high):
        raise InputError(
            f"{name} has entries from {value.min()} to {value.max()}; they must lie in {low} to "
            f"{high}."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Edge(Part):
    r"""A connection from one population to another, or to itself.

    Frame n of the target receives the drive of the source's frames ``stride * n + offset``, one
    for each offset, side by side: the connection has ``len(offsets) * source.size`` columns. Frames
    outside the sequence are zero. A recurrent edge has the offset -1; a convolution over time has
    one offset for each tap.

    Attributes
    ----------
    source, target : Place
    name : str
        What it carries, such as ``input`` or ``recurrent``.
    connection : Connection
    offsets : tuple of int
    stride : int
    after : int
        Frames of zeros that follow the sequence of the source; less than zero where a delay leaves
        out its last frames.
    row : int
        First entry of the target's drive that the connection adds to.
    """

    source: Place
    target: Place
    name: str
    connection: Connection
    offsets: tuple[int, ...] = (0,)
    stride: int = 1
    after: int = 0
    row: int = 0

    def __post_init__(self) -> None:
        check_type("edge", self.source, Place)
        check_type("edge", self.target, Place)
        check_text("edge name", self.name, 40)
        check_connection(f"edge {self.place}", self.connection, None, None)
        offsets = tuple(
            check_integer("offset", n, -LARGEST_OFFSET, LARGEST_OFFSET) for n in self.offsets
        )
        if not offsets or self.connection.n_in % len(offsets):
            raise InputError(
                f"edge {self.place} has {self.connection.n_in} columns for {len(offsets)} "
                "offsets; it needs equally many for each."
            )
        set_fields(
            self,
            offsets=offsets,
            stride=check_integer("stride", self.stride, 1, LARGEST_OFFSET),
            after=check_integer("frames after", self.after, -LARGEST_OFFSET, LARGEST_OFFSET),
            row=check_integer("row", self.row, 0, 2**31 - 1),
        )

    @property
    def place(self) -> str:
        """Text that identifies the edge; see :func:`edge_place`."""
        return edge_place(self.target, self.name)

    @property
    def accumulators(self) -> list[str]:
        """Names of its accumulators, one for each slice."""
        return [accumulator_place(self.place, k) for k in range(len(self.connection.slices))]

    @property
    def n_source(self) -> int:
        """Number of neurons of the source."""
        return self.connection.n_in // len(self.offsets)

    @property
    def plain(self) -> bool:
        """Whether every frame of the target receives the same frame of the source."""
        return self.offsets == (0,) and self.stride == 1 and not self.after

    @property
    def recurrent(self) -> bool:
        """Whether it carries messages of the step before, within a node."""
        return self.offsets == (-1,) and self.stride == 1 and not self.after

    def frames(self, frames: int, ended: bool = True) -> int:
        """Return how many frames of the target a source of that many frames can drive.

        Parameters
        ----------
        frames : int
        ended : bool
            Whether the source has no more frames, so that zeros follow.
        """
        after = self.after if ended else min(self.after, 0)
        return max((frames + after - 1 - max(self.offsets)) // self.stride + 1, 0)

    def fan_out(self, phase: int = 0) -> np.ndarray:
        """Return how many synapses an event of each source neuron reaches; (n_source,), int64.

        With a stride, the taps that read a frame depend on the frame's number; `phase` is that
        number modulo the stride.
        """
        by_tap = self.connection.fan_out.reshape(len(self.offsets), -1)
        reads = [(phase - offset) % self.stride == 0 for offset in self.offsets]
        return np.asarray(by_tap[reads].sum(axis=0), dtype=np.int64)
