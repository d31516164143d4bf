r"""Exact integer arithmetic in ONNX operators, and counts of a run.

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

:class:`Tally` adds the counts of docs/reference/integer-semantics.md as outputs, named after
populations and places of that page:

- ``events/<population>/<threshold>``, (batch, time, 2), int32: events over the connections of one
  threshold, and their synaptic operations;
- ``first/<population>``, (time, neurons), int32: events of the first sample, by neuron;
- ``saturations/<place>``, a scalar, int64: sum over all samples and steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory, SeriesMemory
from numpy.typing import ArrayLike
from onnx import TensorProto

from converters.onnx.graph import Dimension, Graph
from converters.onnx.quantized.arithmetic import Messages, Numbers, send_changes
from lmu_deploy.core.integer.graph import outlets, populations
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format, largest

_LIFT = 2**47
_INT32 = 2**31 - 1


class Integers:
    """Operations on integers as nodes of one graph; see :class:`.arithmetic.Numbers`.

    Parameters
    ----------
    graph : Graph
    counting : bool
        Add nodes that count the entries that each `sat` changes.

    Attributes
    ----------
    limited : dict of place to list of tensor
        The counts, int32 scalars; several where a place saturates more than once.
    fired : dict of (population, threshold) to tensor
        Events of each neuron in the step, for a series or a threshold; (batch, neurons), int32.
    """

    real: int = TensorProto.INT32

    def __init__(self, graph: Graph, counting: bool = False) -> None:
        self.graph = graph
        self.limited: dict[str, list[str]] = defaultdict(list)
        self.fired: dict[tuple[str, int], str] = {}
        self.counting = counting

    def message_type(self, message: Format) -> int:
        """Return int32."""
        return int(TensorProto.INT32)

    def input_type(self, message: Format) -> int:
        """Return int32, since inputs are messages."""
        return int(TensorProto.INT32)

    def receive(self, x: str, message: Format) -> Messages:
        """Return the inputs, which are messages already."""
        return Messages(x, message)

    def changes(self, name: str, sent: Messages, held: str, threshold: int) -> Messages:
        """Return the held messages; count which messages were sent."""
        kind = self.message_type(sent.format)
        now, fired = send_changes(self.graph, name, sent, held, threshold, kind)
        if self.counting:
            key = name.rpartition("/")[0], threshold
            self.fired[key] = self._cast(fired, TensorProto.INT32, f"{name}/fired")
        return Messages(now, sent.format)

    def drive(self, place: str, connection: Connection, sent: Messages, unit: Format) -> str:
        """Add ``D = sum_k ms(sat_acc(W_k x), g_k, s_k)``, int64."""
        drives = []
        for k, weights in enumerate(connection.slices):
            part = f"{place}/slice{k}"
            sums = self.accumulate(part, weights, sent, connection.accumulator_bits, part)
            gain, shift = connection.multiplier[k], connection.shift[k]
            drives.append(self.multiply_shift(f"{part}/drive", sums, gain, shift))
        return self.graph.total(drives, place)

    def as_term(self, name: str, state: str) -> str:
        """Return a state as a term for `total`."""
        return self._cast(state, TensorProto.INT64, f"{name}/wide")

    def total(
        self, place: str, name: str, terms: Sequence[str], bias: np.ndarray | None, to: Format
    ) -> str:
        """Add ``sat(sum of terms + bias)``, int32; the terms are int64."""
        if bias is not None:
            terms = [*terms, self._constant(f"{place}/bias", bias)]
        total = self.graph.total(terms, f"{name}/sum")
        return self._narrow(name, self.saturate(name, total, to.limit, place))

    def send(self, place: str, state: str, memory: IntegerMemory | SeriesMemory) -> Messages:
        """Add ``M = sat(ms(m, 1, message_shift))``."""
        return self.message(place, state, memory.message_shift, memory.message, place)

    def message(self, name: str, state: str, shift: int, to: Format, place: str) -> Messages:
        """Add ``sat(ms(state, 1, shift))`` as messages called `name`, saturating at `place`."""
        wide = self._cast(state, TensorProto.INT64, f"{name}/wide")
        shifted = self.multiply_shift(f"{name}/shifted", wide, np.array(1), np.array(shift))
        limited = self.saturate(name, shifted, to.limit, place)
        return Messages(self._narrow(f"{name}.next", limited), to)

    def activate(self, place: str, z: str, hidden: IntegerHidden) -> Messages:
        """Add ``H = f(z)``, where f is the minimum of a few lines."""
        graph, lines, limit = self.graph, hidden.activation, hidden.message.limit
        name = f"{place}.next"
        if lines.kind == "linear":
            wide = self._cast(z, TensorProto.INT64, f"{place}/wide")
            shift = np.array(lines.shift)
            line = self.multiply_shift(f"{place}/line", wide, lines.slope[:1], shift)
            value = self._narrow(name, self.saturate(place, line, limit, place))
        elif lines.kind == "positive":
            zero = graph.weights.constant("zero", np.array(0, dtype=np.int32))
            p = graph.node("Max", [z, zero], f"{place}/p")
            value = self._least_line(place, name, p, hidden)
        else:
            p = graph.node("Abs", [z], f"{place}/p")
            value = self._least_line(place, f"{place}/least", p, hidden)
            sign = graph.node("Sign", [z], f"{place}/sign")
            value = graph.node("Mul", [sign, value], name)
        return Messages(value, hidden.message)

    def _least_line(self, place: str, name: str, p: str, hidden: IntegerHidden) -> str:
        """Add ``sat(min_k(ms(p, slope_k, shift) + intercept_k))`` for p >= 0, int32.

        The lines are a new first axis. Each saturates before the minimum is taken, which is
        equivalent, and then fits int32.
        """
        graph, lines = self.graph, hidden.activation
        wide = self._cast(p, TensorProto.INT64, f"{place}/wide")
        slope, intercept = lines.slope[:, None, None], lines.intercept[:, None, None]
        values = self.multiply_shift(f"{place}/slope", wide, slope, np.array(lines.shift))
        intercepts = self._constant(f"{place}/intercepts", intercept)
        values = graph.node("Add", [values, intercepts], f"{place}/lines")
        limit = self._constant(f"limit/{hidden.message.limit}", hidden.message.limit)
        beyond = graph.node("Greater", [values, limit], f"{place}/beyond")
        values = graph.node("Where", [beyond, limit, values], f"{place}/limited")
        values = self._narrow(f"{place}/narrow", values)
        if self.counting:
            every = self._cast(beyond, TensorProto.INT32, f"{place}/every")
            every = graph.node("ReduceMin", [every], f"{place}/all", axes=[0], keepdims=0)
            self._count(place, every, place)
        return graph.node("ReduceMin", [values], name, axes=[0], keepdims=0)

    def accumulate(
        self, name: str, weights: np.ndarray, sent: Messages, bits: int, place: str
    ) -> str:
        """Add ``sat(sum_j W_ij x_j)``, int64, summed in the narrowest type proven to suffice.

        Parameters
        ----------
        name : str
            Prefix of the tensors' names.
        weights : ndarray, shape (n_out, n_in), int8
        sent : Messages
        bits : int
            Width of the accumulator.
        place : str
            Place where saturations are counted.
        """
        worst = int(np.abs(weights.astype(np.int64)).sum(axis=1).max(initial=0))
        worst *= sent.format.limit
        element = TensorProto.INT32 if worst <= _INT32 else TensorProto.INT64
        messages = sent.tensor
        if element == TensorProto.INT64:
            messages = self._cast(messages, element, f"{name}/messages")
        stored = self.graph.weights.constant(f"{name}/weights", np.ascontiguousarray(weights.T))
        matrix = self._cast(stored, element, f"{name}/matrix")
        sums = self.graph.node("MatMul", [messages, matrix], f"{name}/sums")
        if element == TensorProto.INT64:
            return self.saturate(name, sums, largest(bits), place)
        low, high = (
            self.graph.weights.constant(f"limit32/{v}", np.array(v, dtype=np.int32))
            for v in (-largest(bits), largest(bits))
        )
        limited = self.graph.node("Clip", [sums, low, high], f"{name}/limited")
        if self.counting:
            same = self.graph.node("Equal", [sums, limited], f"{name}/same")
            self._count(name, self.graph.node("Not", [same], f"{name}/changed"), place)
        return self._cast(limited, TensorProto.INT64, f"{name}/wide")

    def multiply_shift(
        self, name: str, values: str, multiplier: np.ndarray, shift: np.ndarray
    ) -> str:
        """Add ``ms(v, g, s) = floor((v * g + 2^(s-1)) / 2^s)`` of int64; no offset at s = 0."""
        graph = self.graph
        if (multiplier != 1).any():
            gain = self._constant(f"{name}/multiplier", multiplier)
            values = graph.node("Mul", [values, gain], f"{name}/product")
        if not shift.any():
            return values
        power = np.int64(1) << shift.astype(np.int64)
        lift = self._constant(f"{name}/lift", _LIFT + (power >> 1))
        values = graph.node("Add", [values, lift], f"{name}/lifted")
        divisor = self._constant(f"{name}/power", power)
        values = graph.node("Div", [values, divisor], f"{name}/quotient")
        fall = self._constant(f"{name}/fall", _LIFT // power)
        return graph.node("Sub", [values, fall], name)

    def saturate(self, name: str, values: str, limit: int, place: str) -> str:
        """Add ``sat(v)`` of int64; count the entries that it changes at `place`."""
        graph = self.graph
        low, high = (self._constant(f"limit/{v}", v) for v in (-limit, limit))
        above = graph.node("Greater", [values, high], f"{name}/above")
        below = graph.node("Less", [values, low], f"{name}/below")
        if self.counting:
            self._count(name, graph.node("Or", [above, below], f"{name}/changed"), place)
        values = graph.node("Where", [above, high, values], f"{name}/at_most")
        return graph.node("Where", [below, low, values], f"{name}/limited")

    def _count(self, name: str, changed: str, place: str) -> None:
        """Count the entries that are true, or 1."""
        ones = self._cast(changed, TensorProto.INT32, f"{name}/ones")
        total = self.graph.node("ReduceSum", [ones], f"{name}/saturations", keepdims=0)
        self.limited[place].append(total)

    def _narrow(self, name: str, values: str) -> str:
        return self._cast(values, TensorProto.INT32, name)

    def _cast(self, values: str, element: int, name: str) -> str:
        return self.graph.node("Cast", [values], name, to=element)

    def _constant(self, name: str, values: ArrayLike) -> str:
        return self.graph.weights.constant(name, np.asarray(values, dtype=np.int64))


@dataclass(frozen=True)
class Traced:
    """A tensor of one step that is output for every step; `shape` is that of one step."""

    tensor: str
    shape: tuple[Dimension, ...]
    element: int


class Tally:
    """Counts of a network's run: events, synaptic operations and saturations."""

    def __init__(self, network: IntegerNetwork) -> None:
        self._neurons = {p.name: p.neurons for p in populations(network).values()}
        self._fan_out: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
        for outlet in outlets(network):
            self._fan_out[outlet.source][outlet.threshold] = outlet.fan_out.astype(np.int32)

    def events(
        self, graph: Graph, population: str, messages: str, numbers: Numbers
    ) -> dict[str, Traced]:
        """Count the events of a population: its messages, (..., batch, neurons), and changes."""
        assert isinstance(numbers, Integers)  # nothing else is counted
        fired = {t: f for (name, t), f in numbers.fired.items() if name == population}
        if 0 in self._fan_out[population]:
            fired[0] = count_fired(graph, population, messages)
        return self.fired(graph, population, fired)

    def fired(self, graph: Graph, population: str, fired: Mapping[int, str]) -> dict[str, Traced]:
        """Count the events of each neuron, given as tensors by threshold."""
        counts = {}
        for threshold, tensor in fired.items():
            fan_out = self._fan_out[population][threshold]
            weights = np.column_stack([np.ones_like(fan_out), fan_out])
            stored = graph.weights.constant(f"{population}/fan_out_{threshold}", weights)
            counted = graph.node("MatMul", [tensor, stored], f"{population}/events_{threshold}")
            counts[events_name(population, threshold)] = Traced(
                counted, ("batch", 2), TensorProto.INT32
            )
        zero = graph.weights.constant("first", np.array(0, dtype=np.int64))
        every = graph.total(list(fired.values()), f"{population}/all_fired")
        first = graph.node("Gather", [every, zero], f"{population}/first", axis=-2)
        size = self._neurons[population]
        return {**counts, f"first/{population}": Traced(first, (size,), TensorProto.INT32)}

    def saturations(self, numbers: Integers) -> dict[str, Traced]:
        """Return the saturations that `numbers` counted, one tensor for each place."""
        found = {}
        for place, counts in numbers.limited.items():
            total = numbers.graph.total(counts, f"{place}/all") if len(counts) > 1 else counts[0]
            found[f"saturations/{place}"] = Traced(total, (), TensorProto.INT32)
        return found

    def declare(self, graph: Graph, steps: Mapping[str, Traced]) -> None:
        """Declare the counts of every step, with time first, as outputs."""
        for name, traced in steps.items():
            if name.startswith("events/"):
                swapped = graph.node("Transpose", [traced.tensor], name, perm=[1, 0, 2])
                graph.output(swapped, ["batch", "time", 2], traced.element)
            elif name.startswith("first/"):
                graph.output(
                    graph.node("Identity", [traced.tensor], name),
                    ["time", *traced.shape],
                    traced.element,
                )
            else:
                wide = graph.node("Cast", [traced.tensor], f"{name}/wide", to=TensorProto.INT64)
                graph.output(
                    graph.node("ReduceSum", [wide], name, keepdims=0), [], TensorProto.INT64
                )


def events_name(population: str, threshold: int) -> str:
    """Return the name of the output that counts a population's events at one threshold."""
    return f"events/{population}/{threshold}"


def count_fired(graph: Graph, name: str, messages: str) -> str:
    """Add 1 for each message that is sent and 0 for each that is not; int32."""
    sent = graph.node("Cast", [messages], f"{name}/any", to=TensorProto.BOOL)
    return graph.node("Cast", [sent], f"{name}/fired", to=TensorProto.INT32)
