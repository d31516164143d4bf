"""Recordings of networks on neurons: states at the ends of presentations, spikes and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.spiking.graph.simulator import HostValues
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.spiking.chip import CALIBRATION_MARGIN
from lmu_deploy.core.spiking.graph import AnalogNetwork, LoihiGraph, OnLoihi, SpikingGraph
from lmu_deploy.core.spiking.loihi import ONE, LoihiMemory, LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from targets.base import LARGEST_RASTER, States
from targets.host import apply_readout, observed, run_lstm
from targets.recorded.file import EVENTS, LIST, SPIKES, STATES, WHOLE, Recording
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
    known |= {beginning: set(layout.synapses) for beginning in (EVENTS, SPIKES, LIST)}
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


class NeuronRecording:
    """A recording of a network on neurons.

    Parameters
    ----------
    recording : Recording
    network : SpikingNetwork, SpikingGraph, LoihiNetwork or LoihiGraph
    inputs : ndarray, shape (samples, steps, n_in)
    """

    def __init__(self, recording: Recording, network: OnNeurons, inputs: np.ndarray) -> None:
        self.recording, self.network, self.inputs = recording, network, inputs
        self.samples, self.steps = inputs.shape[:2]
        self.layout = Layout.of(network, self.steps)
        on_loihi = isinstance(network, LoihiNetwork | LoihiGraph)
        self.chip_steps = self.layout.frames * network.steps_per_presentation + on_loihi
        self.notes: list[str] = []

    def run(self, record: bool) -> dict[str, Any]:
        """Return what a Run of the recording has, by the names of its attributes."""
        lists = {place: self._list(name, place) for name, place in self.recording.named(LIST)}
        parts = self._parts()
        y, sequence = self._outputs(parts)
        return {
            "outputs": y,
            "neurons": {name: len(each) for name, each in self.layout.synapses.items()},
            "events": self._events(lists),
            "synops": self._synops(lists),
            "saturations": self._beyond(parts),
            "steps": self.layout.frames,
            "chip_steps": self.chip_steps,
            "rasters": self._rasters(lists),
            "states": self._states(parts, sequence) if record else None,
            "notes": tuple(self.notes),
        }

    def _parts(self) -> dict[str, np.ndarray]:
        """Return recorded states by name, as real numbers; those of Loihi in whole units."""
        found = {}
        for name, place in self.recording.named(STATES):
            frames, size = self.layout.sizes[place]
            values = self.recording.array(name, (self.samples, frames, size))
            unit = self.layout.units.get(place)
            found[place] = values.astype(np.float64) if unit is None else _whole(values, unit)
        layout, network = self.layout, self.network
        if "m" in self.recording.arrays:
            m, start = self._joint("m", layout.memories), 0
            for name, size in layout.memories.items():
                if name in layout.sizes:  # those on the host are not
                    found.setdefault(name, m[..., start : start + size])
                start += size
        return found | self._units(found) if isinstance(network, SpikingGraph) else found

    def _units(self, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the values of units whose drives alone were recorded."""
        graph, found = self.network, {}
        assert isinstance(graph, SpikingGraph)
        for each in graph.ensembles:
            drive, operator = recorded_as(graph, each), graph.host[each.name].operator
            if drive in parts and each.name not in parts and isinstance(operator, Activation):
                found[each.name] = np.asarray(operator.apply(parts[drive]))
        return found

    def _joint(self, array: str, columns: Mapping[str, int]) -> np.ndarray:
        """Return m or h, as real numbers; m of Loihi in whole units."""
        size = sum(columns.values())
        values = self.recording.array(array, (self.samples, self.layout.frames, size))
        whole, scale = array == "m" and bool(self.layout.units), f"{array}_scale"
        if not whole or scale in self.recording.arrays:
            values = values * self.recording.number(scale, size, np.ones(size))
        return _whole(values, self.layout.unit) if whole else values.astype(np.float64)

    def _outputs(self, parts: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the outputs, and those of every frame if they are known."""
        network = self.network
        whole, computed = False, None
        if "y" in self.recording.arrays:
            shape = (self.samples, self.layout.frames, network.n_out)
            y, whole = self.recording.outputs(shape, 1.0, network.return_sequences)
        if not whole:
            real = {name: self.layout.real(name, values) for name, values in parts.items()}
            computed = host_outputs(network, self.inputs, real)
        if "y" not in self.recording.arrays:
            if computed is None:
                raise InputError(f"{self.recording.name}: there are no outputs y; record them.")
            self.notes.append("The outputs were computed from the recorded states.")
            y, whole = computed, True
        if whole:
            return (y if network.return_sequences else y[:, -1]), y
        return y, computed

    def _states(self, parts: dict[str, np.ndarray], y: np.ndarray | None) -> States | None:
        """Return the recorded states; without m and h where these are not whole."""
        if not parts:
            return None
        none = np.zeros((self.samples, self.layout.frames, 0))
        m = h = none
        if y is not None:
            m = self._all("m", self.layout.memories, parts)
            h = self._all("h", self.layout.hidden, parts)
        scale = self.layout.unit if m.dtype.kind == "i" else np.ones(m.shape[2])
        y = none if y is None else y
        return States(m, h, y, scale, np.ones(h.shape[2]), parts=parts)

    def _all(
        self, array: str, columns: Mapping[str, int], parts: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Return m or h; without columns if a part is missing or has other frames."""
        if array in self.recording.arrays:
            return self._joint(array, columns)
        found = [parts[name] for name in columns if name in parts]
        frames = self.layout.frames
        if not found or len(found) < len(columns) or {v.shape[1] for v in found} != {frames}:
            return np.zeros((self.samples, frames, 0))
        return np.concatenate(found, axis=2)

    def _list(self, name: str, place: str) -> np.ndarray:
        """Return a list of events as rows (sample, chip step, neuron) of the judged samples."""
        rows = self.recording.arrays[name]
        shape = self._chip_steps(place), len(self.layout.synapses[place])
        limits = zip(
            ("sample", "chip step", "neuron"), (self.recording.samples, *shape), strict=True
        )
        if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iu":
            raise InputError(
                f"{self.recording.name}: {name} has shape {rows.shape} and type {rows.dtype}; it "
                "must have a row (sample, chip step, neuron) of whole numbers for each event."
            )
        rows = rows.astype(np.int64)
        for values, (what, count) in zip(rows.T, limits, strict=True):
            wrong = values[(values < 0) | (values >= count)]
            if len(wrong):
                raise InputError(
                    f"{self.recording.name}: {name} has an event of {what} {wrong[0]}, and there "
                    f"are {count:,}, which are counted from 0."
                )
        return rows[rows[:, 0] < self.samples]

    def _events(self, lists: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return events by sender, sample and step."""
        found = {}
        for name, place in self.recording.named(EVENTS):
            frames = self._frames(place)
            values = self.recording.array(name, (self.samples, frames))
            found[place] = values.astype(np.int64)
        parts = self.network.steps_per_presentation
        for place, rows in lists.items():
            frames = self._frames(place)
            at = rows[:, 0] * frames + np.minimum(rows[:, 1] // parts, frames - 1)
            counts = np.bincount(at, minlength=self.samples * frames)
            found.setdefault(place, counts.reshape(self.samples, frames))
        return found

    def _frames(self, place: str) -> int:
        """Return the frames of a sender: its own if it has states, otherwise those of the input."""
        return self.layout.sizes.get(place, (self.layout.frames, 0))[0]

    def _chip_steps(self, place: str) -> int:
        """Return the chip steps of a sender; on Loihi there is one more."""
        extra = isinstance(self.network, LoihiNetwork | LoihiGraph)
        return self._frames(place) * self.network.steps_per_presentation + extra

    def _synops(self, lists: Mapping[str, np.ndarray]) -> int:
        """Return the synaptic operations of all events; 0 if not all are listed."""
        if lists.keys() != self.layout.synapses.keys():
            return 0
        return sum(int(self.layout.synapses[n][rows[:, 2]].sum()) for n, rows in lists.items())

    def _beyond(self, parts: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Count states outside the range that the calibration covers, by memory."""
        found = {}
        for name, size in self.layout.ranges.items():
            if name in parts:
                place = f"{name}/state"
                limit = CALIBRATION_MARGIN * size
                found[place] = int(np.count_nonzero(np.abs(parts[name]) > limit))
        return found

    def _rasters(self, lists: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the events of sample 0 in every chip step."""
        found = {}
        for name, place in self.recording.named(SPIKES):
            values = self.recording.arrays[name]
            shape = self._chip_steps(place), len(self.layout.synapses[place])
            if values.shape != shape:
                raise InputError(
                    f"{self.recording.name}: {name} has shape {values.shape}, and sample 0 needs "
                    f"{shape}: chip steps and neurons."
                )
            if values.dtype.kind not in "biu" or values.min() < 0 or values.max() > 1:
                raise InputError(
                    f"{self.recording.name}: {name} must be 1 where a neuron spikes, otherwise 0."
                )
            found[place] = values.astype(np.uint8)
        for place, rows in lists.items():
            shape = self._chip_steps(place), len(self.layout.synapses[place])
            if place not in found and np.prod(shape) <= LARGEST_RASTER:
                raster = np.zeros(shape, np.uint8)
                first = rows[rows[:, 0] == 0]
                raster[first[:, 1], first[:, 2]] = 1
                found[place] = raster
        return found


def _whole(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return integers as they are, and reals as integers if they are whole multiples of a unit."""
    if values.dtype.kind in "biu":
        return values.astype(np.int32)
    units = np.rint(values / unit)
    if np.abs(values / unit - units).max(initial=0.0) > WHOLE:
        return values.astype(np.float64)
    return units.astype(np.int32)
