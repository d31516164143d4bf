"""Write the operators of a network as ONNX nodes: one Emitter for each class of operators.

An emitter adds the nodes of one operator to a graph, in one of two forms: for whole sequences,
whose tensors have shape (batch, time, *frame), or for one step of them, (batch, *frame). The output
of node ``lmu_1`` is the tensor ``lmu_1``; what leads to it has names such as ``lmu_1.memory``.

**States.** In the form of one step a state is an input of the model, ``lmu_1.memory``, and an
output, ``lmu_1.memory.next``. All states are float32 and are zero before the first step; one that
starts elsewhere is stored as its difference from there.

**Readiness.** An operator with a stride, or a convolution without padding, has no output at some
steps. The boolean tensor `ready`, (batch, 1), is true if there is one, and the states of what
follows advance only where it is true.

**Lengths.** Behind a Mask, sequences of one batch have different lengths. In the form of whole
sequences the tensor `lengths`, (batch,), has the number of steps that count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from converters.onnx.graph import Graph
from lmu_deploy.core.graph.network import Network, Node
from lmu_deploy.core.graph.operator import Operator, Shape

O = TypeVar("O", bound=Operator)  # noqa: E741 (the usual letter of a type variable)
E = TypeVar("E", bound="type[Emitter[Any]]")

EMITTERS: dict[type[Operator], type[Emitter[Any]]] = {}
"""The emitter of every class of operators."""


def emits(*kinds: type[Operator]) -> Callable[[E], E]:
    """Register a class as the emitter of classes of operators."""

    def register(emitter: E) -> E:
        EMITTERS.update(dict.fromkeys(kinds, emitter))
        return emitter

    return register


class Emitter(Generic[O]):
    """Writes one node of a network.

    Parameters
    ----------
    graph : Graph
    network : Network
    node : Node
    leading : int
        Axes before those of a frame: 2 for batch and time, 1 for batch alone.
    ready : str, optional
        Whether there are inputs at this step; None where there always are.

    Attributes
    ----------
    operator : Operator
    given : tuple of Shape
        Of the inputs.
    frame : tuple of int
        Axes of a frame of the output.
    gives : str or None
        Whether there is an output at this step, after `step`.
    lengths : str or None
        Number of steps of each sequence that count, for `sequence`; None if all do.
    """

    lengths: str | None = None

    def __init__(
        self,
        graph: Graph,
        network: Network,
        node: Node,
        leading: int,
        ready: str | None = None,
        scope: str = "",
    ) -> None:
        self.graph = graph
        self.network, self.node, self.leading = network, node, leading
        self.operator: O = node.operator  # type: ignore[assignment]
        self.given: tuple[Shape, ...] = tuple(network.shapes[name] for name in node.inputs)
        self.frame = network.shapes[node.name].frame
        self.ready = self.gives = ready
        self.scope = scope

    # The forms of an operator

    def sequence(self, *inputs: str) -> str:
        """Add all steps; return the output."""
        raise NotImplementedError

    def last(self, *inputs: str) -> str:
        """Add the last step alone, computed from whole sequences, shape (batch, *frame)."""
        whole = self.sequence(*inputs)
        return self.part_of("Gather", [whole, self.integer(-1)], "last", axis=1)

    def lengths_after(self) -> str | None:
        """Return how many steps of the output count; None if all do."""
        return self.lengths

    @property
    def state_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name and shape of every state that is carried from step to step."""
        return {}

    def step(self, before: Mapping[str, str], *inputs: str) -> tuple[str, Mapping[str, str]]:
        """Add one step.

        Parameters
        ----------
        before : mapping of str to str
            The states before the step.
        *inputs : str
            Shape (batch, *frame).

        Returns
        -------
        output : str
        after : mapping of str to str
            The states after the step, if there was an input.
        """
        raise NotImplementedError

    def looks_ahead(self) -> bool:
        """Return whether it has no form of one step: outputs wait for inputs of later steps."""
        return False

    # What they are written with

    @property
    def output(self) -> str:
        """Name of the output."""
        return self.graph.weights[self.node.name, ""]

    def weight(self, part: str) -> str:
        """Return the tensor of a weight, such as ``memory.a_bar``."""
        return self.graph.weights[self.node.name, part]

    def derive(self, part: str, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node that computes on weights alone."""
        return self.graph.weights.derive(f"{self.node.name}.{part}", op, inputs, **attributes)

    def name(self, part: str) -> str:
        """Return a new name for a part of this node."""
        return self.graph.weights.names.take(f"{self.scope}{self.node.name}.{part}")

    def output_of(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add the ONNX node whose output is that of the network's node."""
        return self.graph.node(op, inputs, self.output, **attributes)

    def part_of(self, op: str, inputs: Sequence[str], part: str, **attributes: Any) -> str:
        """Add an ONNX node whose output is a part of the network's node."""
        return self.graph.node(op, inputs, self.name(part), **attributes)

    def total(self, terms: Sequence[str], part: str) -> str:
        """Add the sum of one or more tensors; a single one is returned as it is."""
        found = terms[0]
        for term in terms[1:]:
            found = self.part_of("Add", [found, term], part)
        return found

    def affine(self, x: str, kernel: str, bias: str | None, part: str) -> str:
        """Add ``x K + b`` on the last axis; the bias may be missing."""
        product = self.part_of("MatMul", [x, kernel], part)
        return product if bias is None else self.part_of("Add", [product, bias], part)

    def integer(self, value: int) -> str:
        """Return a constant, int64."""
        name = f"integer.{value}"
        return self.graph.weights.constant(name, np.array(value, dtype=np.int64))

    def axes_of(self, x: str, first: int, end: int, part: str) -> str:
        """Add the sizes of some axes of a tensor, as a vector."""
        return self.part_of("Shape", [x], part, start=first, end=end)

    def reshaped(self, x: str, part: str, *sizes: int) -> str:
        """Add a tensor of other axes; 0 stands for the size that x has there, -1 for what is left.

        Without a part it is the output of the node.
        """
        inputs = [x, self.graph.integers(*sizes)]
        return self.part_of("Reshape", inputs, part) if part else self.output_of("Reshape", inputs)

    def when_ready(self, after: str, before: str, output: str, rank: int) -> str:
        """Add ``after`` where there was an input, and ``before`` otherwise; both of one rank."""
        if self.ready is None:
            return self.graph.node("Identity", [after], output)
        ready = self.ready
        if rank != 2:
            ready = self.reshaped(ready, "is_ready", 0, *[1] * (rank - 1))
        return self.graph.node("Where", [ready, after, before], output)


class Framewise(Emitter[O]):
    """Writes an operator that computes each frame by itself, in both forms alike."""

    def frames(self, *inputs: str) -> str:
        """Add the frames of tensors of `leading` axes before those of a frame."""
        raise NotImplementedError

    def sequence(self, *inputs: str) -> str:
        """Add all frames."""
        return self.frames(*inputs)

    def step(self, before: Mapping[str, str], *inputs: str) -> tuple[str, Mapping[str, str]]:
        """Add one frame."""
        return self.frames(*inputs), {}

    def one_by_one(self, x: str, part: str) -> str:
        """Add a tensor with one axis before those of a frame: batch, or batch times time."""
        return x if self.leading == 1 else self.reshaped(x, part, -1, *self.given[0].frame)

    def together(self, frames: str, like: str) -> str:
        """Add the output: frames one by one, with batch and time as `like` has them."""
        if self.leading == 1:
            return self.output_of("Identity", [frames])
        own = self.graph.integers(*self.frame)
        axes = self.part_of("Concat", [self.axes_of(like, 0, 2, "batch_and_time"), own], "shape",
                            axis=0)  # fmt: skip
        return self.output_of("Reshape", [frames, axes])
