"""The hidden units of a layer of an integer network; see docs/integer-semantics.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.checks import check_array, check_choice, check_integer
from lmu_deploy.errors import InputError
from lmu_deploy.integer_parts import (
    LARGEST_MULTIPLIER,
    LARGEST_SHIFT,
    Connection,
    Format,
    check_bias,
    check_connection,
    check_range,
    check_type,
    largest,
    set_fields,
)


@dataclass(frozen=True)
class PiecewiseLinear:
    """A concave, monotone activation as the least of a few lines.

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
            raise InputError(f"an activation has {len(slope)} pieces; 1 to 64 are possible.")
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


@dataclass(frozen=True)
class IntegerHidden:
    """The hidden units.

    Attributes
    ----------
    drive : Format
        Of z, the sum that enters the activation.
    message : Format
        Of H, the result, which is also what is sent.
    memory : Connection, (units, states)
        From this step's memory messages.
    input : Connection, (units, n_in), or None
        From this step's input messages.
    recurrent : Connection, (units, units), or None
        From the hidden messages of the step before.
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
