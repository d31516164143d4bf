"""What a run of a network on neurons records: names, sizes, units and synapses of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from converters.spiking.graph.simulator import HostValues
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.spiking.graph import AnalogNetwork, LoihiGraph, OnLoihi, SpikingGraph
from lmu_deploy.core.spiking.loihi import ONE, LoihiMemory, LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from targets.base import States
from targets.host import apply_readout, observed, run_lstm
from targets.recorded.file import COUNTS, EVENTS, LIST, SPIKES, STATES, Recording
from targets.spiking.graph import recorded_as

OnNeurons = AnalogNetwork | OnLoihi
"""A network on neurons, of an analog chip or of Loihi."""


@dataclass
class Layout:
    """What a run of a network records.

    Attributes
    ----------
    sizes : mapping of name to (frames, values)
        What ``states/`` may name.
    memories, hidden : mapping of name to int
        The columns of ``m`` and ``h``, in their order: parts on the chip and on the host.
    units : mapping of memory to ndarray, shape (states,)
        Real value of one unit of a state.
    ranges : mapping of memory to ndarray, shape (states,)
        Largest values of the states for which an analog chip is calibrated.
    synapses : mapping of sender to ndarray, shape (neurons,)
        Outgoing synapses of everything that sends events.
    frames : int
        Of ``m``, ``h`` and the outputs.
    """

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    memories: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    units: dict[str, np.ndarray] = field(default_factory=dict)
    ranges: dict[str, np.ndarray] = field(default_factory=dict)
    synapses: dict[str, np.ndarray] = field(default_factory=dict)
    frames: int = 0

    @property
    def unit(self) -> np.ndarray:
        """Real value of one unit of each column of ``m``."""
        found = [self.units.get(name, np.ones(size)) for name, size in self.memories.items()]
        return np.concatenate([np.zeros(0), *found])

    def real(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return recorded states as real numbers."""
        return values * self.units[name] if values.dtype.kind in "iu" else values

    @classmethod
    def of(cls, network: OnNeurons, steps: int) -> Layout:
        """Return the layout of a network for inputs of so many steps."""
        found = cls()
        if isinstance(network, SpikingNetwork | LoihiNetwork):
            found._add_layers(network, steps)
        else:
            found._add_graph(network, steps)
        return found

    def _add_layers(self, network: SpikingNetwork | LoihiNetwork, steps: int) -> None:
        self.frames = steps
        for number, (layer, memory) in enumerate(
            zip(network.host.layers, network.memories, strict=True)
        ):
            if memory is not None:
                name = str(network.place(number, "memory"))
                self.memories[name] = memory.states
                self.sizes[name] = steps, memory.states
                if isinstance(memory, LoihiMemory):
                    self.units[name] = memory.state_unit
                    for kind, synapses in memory.fan_out.items():
                        self.synapses[str(network.place(number, kind))] = synapses
                else:
                    self.ranges[name] = memory.scales.reshape(-1)
                    self.synapses[name] = memory.synapses
            units = layer.hidden.units if isinstance(layer, LMULayer) and layer.hidden else 0
            if size := layer.n_out if isinstance(layer, LSTMLayer) else units:
                self.hidden[str(network.place(number, "hidden"))] = size
        self.sizes |= {name: (steps, size) for name, size in self.hidden.items()}
        if isinstance(network, SpikingNetwork) and (on_chip := network.units) is not None:
            last = len(network.memories) - 1
            self.synapses[str(network.place(last, "memory"))] += on_chip.synapses_of_memory
            self.synapses[str(network.place(last, "hidden"))] = on_chip.synapses

    def _add_graph(self, graph: SpikingGraph | LoihiGraph, steps: int) -> None:
        frames = _frames(graph.host, steps)
        self.frames = frames[graph.host.output]
        ensembles = {each.name: each for each in graph.ensembles}
        for node in graph.host.nodes:
            own = ensembles.get(node.name)
            if own is not None and graph.kind(own) == "memory":
                self.memories[node.name] = own.size
                if isinstance(graph, SpikingGraph):
                    self.ranges[node.name] = own.scales
            elif own is not None and own.hidden:
                self.hidden[node.name] = own.size
            elif own is None and node.name in graph.on_host:
                into = {"memory": self.memories, "hidden": self.hidden}
                for part, size in node.operator.states.items():
                    into[part][str(Place(node.name, part))] = size
        self.sizes = {name: (frames[name], each.size) for name, each in ensembles.items()}
        if isinstance(graph, SpikingGraph):
            self.sizes |= {
                recorded_as(graph, each): (frames[each.name], each.size) for each in graph.parts
            }
        self.synapses = graph.senders()


def _frames(host: Network, steps: int) -> dict[str, int]:
    """Return how many frames a run has of every node; what answers once has one at every step."""
    found = {INPUT: steps}
    for node in host.nodes:
        before = found[node.inputs[0]]
        sequence = host.shapes[node.name].sequence
        found[node.name] = int(node.operator.lengths(np.array(before))) if sequence else before
    return found


def reasons(recording: Recording, network: OnNeurons) -> list[str]:
    """Return why a recording is none of a network: names that it lacks, and no outputs."""
    layout = Layout.of(network, 1)
    known = {STATES: set(layout.sizes)}
    known |= {beginning: set(layout.synapses) for beginning in (EVENTS, SPIKES, COUNTS, LIST)}
    found = [
        f"{name} names no part of the network ({', '.join(sorted(places))})"
        for beginning, places in known.items()
        for name, place in recording.named(beginning)
        if place not in places
    ]
    if "y" not in recording.arrays and not _on_host(network, set(recording.arrays)):
        found.append("the recording has no outputs y")
    return found


def _on_host(network: OnNeurons, names: set[str]) -> bool:
    """Return whether the outputs follow on the host from what has been recorded."""
    if isinstance(network, SpikingNetwork | LoihiNetwork):
        if isinstance(network, SpikingNetwork) and network.units is not None:
            return False
        return "m" in names or {f"{STATES}{n}" for n in Layout.of(network, 1).memories} <= names
    if isinstance(network, LoihiGraph):
        return False
    return {f"{STATES}{recorded_as(network, each)}" for each in network.probes} <= names


def host_outputs(
    network: OnNeurons, inputs: np.ndarray, parts: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """Return what the host computes from recorded states, shape (samples, frames, n_out).

    Parameters
    ----------
    network : SpikingNetwork, SpikingGraph, LoihiNetwork or LoihiGraph
    inputs : ndarray, shape (samples, steps, n_in)
    parts : mapping of name to ndarray, shape (samples, frames, values)
        As they are called after ``states/``, in real units.

    Returns
    -------
    ndarray or None
        None where the chip computes the outputs, or not all that the host reads is recorded.
    """
    if not _on_host(network, {f"{STATES}{name}" for name in parts}):
        return None
    if isinstance(network, SpikingNetwork | LoihiNetwork):
        signal = inputs
        for number, layer in enumerate(network.host.layers):
            if isinstance(layer, LSTMLayer):
                signal = run_lstm(layer, signal)
            else:
                m = parts[str(network.place(number, "memory"))]
                signal = observed(layer, signal, m).output
        return apply_readout(network.host.readout, signal)
    host = HostValues(network.host, inputs)
    for each in network.probes:
        host.read(each.name, parts[str(Place(each.name, "read"))])
    y = host[network.host.output]
    return y.reshape(*y.shape[:2], -1)


def parts_of(network: OnNeurons, states: States) -> dict[str, np.ndarray]:
    """Return the states of a run by name, in real units, as :func:`host_outputs` takes them."""
    layout, start = Layout.of(network, states.y.shape[1]), 0
    found = {name: layout.real(name, values) for name, values in states.parts.items()}
    for name, size in layout.memories.items() if states.m.size else ():
        columns = slice(start, start + size)
        if name in layout.sizes:
            found.setdefault(name, states.m[..., columns] * states.m_scale[columns])
        start += size
    return found


def unit_of(network: OnLoihi, name: str) -> np.ndarray | None:
    """Return the real value of one unit of the states of a memory; None for other parts."""
    if isinstance(network, LoihiNetwork):
        return Layout.of(network, 1).units.get(name)
    found = {each.name: each for each in network.ensembles}.get(name)
    if found is None or network.kind(found) != "memory":
        return None
    return np.asarray(found.scales / ONE)
