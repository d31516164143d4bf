r"""IntegerNetwork: a network in integers alone, whose every state has exactly one right value.

The operations are specified in docs/integer-semantics.md; in short, with x, M, H the messages of
input, memory and hidden units and D the drive of a connection (integer_parts.py), one step is

.. math::
   m_t &= \mathrm{sat}_{24}(m_{t-1} + D^{rec}(M_{t-1}) + D^{in}(x_t) + D^{hid}(H_{t-1}) + b) \\
   M_t &= \mathrm{sat}(\mathrm{ms}(m_t, 1, s_M)) \\
   z_t &= \mathrm{sat}_{24}(D^{mem}(M_t) + D^{in}(x_t) + D^{rec}(H_{t-1}) + b),
   \qquad H_t = f(z_t) \\
   y_t &= \mathrm{sat}_{24}(D^{out}(H_t) + b)

where the first two lines are those of a memory of integrators (integer_memory.py has the other).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lmu_deploy.checks import check_array, check_choice, check_flag, check_integer, check_text
from lmu_deploy.errors import InputError
from lmu_deploy.integer_memory import IntegerMemory, SeriesMemory
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
from lmu_deploy.network import FLOAT_CLASSES, LMUNetwork

__all__ = [
    "INTEGER_CLASSES",
    "LARGEST_MULTIPLIER",
    "LARGEST_SHIFT",
    "Connection",
    "Format",
    "IntegerHidden",
    "IntegerLayer",
    "IntegerMemory",
    "IntegerNetwork",
    "IntegerReadout",
    "PiecewiseLinear",
    "SeriesMemory",
    "largest",
]


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


@dataclass(frozen=True)
class IntegerLayer:
    """A memory and, if there are any, hidden units; what it sends on is H, or M without them."""

    memory: IntegerMemory | SeriesMemory
    hidden: IntegerHidden | None

    def __post_init__(self) -> None:
        if not isinstance(self.memory, SeriesMemory):
            check_type("layer", self.memory, IntegerMemory)
        if self.hidden is None:
            if self.memory.hidden is not None:
                raise InputError("memory hidden needs hidden units, and this layer has none.")
            return
        check_type("layer", self.hidden, IntegerHidden)
        check_connection("hidden memory", self.hidden.memory, None, self.memory.size)
        if self.hidden.input is not None:
            check_connection("hidden input", self.hidden.input, None, self.n_in)
        if self.memory.hidden is not None:
            check_connection("memory hidden", self.memory.hidden, None, self.hidden.units)

    @property
    def n_in(self) -> int:
        """Number of input messages."""
        return self.memory.input.n_in

    @property
    def n_out(self) -> int:
        """Number of output messages."""
        return self.memory.size if self.hidden is None else self.hidden.units

    @property
    def output(self) -> Format:
        """Format of the messages that the layer sends on."""
        return self.memory.message if self.hidden is None else self.hidden.message


@dataclass(frozen=True)
class IntegerReadout:
    """The last map, y = sat(D(last layer's messages) + b)."""

    connection: Connection
    bias: np.ndarray | None
    output: Format

    def __post_init__(self) -> None:
        check_type("readout", self.output, Format)
        check_connection("readout", self.connection, None, None)
        set_fields(self, bias=check_bias("readout bias", self.bias, self.connection.n_out))


@dataclass(frozen=True)
class IntegerNetwork:
    """A whole network in integers.

    Attributes
    ----------
    input : Format
        Of the input messages: ``x = sat(rint(real / scale))``, ties to even.
    layers : tuple of IntegerLayer
    readout : IntegerReadout
    return_sequences : bool
    task : str or None
    profile : str
        Name of the hardware profile that it was made for.
    provenance : mapping of str to str
    source : LMUNetwork or None
        The float network that it was made from, so that a file can be judged by itself.

    Raises
    ------
    InputError
        At construction, when a shape, type or value does not fit.
    """

    input: Format
    layers: tuple[IntegerLayer, ...]
    readout: IntegerReadout
    return_sequences: bool = False
    task: str | None = None
    profile: str = "loihi2"
    provenance: Mapping[str, str] = field(default_factory=dict)
    source: LMUNetwork | None = None

    def __post_init__(self) -> None:
        layers = tuple(self.layers)
        check_type("network", self.input, Format)
        check_type("network", self.readout, IntegerReadout)
        if not layers:
            raise InputError("an integer network needs at least one layer.")
        for layer in layers:
            check_type("network", layer, IntegerLayer)
        for number, (before, after) in enumerate(pairwise(layers)):
            if before.n_out != after.n_in:
                raise InputError(
                    f"layer {number} sends {before.n_out} messages and layer {number + 1} "
                    f"takes {after.n_in}; the two must be equal."
                )
        check_connection("readout", self.readout.connection, None, layers[-1].n_out)
        if self.task is not None:
            check_text("task", self.task, 200)
        check_text("profile", self.profile, 200)
        check_flag("return_sequences", self.return_sequences)
        if not isinstance(self.provenance, Mapping):
            raise InputError("provenance must map names to texts.")
        for key, value in self.provenance.items():
            check_text("provenance key", key, 200)
            check_text(f"provenance {key}", value)
        if self.source is not None:
            check_type("network source", self.source, LMUNetwork)
        set_fields(self, layers=layers, provenance=dict(self.provenance))

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.readout.connection.n_out


INTEGER_CLASSES: tuple[type, ...] = (
    IntegerNetwork,
    IntegerLayer,
    IntegerMemory,
    SeriesMemory,
    IntegerHidden,
    IntegerReadout,
    PiecewiseLinear,
    Connection,
    Format,
    *FLOAT_CLASSES,
)
"""Every class that a file of this representation may hold; for :func:`lmu_deploy.files.load`."""
