r"""Memory and hidden units of the layers of an integer network.

There are two realizations of a memory. Integrators implement the identity in
:math:`\bar A = I + (\bar A - I)` as their state and the rest as connections, in the coordinates
given by `basis`. A Taylor series applies the sign matrix of the continuous-time memory, which is
exact in any width, several times per step. docs/reference/integer-semantics.md specifies both, and
the hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.parts import (
    LARGEST_MULTIPLIER,
    LARGEST_SHIFT,
    Connection,
    Format,
    check_bias,
    check_connection,
    check_range,
    check_type,
    largest,
)
from lmu_deploy.core.options import INTEGRATORS, SERIES
from lmu_deploy.core.representation import Part
from lmu_deploy.core.validation import check_array, check_choice, check_integer, set_fields


@dataclass(frozen=True, eq=False, repr=False)
class IntegerMemory(Part):
    """Memory of leak-free integrators that exchange graded messages.

    Attributes
    ----------
    state, message : Format
        The message is ``sat(ms(state, 1, message_shift))``.
    message_shift : int
        0 to 31.
    recurrent : Connection, (states, states)
        From the memory's messages of the previous step: the matrix minus the identity, with the
        memory encoders included.
    input : Connection, (states, n_in)
        From the input messages of the current step.
    hidden : Connection, (states, units), or None
        From the hidden messages of the previous step.
    bias : ndarray, shape (states,), int32, or None
    realization : {"dense-incremental", "schur", "hessenberg", "fir"}
        Form from which the matrix was derived; it does not affect the operations.
    basis : ndarray, shape (Legendre states, states), or None
        ``basis @ (m * scale)`` is the memory of the float network; None means the identity.
    """

    state: Format
    message: Format
    message_shift: int
    recurrent: Connection
    input: Connection
    hidden: Connection | None
    bias: np.ndarray | None
    realization: str = "dense-incremental"
    basis: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_type("memory", self.state, Format)
        check_type("memory", self.message, Format)
        check_connection("memory recurrent", self.recurrent, self.size, self.size)
        check_connection("memory input", self.input, self.size, None)
        if self.hidden is not None:
            check_connection("memory hidden", self.hidden, self.size, None)
        if self.basis is not None:
            set_fields(self, basis=check_array("memory basis", self.basis, (None, self.size)))
        set_fields(
            self,
            message_shift=check_integer("message_shift", self.message_shift, 0, LARGEST_SHIFT),
            bias=check_bias("memory bias", self.bias, self.size),
            realization=check_choice("realization", self.realization, INTEGRATORS),
        )

    @property
    def size(self) -> int:
        """Number of states."""
        check_type("memory recurrent", self.recurrent, Connection)
        return self.recurrent.n_out


@dataclass(frozen=True, eq=False, repr=False)
class SeriesMemory(Part):
    """Memory realized as a Taylor series of the continuous-time memory, in substeps.

    Attributes
    ----------
    channels, order : int
    substeps : int
        1 to 1024.
    state : Format
        Format of m, of the terms w_k and of c.
    message : Format
        Format of M; every message has its width.
    message_shift : int
        M is ``sat(ms(m, 1, message_shift))``.
    term_shift : ndarray, shape (terms - 1,), int32, 0 to 31
        V_k is ``sat(ms(w_k, 1, term_shift[k - 1]))``.
    multiplier : ndarray, shape (terms, order), int32, 1 to 32767
    shift : ndarray, shape (terms, order), int32, 0 to 31
        ``G_k(v) = ms(sat(S v), multiplier[k - 1], shift[k - 1])``, the same for each channel.
    input : Connection, (states, n_in)
    feedback : Connection, (states, states), or None
        From the memory's messages of the previous step: the memory encoders.
    hidden : Connection, (states, units), or None
    bias : ndarray, shape (states,), int32, or None
    accumulator_bits : int
        Width at which the sums S v saturate, 8 to 32.
    """

    channels: int
    order: int
    substeps: int
    state: Format
    message: Format
    message_shift: int
    term_shift: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    input: Connection
    feedback: Connection | None
    hidden: Connection | None
    bias: np.ndarray | None
    accumulator_bits: int = 24

    def __post_init__(self) -> None:
        check_type("memory", self.state, Format)
        check_type("memory", self.message, Format)
        set_fields(
            self,
            channels=check_integer("memory channels", self.channels, 1, 65_536),
            order=check_integer("memory order", self.order, 1, 4096),
            substeps=check_integer("memory substeps", self.substeps, 1, 1024),
            message_shift=check_integer("message_shift", self.message_shift, 0, LARGEST_SHIFT),
            accumulator_bits=check_integer("accumulator_bits", self.accumulator_bits, 8, 32),
            bias=check_bias("memory bias", self.bias, self.size),
        )
        multiplier = check_array("memory multiplier", self.multiplier, (None, self.order), "i")
        shift = check_array("memory shift", self.shift, multiplier.shape, "i")
        terms = len(multiplier)
        if not 1 <= terms <= 16:
            raise InputError(f"a memory has a series of {terms} terms; give 1 to 16.")
        term_shift = check_array("memory term_shift", self.term_shift, (terms - 1,), "i")
        check_range("memory multiplier", multiplier, 1, LARGEST_MULTIPLIER)
        check_range("memory shift", shift, 0, LARGEST_SHIFT)
        check_range("memory term_shift", term_shift, 0, LARGEST_SHIFT)
        set_fields(
            self,
            multiplier=multiplier.astype(np.int32),
            shift=shift.astype(np.int32),
            term_shift=term_shift.astype(np.int32),
        )
        check_connection("memory input", self.input, self.size, None)
        if self.feedback is not None:
            check_connection("memory feedback", self.feedback, self.size, self.size)
        if self.hidden is not None:
            check_connection("memory hidden", self.hidden, self.size, None)

    @property
    def size(self) -> int:
        """Number of states."""
        return self.channels * self.order

    @property
    def terms(self) -> int:
        """Number of terms of the series."""
        return len(self.multiplier)

    @property
    def applications(self) -> int:
        """Number of applications of the sign matrix per step."""
        return self.substeps * self.terms

    @property
    def realization(self) -> str:
        """Name of this realization."""
        return SERIES

    @property
    def basis(self) -> np.ndarray | None:
        """None: the states are those of the float network."""
        return None

    @property
    def recurrent(self) -> Connection:
        """The sign matrix as a connection with the gains of the first term."""
        signs = np.kron(np.eye(self.channels, dtype=np.int8), sign_matrix(self.order))
        return Connection(
            signs[None],
            np.tile(self.multiplier[0], self.channels)[None],
            np.tile(self.shift[0], self.channels)[None],
            weight_bits=2,
            accumulator_bits=self.accumulator_bits,
        )


def sign_matrix(order: int) -> np.ndarray:
    """Return the signs S in ``theta A = diag(2i+1) @ S``; shape (order, order), int8."""
    i = np.arange(order)
    lower = np.where((i[:, None] - i[None, :]) % 2 == 0, -1, 1)
    return np.where(i[:, None] < i[None, :], -1, lower).astype(np.int8)


@dataclass(frozen=True, eq=False, repr=False)
class PiecewiseLinear(Part):
    """A concave, monotone activation as the minimum of a few lines.

    ``p = |z|`` when odd, else ``max(z, 0)``; ``v = min_k(ms(p, slope_k, shift) + intercept_k)``;
    the result is ``sat(v)`` with the sign of z when odd, else ``sat(v)``. When `linear`, there is
    one line and no rectification: ``sat(ms(z, slope_0, shift))``.

    Attributes
    ----------
    slope : ndarray, shape (pieces,), int32, 0 to 32767
    intercept : ndarray, shape (pieces,), int32
        The first is 0.
    shift : int
        0 to 31.
    kind : {"odd", "positive", "linear"}
    """

    slope: np.ndarray
    intercept: np.ndarray
    shift: int
    kind: str

    def __post_init__(self) -> None:
        slope = check_array("activation slope", self.slope, (None,), "i")
        if not 1 <= len(slope) <= 64:
            raise InputError(f"an activation has {len(slope)} pieces; give 1 to 64.")
        intercept = check_array("activation intercept", self.intercept, (len(slope),), "i")
        check_range("activation slope", slope, 0, LARGEST_MULTIPLIER)
        check_range("activation intercept", intercept, 0, largest(24))
        if intercept[0] != 0:
            raise InputError("the first piece of an activation must pass through zero.")
        if self.kind == "linear" and len(slope) > 1:
            raise InputError(
                f"an activation of kind linear has {len(slope)} pieces; give one, or kind odd."
            )
        set_fields(
            self,
            slope=slope.astype(np.int32),
            intercept=intercept.astype(np.int32),
            shift=check_integer("activation shift", self.shift, 0, LARGEST_SHIFT),
            kind=check_choice("activation kind", self.kind, ("odd", "positive", "linear")),
        )


@dataclass(frozen=True, eq=False, repr=False)
class IntegerHidden(Part):
    """Hidden units of a layer.

    Attributes
    ----------
    drive : Format
        Format of z, the argument of the activation.
    message : Format
        Format of H, the result, which is also the message.
    memory : Connection, (units, states)
        From the memory messages of the current step.
    input : Connection, (units, n_in), or None
        From the input messages of the current step.
    recurrent : Connection, (units, units), or None
        From the hidden messages of the previous step.
    bias : ndarray, shape (units,), int32, or None
    activation : PiecewiseLinear
    """

    drive: Format
    message: Format
    memory: Connection
    input: Connection | None
    recurrent: Connection | None
    bias: np.ndarray | None
    activation: PiecewiseLinear

    def __post_init__(self) -> None:
        check_type("hidden", self.drive, Format)
        check_type("hidden", self.message, Format)
        check_type("hidden", self.activation, PiecewiseLinear)
        check_connection("hidden memory", self.memory, None, None)
        if self.input is not None:
            check_connection("hidden input", self.input, self.units, None)
        if self.recurrent is not None:
            check_connection("hidden recurrent", self.recurrent, self.units, self.units)
        set_fields(self, bias=check_bias("hidden bias", self.bias, self.units))

    @property
    def units(self) -> int:
        """Number of hidden units."""
        check_type("hidden memory", self.memory, Connection)
        return self.memory.n_out
