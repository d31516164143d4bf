"""Gated populations: LSTM and GRU in integers, one accumulator for each gate of a neuron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmu_deploy.core.integer.functions import (
    Counts,
    Function,
    check_function,
    rounded_shift,
    saturated,
)
from lmu_deploy.core.integer.parts import LARGEST_SHIFT, Format, Place, check_bias, check_type
from lmu_deploy.core.integer.populations import GATE, GATE_BITS, Population
from lmu_deploy.core.validation import check_flag, check_integer, set_fields


class GatedUnits(Population):
    """Base of gated populations: four sums for each unit, and one state."""

    drive: Format
    state: Format
    initial: np.ndarray | None
    drives: ClassVar[int] = 4
    stateless: ClassVar[bool] = False

    @property
    def stored(self) -> Format:
        """Format of the state."""
        return self.state

    @property
    def drive_scales(self) -> np.ndarray:
        """Real value of one unit of every sum."""
        return np.full(self.drive_size, self.drive.scale)

    def start(self, batch: int) -> np.ndarray:
        """Return the initial state, shape (batch, size), int64."""
        if self.initial is None:
            return np.zeros((batch, self.size), np.int64)
        return np.tile(self.initial[self.size :].astype(np.int64), (batch, 1))

    @property
    def first_message(self) -> np.ndarray | None:
        """Message before the first frame; None if it is zero."""
        return None if self.initial is None else self.initial[: self.size]


@dataclass(frozen=True, eq=False, repr=False)
class LSTMUnits(GatedUnits):
    r"""Long short-term memory in integers, gates in the order i, f, g, o.

    With :math:`I, F, O = \sigma(z)` and :math:`G = a(z_g)` as integers of 15 fraction bits,

    .. math::
       c &= \mathrm{sat}(\mathrm{ms}(c, F, 15) + \mathrm{ms}(G, I, \mathrm{cell\_shift})) \\
       H &= \mathrm{sat}(\mathrm{ms}(b(c), O, \mathrm{message\_shift}))

    where b is the same activation, of the cell's state.

    Attributes
    ----------
    place, size, message, bias
    drive : Format
        Of the four sums.
    state : Format
        Of c.
    gate, activation, output : PiecewiseLinear or Segments
        sigma, a and b, each with results of 16 bits.
    cell_shift, message_shift : int
        0 to 31.
    initial : ndarray, shape (2 * size,), int32, or None
        The message H and the state c before the first frame.
    """

    place: Place
    size: int
    drive: Format
    state: Format
    message: Format
    gate: Function
    activation: Function
    output: Function
    cell_shift: int
    message_shift: int
    bias: np.ndarray | None = None
    initial: np.ndarray | None = None
    counted: ClassVar[tuple[str, ...]] = ("drive", "gate", "state", "message")

    def __post_init__(self) -> None:
        self.check()
        for each in (self.drive, self.state):
            check_type(f"{self.place}", each, Format)
        for function in (self.gate, self.activation, self.output):
            check_function(str(self.place), function)
        _check_gated(self, 2 * self.size, "cell_shift", "message_shift")

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Update the cell and its output."""
        counts: Counts = {}
        z = saturated(self.driven(drive), self.drive.limit, "drive", counts)
        i, f, g, o = np.split(z, 4, axis=1)
        gates = [saturated(self.gate(v), GATE.limit, "gate", counts) for v in (i, f, o)]
        value = saturated(self.activation(g), GATE.limit, "gate", counts)
        kept = rounded_shift(state * gates[1], GATE_BITS)
        c = kept + rounded_shift(value * gates[0], self.cell_shift)
        c = saturated(c, self.state.limit, "state", counts)
        out = saturated(self.output(c), GATE.limit, "gate", counts)
        message = rounded_shift(out * gates[2], self.message_shift)
        return c, saturated(message, self.message.limit, "message", counts), counts


@dataclass(frozen=True, eq=False, repr=False)
class GRUUnits(GatedUnits):
    r"""Gated recurrent units in integers.

    The drives are :math:`z_r, z_z, z_x` and :math:`z_h`, of which the last is what the units
    themselves send to the candidate. With :math:`R = \sigma(z_r)` and :math:`\bar Z =
    \sigma(-z_z)`, which is one minus the update gate, of 15 fraction bits,

    .. math::
       N &= a(\mathrm{sat}(z_x + \mathrm{ms}(z_h, R, 15))) \\
       h &= \mathrm{sat}(h + \mathrm{ms}(\mathrm{sat}(2^p N - h), \bar Z, 15)) \\
       H &= \mathrm{sat}(\mathrm{ms}(h, 1, \mathrm{message\_shift}))

    Where the reset gate acts before the recurrent weights, a :class:`Product` sends
    :math:`r \odot h`, its drive is part of :math:`z_x`, and `resets` is false.

    Attributes
    ----------
    place, size, message, bias
    drive, state : Format
    gate, activation : PiecewiseLinear or Segments
    candidate_shift : int
        p, 0 to 15.
    message_shift : int
        0 to 31.
    resets : bool
    initial : ndarray, shape (2 * size,), int32, or None
        The message H and the state h before the first frame.
    """

    place: Place
    size: int
    drive: Format
    state: Format
    message: Format
    gate: Function
    activation: Function
    candidate_shift: int
    message_shift: int
    resets: bool = True
    bias: np.ndarray | None = None
    initial: np.ndarray | None = None
    counted: ClassVar[tuple[str, ...]] = ("drive", "gate", "candidate", "state", "message")

    def __post_init__(self) -> None:
        self.check()
        for each in (self.drive, self.state):
            check_type(f"{self.place}", each, Format)
        for function in (self.gate, self.activation):
            check_function(str(self.place), function)
        check_flag(f"{self.place} resets", self.resets)
        _check_gated(self, 2 * self.size, "candidate_shift", "message_shift")

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Update the units."""
        counts: Counts = {}
        limit = self.state.limit
        z = saturated(self.driven(drive), self.drive.limit, "drive", counts)
        z_r, z_z, z_x, z_h = np.split(z, 4, axis=1)
        if self.resets:
            reset = saturated(self.gate(z_r), GATE.limit, "gate", counts)
            z_x = z_x + rounded_shift(z_h * reset, GATE_BITS)
            z_x = saturated(z_x, self.drive.limit, "drive", counts)
        new = saturated(self.gate(-z_z), GATE.limit, "gate", counts)
        candidate = saturated(self.activation(z_x), GATE.limit, "candidate", counts)
        change = (candidate << self.candidate_shift) - state
        change = saturated(change, limit, "candidate", counts)
        h = saturated(state + rounded_shift(change * new, GATE_BITS), limit, "state", counts)
        message = rounded_shift(h, self.message_shift)
        return h, saturated(message, self.message.limit, "message", counts), counts


def _check_gated(population: GatedUnits, initial: int, *shifts: str) -> None:
    """Check shifts and initial values of a gated population."""
    for name in shifts:
        high = GATE_BITS if name == "candidate_shift" else LARGEST_SHIFT
        value = check_integer(f"{population.place} {name}", getattr(population, name), 0, high)
        set_fields(population, **{name: value})
    if population.initial is not None:
        name = f"{population.place} initial"
        set_fields(population, initial=check_bias(name, population.initial, initial))
