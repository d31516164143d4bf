"""Base of the arithmetics of a quantized graph: names, rules, sigma-delta messages.

There are two arithmetics: `integers.py` has only integers, exactly as
docs/reference/integer-semantics.md defines; `dequantized.py` has real numbers with QuantizeLinear
and DequantizeLinear around the same weights and messages. Each has a :class:`Rule` for every class
of populations that it can express. The models around them (`sequence.py`, `step.py`) iterate over
populations and edges and are the same for both.

The last axes of a tensor are batch and neurons; what is computed for all frames at once has time
before them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from onnx import TensorProto, helper

from converters.onnx.graph import OPSET, Graph
from lmu_deploy.core.integer.parts import Edge, Format, Place
from lmu_deploy.core.integer.populations import Input, Population

OutletKey = tuple[Place, int]
"""A source and a threshold."""
MESSAGE, STATE, FRAMES = "message", "state", "frames"
_INT32 = 2**31 - 1
OPSET_OF_AXES = 18
"""From which on the axes of a reduction are an input."""


def held(threshold: int) -> str:
    """Return the name of a source's value at its receivers: its message, or the one held."""
    return f"held_{threshold}" if threshold else MESSAGE


class Numbers(ABC):
    """Arithmetic of one graph: adds the nodes that compute the parts of a network.

    Parameters
    ----------
    graph : Graph
        Graph to which nodes are added.
    by_time : bool
        Whether tensors have time as their first axis.
    opset : int
        Version of the operators.

    Attributes
    ----------
    limited : dict of place to list of tensor
        Counts of limited entries, int32 scalars; several where a place saturates more than once.
    """

    real: ClassVar[int]
    """ONNX element type of states and outputs."""
    drives: ClassVar[int]
    """ONNX element type of drives."""
    input_type: ClassVar[int]
    """ONNX element type of the input of a model."""

    def __init__(self, graph: Graph, by_time: bool = False, opset: int = OPSET) -> None:
        self.graph, self.by_time, self.opset = graph, by_time, opset
        self.names = graph.weights.names
        self.limited: dict[str, list[str]] = defaultdict(list)

    @abstractmethod
    def within(self, graph: Graph) -> Numbers:
        """Return the same arithmetic for the body of a Scan or Loop."""

    @abstractmethod
    def message_type(self, message: Format) -> int:
        """Return the ONNX element type of messages of a format."""

    @abstractmethod
    def encode(self, x: str, population: Input) -> str:
        """Return the messages of what the graph is given as its input, unless that is tokens."""

    def receive(self, x: str, population: Input) -> str:
        """Return the messages of what the graph is given as its input."""
        if not population.tokens:
            return self.encode(x, population)
        at, dtype = population.place, helper.tensor_dtype_to_np_dtype(self.input_type)
        every = self.constant(f"{at}/tokens", np.arange(population.size, dtype=dtype))
        there = self.add("Equal", [x, every], f"{at}/is_token")
        message = np.array(round(1.0 / population.message.scale), dtype=np.int32)
        sent = self.cast(there, TensorProto.INT32, f"{at}/one_hot")
        sent = self.add("Mul", [sent, self.constant(f"{at}/message", message)], f"{at}/sent")
        return self.cast(sent, self.message_type(population.message), f"{at}/messages")

    @abstractmethod
    def drive(self, edge: Edge, messages: str, source: Format, target: Population) -> str:
        """Return the drive of an edge, on its own rows of the target.

        Parameters
        ----------
        edge : Edge
        messages : str
            Those of all offsets side by side.
        source : Format
            Format of the messages.
        target : Population
        """

    @abstractmethod
    def bias(self, population: Population) -> str | None:
        """Return the bias of a population as a term of its drive."""

    @abstractmethod
    def rule(self, population: Population) -> Rule:
        """Return the rule of a population."""

    def add(self, op: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Add a node with one output; return the output's name, which is free in the model."""
        return self.graph.node(op, inputs, self.names.take(name), **attributes)

    def constant(self, name: str, values: np.ndarray) -> str:
        """Return a constant; equal ones are stored once."""
        return self.graph.weights.constant(name, values)

    def whole(self, *values: int) -> str:
        """Return a constant vector, int64."""
        name = f"whole/{'/'.join(map(str, values))}"
        return self.constant(name, np.array(values, dtype=np.int64))

    def cast(self, values: str, element: int, name: str) -> str:
        """Add values in another element type."""
        return self.add("Cast", [values], name, to=element)

    def total(self, terms: Sequence[str], name: str) -> str:
        """Add the sum of one or more tensors."""
        result = terms[0]
        for term in terms[1:]:
            result = self.add("Add", [result, term], name)
        return result

    def in_rows(self, edge: Edge, drive: str, target: Population) -> str:
        """Return a drive with zeros on the rows that its edge does not reach."""
        behind = target.drive_size - edge.row - edge.connection.n_out
        if not edge.row and not behind:
            return drive
        leading = [0] * (2 if self.by_time else 1)
        pads = self.whole(*leading, edge.row, *leading, behind)
        return self.add("Pad", [drive, pads], f"{edge.place}/rows")

    def reduced(self, op: str, values: str, axis: int, name: str) -> str:
        """Add the least or greatest value along an axis, ``ReduceMin`` or ``ReduceMax``."""
        if self.opset < OPSET_OF_AXES:
            return self.add(op, [values], name, axes=[axis], keepdims=0)
        return self.add(op, [values, self.whole(axis)], name, keepdims=0)

    def surrounded(self, messages: str, form: Format, before: int, after: int, name: str) -> str:
        """Add frames of zeros before and after messages with time first."""
        pads, element = self.whole(before, 0, 0, after, 0, 0), self.message_type(form)
        if element != TensorProto.INT16:
            return self.add("Pad", [messages, pads], name)
        wide = self.cast(messages, TensorProto.INT32, f"{name}/wide")  # ONNX Runtime pads no int16
        return self.cast(self.add("Pad", [wide, pads], f"{name}/sum"), element, name)

    def answer(self, messages: str, population: Population) -> str:
        """Return messages as an output of the model, of the type `real`."""
        return messages

    def piece(self, name: str, points: np.ndarray, z: str, never: float) -> str:
        """Add how many of increasing breakpoints each z has reached, int64, by bisection.

        Parameters
        ----------
        name : str
        points : ndarray
            Breakpoints, at least one, of the type of z.
        z : str
        never : float
            A breakpoint that no z reaches.
        """
        rounds = len(points).bit_length()
        filled = np.full(2**rounds - 1, never, points.dtype)
        filled[: len(points)] = points
        stored = self.constant(f"{name}/breakpoints", filled)
        k = self.number(0)
        for power in reversed(range(rounds)):
            at = self.add("Add", [k, self.number(2**power - 1)], f"{name}/at")
            point = self.add("Gather", [stored, at], f"{name}/point")
            reached = self.add("LessOrEqual", [point, z], f"{name}/reached")
            higher = self.add("Add", [k, self.number(2**power)], f"{name}/higher")
            k = self.add("Where", [reached, higher, k], f"{name}/piece")
        return k

    def number(self, value: int) -> str:
        """Return a constant, int64."""
        return self.constant(f"number/{value}", np.array(value, dtype=np.int64))

    def split(self, values: str, size: int, parts: int, name: str) -> list[str]:
        """Add parts of equal size of the last axis."""
        names = [self.names.take(f"{name}/{number}") for number in range(parts)]
        return self.graph.nodes("Split", [values, self.whole(*[size] * parts)], names, axis=-1)

    def hold(self, key: OutletKey, form: Format, messages: str, before: str) -> str:
        """Add the receivers' values of messages that are sent once they changed by a threshold.

        This is "Sigma-delta messages" of docs/reference/integer-semantics.md; the messages of both
        arithmetics are integers.

        Parameters
        ----------
        key : (Place, int)
            Source and threshold, 1 or more.
        form : Format
        messages, before : str
            Messages of this frame, and what was held before, (batch, size), of the type of the
            messages. The result has the same.
        """
        place, threshold = key
        at = f"{place}/{held(threshold)}"
        if threshold == 1:
            return self.add("Identity", [messages], at)
        wide = TensorProto.INT32 if 2 * form.limit <= _INT32 else TensorProto.INT64
        dtype = np.int32 if wide == TensorProto.INT32 else np.int64
        now, earlier = messages, before
        if (element := self.message_type(form)) != wide:
            now = self.cast(now, wide, f"{at}/now")
            earlier = self.cast(earlier, wide, f"{at}/before")
        up, down = (
            self.constant(f"threshold/{dtype.__name__}/{v}", np.array(v, dtype=dtype))
            for v in (threshold - 1, 1 - threshold)
        )
        change = self.add("Sub", [now, earlier], f"{at}/change")
        above = self.add("Greater", [change, up], f"{at}/above")
        below = self.add("Less", [change, down], f"{at}/below")
        sent = self.add("Or", [above, below], f"{at}/sent")
        kept = self.add("Where", [sent, now, earlier], at)
        return kept if element == wide else self.cast(kept, element, f"{at}/narrow")


@dataclass
class Updated:
    """Results of a population for one frame, or for all frames at once.

    Attributes
    ----------
    message : str
        Messages of the element type of their format.
    after : dict of str to str
        The states that the population itself keeps.
    recorded : str
        What a recording holds.
    fired : str or None
        Of a series, how many messages each neuron sent to the series itself, int32.
    """

    message: str
    after: dict[str, str] = field(default_factory=dict)
    recorded: str = ""
    fired: str | None = None

    def __post_init__(self) -> None:
        self.recorded = self.recorded or self.message


class Rule(ABC):
    """The update rule of one population in one arithmetic.

    Parameters
    ----------
    numbers : Numbers
        Arithmetic of the graph that the update is added to.
    population : Population
    """

    reads_message: ClassVar[bool] = False
    """Whether an update needs the message of the frame before."""

    def __init__(self, numbers: Numbers, population: Population) -> None:
        self.numbers, self.place = numbers, population.place

    @property
    def states(self) -> Mapping[str, int]:
        """Name and size of what the population itself keeps from frame to frame."""
        return {}

    def first(self, state: str) -> np.ndarray | None:
        """Return the value of a state before the first frame, shape (size,); None if zero."""
        return None

    @abstractmethod
    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Add the nodes of one update.

        Parameters
        ----------
        drive : str
            Sum of all drives and the bias, (..., batch, drive_size).
        before : mapping of str to str
            The states after the previous frame, and the `MESSAGE` of it if the rule reads that.
        """


class ReductionRule(Rule):
    """The rule of a reduction, which sends once, at the end of a sequence."""

    @abstractmethod
    def absorb(self, drive: str, before: Mapping[str, str]) -> dict[str, str]:
        """Take a frame; return the states after it."""

    @abstractmethod
    def finish(self, after: Mapping[str, str]) -> Updated:
        """Add the message at the end, from the states."""

    def update(self, drive: str, before: Mapping[str, str]) -> Updated:
        """Take a frame; the message is what would be sent if it were the last."""
        after = self.absorb(drive, before)
        return replace(self.finish(after), after=after)
