"""Recordings of networks on neurons: states at the ends of presentations, spikes and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.spiking.chip import CALIBRATION_MARGIN
from lmu_deploy.core.spiking.graph import LoihiGraph, SpikingGraph
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from targets.base import LARGEST_RASTER, States, samples_counted
from targets.recorded.file import COUNTS, EVENTS, LIST, SPIKES, STATES, WHOLE, Recording
from targets.recorded.layout import Layout, OnNeurons, host_outputs
from targets.spiking.graph import recorded_as


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
        parts, rasters = self._parts(), self._rasters(lists)
        y, sequence = self._outputs(parts)
        if rasters and self._rounded():
            rasters = {}
            self.notes.append(
                "Recorded states are integers with a scale, and do not follow exactly from the "
                "spikes of a sample, so these were not compared with them."
            )
        return {
            "outputs": y,
            "neurons": {name: len(each) for name, each in self.layout.synapses.items()},
            "events": self._events(lists),
            "synops": self._synops(lists),
            "saturations": self._beyond(parts),
            "steps": self.layout.frames,
            "chip_steps": self.chip_steps,
            "rasters": rasters,
            "counts": self._counts(lists),
            "states": self._states(parts, sequence) if record else None,
            "notes": tuple(self.notes),
        }

    def _rounded(self) -> bool:
        """Return whether states of an analog chip were recorded as integers."""
        names = ["m", *(name for name, _ in self.recording.named(STATES))]
        arrays = [self.recording.arrays[name] for name in names if name in self.recording.arrays]
        analog = isinstance(self.network, SpikingNetwork | SpikingGraph)
        return analog and any(each.dtype.kind in "iu" for each in arrays)

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
        flat = np.ravel_multi_index(tuple(rows.T), (self.recording.samples, *shape))
        if len(np.unique(flat)) < len(flat):
            raise InputError(
                f"{self.recording.name}: {name} has a spike twice; a neuron spikes at most once in "
                "a chip step."
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

    def _counts(self, lists: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the spikes of every neuron in every presentation of the first samples."""
        found, parts = {}, self.network.steps_per_presentation
        for name, place in self.recording.named(COUNTS):
            values, frames = self.recording.arrays[name], self._frames(place)
            shape = frames, len(self.layout.synapses[place])
            if values.ndim != 3 or values.shape[1:] != shape:
                raise InputError(
                    f"{self.recording.name}: {name} has shape {values.shape}, and needs "
                    f"{('samples', *shape)}: samples, presentations and neurons."
                )
            if values.dtype.kind not in "iu" or np.any((values < 0) | (values > parts)):
                raise InputError(
                    f"{self.recording.name}: {name} must be whole numbers of spikes, from 0 to "
                    f"{parts}, the chip steps of a presentation."
                )
            found[place] = values[: self.samples].astype(np.uint16)
        for place, rows in lists.items():
            frames, neurons = self._frames(place), len(self.layout.synapses[place])
            first = min(self.samples, samples_counted(frames, neurons))
            if place in found or not first:
                continue
            sample, step, neuron = rows[rows[:, 0] < first].T
            counts = np.zeros((first, frames, neurons), np.uint16)
            np.add.at(counts, (sample, np.minimum(step // parts, frames - 1), neuron), 1)
            found[place] = counts
        return found


def _whole(values: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return integers as they are, and reals as integers if they are whole multiples of a unit."""
    if values.dtype.kind in "biu":
        return values.astype(np.int32)
    units = np.rint(values / unit)
    if np.abs(values / unit - units).max(initial=0.0) > WHOLE:
        return values.astype(np.float64)
    return units.astype(np.int32)
