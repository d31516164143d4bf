r"""IntegerNetwork: a network in integers alone, whose every state has exactly one right value.

The operations are specified in docs/integer-semantics.md; in short, with x, M, H the messages of
input, memory and hidden units (integers of stated widths), :math:`\mathrm{sat}_b` saturating to
:math:`\pm(2^{b-1}-1)` and :math:`\mathrm{ms}(v, g, s) = \lfloor (v g + 2^{s-1}) / 2^s \rfloor`
(no offset when s = 0), a connection drives its target by

.. math:: D_i = \sum_k \mathrm{ms}\Big(\mathrm{sat}_{24}\big(\sum_j W_{kij} X_j\big),
          g_{ki}, s_{ki}\Big)

and one step is

.. math::
   m_t &= \mathrm{sat}_{24}(m_{t-1} + D^{rec}(M_{t-1}) + D^{in}(x_t) + D^{hid}(H_{t-1}) + b) \\
   M_t &= \mathrm{sat}(\mathrm{ms}(m_t, 1, s_M)) \\
   z_t &= \mathrm{sat}_{24}(D^{mem}(M_t) + D^{in}(x_t) + D^{rec}(H_{t-1}) + b),
   \qquad H_t = f(z_t) \\
   y_t &= \mathrm{sat}_{24}(D^{out}(H_t) + b)

"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lmu_deploy.checks import (
    check_array,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_text,
)
from lmu_deploy.errors import InputError
from lmu_deploy.network import FLOAT_CLASSES, LMUNetwork

LARGEST_MULTIPLIER = 2**15 - 1
LARGEST_SHIFT = 31


def _set(instance: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def largest(bits: int) -> int:
    """Largest magnitude of a signed, symmetric integer of `bits` bits: 2^(bits-1) - 1."""
    return int(2 ** (bits - 1) - 1)


@dataclass(frozen=True)
class Format:
    """How an integer stands for a real number: ``value = integer * scale``, |integer| limited.

    Attributes
    ----------
    bits : int
        Width, sign included; the integer lies in +-(2^(bits-1) - 1). 2 to 32.
    scale : float
        Real value of one unit in the last place.
    """

    bits: int
    scale: float

    def __post_init__(self) -> None:
        _set(
            self,
            bits=check_integer("format bits", self.bits, 2, 32),
            scale=check_number("format scale", self.scale, 1e-30, 1e30),
        )

    @property
    def limit(self) -> int:
        """Largest magnitude."""
        return largest(self.bits)


@dataclass(frozen=True)
class Connection:
    """A synaptic matrix as slices of small integers, each with a gain per target row.

    Attributes
    ----------
    slices : ndarray, shape (n_slices, n_out, n_in), int8
        Most significant slice first.
    multiplier : ndarray, shape (n_slices, n_out), int32, 1 to 32767
    shift : ndarray, shape (n_slices, n_out), int32, 0 to 31
        What reaches row i is the sum over slices of ``ms(sat(slice @ message), g, s)``.
    weight_bits : int
        Width of a weight, sign included; |weight| <= 2^(weight_bits-1) - 1. 2 to 8.
    accumulator_bits : int
        Width at which each slice's sum saturates. 8 to 32.
    """

    slices: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    weight_bits: int = 8
    accumulator_bits: int = 24

    def __post_init__(self) -> None:
        bits = check_integer("weight_bits", self.weight_bits, 2, 8)
        accumulator = check_integer("accumulator_bits", self.accumulator_bits, 8, 32)
        slices = check_array("connection slices", self.slices, (None, None, None), "i")
        if not 1 <= slices.shape[0] <= 4:
            raise InputError(f"a connection has {slices.shape[0]} slices; 1 to 4 are possible.")
        _check_range("connection slices", slices, -largest(bits), largest(bits))
        rows = slices.shape[:2]
        multiplier = check_array("connection multiplier", self.multiplier, rows, "i")
        shift = check_array("connection shift", self.shift, rows, "i")
        _check_range("connection multiplier", multiplier, 1, LARGEST_MULTIPLIER)
        _check_range("connection shift", shift, 0, LARGEST_SHIFT)
        _set(
            self,
            slices=slices.astype(np.int8),
            multiplier=multiplier.astype(np.int32),
            shift=shift.astype(np.int32),
            weight_bits=bits,
            accumulator_bits=accumulator,
        )

    @property
    def n_out(self) -> int:
        """Number of target rows."""
        return int(self.slices.shape[1])

    @property
    def n_in(self) -> int:
        """Number of source messages."""
        return int(self.slices.shape[2])

    @property
    def fan_out(self) -> np.ndarray:
        """Synapses (nonzero weights, all slices) that leave each source; shape (n_in,), int64."""
        return np.asarray((self.slices != 0).sum(axis=(0, 1)), dtype=np.int64)


@dataclass(frozen=True)
class IntegerMemory:
    """The linear memory: leak-free integrators that exchange graded messages.

    Attributes
    ----------
    state, message : Format
        The message is ``sat(ms(state, 1, message_shift))``.
    message_shift : int
        0 to 31.
    recurrent : Connection, (states, states)
        From the memory's own messages of the step before: a_bar - I, memory encoders folded in.
    input : Connection, (states, n_in)
        From this step's input messages: b_bar times the input encoders.
    hidden : Connection, (states, units), or None
        From the hidden messages of the step before: b_bar times the hidden encoders.
    bias : ndarray, shape (states,), int32, or None
    realisation : str
        How the matrix is realised; "dense-incremental" here.
    """

    state: Format
    message: Format
    message_shift: int
    recurrent: Connection
    input: Connection
    hidden: Connection | None
    bias: np.ndarray | None
    realisation: str = "dense-incremental"

    def __post_init__(self) -> None:
        _check_type("memory", self.state, Format)
        _check_type("memory", self.message, Format)
        _check_connection("memory recurrent", self.recurrent, self.size, self.size)
        _check_connection("memory input", self.input, self.size, None)
        if self.hidden is not None:
            _check_connection("memory hidden", self.hidden, self.size, None)
        _set(
            self,
            message_shift=check_integer("message_shift", self.message_shift, 0, LARGEST_SHIFT),
            bias=_check_bias("memory bias", self.bias, self.size),
            realisation=check_choice("realisation", self.realisation, ("dense-incremental",)),
        )

    @property
    def size(self) -> int:
        """Number of states."""
        _check_type("memory recurrent", self.recurrent, Connection)
        return self.recurrent.n_out


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
        _check_range("activation slope", slope, 0, LARGEST_MULTIPLIER)
        _check_range("activation intercept", intercept, 0, largest(24))
        if intercept[0] != 0:
            raise InputError("the first piece of an activation must pass through zero.")
        _set(
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
        _check_type("hidden", self.drive, Format)
        _check_type("hidden", self.message, Format)
        _check_type("hidden", self.activation, PiecewiseLinear)
        _check_connection("hidden memory", self.memory, None, None)
        if self.input is not None:
            _check_connection("hidden input", self.input, self.units, None)
        if self.recurrent is not None:
            _check_connection("hidden recurrent", self.recurrent, self.units, self.units)
        _set(self, bias=_check_bias("hidden bias", self.bias, self.units))

    @property
    def units(self) -> int:
        """Number of hidden units."""
        _check_type("hidden memory", self.memory, Connection)
        return self.memory.n_out


@dataclass(frozen=True)
class IntegerLayer:
    """A memory and, if there are any, hidden units; what it sends on is H, or M without them."""

    memory: IntegerMemory
    hidden: IntegerHidden | None

    def __post_init__(self) -> None:
        _check_type("layer", self.memory, IntegerMemory)
        if self.hidden is None:
            if self.memory.hidden is not None:
                raise InputError("memory hidden needs hidden units, and this layer has none.")
            return
        _check_type("layer", self.hidden, IntegerHidden)
        _check_connection("hidden memory", self.hidden.memory, None, self.memory.size)
        if self.hidden.input is not None:
            _check_connection("hidden input", self.hidden.input, None, self.n_in)
        if self.memory.hidden is not None:
            _check_connection("memory hidden", self.memory.hidden, None, self.hidden.units)

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
        _check_type("readout", self.output, Format)
        _check_connection("readout", self.connection, None, None)
        _set(self, bias=_check_bias("readout bias", self.bias, self.connection.n_out))


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
        _check_type("network", self.input, Format)
        _check_type("network", self.readout, IntegerReadout)
        if not layers:
            raise InputError("an integer network needs at least one layer.")
        for layer in layers:
            _check_type("network", layer, IntegerLayer)
        for number, (before, after) in enumerate(pairwise(layers)):
            if before.n_out != after.n_in:
                raise InputError(
                    f"layer {number} sends {before.n_out} messages and layer {number + 1} "
                    f"takes {after.n_in}; the two must be equal."
                )
        _check_connection("readout", self.readout.connection, None, layers[-1].n_out)
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
            _check_type("network source", self.source, LMUNetwork)
        _set(self, layers=layers, provenance=dict(self.provenance))

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.readout.connection.n_out


def _check_type(name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise InputError(f"{name} needs a {expected.__name__}, not {type(value).__name__}.")


def _check_connection(name: str, value: object, rows: int | None, columns: int | None) -> None:
    if not isinstance(value, Connection):
        raise InputError(f"{name} needs a Connection, not {type(value).__name__}.")
    check_array(f"{name} slices", value.slices, (None, rows, columns), "i")


def _check_bias(name: str, value: np.ndarray | None, size: int) -> np.ndarray | None:
    if value is None:
        return None
    bias = check_array(name, value, (size,), "i")
    _check_range(name, bias, -largest(24), largest(24))
    return bias.astype(np.int32)


def _check_range(name: str, value: np.ndarray, low: int, high: int) -> None:
    if value.size and not (value.min() >= low and value.max() <= high):
        raise InputError(
            f"{name} has entries from {value.min()} to {value.max()}; {low} to {high} are possible."
        )


INTEGER_CLASSES: tuple[type, ...] = (
    IntegerNetwork,
    IntegerLayer,
    IntegerMemory,
    IntegerHidden,
    IntegerReadout,
    PiecewiseLinear,
    Connection,
    Format,
    *FLOAT_CLASSES,
)
"""Every class that a file of this representation may hold; for :func:`lmu_deploy.files.load`."""
