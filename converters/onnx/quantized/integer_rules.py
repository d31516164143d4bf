"""Update rules of all populations in integers: docs/reference/integer-semantics.md as operators.

Messages and states are int32, and the drives that enter a rule int64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np
from onnx import TensorProto

from converters.onnx.quantized.arithmetic import (
    FRAMES,
    MESSAGE,
    STATE,
    ReductionRule,
    Rule,
    Updated,
)
from converters.onnx.quantized.body import Body
from converters.onnx.quantized.integers import Integers
from lmu_deploy.core.integer.functions import Function
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.memories import Integrators, Series
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

P = TypeVar("P", bound=Population)
G = TypeVar("G", LSTMUnits, GRUUnits)
_MANY = 2**32


class IntegerRule(Rule, Generic[P]):
    """A rule in integers.

    Attributes
    ----------
    population : Population
    """

    numbers: Integers

    def __init__(self, numbers: Integers, population: P) -> None:
        super().__init__(numbers, population)
        self.population = population

    def limited(self, values: str, limit: int, name: str, counted: str | None = None) -> str:
        """Add ``sat(v)`` of int64 as int32, which counts at the place of that name."""
        place = f"{self.place}/{counted or name}"
        return self.numbers.limit(f"{self.place}/{name}", values, limit, place)

    def gate(self, function: Function, z: str, name: str, counted: str = "gate") -> str:
        """Add a function with results of 16 bits, int32."""
        place = f"{self.place}/{counted}"
        return self.numbers.apply(f"{self.place}/{name}", function, z, GATE.limit, place)

    def scaled(self, values: str, gate: str, shift: int, name: str) -> str:
        """Add ``ms(v, gate, shift)`` of int32, as int64."""
        return self.numbers.multiply(f"{self.place}/{name}", values, gate, shift)

    def widened(self, values: str, name: str) -> str:
        """Add int32 as int64."""
        return self.numbers.widened(f"{self.place}/{name}", values)


RULES: dict[type[Population], Callable[[Integers, Population], Rule]] = {}
"""The rule of every class of populations that computes."""


def rule_of(population: type[P]) -> Callable[[type[IntegerRule[P]]], type[IntegerRule[P]]]:
    """Register a class as the rule of a class of populations."""

    def register(rule: type[IntegerRule[P]]) -> type[IntegerRule[P]]:
        RULES[population] = rule
        return rule

    return register


@rule_of(Integrators)
class IntegratorRule(IntegerRule[Integrators]):
    """``m = sat(m + D + b)``, ``M = sat(ms(m, 1, shift))``."""

    @property
    def states(self) -> Mapping[str, int]:
        """Return m."""
        return {STATE: self.population.size}

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Integrate, and shift the state to a message."""
        own = self.widened(before[STATE], "state/before")
        total = self.numbers.add("Add", [own, drive], f"{self.place}/state/sum")
        m = self.limited(total, self.population.state.limit, STATE)
        at = f"{self.place}/{MESSAGE}"
        shift, form = self.population.message_shift, self.population.message
        return Updated(self.numbers.message(at, m, shift, form, at), {STATE: m}, m)


@rule_of(Pointwise)
class PointwiseRule(IntegerRule[Pointwise]):
    """``z = sat(D + b)``, ``H = sat(f(z))``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Apply the function."""
        p, at = self.population, f"{self.place}/{MESSAGE}"
        z = self.limited(drive, p.drive.limit, "drive")
        return Updated(self.numbers.apply(at, p.function, z, p.message.limit, at))


@rule_of(Output)
class OutputRule(IntegerRule[Output]):
    """``y = sat(D + b)``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Limit the sums."""
        return Updated(self.limited(drive, self.population.message.limit, "output"))


@rule_of(Product)
class ProductRule(IntegerRule[Product]):
    """``H = sat(ms(f(z1), g(z2), shift))``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Multiply."""
        p = self.population
        drives = self.numbers.split(drive, p.size, 2, f"{self.place}/drives")
        formats, functions = (p.first_drive, p.second_drive), (p.first, p.second)
        first, second = (
            self._factor(z, form.limit, function, bits, f"factor{number}")
            for number, (z, form, function, bits) in enumerate(
                zip(drives, formats, functions, (24, GATE.bits), strict=True), start=1
            )
        )
        product = self.scaled(first, second, p.shift, "product")
        return Updated(self.limited(product, p.message.limit, MESSAGE))

    def _factor(self, z: str, limit: int, function: Function | None, bits: int, name: str) -> str:
        z = self.limited(z, limit, f"{name}/drive", "drive")
        most, place, at = largest(bits), f"{self.place}/factor", f"{self.place}/{name}"
        if function is not None:
            return self.numbers.apply(at, function, z, most, place)
        return self.limited(self.widened(z, name), most, name, "factor") if limit > most else z


@rule_of(Maximum)
class MaximumRule(IntegerRule[Maximum]):
    """``H`` = the greatest of several drives.

    Every drive is limited before the maximum is taken, which is equivalent, and then fits int32.
    """

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Take the greatest."""
        p, numbers, at = self.population, self.numbers, f"{self.place}/{MESSAGE}"
        shape = numbers.whole(*[0] * (2 if numbers.by_time else 1), p.choices, p.size)
        choices = numbers.add("Reshape", [drive, shape], f"{at}/choices")
        low, high = (numbers.wide(f"limit/{v}", v) for v in (-p.message.limit, p.message.limit))
        above = numbers.add("Greater", [choices, high], f"{at}/above")
        below = numbers.add("Less", [choices, low], f"{at}/below")
        if numbers.counting:
            self._count(above, below)
        values = numbers.add("Where", [above, high, choices], f"{at}/at_most")
        values = numbers.add("Where", [below, low, values], f"{at}/limited")
        narrow = numbers.cast(values, TensorProto.INT32, f"{at}/narrow")
        return Updated(numbers.reduced("ReduceMax", narrow, -2, at))

    def _count(self, above: str, below: str) -> None:
        """Count the maxima that are limited: one drive is above the limit, or all are below."""
        numbers, at = self.numbers, f"{self.place}/{MESSAGE}"
        for name, op, beyond in (("above", "ReduceMax", above), ("below", "ReduceMin", below)):
            ones = numbers.cast(beyond, TensorProto.INT32, f"{at}/{name}/ones")
            numbers.count(at, numbers.reduced(op, ones, -2, f"{at}/{name}/one"), at)


class GatedRule(IntegerRule[G]):
    """Base of LSTM and GRU: one state per unit, and its initial value."""

    @property
    def states(self) -> Mapping[str, int]:
        """Return c or h."""
        return {STATE: self.population.size}

    def first(self, state: str) -> np.ndarray | None:
        """Return the initial c or h."""
        initial = self.population.initial
        return None if initial is None else initial[self.population.size :]


@rule_of(LSTMUnits)
class LSTMRule(GatedRule[LSTMUnits]):
    """``c = sat(ms(c, F, 15) + ms(G, I, ...))``, ``H = sat(ms(b(c), O, ...))``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Update the cell and its output."""
        p = self.population
        z = self.limited(drive, p.drive.limit, "drive")
        i, f, g, o = self.numbers.split(z, p.size, 4, f"{self.place}/drives")
        entry, forget, exit_ = (
            self.gate(p.gate, v, name)
            for v, name in ((i, "input_gate"), (f, "forget_gate"), (o, "output_gate"))
        )
        value = self.gate(p.activation, g, "candidate")
        kept = self.scaled(before[STATE], forget, GATE_BITS, "kept")
        new = self.scaled(value, entry, p.cell_shift, "written")
        total = self.numbers.add("Add", [kept, new], f"{self.place}/state/sum")
        c = self.limited(total, p.state.limit, STATE)
        shown = self.scaled(self.gate(p.output, c, "shown"), exit_, p.message_shift, "out")
        return Updated(self.limited(shown, p.message.limit, MESSAGE), {STATE: c})


@rule_of(GRUUnits)
class GRURule(GatedRule[GRUUnits]):
    """``h = sat(h + ms(sat(2^p N - h), 1 - Z, 15))``, ``H = sat(ms(h, 1, ...))``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Update the units."""
        p, numbers, at = self.population, self.numbers, f"{self.place}/{MESSAGE}"
        z = self.limited(drive, p.drive.limit, "drive")
        z_r, z_z, z_x, z_h = numbers.split(z, p.size, 4, f"{self.place}/drives")
        if p.resets:
            own = self.scaled(z_h, self.gate(p.gate, z_r, "reset"), GATE_BITS, "from_units")
            total = numbers.add("Add", [self.widened(z_x, "from_input"), own], f"{self.place}/sum")
            z_x = self.limited(total, p.drive.limit, "candidate/drive", "drive")
        opposite = numbers.add("Neg", [z_z], f"{self.place}/opposite")
        new = self.gate(p.gate, opposite, "new")
        candidate = self.gate(p.activation, z_x, "candidate", "candidate")
        h = self.widened(before[STATE], "state/before")
        power = numbers.number(1 << p.candidate_shift)
        wide = self.widened(candidate, "candidate")
        aim = numbers.add("Mul", [wide, power], f"{self.place}/aim")
        change = numbers.add("Sub", [aim, h], f"{self.place}/difference")
        change = self.limited(change, p.state.limit, "change", "candidate")
        step = self.scaled(change, new, GATE_BITS, "step")
        total = numbers.add("Add", [h, step], f"{self.place}/state/sum")
        h = self.limited(total, p.state.limit, STATE)
        return Updated(numbers.message(at, h, p.message_shift, p.message, at), {STATE: h})


@rule_of(Reduction)
class IntegerReduction(IntegerRule[Reduction], ReductionRule):
    """``s = sat(s + D)``, ``s = max(s, sat(D))`` or ``s = sat(D)``, and the message at the end."""

    @property
    def states(self) -> Mapping[str, int]:
        """Return s, and the number of frames where it is needed."""
        counts = self.population.kind in ("mean", "max")
        return {STATE: self.population.size, **({FRAMES: 1} if counts else {})}

    def absorb(self, drive: str, before: Mapping[str, str]) -> dict[str, str]:
        """Take a frame."""
        p, numbers, after = self.population, self.numbers, {}
        if FRAMES in before:
            one = numbers.constant("one", np.array(1, dtype=np.int32))
            after[FRAMES] = numbers.add("Add", [before[FRAMES], one], f"{self.place}/{FRAMES}")
        if p.kind in ("sum", "mean"):
            own = self.widened(before[STATE], "state/before")
            drive = numbers.add("Add", [own, drive], f"{self.place}/state/sum")
        s = self.limited(drive, p.state.limit, STATE)
        if p.kind == "max":
            greater = numbers.add("Max", [before[STATE], s], f"{self.place}/greatest")
            none = numbers.constant("zero", np.array(0, dtype=np.int32))
            begun = numbers.add("Greater", [before[FRAMES], none], f"{self.place}/begun")
            s = numbers.add("Where", [begun, greater, s], f"{self.place}/so_far")
        return {**after, STATE: s}

    def finish(self, after: Mapping[str, str]) -> Updated:
        """Add the message of s."""
        p, numbers = self.population, self.numbers
        value = self.widened(after[STATE], "total")
        if p.kind == "mean":
            one = numbers.constant("one", np.array(1, dtype=np.int32))
            frames = numbers.add("Max", [after[FRAMES], one], f"{self.place}/divisor")
            value = self._mean(value, numbers.widened(f"{self.place}/{FRAMES}", frames))
        return Updated(self.limited(value, p.message.limit, MESSAGE))

    def _mean(self, s: str, n: str) -> str:
        """Add ``floor((2 s + n) / (2 n))``: Div truncates, so a multiple of 2 n is added before."""
        numbers, at = self.numbers, f"{self.place}/mean"
        two, lift = numbers.number(2), numbers.number(_MANY)
        twice = numbers.add("Mul", [s, two], f"{at}/twice")
        dividend = numbers.add("Add", [twice, n], f"{at}/dividend")
        divisor = numbers.add("Mul", [n, two], f"{at}/divisor")
        lifted = numbers.add("Mul", [divisor, lift], f"{at}/lift")
        lifted = numbers.add("Add", [dividend, lifted], f"{at}/lifted")
        quotient = numbers.add("Div", [lifted, divisor], f"{at}/quotient")
        return numbers.add("Sub", [quotient, lift], at)


@rule_of(Series)
class SeriesRule(IntegerRule[Series]):
    """A Taylor series: a Loop whose body is one substep."""

    reads_message = True

    @property
    def states(self) -> Mapping[str, int]:
        """Return m."""
        return {STATE: self.population.size}

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Apply all terms of all substeps."""
        p, numbers, inner = self.population, self.numbers, self.population.inner
        c = numbers.limit(f"{inner}/drive", drive, p.state.limit, f"{inner}/drive")
        body = Body(numbers, f"{inner}/substep", loops=True)
        m = body.state(f"{self.place}/{STATE}", p.size, TensorProto.INT32)
        v = body.state(f"{self.place}/{MESSAGE}", p.size, TensorProto.INT32)
        fired = body.state(f"{inner}/fired", p.size, TensorProto.INT32) if numbers.counting else ""
        within = body.numbers
        assert isinstance(within, Integers)
        for k in range(p.terms):
            if fired:
                sent = within.fired(f"{inner}/term{k + 1}", v)
                fired = within.add("Add", [fired, sent], f"{inner}/fired_so_far")
            m, v = self._term(within, k, c, m, v)
        none = [numbers.add("Sub", [before[STATE]] * 2, f"{inner}/none_fired")] if fired else []
        after = body.loop(p.substeps, [before[STATE], before[MESSAGE], *none],
                          [m, v, *([fired] if fired else [])])  # fmt: skip
        return Updated(after[1], {STATE: after[0]}, after[0], after[2] if fired else None)

    def _term(self, numbers: Integers, k: int, c: str, m: str, v: str) -> tuple[str, str]:
        """Add term k of a substep; return the state, and the messages of the next term."""
        p, inner, term = (
            self.population,
            self.population.inner,
            f"{self.population.inner}/term{k + 1}",
        )
        w = self._apply(numbers, k, v)
        if k == 0:
            w = numbers.add("Add", [w, numbers.widened(f"{inner}/drive", c)], f"{term}/sum")
        w = numbers.limit(term, w, p.state.limit, f"{inner}/term")
        parts = [numbers.widened(f"{term}/m", m), numbers.widened(f"{term}/w", w)]
        total = numbers.add("Add", parts, f"{term}/state/sum")
        m = numbers.limit(f"{term}/state", total, p.state.limit, f"{self.place}/{STATE}")
        if k < p.terms - 1:
            at, shift = f"{inner}/{MESSAGE}", int(p.term_shift[k])
            return m, numbers.message(f"{term}/{MESSAGE}", w, shift, p.message, at)
        at = f"{self.place}/{MESSAGE}"
        return m, numbers.message(at, m, p.message_shift, p.message, at)

    def _apply(self, numbers: Integers, k: int, v: str) -> str:
        """Add ``G_k(v) = ms(sat(S v), multiplier_k, shift_k)``, int64, for every channel."""
        p, term = self.population, f"{self.population.inner}/term{k + 1}"
        (signs,) = p.inner_edges
        sums = numbers.accumulate(
            f"{term}/signs",
            signs.connection.slices[0],
            v,
            p.message.limit,
            p.accumulator_bits,
            f"{signs.place}/slice0",
        )
        gains, shifts = (np.tile(of[k], p.channels) for of in (p.multiplier, p.shift))
        return numbers.multiply_shift(f"{term}/drive", sums, gains, shifts)
