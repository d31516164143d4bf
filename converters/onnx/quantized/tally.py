"""Counts of a run as outputs of an integer model: events, synaptic operations, saturations.

They are those of docs/reference/integer-semantics.md:

- of each source and threshold, (batch, frames, 1 + phases), int64: the events of a frame, and for
  each phase of the strides of its edges the synaptic operations that they would cause;
- of each source, (frames, neurons), int32: the events of the first sample;
- of each place, a scalar, int64: the saturations of all samples and frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping

import numpy as np
from onnx import TensorProto

from converters.onnx.quantized.arithmetic import OutletKey
from converters.onnx.quantized.integers import Integers
from lmu_deploy.core.integer.graph import Outlet, event_outlets, sources
from lmu_deploy.core.integer.network import IntegerNetwork, Node
from lmu_deploy.core.integer.parts import Place


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
            What receivers know of its messages, (frames, batch, neurons).
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
