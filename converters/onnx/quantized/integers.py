r"""Exact integer arithmetic in ONNX operators.

The arithmetic is that of docs/reference/integer-semantics.md.

Messages and states are int32, everything between them int64. Products of weights and messages are
summed and saturated in int32 where weights and widths prove that it suffices. MatMulInteger would
be faster, but is limited to messages of 8 bits.

Div truncates toward zero and BitShift is unsigned, so an offset is added before a shift: with
:math:`L = 2^{47}`, above any product and divisible by any :math:`2^s`,

.. math:: \lfloor v / 2^s \rfloor = \mathrm{Div}(v + L, 2^s) - L / 2^s.

Int64 saturates by Greater, Less and Where: Clip, Min, Max, Sign and ReduceMin of ONNX Runtime are
wrong for int64 whose upper and lower halves differ in sign (its pull request 25280, an error of
Eigen with SSE2). They are used on int32 only.

A :class:`Tally` adds counts of a run as outputs: events, synaptic operations, saturations. They are
those of docs/reference/integer-semantics.md:

- of each source and threshold, (batch, frames, 1 + phases), int64: the events of a frame, and for
  each phase of the strides of its edges the synaptic operations that they would cause;
- of each source, (frames, neurons), int32: the events of the first sample;
- of each place, a scalar, int64: the saturations of all samples and frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping

import numpy as np
from numpy.typing import ArrayLike
from onnx import TensorProto

from converters.onnx.graph import Graph
from converters.onnx.quantized.arithmetic import Numbers, OutletKey, Rule
from lmu_deploy.core.integer.functions import Function, PiecewiseLinear, Segments
from lmu_deploy.core.integer.graph import Outlet, event_outlets, sources
from lmu_deploy.core.integer.network import IntegerNetwork, Node
from lmu_deploy.core.integer.parts import Edge, Format, Place, largest
from lmu_deploy.core.integer.populations import Input, Population

_LIFT = 2**47
_INT32 = 2**31 - 1
_NEVER = 2**62
"""A breakpoint that no drive reaches."""


class Integers(Numbers):
    """Operations on integers as nodes of one graph.

    Parameters
    ----------
    graph : Graph
    by_time : bool
    counting : bool
        Add nodes that count the entries that each `sat` changes.
    """

    real = input_type = TensorProto.INT32
    drives = TensorProto.INT64

    def __init__(self, graph: Graph, by_time: bool = False, counting: bool = False) -> None:
        super().__init__(graph, by_time)
        self.counting = counting

    def within(self, graph: Graph) -> Integers:
        """Return integers for the body of a Scan or Loop, which count if these do."""
        return Integers(graph, counting=self.counting)

    def message_type(self, message: Format) -> int:
        """Return int32."""
        return int(TensorProto.INT32)

    def encode(self, x: str, population: Input) -> str:
        """Return the inputs, which are messages already."""
        return x

    def rule(self, population: Population) -> Rule:
        """Return the rule of a population."""
        from converters.onnx.quantized.integer_rules import RULES

        return RULES[type(population)](self, population)

    def drive(self, edge: Edge, messages: str, source: Format, target: Population) -> str:
        """Add ``D = sum_k ms(sat_acc(W_k x), g_k, s_k)``, int64."""
        connection, drives = edge.connection, []
        for k, (part, weights) in enumerate(zip(edge.accumulators, connection.slices, strict=True)):
            bits = connection.accumulator_bits
            sums = self.accumulate(part, weights, messages, source.limit, bits, part)
            gain, shift = connection.multiplier[k], connection.shift[k]
            drives.append(self.multiply_shift(f"{part}/drive", sums, gain, shift))
        return self.total(drives, edge.place)

    def bias(self, population: Population) -> str | None:
        """Return the bias, int64."""
        if population.bias is None:
            return None
        return self.wide(f"{population.place}/bias", population.bias)

    def message(self, name: str, state: str, shift: int, to: Format, place: str) -> str:
        """Add ``sat(ms(state, 1, shift))`` of int32 as messages, saturating at `place`."""
        wide = self.widened(name, state)
        shifted = self.multiply_shift(f"{name}/shifted", wide, np.array(1), np.array(shift))
        return self.limit(name, shifted, to.limit, place)

    def apply(self, name: str, function: Function, z: str, limit: int, place: str) -> str:
        """Add ``sat(f(z))`` of int32, as int32."""
        if isinstance(function, Segments):
            return self.limit(name, self._segment(name, function, z), limit, place)
        if function.kind == "linear":
            wide, shift = self.widened(name, z), np.array(function.shift)
            line = self.multiply_shift(f"{name}/line", wide, function.slope[:1], shift)
            return self.limit(name, line, limit, place)
        if function.kind == "positive":
            zero = self.constant("zero", np.array(0, dtype=np.int32))
            return self._least_line(
                name, function, self.add("Max", [z, zero], f"{name}/p"), limit, place
            )
        least = self._least_line(name, function, self.add("Abs", [z], f"{name}/p"), limit, place)
        return self.add("Mul", [self.add("Sign", [z], f"{name}/sign"), least], name)

    def _least_line(self, name: str, lines: PiecewiseLinear, p: str, limit: int, place: str) -> str:
        """Add ``sat(min_k(ms(p, slope_k, shift) + intercept_k))`` for p >= 0, int32.

        The lines are a new first axis. Each saturates before the minimum is taken, which is
        equivalent, and then fits int32.
        """
        wide, shift = self.widened(name, p), np.array(lines.shift)
        if len(lines.slope) == 1:
            return self.limit(
                name, self.multiply_shift(f"{name}/line", wide, lines.slope, shift), limit, place
            )
        axes = (-1, *[1] * (3 if self.by_time else 2))
        slope, intercept = lines.slope.reshape(axes), lines.intercept.reshape(axes)
        values = self.multiply_shift(f"{name}/slope", wide, slope, shift)
        values = self.add(
            "Add", [values, self.wide(f"{name}/intercepts", intercept)], f"{name}/lines"
        )
        most = self.wide(f"limit/{limit}", limit)
        beyond = self.add("Greater", [values, most], f"{name}/beyond")
        values = self.add("Where", [beyond, most, values], f"{name}/limited")
        values = self.cast(values, TensorProto.INT32, f"{name}/narrow")
        if self.counting:
            every = self.cast(beyond, TensorProto.INT32, f"{name}/every")
            every = self.reduced("ReduceMin", every, 0, f"{name}/all")
            self.count(name, every, place)
        return self.reduced("ReduceMin", values, 0, name)

    def _segment(self, name: str, function: Segments, z: str) -> str:
        """Add ``ms(z, slope_k, shift) + intercept_k`` of the segment of z, int64."""
        wide, shift = self.widened(name, z), np.array(function.shift)
        if len(function.slope) == 1:
            line = self.multiply_shift(f"{name}/line", wide, function.slope, shift)
            more = self.wide(f"{name}/intercept", function.intercept)
            return self.add("Add", [line, more], f"{name}/value")
        k = self.piece(name, function.breakpoints.astype(np.int64), wide, _NEVER)
        slope, intercept = (
            self.add("Gather", [self.wide(f"{name}/{what}s", values), k], f"{name}/{what}")
            for what, values in (("slope", function.slope), ("intercept", function.intercept))
        )
        product = self.add("Mul", [wide, slope], f"{name}/product")
        line = self.multiply_shift(f"{name}/line", product, np.array(1), shift)
        return self.add("Add", [line, intercept], f"{name}/value")

    def accumulate(
        self,
        name: str,
        weights: np.ndarray,
        messages: str,
        largest_message: int,
        bits: int,
        place: str,
    ) -> str:
        """Add ``sat(sum_j W_ij x_j)``, int64, summed in the narrowest type proven to suffice.

        Parameters
        ----------
        name : str
            Prefix of the tensors' names.
        weights : ndarray, shape (n_out, n_in), int8
        messages : str
        largest_message : int
            Largest magnitude of a message.
        bits : int
            Width of the accumulator.
        place : str
            Place where saturations are counted.
        """
        worst = int(np.abs(weights.astype(np.int64)).sum(axis=1).max(initial=0)) * largest_message
        element = TensorProto.INT32 if worst <= _INT32 else TensorProto.INT64
        if element == TensorProto.INT64:
            messages = self.cast(messages, element, f"{name}/messages")
        stored = self.constant(f"{name}/weights", np.ascontiguousarray(weights.T))
        matrix = self.cast(stored, element, f"{name}/matrix")
        sums = self.add("MatMul", [messages, matrix], f"{name}/sums")
        if element == TensorProto.INT64:
            return self.saturate(name, sums, largest(bits), place)
        if worst > largest(bits):
            low, high = (
                self.constant(f"limit32/{v}", np.array(v, dtype=np.int32))
                for v in (-largest(bits), largest(bits))
            )
            limited = self.add("Clip", [sums, low, high], f"{name}/limited")
            if self.counting:
                same = self.add("Equal", [sums, limited], f"{name}/same")
                self.count(name, self.add("Not", [same], f"{name}/changed"), place)
            sums = limited
        return self.widened(name, sums)

    def multiply_shift(
        self, name: str, values: str, multiplier: np.ndarray, shift: np.ndarray
    ) -> str:
        """Add ``ms(v, g, s) = floor((v * g + 2^(s-1)) / 2^s)`` of int64; no offset at s = 0."""
        if (multiplier != 1).any():
            gain = self.wide(f"{name}/multiplier", multiplier)
            values = self.add("Mul", [values, gain], f"{name}/product")
        if not shift.any():
            return values
        power = np.int64(1) << shift.astype(np.int64)
        lift = self.wide(f"{name}/lift", _LIFT + (power >> 1))
        values = self.add("Add", [values, lift], f"{name}/lifted")
        values = self.add("Div", [values, self.wide(f"{name}/power", power)], f"{name}/quotient")
        return self.add("Sub", [values, self.wide(f"{name}/fall", _LIFT // power)], name)

    def multiply(self, name: str, values: str, others: str, shift: int) -> str:
        """Add ``ms(v, w, s)`` of two tensors of int32, as int64."""
        factors = [self.widened(f"{name}/first", values), self.widened(f"{name}/second", others)]
        product = self.add("Mul", factors, f"{name}/product")
        return self.multiply_shift(name, product, np.array(1), np.array(shift))

    def limit(self, name: str, values: str, limit: int, place: str) -> str:
        """Add ``sat(v)`` of int64, as int32."""
        limited = self.saturate(name, values, limit, place)
        return self.cast(limited, TensorProto.INT32, name)

    def saturate(self, name: str, values: str, limit: int, place: str) -> str:
        """Add ``sat(v)`` of int64; count the entries that it changes at `place`."""
        low, high = (self.wide(f"limit/{v}", v) for v in (-limit, limit))
        above = self.add("Greater", [values, high], f"{name}/above")
        below = self.add("Less", [values, low], f"{name}/below")
        if self.counting:
            self.count(name, self.add("Or", [above, below], f"{name}/changed"), place)
        values = self.add("Where", [above, high, values], f"{name}/at_most")
        return self.add("Where", [below, low, values], f"{name}/limited")

    def count(self, name: str, changed: str, place: str) -> None:
        """Count the entries that are true, or 1, at a place."""
        ones = self.cast(changed, TensorProto.INT32, f"{name}/ones")
        total = self.add("ReduceSum", [ones], f"{name}/saturations", keepdims=0)
        self.limited[place].append(total)

    def fired(self, name: str, messages: str) -> str:
        """Add 1 for each message that is not zero and 0 for each that is; int32."""
        sent = self.cast(messages, TensorProto.BOOL, f"{name}/any")
        return self.cast(sent, TensorProto.INT32, f"{name}/fired")

    def widened(self, name: str, values: str) -> str:
        """Add values as int64."""
        return self.cast(values, TensorProto.INT64, f"{name}/wide")

    def wide(self, name: str, values: ArrayLike) -> str:
        """Return a constant, int64."""
        return self.constant(name, np.asarray(values, dtype=np.int64))


class Tally:
    """Counts the events of a network.

    Parameters
    ----------
    network : IntegerNetwork
    numbers : Integers
        Arithmetic of the graph, with time first.

    Attributes
    ----------
    events : dict of (source, threshold) to (tensor, columns)
    rasters : dict of Place to (tensor, neurons)
    lengths : dict of Place to hashable
        What the number of frames of each source depends on.
    """

    def __init__(self, network: IntegerNetwork, numbers: Integers) -> None:
        self._numbers = numbers
        self._sources = sources(network)
        self._outlets: dict[Place, list[Outlet]] = defaultdict(list)
        for outlet in event_outlets(network):
            self._outlets[outlet.source].append(outlet)
        self.events: dict[OutletKey, tuple[str, int]] = {}
        self.rasters: dict[Place, tuple[str, int]] = {}
        self.lengths: dict[Place, Hashable] = {}

    def thresholds(self, place: Place) -> list[int]:
        """Return the thresholds under which the events of a source are counted."""
        return [outlet.threshold for outlet in self._outlets[place]]

    def count(
        self,
        population: Node,
        signals: Mapping[int, str],
        firsts: Mapping[int, str],
        fired: str | None,
        length: Hashable,
    ) -> None:
        """Count the events of a population.

        Parameters
        ----------
        population : Population or HostNodes
        signals : mapping of threshold to str
            Its messages at the receivers, (frames, batch, neurons).
        firsts : mapping of threshold to str
            What they knew before the first frame, (batch, neurons).
        fired : str or None
            Of a series, the events that it sends to itself, (frames, batch, neurons).
        length : hashable
        """
        numbers = self._numbers
        if fired is not None:
            self._add(population.entrance, {0: fired}, length)
        found: dict[int, str] = {}
        for threshold, tensor in signals.items():
            at = f"{population.place}/events_{threshold}"
            if not threshold:
                found[threshold] = numbers.fired(at, tensor)
                continue
            bounds = [numbers.whole(v) for v in (0, -1, 0)]
            rest = numbers.add("Slice", [tensor, *bounds], f"{at}/earlier")
            axes = numbers.whole(0)
            first = numbers.add("Unsqueeze", [firsts[threshold], axes], f"{at}/first")
            before = numbers.add("Concat", [first, rest], f"{at}/before", axis=0)
            same = numbers.add("Equal", [tensor, before], f"{at}/same")
            changed = numbers.add("Not", [same], f"{at}/changed")
            found[threshold] = numbers.cast(changed, TensorProto.INT32, f"{at}/fired")
        self._add(population.place, found, length)

    def _add(self, place: Place, fired: Mapping[int, str], length: Hashable) -> None:
        numbers = self._numbers
        if not fired:
            return
        self.lengths[place] = length
        for outlet in self._outlets[place]:
            at = f"{place}/events_{outlet.threshold}"
            columns = [np.ones(self._sources[place].neurons, np.int64)]
            if outlet.edges:
                columns += [outlet.fan_out(phase) for phase in range(outlet.period)]
            wide = numbers.widened(at, fired[outlet.threshold])
            weights = numbers.wide(f"{at}/fan_out", np.column_stack(columns))
            found = numbers.add("MatMul", [wide, weights], at)
            self.events[place, outlet.threshold] = found, len(columns)
        every = numbers.total(list(fired.values()), f"{place}/events")
        raster = numbers.add("Gather", [every, numbers.number(0)], f"{place}/of_first", axis=1)
        self.rasters[place] = raster, self._sources[place].neurons
