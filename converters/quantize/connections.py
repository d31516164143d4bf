r"""Quantize real matrices to connections of small integers whose sums fit their accumulators.

:func:`connect` writes W, with ``target integer = W @ message integer``, as slices of integers with
a gain per target row, :math:`\sum_k (g_{ki} / 2^{s_{ki}})\, S_{kij} \approx W_{ij}`. The integer of
an entry, :math:`w = \mathrm{rint}(W_{ij} / \gamma_i)`, is split into digits of base :math:`2^{b-1}`
for weights of b bits. The lower digits are in :math:`[-2^{b-2}, 2^{b-2} - 1]`, so with two slices
of 8 bits :math:`w = 128\, hi + lo`, and :math:`|w| \le 127 \cdot 128 + 63` keeps hi below +128.

:func:`fit_accumulators` checks the width of each dendritic accumulator and makes rows coarser until
they fit. A sum :math:`\sum_j W_{kij} X_j` with messages limited to L is at most
:math:`L \sum_j |W_{kij}|`: if this bound fits, the width is proven. Otherwise the sums are measured
on the calibration and half a bit is added for unseen inputs; an accumulator that is too narrow
nevertheless saturates, which is counted.

:class:`Rounding` records how the matrix at one place became a connection. Quantization-aware
training applies it to new weights at every step, so the trained and the deployed weights cannot
differ. :class:`Connector` makes and records all connections of a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from converters.options import SCALES
from converters.quantize.calibration import Signal
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.parts import (
    LARGEST_MULTIPLIER,
    LARGEST_SHIFT,
    Connection,
    Format,
    Place,
    accumulator_place,
    largest,
    real_gains,
)
from lmu_deploy.core.validation import check_choice

HALF, NOISE = 0.501, 1e-9
"""Largest error of rounding, in units of the last slice, with 0.001 that LAPACKs may differ by; the
error of a product of matrices, as a share of its largest entry."""
_UNSEEN_BITS = 0.5


@dataclass(frozen=True)
class AccumulatorNeed:
    """Bits, including the sign, that the sums of one slice need in its widest row.

    Attributes
    ----------
    slice : int
    bits : float
    proven : bool
        Whether they follow from bounds; otherwise they were measured on the calibration, with a
        margin.
    """

    slice: int
    bits: float
    proven: bool

    @property
    def shown(self) -> str:
        """Bits rounded up to a tenth, so that 24.02 bits do not appear as 24."""
        return f"{math.ceil(10.0 * self.bits) / 10.0:.1f}"

    def __str__(self) -> str:
        return f"{self.shown} bits, {'proven' if self.proven else 'measured'}"


def bits_of(magnitude: np.ndarray | float) -> np.ndarray:
    """Return the bits, including the sign, that an integer of this magnitude needs."""
    return np.asarray(np.log2(np.asarray(magnitude, dtype=np.float64) + 1.0) + 1.0)


def row_bits(connection: Connection, limit: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits that each slice's sum needs in each row.

    Parameters
    ----------
    connection : Connection, (n_out, n_in)
    limit : int
        Largest magnitude of a message.
    rows : ndarray, shape (rows, n_in), float32
        Integer messages of the calibration.

    Returns
    -------
    bits : ndarray, shape (slices, n_out)
        From bounds if those fit in every row of the slice, otherwise measured with a margin.
    proven : ndarray of bool, shape (slices, n_out)
    """
    weights = connection.slices.astype(np.float32)
    bits = bits_of(np.abs(weights).sum(axis=2, dtype=np.float64) * limit)
    proven = bits <= connection.accumulator_bits
    for number in np.flatnonzero(~proven.all(axis=1)):
        sums = np.abs(rows @ weights[number].T).max(axis=0, initial=0.0)
        bits[number] = np.minimum(bits[number], bits_of(sums) + _UNSEEN_BITS)
    return bits, proven


def fit_accumulators(
    make: Callable[[np.ndarray], Connection], n_out: int, limit: int, rows: np.ndarray
) -> tuple[Connection, list[AccumulatorNeed], np.ndarray]:
    """Make a connection whose accumulators are wide enough, by at most one halving per slice.

    Each halving of a row's integers saves one bit of its sums. Further halvings would cost more
    accuracy than narrower messages, which the caller then suggests.

    Parameters
    ----------
    make : callable
        Returns the Connection for an array (n_out,) of halvings.
    n_out, limit : int
    rows : ndarray, shape (rows, n_in)

    Returns
    -------
    connection : Connection
    needs : list of Need
        One for each slice; the caller checks whether the accumulators are wide enough.
    coarser : ndarray, shape (n_out,)
        The halvings with which `connection` was made.
    """
    coarser = np.zeros(n_out, dtype=np.int64)
    while True:
        connection = make(coarser)
        bits, proven = row_bits(connection, limit, rows)
        too_wide = (bits > connection.accumulator_bits).any(axis=0)
        if not too_wide.any() or coarser.max() == len(connection.slices):
            break
        coarser[too_wide] += 1
    needs = [
        AccumulatorNeed(k, float(bits[k].max(initial=1.0)), bool(proven[k].all()))
        for k in range(len(bits))
    ]
    return connection, needs, coarser


_FREE_BITS = 7
"""Bits of a free multiplier: at most 1/64 of a range is unused, and 24 bits times it fit 32."""


def largest_sliced(slices: int, weight_bits: int) -> int:
    """Return the largest magnitude that `slices` slices can represent."""
    base, lower = 2 ** (weight_bits - 1), 2 ** (weight_bits - 2) - 1
    value = largest(weight_bits)
    for _ in range(slices - 1):
        value = value * base + lower
    return value


def split_digits(integers: np.ndarray, slices: int, weight_bits: int) -> np.ndarray:
    """Split integers into digits, most significant first.

    Parameters
    ----------
    integers : ndarray of int64, any shape, within +-largest_sliced(slices, weight_bits)
    slices, weight_bits : int

    Returns
    -------
    digits : ndarray of int64, shape (slices, *integers.shape)
        The integers are ``sum_k digits[k] * 2^((weight_bits-1) * (slices-1-k))``.
    """
    base, half = 2 ** (weight_bits - 1), 2 ** (weight_bits - 2)
    digits = []
    rest = np.asarray(integers, dtype=np.int64)
    for _ in range(slices - 1):
        upper = (rest + half) // base
        digits.append(rest - upper * base)
        rest = upper
    return np.stack([rest, *reversed(digits)])


def connect(
    matrix: np.ndarray,
    *,
    slices: int = 1,
    weight_bits: int = 8,
    accumulator_bits: int = 24,
    scales: str = "power-of-two",
    coarser: np.ndarray | int = 0,
) -> Connection:
    """Quantize a matrix to a Connection.

    Parameters
    ----------
    matrix : ndarray, shape (n_out, n_in)
        Target integers per message integer.
    slices, weight_bits, accumulator_bits : int
    scales : {"power-of-two", "free"}
        Gains that are powers of two, or a multiplier and a shift, which use nearly the full range
        of the weights.
    coarser : int or ndarray, shape (n_out,)
        Halvings of the rows' integers, for sums that would otherwise be too wide.

    Raises
    ------
    InputError
        When an entry is too large for the largest possible gain.
    """
    check_choice("scales", scales, SCALES)
    limit = largest_sliced(slices, weight_bits)
    widest = np.max(np.abs(matrix), axis=1, initial=0.0) * np.exp2(coarser)
    digit_bits = (weight_bits - 1) * np.arange(slices - 1, -1, -1)[:, None]
    mantissa, exponent = _free(widest, limit) if scales == "free" else _power_of_two(widest, limit)
    exponent = exponent + digit_bits
    multiplier, shift = mantissa * 2 ** np.maximum(exponent, 0), np.maximum(-exponent, 0)
    if multiplier.max(initial=0) > LARGEST_MULTIPLIER:
        raise InputError(
            f"a weight of {np.abs(matrix).max():.3g} units is too large for {slices} slices of "
            f"{weight_bits} bits and a multiplier of 15 bits; use more slices or message bits."
        )
    step = real_gains(multiplier[-1], shift[-1])
    integers = np.clip(np.rint(matrix / step[:, None]), -limit, limit).astype(np.int64)
    digits = split_digits(integers, slices, weight_bits)
    return Connection(
        digits.astype(np.int8),
        multiplier.astype(np.int32),
        shift.astype(np.int32),
        weight_bits,
        accumulator_bits,
    )


def _power_of_two(widest: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 and the least e >= -31 with ``rint(widest / 2^e) <= limit``; 0 for empty rows."""
    ratio = widest / (limit + 0.499)
    mantissa, exponent = np.frexp(np.where(ratio > 0.0, ratio, 1.0))
    least = np.where(mantissa == 0.5, exponent - 1, exponent)
    least = np.maximum(np.where(ratio > 0.0, least, 0), -LARGEST_SHIFT)
    return np.ones_like(least, dtype=np.int64), least.astype(np.int64)


def _free(widest: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mantissas and exponents slightly above ``widest / limit``, so nothing is clipped."""
    gain = np.where(widest > 0.0, widest / limit, 1.0)
    _, exponent = np.frexp(gain)
    exponent = np.maximum(exponent.astype(np.int64) - _FREE_BITS, -LARGEST_SHIFT)
    mantissa = np.ceil(gain * np.exp2(-exponent)).astype(np.int64)
    over = mantissa > 2**_FREE_BITS - 1
    return np.where(over, (mantissa + 1) // 2, mantissa), exponent + over


@dataclass(frozen=True)
class Rounding:
    """Rounding of the real matrix at one place of a float network to a Connection.

    Attributes
    ----------
    source, target : float
        Real value of one unit of the incoming messages, and of the target.
    slices, weight_bits, accumulator_bits : int
    scales : {"power-of-two", "free"}
    basis : ndarray, shape (n, neurons), or None
        Maps the values of the messages to the signal that the matrix expects.
    coarser : ndarray, shape (n_out,), or int
        Halvings of rows whose sums would otherwise be too wide.
    """

    source: float
    target: float
    slices: int
    weight_bits: int
    accumulator_bits: int
    scales: str
    basis: np.ndarray | None = None
    coarser: np.ndarray | int = 0

    def connection(self, matrix: np.ndarray) -> Connection:
        """Round a matrix, shape (n_out, n)."""
        units = matrix.astype(np.float64)
        if self.basis is not None:
            units = units @ self.basis
        return connect(
            units * (self.source / self.target),
            slices=self.slices,
            weight_bits=self.weight_bits,
            accumulator_bits=self.accumulator_bits,
            scales=self.scales,
            coarser=self.coarser,
        )

    def fits(self, source: Source, target: Format) -> bool:
        """Return whether it is the rounding of a matrix between these messages and units."""
        units = (self.source, self.target) == (source.format.scale, target.scale)
        return units and equal(self.basis, source.basis)

    def real(self, matrix: np.ndarray) -> np.ndarray:
        """Return the real matrix that the rounded one represents; shape (n_out, neurons)."""
        return real_matrix(self.connection(matrix), self.source, self.target)


def off_rounding(connection: Connection, matrix: np.ndarray, *, whole: bool = False) -> np.ndarray:
    """Return which weights are not the integers nearest to those of a matrix, (n_out, n_in).

    Parameters
    ----------
    connection : Connection
    matrix : ndarray, shape (n_out, n_in)
        Target integers per message integer.
    whole : bool
        Whether the weights need no rounding.
    """
    allowed = NOISE * np.abs(matrix).max(initial=0.0)
    if not whole:
        allowed = allowed + HALF * connection.gains[-1][:, None]
    return np.asarray(np.abs(connection.dequantized - matrix) > allowed)


def equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Return whether two arrays are equal, or both absent."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def real_matrix(connection: Connection, source: float, target: float) -> np.ndarray:
    """Return the real matrix of a connection, for units of `source` and `target`."""
    return connection.dequantized * (target / source)


@dataclass(frozen=True)
class Source:
    """Messages that leave a population.

    Attributes
    ----------
    signal : Signal
        Their real values.
    format : Format
    option : str
        The command-line option that sets their width.
    basis : ndarray, shape (n, neurons), or None
        Maps their values to the signal that the float network's matrices expect.
    place : Place
    """

    signal: Signal
    format: Format
    option: str
    basis: np.ndarray | None = None
    place: Place = field(default_factory=lambda: Place(""))

    @property
    def features(self) -> int:
        """Number of values that the messages of a frame represent."""
        return self.signal.rows.shape[1] if self.basis is None else len(self.basis)

    def tapped(self, offsets: tuple[int, ...], stride: int) -> Source:
        """Return the messages of the frames ``stride * n + offset`` side by side."""
        basis = None if self.basis is None else np.kron(np.eye(len(offsets)), self.basis)
        return replace(self, signal=self.signal.tapped(offsets, stride), basis=basis)

    def inflow(self, matrix: np.ndarray) -> float:
        """Return the largest product of an entry of a matrix (n_out, n) and a message."""
        weights = matrix if self.basis is None else matrix @ self.basis
        return float(np.abs(weights).max(initial=0.0)) * self.format.limit * self.format.scale

    @property
    def rows(self) -> np.ndarray:
        """Integer messages of the calibration; shape (rows, n), float32."""
        integers = np.rint(self.signal.rows / self.format.scale)
        return np.clip(integers, -self.format.limit, self.format.limit).astype(np.float32)


@dataclass
class Connector:
    """Makes the connections of a network and records roundings and accumulator needs by place."""

    settings: Settings
    needs: dict[str, AccumulatorNeed] = field(default_factory=dict)
    roundings: dict[str, Rounding] = field(default_factory=dict)
    _remedies: dict[str, int] = field(default_factory=dict)

    def memory(self, place: str, matrix: np.ndarray, source: Source, target: Format) -> Connection:
        """Quantize a matrix that enters a memory; see :meth:`kernel`."""
        settings = self.settings
        form = settings.slices, settings.weight_bits, settings.memory_scales
        return self._connect(place, matrix, source, target, *form)

    def kernel(self, place: str, matrix: np.ndarray, source: Source, target: Format) -> Connection:
        """Quantize a kernel of hidden units or the readout.

        Parameters
        ----------
        place : str
        matrix : ndarray, shape (n_out, n)
            In real units, for the signal of the float network at this place.
        source : Source
        target : Format
        """
        settings = self.settings
        form = settings.kernel_slices, settings.kernel_width, settings.kernel_scales
        return self._connect(place, matrix, source, target, *form)

    def record(self, place: str, need: AccumulatorNeed, source: Source) -> None:
        """Record the need of an accumulator, and a remedy if it is too wide."""
        self.needs[accumulator_place(place, need.slice)] = need
        excess = math.ceil(need.bits - self.settings.accumulator_bits)
        if excess > 0:
            fewer = max(2, source.format.bits - excess)
            self._remedies[source.option] = min(self._remedies.get(source.option, 99), fewer)

    def check_accumulators(self) -> None:
        """Raise InputError if an accumulator is too narrow; name the worst and the remedies."""
        if not self._remedies:
            return
        place, need = max(self.needs.items(), key=lambda item: item[1].bits)
        remedy = " ".join(f"{option} {bits}" for option, bits in self._remedies.items())
        raise InputError(
            f"quantize: accumulator {place} needs {need.shown} bits, profile "
            f"{self.settings.profile.name} has {self.settings.accumulator_bits}; use {remedy}."
        )

    def _connect(
        self,
        place: str,
        matrix: np.ndarray,
        source: Source,
        target: Format,
        slices: int,
        weight_bits: int,
        scales: str,
    ) -> Connection:
        """Quantize ``matrix * message scale / target scale`` to slices whose sums fit."""
        rounding = Rounding(
            source.format.scale,
            target.scale,
            slices,
            weight_bits,
            self.settings.accumulator_bits,
            scales,
            source.basis,
        )
        connection, needs, coarser = fit_accumulators(
            lambda coarser: replace(rounding, coarser=coarser).connection(matrix),
            len(matrix),
            source.format.limit,
            source.rows,
        )
        self.roundings[place] = replace(rounding, coarser=coarser)
        for need in needs:
            self.record(place, need, source)
        return connection


def round_to_format(values: np.ndarray, target: Format) -> np.ndarray:
    """Round real values to integers of a format, limited to its range and to 24 bits."""
    limit = min(target.limit, largest(24))
    return np.clip(np.rint(values / target.scale), -limit, limit).astype(np.int32)
