"""Arithmetic in real numbers, with QuantizeLinear and DequantizeLinear for weights and messages.

A runtime for int8 networks recognizes the pairs and may compute in integers between them; any other
runtime computes the same in float32. Weights are the slices of the IntegerNetwork, with a scale for
each row. Messages are int8 up to 8 bits and int16 beyond, which needs opset 21. States are float32,
as those of the chip have 24 bits, since a Legendre memory does not tolerate rounding of its states.
Functions are those of the integer network, in real numbers. Only messages and gates are limited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from onnx import TensorProto

from converters.onnx.graph import Graph
from converters.onnx.quantized.arithmetic import (
    FRAMES,
    MESSAGE,
    STATE,
    Numbers,
    ReductionRule,
    Rule,
    Updated,
)
from lmu_deploy.core.integer.functions import Function, Segments
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.memories import Integrators
from lmu_deploy.core.integer.parts import Edge, Format
from lmu_deploy.core.integer.populations import (
    GATE,
    GATE_BITS,
    Input,
    Output,
    Pointwise,
    Population,
    Product,
)
from lmu_deploy.core.integer.reductions import Maximum, Reduction

INT8_BITS, INT16_BITS = 8, 16
P = TypeVar("P", bound=Population)
G = TypeVar("G", LSTMUnits, GRUUnits)


class Dequantized(Numbers):
    """Operations on real numbers as nodes of one graph."""

    real = drives = input_type = TensorProto.FLOAT

    def within(self, graph: Graph) -> Dequantized:
        """Return real numbers for the body of a Scan."""
        return Dequantized(graph, opset=self.opset)

    def message_type(self, message: Format) -> int:
        """Return int8 if it is wide enough, otherwise int16."""
        return int(TensorProto.INT8 if message.bits <= INT8_BITS else TensorProto.INT16)

    def encode(self, x: str, population: Input) -> str:
        """Quantize inputs."""
        place = population.place
        for op, values in (("Mul", population.gain), ("Add", population.offset)):
            if values is not None:
                x = self.add(op, [x, self.floats(f"{place}/{op}", values)], f"{place}/{op}/result")
        return self.quantized(f"{place}/{MESSAGE}", x, population.message)

    def rule(self, population: Population) -> Rule:
        """Return the rule of a population."""
        return RULES[type(population)](self, population)

    def _units(self, population: Population) -> np.ndarray:
        """Return the real value of one unit of each drive of a population."""
        return RULES[type(population)](self, population).units

    def drive(self, edge: Edge, messages: str, source: Format, target: Population) -> str:
        """Add ``sum_k (W_k s_k) x``, with s_k the real value of a unit weight of each row."""
        connection, drives = edge.connection, []
        units = self._units(target)[edge.row : edge.row + connection.n_out]
        scale, zero = self._scale(source)
        for k, (part, integers) in enumerate(
            zip(edge.accumulators, connection.slices, strict=True)
        ):
            stored = self.constant(f"{part}/weights", np.ascontiguousarray(integers.T))
            rows = self.floats(f"{part}/scale", connection.gains[k] * units / source.scale)
            none = self.constant(f"{part}/zero", np.zeros(connection.n_out, np.int8))
            matrix = self.add("DequantizeLinear", [stored, rows, none], f"{part}/matrix", axis=1)
            x = self.add("DequantizeLinear", [messages, scale, zero], f"{part}/messages")
            drives.append(self.add("MatMul", [x, matrix], f"{part}/drive"))
        return self.total(drives, edge.place)

    def bias(self, population: Population) -> str | None:
        """Return the bias in real numbers."""
        if population.bias is None:
            return None
        real = population.bias * self._units(population)
        return self.floats(f"{population.place}/bias", real)

    def answer(self, messages: str, population: Population) -> str:
        """Return outputs as they are, and other messages in real numbers."""
        if isinstance(population, Output):
            return messages
        inputs = [messages, *self._scale(population.message)]
        return self.add("DequantizeLinear", inputs, f"{population.place}/real")

    def apply(self, name: str, function: Function, z: str, unit: float, result: float) -> str:
        """Add a function in real numbers.

        Parameters
        ----------
        name : str
        function : PiecewiseLinear or Segments
        z : str
            Drives.
        unit, result : float
            Real value of one unit of the drive and of the function's value.
        """
        slope = function.slope * 2.0**-function.shift * (result / unit)
        intercept = function.intercept * result
        if isinstance(function, Segments):
            if len(slope) > 1:
                points = (function.breakpoints * unit).astype(np.float32)
                k = self.piece(name, points, z, np.inf)
                slope_of, intercept_of = (
                    self.add(
                        "Gather", [self.floats(f"{name}/{what}s", values), k], f"{name}/{what}"
                    )
                    for what, values in (("slope", slope), ("intercept", intercept))
                )
                product = self.add("Mul", [z, slope_of], f"{name}/product")
                return self.add("Add", [product, intercept_of], name)
            line = self.scaled(f"{name}/product", z, slope)
            return self.add("Add", [line, self.floats(f"{name}/intercept", intercept)], name)
        if function.kind == "linear":
            return self.scaled(name, z, slope)
        odd = function.kind == "odd"
        p = self.add("Abs" if odd else "Relu", [z], f"{name}/p")
        axes = (-1, *[1] * (3 if self.by_time else 2)) if len(slope) > 1 else (1,)
        value = self.scaled(f"{name}/slope", p, slope.reshape(axes))
        if len(slope) > 1:
            more = self.floats(f"{name}/intercepts", intercept.reshape(axes))
            lines = self.add("Add", [value, more], f"{name}/lines")
            value = self.reduced("ReduceMin", lines, 0, f"{name}/least")
        return (
            self.add("Mul", [self.add("Sign", [z], f"{name}/sign"), value], name) if odd else value
        )

    def scaled(self, name: str, values: str, factor: ArrayLike) -> str:
        """Add a product with a constant."""
        return self.add("Mul", [values, self.floats(f"{name}/factor", factor)], name)

    def quantized(self, place: str, real: str, message: Format) -> str:
        """Quantize real numbers to messages; those of int8 are limited to their width.

        Without the limit, ONNX Runtime turns such a pair into uint8 on x86 processors, and products
        with int8 weights then saturate at 16 bits where the processor has no VNNI.
        """
        scale = self._scale(message)
        if message.bits > INT8_BITS:
            return self.add("QuantizeLinear", [real, *scale], place)
        rounded = self.add("QuantizeLinear", [real, *scale], f"{place}/rounded")
        limits = [
            self.constant(f"limit/{v}", np.array(v, np.int8))
            for v in (-message.limit, message.limit)
        ]
        return self.add("Clip", [rounded, *limits], place)

    def floats(self, name: str, values: ArrayLike) -> str:
        """Return a constant, float32."""
        return self.constant(name, np.asarray(values, dtype=np.float32))

    def _scale(self, message: Format) -> tuple[str, str]:
        """Return the constants of a message's scale and zero; the zero has the message's type."""
        dtype = np.int8 if message.bits <= INT8_BITS else np.int16
        scale = self.floats(f"scale/{message.scale!r}", message.scale)
        return scale, self.constant(f"zero/{np.dtype(dtype)}", np.array(0, dtype=dtype))


class RealRule(Rule, Generic[P]):
    """A rule in real numbers.

    Attributes
    ----------
    population : Population
    """

    numbers: Dequantized

    def __init__(self, numbers: Dequantized, population: P) -> None:
        super().__init__(numbers, population)
        self.population = population

    @property
    def units(self) -> np.ndarray:
        """Real value of one unit of each drive, shape (drive_size,)."""
        return np.full(self.population.drive_size, self.population.stored.scale)

    def sent(self, real: str) -> str:
        """Quantize messages."""
        return self.numbers.quantized(f"{self.place}/{MESSAGE}", real, self.population.message)

    def gate(self, function: Function, z: str, unit: float, name: str, result: float) -> str:
        """Add a function with results of 16 bits."""
        at = f"{self.place}/{name}"
        value = self.numbers.apply(at, function, z, unit, result)
        limits = [self.numbers.floats(f"{at}/limit", v * GATE.limit * result) for v in (-1, 1)]
        return self.numbers.add("Clip", [value, *limits], f"{at}/limited")

    def product(self, first: str, second: str, name: str) -> str:
        """Add a product."""
        return self.numbers.add("Mul", [first, second], f"{self.place}/{name}")


RULES: dict[type[Population], Callable[[Dequantized, Population], RealRule[Population]]] = {}
"""The rule of every class of populations that has one in real numbers."""


def rule_of(population: type[P]) -> Callable[[type[RealRule[P]]], type[RealRule[P]]]:
    """Register a class as the rule of a class of populations."""

    def register(rule: type[RealRule[P]]) -> type[RealRule[P]]:
        RULES[population] = rule  # type: ignore[assignment]
        return rule

    return register


@rule_of(Integrators)
class IntegratorRule(RealRule[Integrators]):
    """``m + D + b``."""

    @property
    def states(self) -> Mapping[str, int]:
        """Return m."""
        return {STATE: self.population.size}

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Integrate."""
        m = self.numbers.add("Add", [before[STATE], drive], f"{self.place}/{STATE}")
        return Updated(self.sent(m), {STATE: m}, m)


@rule_of(Pointwise)
class PointwiseRule(RealRule[Pointwise]):
    """``f(D + b)``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Apply the function."""
        p = self.population
        at = f"{self.place}/value"
        value = self.numbers.apply(at, p.function, drive, p.drive.scale, p.message.scale)
        return Updated(self.sent(value))


@rule_of(Output)
class OutputRule(RealRule[Output]):
    """``D + b``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Return the sums."""
        return Updated(drive)


@rule_of(Product)
class ProductRule(RealRule[Product]):
    """``f(z1) g(z2)``."""

    @property
    def units(self) -> np.ndarray:
        """Real value of one unit of each drive."""
        p = self.population
        return np.repeat([p.first_drive.scale, p.second_drive.scale], p.size)

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Multiply."""
        p, numbers = self.population, self.numbers
        first, second = numbers.split(drive, p.size, 2, f"{self.place}/drives")
        unit = p.message.scale * 2.0**-p.shift
        first = self._factor(first, p.first_drive, p.first, unit, "first")
        second = self._factor(second, p.second_drive, p.second, 1.0, "second")
        return Updated(self.sent(self.product(first, second, "product")))

    def _factor(
        self, z: str, form: Format, function: Function | None, unit: float, name: str
    ) -> str:
        """Add a factor whose integer 1 becomes `unit`."""
        at = f"{self.place}/{name}"
        if function is None:
            return self.numbers.scaled(at, z, unit / form.scale)
        return self.numbers.apply(at, function, z, form.scale, unit)


@rule_of(Maximum)
class MaximumRule(RealRule[Maximum]):
    """The greatest of several drives."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Take the greatest."""
        p, numbers = self.population, self.numbers
        shape = numbers.whole(*[0] * (2 if numbers.by_time else 1), p.choices, p.size)
        choices = numbers.add("Reshape", [drive, shape], f"{self.place}/choices")
        return Updated(self.sent(numbers.reduced("ReduceMax", choices, -2, f"{self.place}/value")))


class GatedRule(RealRule[G]):
    """Base of LSTM and GRU: units of drives, one state per unit, its initial value."""

    @property
    def units(self) -> np.ndarray:
        """Real value of one unit of each drive."""
        return np.full(self.population.drive_size, self.population.drive.scale)

    @property
    def states(self) -> Mapping[str, int]:
        """Return c or h."""
        return {STATE: self.population.size}

    def first(self, state: str) -> np.ndarray | None:
        """Return the initial c or h."""
        p = self.population
        return None if p.initial is None else p.initial[p.size :] * p.state.scale


@rule_of(LSTMUnits)
class LSTMRule(GatedRule[LSTMUnits]):
    """``c = f c + i g`` and ``o b(c)``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Update the cell and its output."""
        p, numbers, unit = self.population, self.numbers, self.population.drive.scale
        i, f, g, o = numbers.split(drive, p.size, 4, f"{self.place}/drives")
        entry, forget, exit_ = (
            self.gate(p.gate, z, unit, name, GATE.scale)
            for z, name in ((i, "input_gate"), (f, "forget_gate"), (o, "output_gate"))
        )
        of_value = p.state.scale * 2.0 ** (GATE_BITS - p.cell_shift)
        value = self.gate(p.activation, g, unit, "candidate", of_value)
        parts = [self.product(before[STATE], forget, "kept"), self.product(value, entry, "written")]
        c = numbers.add("Add", parts, f"{self.place}/{STATE}")
        of_shown = p.message.scale * 2.0 ** (GATE_BITS - p.message_shift)
        shown = self.gate(p.output, c, p.state.scale, "shown", of_shown)
        return Updated(self.sent(self.product(shown, exit_, "out")), {STATE: c})


@rule_of(GRUUnits)
class GRURule(GatedRule[GRUUnits]):
    """``h + (1 - z) (n - h)``."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Update the units."""
        p, numbers, unit, h = (
            self.population,
            self.numbers,
            self.population.drive.scale,
            before[STATE],
        )
        z_r, z_z, z_x, z_h = numbers.split(drive, p.size, 4, f"{self.place}/drives")
        if p.resets:
            reset = self.gate(p.gate, z_r, unit, "reset", GATE.scale)
            own = self.product(z_h, reset, "from_units")
            z_x = numbers.add("Add", [z_x, own], f"{self.place}/sum")
        opposite = numbers.add("Neg", [z_z], f"{self.place}/opposite")
        new = self.gate(p.gate, opposite, unit, "new", GATE.scale)
        of_candidate = p.state.scale * 2.0**p.candidate_shift
        candidate = self.gate(p.activation, z_x, unit, "candidate", of_candidate)
        change = numbers.add("Sub", [candidate, h], f"{self.place}/difference")
        step = self.product(change, new, "step")
        h = numbers.add("Add", [h, step], f"{self.place}/{STATE}")
        return Updated(self.sent(h), {STATE: h})


@rule_of(Reduction)
class RealReduction(RealRule[Reduction], ReductionRule):
    """The sum, mean, maximum or last of all frames."""

    @property
    def states(self) -> Mapping[str, int]:
        """Return s, and the number of frames where it is needed."""
        counts = self.population.kind in ("mean", "max")
        return {STATE: self.population.size, **({FRAMES: 1} if counts else {})}

    def absorb(self, drive: str, before: Mapping[str, str]) -> dict[str, str]:
        """Take a frame."""
        numbers, kind, s, after = self.numbers, self.population.kind, drive, dict[str, str]()
        if FRAMES in before:
            one = numbers.floats("one", 1.0)
            after[FRAMES] = numbers.add("Add", [before[FRAMES], one], f"{self.place}/{FRAMES}")
        if kind in ("sum", "mean"):
            s = numbers.add("Add", [before[STATE], drive], f"{self.place}/{STATE}")
        if kind == "max":
            greater = numbers.add("Max", [before[STATE], drive], f"{self.place}/greatest")
            begun = numbers.add(
                "Greater", [before[FRAMES], numbers.floats("zero", 0.0)], f"{self.place}/begun"
            )
            s = numbers.add("Where", [begun, greater, drive], f"{self.place}/so_far")
        return {**after, STATE: s}

    def finish(self, after: Mapping[str, str]) -> Updated:
        """Add the message."""
        value = after[STATE]
        if self.population.kind == "mean":
            value = self.numbers.add("Div", [value, after[FRAMES]], f"{self.place}/mean")
        return Updated(self.sent(value))
