"""Populations without a linear memory in a hybrid simulation: units, gates, products, reductions.

Each class follows the update rule of its population (:mod:`lmu_deploy.core.integer.populations`).
Where the activation is disabled, the function is that of the float network; its result is in the
units that the shifts of the rule imply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.integer.functions import Function, PiecewiseLinear
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.parts import largest
from lmu_deploy.core.integer.populations import (
    GATE,
    GATE_BITS,
    Output,
    Pointwise,
    Population,
    Product,
)
from lmu_deploy.core.integer.reductions import Maximum, Reduction
from lmu_deploy.fidelity.attribution.counterpart import FloatCounterpart
from lmu_deploy.fidelity.attribution.switches import Switches, Tally, half_up, limited


class HybridUnits:
    """A population whose operations are enabled one by one.

    Parameters
    ----------
    population : Population
    counterpart : FloatCounterpart
    batch : int
    switches : Switches
    tally : Tally or None

    Attributes
    ----------
    first : ndarray, shape (size,), or None
        Message before the first frame; None if it is zero.
    state : ndarray, shape (batch, size), or None
        What the neurons store; None where they store nothing.
    """

    def __init__(
        self,
        population: Any,
        counterpart: FloatCounterpart,
        batch: int,
        switches: Switches,
        tally: Tally | None,
    ) -> None:
        self.population, self.batch = population, batch
        self._place, self._switches, self._tally = str(population.place), switches, tally
        self._lines = switches.has("activation", self._place)
        self._counterpart = counterpart
        self.first: np.ndarray | None = None
        self.state: np.ndarray | None = None
        self.start()

    def start(self) -> None:
        """Set the state before the first frame."""

    def advance(self, drive: np.ndarray) -> np.ndarray:
        """Return the messages for a drive of shape (batch, drive_size), the bias included."""
        raise NotImplementedError

    def finish(self) -> np.ndarray | None:
        """Return the message at the end of the sequence, for a population that sends one."""
        return None

    def limited(self, values: np.ndarray, limit: int, part: str) -> np.ndarray:
        """Saturate values."""
        place = f"{self._place}/{part}"
        return limited(values, limit, place, self._switches, self._tally)

    def rounded(self, values: np.ndarray, part: str) -> np.ndarray:
        """Round values as a shift does, if a width is enabled."""
        return half_up(values) if self._switches.has("width", f"{self._place}/{part}") else values

    def applied(
        self,
        lines: Function,
        function: Callable[[np.ndarray], np.ndarray],
        z: np.ndarray,
        unit: float,
        result: float,
        part: str,
    ) -> np.ndarray:
        """Apply a function to values in `unit`, and return the result in its own unit.

        Parameters
        ----------
        lines : PiecewiseLinear or Segments
        function : callable
            That of the float network.
        z : ndarray
        unit, result : float
        part : str
            Where the result is rounded.
        """
        whole = self._switches.has("width", f"{self._place}/{part}")
        if self._lines:
            return apply_lines(lines, z, whole)
        value = function(z * unit) / result
        return _whole(lines, value) if whole else value

    def initial(
        self, whole: np.ndarray, exact: np.ndarray | None, unit: float, part: str
    ) -> np.ndarray:
        """Return initial values in a unit: the integers, if a width is enabled."""
        if self._switches.has("width", f"{self._place}/{part}"):
            return whole.astype(np.float64)
        return np.zeros(len(whole)) if exact is None else np.asarray(exact, np.float64) / unit


class HybridPointwise(HybridUnits):
    """Units that apply a function to their drive."""

    population: Pointwise

    def start(self) -> None:
        """Set the initial message."""
        if self.population.initial is not None:
            cell: Any = self._counterpart.cells[self.population.place]
            given = self.population.initial, cell.initial, self.population.message.scale
            self.first = self.initial(*given, "message")

    def advance(self, drive: np.ndarray) -> np.ndarray:
        """Apply the function."""
        p = self.population
        z = self.limited(drive, p.drive.limit, "drive")
        function = self._counterpart.functions[p.place].apply
        value = self.applied(p.function, function, z, p.drive.scale, p.message.scale, "message")
        return self.limited(value, p.message.limit, "message")


class HybridProduct(HybridUnits):
    """Products of two drives, of which the second may be a gate."""

    population: Product

    def advance(self, drive: np.ndarray) -> np.ndarray:
        """Multiply."""
        p = self.population
        z1, z2 = np.split(drive, 2, axis=1)
        z1 = self.limited(z1, p.first_drive.limit, "drive")
        z2 = self.limited(z2, p.second_drive.limit, "drive")
        gate = self._gate()
        b = z2
        if p.second is not None:
            b = self.applied(p.second, gate, z2, p.second_drive.scale, GATE.scale, "factor")
        a = z1
        if p.first is not None:
            unit = (
                p.message.scale
                * 2.0**-p.shift
                / (p.second_drive.scale if p.second is None else GATE.scale)
            )
            a = self.applied(p.first, gate, z1, p.first_drive.scale, unit, "factor")
        a = self.limited(a, largest(24), "factor")
        b = self.limited(b, GATE.limit, "factor")
        return self.limited(
            self.rounded(a * b * 2.0**-p.shift, "message"), p.message.limit, "message"
        )

    def _gate(self) -> Callable[[np.ndarray], np.ndarray]:
        cell = self._counterpart.cells.get(self.population.place)
        function: Activation | None = getattr(cell, "gate_activation", None)
        return Activation("linear").apply if function is None else function.apply


class HybridLSTM(HybridUnits):
    """Long short-term memory."""

    population: LSTMUnits

    def start(self) -> None:
        """Set the initial message and state."""
        p = self.population
        self.state = np.zeros((self.batch, p.size))
        if p.initial is not None:
            cell: Any = self._counterpart.cells[p.place]
            h, c = np.split(p.initial, 2)
            self.first = self.initial(h, cell.initial_h, p.message.scale, "message")
            self.state += self.initial(c, cell.initial_c, p.state.scale, "state")

    def advance(self, drive: np.ndarray) -> np.ndarray:
        """Update the cell and its output."""
        p = self.population
        cell: Any = self._counterpart.cells[p.place]
        gate, value = cell.gate_activation.apply, cell.activation.apply
        z = np.split(self.limited(drive, p.drive.limit, "drive"), 4, axis=1)
        unit = p.drive.scale
        i, f, o = (
            self.limited(
                self.applied(p.gate, gate, z[k], unit, GATE.scale, "gate"), GATE.limit, "gate"
            )
            for k in (0, 1, 3)
        )
        result = p.state.scale / (GATE.scale * 2.0**p.cell_shift)
        g = self.applied(p.activation, value, z[2], unit, result, "gate")
        g = self.limited(g, GATE.limit, "gate")
        assert self.state is not None
        kept = self.rounded(self.state * f * 2.0**-GATE_BITS, "state")
        c = kept + self.rounded(g * i * 2.0**-p.cell_shift, "state")
        self.state = c = self.limited(c, p.state.limit, "state")
        result = p.message.scale / (GATE.scale * 2.0**p.message_shift)
        out = self.applied(p.output, value, c, p.state.scale, result, "gate")
        out = self.limited(out, GATE.limit, "gate")
        message = self.rounded(out * o * 2.0**-p.message_shift, "message")
        return self.limited(message, p.message.limit, "message")


class HybridGRU(HybridUnits):
    """Gated recurrent units."""

    population: GRUUnits

    def start(self) -> None:
        """Set the initial message and state."""
        p = self.population
        self.state = np.zeros((self.batch, p.size))
        if p.initial is not None:
            cell: Any = self._counterpart.cells[p.place]
            message, h = np.split(p.initial, 2)
            self.first = self.initial(message, cell.initial, p.message.scale, "message")
            self.state += self.initial(h, cell.initial, p.state.scale, "state")

    def advance(self, drive: np.ndarray) -> np.ndarray:
        """Update the units."""
        p = self.population
        cell: Any = self._counterpart.cells[p.place]
        gate, value, unit = cell.gate_activation.apply, cell.activation.apply, p.drive.scale
        z = self.limited(drive, p.drive.limit, "drive")
        z_r, z_z, z_x, z_h = np.split(z, 4, axis=1)
        if p.resets:
            reset = self.applied(p.gate, gate, z_r, unit, GATE.scale, "gate")
            reset = self.limited(reset, GATE.limit, "gate")
            z_x = z_x + self.rounded(z_h * reset * 2.0**-GATE_BITS, "drive")
            sums = np.zeros_like(z)
            sums[:, 2 * p.size : 3 * p.size] = z_x
            z_x = self.limited(sums, p.drive.limit, "drive")[:, 2 * p.size : 3 * p.size]
        new = self.applied(p.gate, gate, -z_z, unit, GATE.scale, "gate")
        new = self.limited(new, GATE.limit, "gate")
        result = p.state.scale * 2.0**p.candidate_shift
        candidate = self.applied(p.activation, value, z_x, unit, result, "gate")
        candidate = self.limited(candidate, GATE.limit, "candidate")
        assert self.state is not None
        change = candidate * 2.0**p.candidate_shift - self.state
        change = self.limited(change, p.state.limit, "candidate")
        h = self.state + self.rounded(change * new * 2.0**-GATE_BITS, "state")
        self.state = h = self.limited(h, p.state.limit, "state")
        message = self.rounded(h * 2.0**-p.message_shift, "message")
        return self.limited(message, p.message.limit, "message")


class HybridMaximum(HybridUnits):
    """The greatest of several drives."""

    population: Maximum

    def advance(self, drive: np.ndarray) -> np.ndarray:
        """Take the greatest."""
        p = self.population
        greatest = drive.reshape(len(drive), p.choices, p.size).max(axis=1)
        return self.limited(greatest, p.message.limit, "message")


class HybridReduction(HybridUnits):
    """The sum, mean, maximum or last of all frames."""

    population: Reduction

    def start(self) -> None:
        """Set a sum of no frames."""
        self.frames, self.state = 0, np.zeros((self.batch, self.population.size))

    def advance(self, drive: np.ndarray) -> np.ndarray:
        """Take a frame."""
        p, new = self.population, drive
        assert self.state is not None
        if p.kind in ("sum", "mean"):
            new = self.state + drive
        new = self.limited(new, p.state.limit, "state")
        self.state = np.maximum(self.state, new) if p.kind == "max" and self.frames else new
        self.frames += 1
        return self.state

    def finish(self) -> np.ndarray:
        """Return the message."""
        s = self.state
        assert s is not None
        if self.population.kind == "mean":
            s = s / max(self.frames, 1)
        return self.limited(self.rounded(s, "message"), self.population.message.limit, "message")


class HybridOutput(HybridUnits):
    """Outputs."""

    population: Output

    def advance(self, drive: np.ndarray) -> np.ndarray:
        """Limit the sums."""
        return self.limited(drive, self.population.message.limit, "output")


UNITS: dict[type[Population], type[HybridUnits]] = {
    Pointwise: HybridPointwise,
    Product: HybridProduct,
    LSTMUnits: HybridLSTM,
    GRUUnits: HybridGRU,
    Maximum: HybridMaximum,
    Reduction: HybridReduction,
    Output: HybridOutput,
}


def apply_lines(lines: Function, z: np.ndarray, whole: bool = False) -> np.ndarray:
    """Apply the lines of a function to drives z of any shape, without saturation.

    Parameters
    ----------
    lines : PiecewiseLinear or Segments
    z : ndarray
    whole : bool
        Whether the result is rounded. For concave lines rounding the result equals rounding each
        line, because intercepts are integers and floor(v + 1/2) is monotonic.
    """
    slopes = lines.slope * 2.0**-lines.shift
    if not isinstance(lines, PiecewiseLinear):
        piece = np.searchsorted(lines.breakpoints, z, side="right")
        value = z * slopes[piece]
        return np.asarray((half_up(value) if whole else value) + lines.intercept[piece])
    if lines.kind == "linear":
        value = np.asarray(z * slopes[0])
        return _whole(lines, value) if whole else value
    p = np.abs(z) if lines.kind == "odd" else np.maximum(z, 0.0)
    least = p * slopes[0] + lines.intercept[0]
    for slope, intercept in zip(slopes[1:], lines.intercept[1:], strict=True):
        np.minimum(least, p * slope + intercept, out=least)
    value = np.asarray(np.sign(z) * least if lines.kind == "odd" else least)
    return _whole(lines, value) if whole else value


def _whole(lines: Function, value: np.ndarray) -> np.ndarray:
    """Round results as the neuron does, which computes an odd function of the magnitude."""
    if isinstance(lines, PiecewiseLinear) and lines.kind == "odd":
        return np.asarray(np.sign(value) * half_up(np.abs(value)))
    return half_up(value)
