"""The body of a Scan over frames or of a Loop, and what is counted in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from converters.onnx.graph import Dimension
from converters.onnx.quantized.arithmetic import Numbers


@dataclass(frozen=True)
class Kept:
    """A tensor of one frame that is kept for all; `shape` is that of one frame."""

    tensor: str
    shape: Sequence[Dimension]
    element: int


class Body:
    """The body of a Scan over frames, or of a Loop.

    Parameters
    ----------
    outer : Numbers
        Arithmetic of the graph around it.
    name : str
    loops : bool
        Whether it is the body of a Loop.

    Attributes
    ----------
    numbers : Numbers
        Arithmetic of the body. What it counts is counted in the graph around it as well.
    """

    def __init__(self, outer: Numbers, name: str, loops: bool = False) -> None:
        self._outer, self._name = outer, outer.names.take(name)
        self.graph = outer.graph.body_graph(self._name)
        self.numbers = outer.within(self.graph)
        if loops:
            self.graph.input(outer.names.take(f"{self._name}/number"), [], TensorProto.INT64)
            name = outer.names.take(f"{self._name}/proceed")
            self._proceed = self.graph.input(name, [], TensorProto.BOOL)
        self._types: list[tuple[Sequence[Dimension], int]] = []
        self._firsts: list[str] = []
        self._given: list[str] = []

    def state(self, name: str, size: int, element: int, first: str = "") -> str:
        """Declare a state, (batch, size); return its value before the frame.

        All states have to be declared before anything else. `first` is the tensor before the first
        frame of a Scan.
        """
        self._types.append((("batch", size), element))
        self._firsts.append(first)
        name = self.numbers.names.take(f"{self._name}/{name}")
        return self.graph.input(name, ["batch", size], element)

    def given(self, tensor: str, size: int, element: int) -> str:
        """Declare a tensor of all frames; return its frame in the body."""
        self._given.append(tensor)
        name = self.numbers.names.take(f"{self._name}/{tensor}")
        return self.graph.input(name, ["batch", size], element)

    def scan(self, after: Sequence[str], kept: Sequence[Kept]) -> tuple[list[str], list[str]]:
        """Add the Scan; return the last states, and what is kept of all frames.

        Parameters
        ----------
        after : sequence of str
            The states after the frame, in their order.
        kept : sequence of Kept
        """
        counts = self._counts()
        every = [*kept, *(Kept(tensor, (), TensorProto.INT32) for tensor in counts.values())]
        copies = [self._copied(tensor) for tensor in (*after, *(each.tensor for each in every))]
        types = [*self._types, *((each.shape, each.element) for each in every)]
        for copy, (shape, element) in zip(copies, types, strict=True):
            self.graph.output(copy, shape, element)
        names = [self._outer.names.take(f"{self._name}/last") for _ in after]
        names += [self._outer.names.take(f"{each.tensor}/frames") for each in every]
        inputs = [*self._firsts, *self._given]
        found = self._outer.graph.nodes(
            "Scan", inputs, names, num_scan_inputs=len(self._given), body=self.graph.body()
        )
        traces = found[len(after) :]
        self._count(counts, traces[len(kept) :])
        return found[: len(after)], traces[: len(kept)]

    def loop(self, trips: int, firsts: Sequence[str], after: Sequence[str]) -> list[str]:
        """Add a Loop of a fixed number of trips; return the last states."""
        counts = self._counts()
        proceed = self._copied(self._proceed)
        self.graph.output(proceed, [], TensorProto.BOOL)
        copies = [self._copied(tensor) for tensor in (*after, *counts.values())]
        types = [*self._types, *[((), TensorProto.INT32)] * len(counts)]
        for copy, (shape, element) in zip(copies, types, strict=True):
            self.graph.output(copy, shape, element)
        number = self._outer.constant(f"trips/{trips}", np.array(trips, dtype=np.int64))
        names = [self._outer.names.take(f"{self._name}/last") for _ in after]
        names += [self._outer.names.take(f"{place}/trips") for place in counts]
        found = self._outer.graph.nodes(
            "Loop", [number, "", *firsts], names, body=self.graph.body()
        )
        self._count(counts, found[len(after) :])
        return found[: len(after)]

    def _copied(self, tensor: str) -> str:
        """Return a copy, since a tensor can be only one output of a body."""
        return self.numbers.add("Identity", [tensor], f"{tensor}/out")

    def _counts(self) -> dict[str, str]:
        """Return what the body counts by place, one tensor for each."""
        limited = self.numbers.limited
        return {
            place: self.numbers.total(found, f"{place}/all") for place, found in limited.items()
        }

    def _count(self, counts: Mapping[str, str], traces: Sequence[str]) -> None:
        for place, trace in zip(counts, traces, strict=True):
            total = self._outer.add("ReduceSum", [trace], f"{place}/of_frames", keepdims=0)
            self._outer.limited[place].append(total)
