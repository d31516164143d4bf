"""Integer networks on ONNX Runtime: models of stages, and the host between them.

The nodes on the host are computed by :mod:`targets.host`, as every target does, and not within a
model: ONNX Runtime sums products and evaluates tanh in another order or form than NumPy, so that a
last bit, and then a message, could differ.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lmu_deploy.core.integer.graph import (
    event_outlets,
    frame_counts,
    host_sentence,
    latency,
    saturation_places,
    sources,
)
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Input
from targets.base import States, check_frames
from targets.host import encoded, host_values

if TYPE_CHECKING:
    from converters.onnx.quantized.sequence import Sequences

_VALUES_AT_ONCE = 2**25
"""Values of the widest signal that a batch holds."""


class Model(Protocol):
    """A model that is ready to run."""

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return all outputs by name."""


@dataclass
class _Batch:
    """What the stages of a batch have computed.

    Attributes
    ----------
    real : dict of Place to ndarray, shape (samples, frames, n)
        The input, and what the host computes.
    messages : dict of Place to ndarray
        What the host may read.
    sent : dict of (source, threshold) to ndarray, int32
        What models take.
    """

    real: dict[Place, np.ndarray]
    messages: dict[Place, np.ndarray] = field(default_factory=dict)
    sent: dict[tuple[Place, int], np.ndarray] = field(default_factory=dict)


class IntegerRunner:
    """Runs an integer network batch by batch, and collects the fields of a Run.

    Parameters
    ----------
    network : IntegerNetwork
    steps : int
        Steps of the input.
    record : bool
    load : callable
        Returns the :class:`Model` of an ONNX model.
    """

    def __init__(
        self, network: IntegerNetwork, steps: int, record: bool, load: Callable[[Any], Model]
    ) -> None:
        from converters.onnx.quantized.export import sequence_stage
        from converters.onnx.quantized.stages import stages

        self._network, self._record = network, record
        check_frames(network, steps)
        self._frames = frame_counts(network, steps)
        self._stages = []
        for stage in stages(network):
            model, names = sequence_stage(network, stage, record=record, tally=True)
            ready = load(model) if stage.entries or stage.given else None
            self._stages.append((stage, ready, names))
        self._outlets = event_outlets(network)
        self._sources = sources(network)
        self._y: list[np.ndarray] = []
        self._parts: dict[Place, list[np.ndarray]] = defaultdict(list)
        self._events: dict[tuple[Place, int], list[np.ndarray]] = defaultdict(list)
        self._rasters: dict[str, np.ndarray] = {}
        self._saturations = Counter(dict.fromkeys(saturation_places(network), 0))

    def batch_size(self, most: int) -> int:
        """Return how many samples are computed at once, at most `most`."""
        widths = [1]
        for p in self._network.populations:
            width = max(p.size, p.drive_size) * self._frames[p.place]
            widths.append(width * max(1, len(self._network.entering(p.entrance))))
        return int(np.clip(_VALUES_AT_ONCE // max(widths), 1, most))

    def take(self, inputs: np.ndarray) -> None:
        """Run some samples, of shape (samples, steps, n_in)."""
        network, scale = self._network, self._network.y_scale
        batch = _Batch({network.input.place: network.input.scaled(inputs)})
        if network.input.place in self._sources:
            self._encode(network.input, batch)
        for stage, model, names in self._stages:
            for host in stage.hosts:
                batch.real[host.place] = host_values(network, host, batch.real, batch.messages)
                if self._record:
                    self._parts[host.place].append(batch.real[host.place])
                if host.message is not None:
                    self._encode(host, batch)
            if model is None:
                continue
            found = model.run({name: batch.sent[key] for key, name in names.inputs.items()})
            for key, name in names.messages.items():
                batch.sent[key] = found[name]
                if not key[1]:
                    batch.messages[key[0]] = found[name]
            self._collect(names, found)
            if names.output is not None:
                self._y.append(found[names.output] * scale)
        if isinstance(network[network.output], HostNodes):
            values = batch.real[network.output]
            self._y.append(values if network.return_sequences else values[:, -1])

    def _encode(self, source: Input | HostNodes, batch: _Batch) -> None:
        """Turn real values into messages; a model takes tokens as they are."""
        place, values = source.place, batch.real[source.place]
        batch.messages[place], limited = encoded(source, values)
        self._saturations[str(place)] += limited
        tokens = isinstance(source, Input) and source.tokens
        batch.sent[place, 0] = (values if tokens else batch.messages[place]).astype(np.int32)

    def _collect(self, names: Sequences, found: Mapping[str, np.ndarray]) -> None:
        """Keep states and counts of a stage."""
        for place, name in names.records.items():
            self._parts[place].append(found[name])
        for key, name in names.events.items():
            self._events[key].append(found[name])
        for where, name in names.saturations.items():
            self._saturations[where] += int(found[name])
        for place, name in names.rasters.items():
            self._rasters.setdefault(str(place), found[name].clip(max=255).astype(np.uint8))

    def fields(self, steps: int) -> dict[str, Any]:
        """Return the fields of the Run."""
        network = self._network
        events = {key: np.concatenate(parts) for key, parts in self._events.items()}
        sums: dict[Place, np.ndarray] = {}
        synops, carried = 0, {}
        for outlet in self._outlets:
            counted = events[outlet.source, outlet.threshold]
            own = counted[..., 0]
            sums[outlet.source] = sums[outlet.source] + own if outlet.source in sums else own
            carried.update({edge.place: int(own.sum()) for edge in outlet.edges})
            phases = outlet.period if outlet.edges else 0
            synops += sum(int(counted[:, n::phases, 1 + n].sum()) for n in range(phases))
        sentence, states = host_sentence(network), None
        if self._record:
            parts = {place: np.concatenate(found) for place, found in self._parts.items()}
            states = States.of_integers(network, parts)
        return {
            "outputs": np.concatenate(self._y),
            "neurons": {str(place): source.neurons for place, source in self._sources.items()},
            "events": {str(place): sums[place] for place in self._sources},
            "synops": synops,
            "carried": carried,
            "saturations": dict(self._saturations),
            "steps": steps,
            "chip_steps": steps + latency(network),
            "states": states,
            "rasters": {str(place): self._rasters[str(place)] for place in self._sources},
            "notes": () if sentence is None else (sentence,),
        }
