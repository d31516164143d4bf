"""Counts of a run as outputs of an integer graph: events, synaptic operations, saturations.

What is counted is said in docs/integer-semantics.md. The outputs, with a name of a population or
place of that page at the end:

- ``events/<population>/<threshold>``, (batch, time, 2), int32: what is sent over the connections of
  one threshold, and the synapses that it meets;
- ``first/<population>``, (time, neurons), int32: what the first sample sent, message by message;
- ``saturations/<place>``, a scalar, int64: of all samples and steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from converters.onnx.graph import Dimension, Graph
from converters.onnx.quantised.integers import Integers
from converters.onnx.quantised.numbers import Numbers
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.wiring import outlets, populations


@dataclass(frozen=True)
class Traced:
    """A tensor of one step that is kept of every step; `shape` is that of one."""

    tensor: str
    shape: tuple[Dimension, ...]
    element: int


class Tally:
    """What to count of a network."""

    def __init__(self, network: IntegerNetwork) -> None:
        self._neurons = {p.name: p.neurons for p in populations(network).values()}
        self._fan_out: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
        for outlet in outlets(network):
            self._fan_out[outlet.source][outlet.threshold] = outlet.fan_out.astype(np.int32)

    def events(
        self, graph: Graph, population: str, messages: str, numbers: Numbers
    ) -> dict[str, Traced]:
        """Count what a population sends: its messages, (..., batch, neurons), and their changes."""
        assert isinstance(numbers, Integers)  # nothing else is counted
        fired = {t: f for (name, t), f in numbers.fired.items() if name == population}
        if 0 in self._fan_out[population]:
            fired[0] = count_fired(graph, population, messages)
        return self.fired(graph, population, fired)

    def fired(self, graph: Graph, population: str, fired: Mapping[int, str]) -> dict[str, Traced]:
        """Count what each neuron sent: tensors, by threshold, hold how many events."""
        counts = {}
        for threshold, tensor in fired.items():
            fan_out = self._fan_out[population][threshold]
            weights = np.column_stack([np.ones_like(fan_out), fan_out])
            held = graph.weights.constant(f"{population}/fan_out_{threshold}", weights)
            counted = graph.node("MatMul", [tensor, held], f"{population}/events_{threshold}")
            counts[events_name(population, threshold)] = Traced(
                counted, ("batch", 2), TensorProto.INT32
            )
        zero = graph.weights.constant("first", np.array(0, dtype=np.int64))
        every = graph.total(list(fired.values()), f"{population}/all_fired")
        first = graph.node("Gather", [every, zero], f"{population}/first", axis=-2)
        size = self._neurons[population]
        return {**counts, f"first/{population}": Traced(first, (size,), TensorProto.INT32)}

    def saturations(self, numbers: Integers) -> dict[str, Traced]:
        """Give the counts that `numbers` has made, one for each place."""
        found = {}
        for place, counts in numbers.limited.items():
            total = numbers.graph.total(counts, f"{place}/all") if len(counts) > 1 else counts[0]
            found[f"saturations/{place}"] = Traced(total, (), TensorProto.INT32)
        return found

    def declare(self, graph: Graph, steps: Mapping[str, Traced]) -> None:
        """Make outputs of what was counted at every step; tensors have time first."""
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
    """Name of the output that counts what a population sends under one threshold."""
    return f"events/{population}/{threshold}"


def count_fired(graph: Graph, name: str, messages: str) -> str:
    """Give 1 for each message that is sent and 0 for each that is not; int32."""
    sent = graph.node("Cast", [messages], f"{name}/any", to=TensorProto.BOOL)
    return graph.node("Cast", [sent], f"{name}/fired", to=TensorProto.INT32)
