"""Simulation of a spiking network in Brian2: one memory at a time, many samples on many chips.

All populations of a memory are one group of neurons. Each neuron reads its state through a linked
variable, so encoding is part of the neurons' equation. Decoding, synapses and input are one network
operation; see synapses.py. The last layer's units are a second group, which reads drives instead
of states. Everything else runs on the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import CALIBRATION_MARGIN, Populations
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork, SpikingUnits
from targets.base import LARGEST_RASTER, samples_counted
from targets.brian2.library import brian2_library, own_garbage
from targets.brian2.neurons import Curves, neuron_group
from targets.brian2.synapses import Activity, Boundary, Synapses, Units
from targets.host import HostLayer, apply_readout, run_lstm


@own_garbage()
def run_memory(
    network: SpikingNetwork,
    memories: Sequence[SpikingMemory],
    boundary: Boundary,
    samples: int,
    steps: int,
    starts: np.random.Generator,
    noise_seed: int,
    rasters: bool = False,
    units: Units | None = None,
    counted: int = 0,
) -> Activity:
    """Simulate a memory, and optionally units that read it, for a batch on several chips.

    Parameters
    ----------
    network : SpikingNetwork
        Times, neuron model, synapses and noise of all chips.
    memories : sequence of SpikingMemory
        One for each chip, of the same shape.
    boundary : Boundary
    samples, steps : int
        Samples of each chip, and task steps.
    starts : Generator
        Draws initial membranes, sample after sample, the same on every chip.
    noise_seed : int
    rasters : bool
        Record the spikes of each chip's sample 0.
    units : Units, optional
        Units of the same copies; they record their results.
    counted : int
        Number of first samples in which the spikes of every neuron are counted.
    """
    b2 = brian2_library()
    clock = b2.Clock(dt=network.dt_ms * b2.ms, name="lmu_clock")
    count = len(memories) * samples * memories[0].states
    states = b2.NeuronGroup(count, "x : 1", clock=clock, name="lmu_states", namespace={})
    curves = [memory.populations for memory in memories]
    neurons = _neuron_group(b2, network, curves, states, samples, clock, starts, "lmu_neurons")
    objects = [states, neurons]
    if units is not None:
        drives = b2.NeuronGroup(units.shown.size, "x : 1", clock=clock, name="lmu_drives")
        curves = [one.populations for one in units.units]
        begin = units.starts
        firing = _neuron_group(b2, network, curves, drives, samples, clock, begin, "lmu_units")
        z = drives.variables["x"].get_value()
        z[:] = units.shown.reshape(-1)
        objects += [drives, firing]
    operation = Synapses(network, memories, boundary, samples, steps, rasters, counted)
    x = states.variables["x"].get_value()

    def synapses() -> None:
        operation.advance(x, neurons.spikes)
        if units is not None:
            units.advance(operation.u, operation.fired(), firing.spikes)
            z[:] = units.shown.reshape(-1)

    update = b2.NetworkOperation(synapses, clock=clock, when="synapses", name="lmu_synapses")
    simulation = b2.Network(*objects, update)
    generator_state = np.random.get_state()  # noqa: NPY002 - Brian2 seeds and uses this one
    try:
        b2.seed(noise_seed)
        simulation.run(steps * network.presentation_ms * b2.ms, namespace={})
    finally:
        np.random.set_state(generator_state)  # noqa: NPY002
    return operation.activity()


def _neuron_group(
    b2: Any,
    network: SpikingNetwork,
    chips: Sequence[Populations],
    states: Any,
    samples: int,
    clock: Any,
    starts: np.random.Generator,
    name: str,
) -> Any:
    """Build the neurons of all copies, chip by chip, with the same membranes on every chip."""
    neurons = chips[0].neurons
    membranes = starts.random((samples, chips[0].states * neurons)).reshape(-1)
    return neuron_group(
        b2,
        network,
        Curves.of_copies(chips, samples),
        (states, np.repeat(np.arange(len(states)), neurons)),
        np.tile(membranes, len(chips)),
        clock,
        name,
    )


@dataclass(frozen=True)
class Batch:
    """Results of some samples on every chip.

    Attributes
    ----------
    m, h, y : ndarray, shape (chips, samples, steps, states | units | n_out)
        As :class:`targets.base.States` orders them.
    events : mapping of population to ndarray, shape (chips, samples, steps), int64
    synops : ndarray, shape (chips,), int64
    beyond : mapping of memory to ndarray, shape (chips,), int64
        Number of states at the ends of presentations outside the range of the calibration.
    rasters : mapping of population to ndarray, shape (chips, chip_steps, neurons), uint8
        Events of the run's sample 0; missing where they would take more than 50 MB.
    counted : mapping of population to ndarray, shape (chips, first samples, steps, neurons), uint16
        Events of every neuron.
    """

    m: np.ndarray
    h: np.ndarray
    y: np.ndarray
    events: Mapping[str, np.ndarray]
    synops: np.ndarray
    beyond: Mapping[str, np.ndarray]
    rasters: Mapping[str, np.ndarray]
    counted: Mapping[str, np.ndarray]

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Join the batches of a run in their order."""
        m, h, y = (
            np.concatenate([getattr(batch, name) for batch in batches], axis=1) for name in "mhy"
        )
        events = {
            name: np.concatenate([batch.events[name] for batch in batches], axis=1)
            for name in batches[0].events
        }
        synops = np.sum([batch.synops for batch in batches], axis=0)
        beyond = {
            name: np.sum([batch.beyond[name] for batch in batches], axis=0)
            for name in batches[0].beyond
        }
        counted = {
            name: np.concatenate([batch.counted[name] for batch in batches], axis=1)
            for name in batches[0].counted
        }
        return cls(m, h, y, events, synops, beyond, batches[0].rasters, counted)


class Pipeline:
    """Runs batches in order; the random numbers of a batch depend on those before it.

    Parameters
    ----------
    chips : sequence of SpikingNetwork
        One network on several virtual chips, which differ in mismatch and weights only.
    samples, steps : int
        Samples of all batches on each chip, and task steps.
    seed : int
    progress : callable, optional
    record : int
        Number of first samples in some of which the spikes of every neuron are counted.
    """

    def __init__(
        self,
        chips: Sequence[SpikingNetwork],
        samples: int,
        steps: int,
        seed: int,
        progress: Progress | None,
        record: int = 0,
    ) -> None:
        self.network, self.samples, self.steps = chips[0], samples, steps
        self.progress, self.record = progress, record
        self.memories: dict[Place, list[SpikingMemory]] = {}
        for number, memories in enumerate(zip(*(c.memories for c in chips), strict=True)):
            present = [memory for memory in memories if memory is not None]
            if present:
                self.memories[self.network.place(number, "memory")] = present
        numbered = list(enumerate(self.memories))
        self.starts = {place: np.random.default_rng([seed, i]) for i, place in numbered}
        self.noise = {place: np.random.default_rng([seed, i, 1]) for i, place in numbered}
        self.units = [chip.units for chip in chips if chip.units is not None]
        self.unit_starts = np.random.default_rng([seed, len(numbered), 2])
        self.chips, self._presented, self._done = len(chips), 0, 0

    def run(self, inputs: np.ndarray) -> Batch:
        """Run the next batch on every chip; inputs of shape (samples, steps, n_in)."""
        signal = np.tile(inputs, (self.chips, 1, 1))
        m, h = [signal[:, :, :0]], [signal[:, :, :0]]
        activities, first, units = dict[Place, Activity](), not self._presented, None
        beyond: dict[str, np.ndarray] = {}
        for number, layer in enumerate(self.network.host.layers):
            if isinstance(layer, LSTMLayer):
                signal = run_lstm(layer, signal)
                h.append(signal)
                continue
            place = self.network.place(number, "memory")
            if self.units and layer is self.network.host.layers[-1]:
                recorded = first and self._raster_size(self.units) <= LARGEST_RASTER
                rng = self.unit_starts
                counted = self._counted(self.units, len(inputs))
                units = Units(self.network, self.units, layer, signal, rng, recorded, counted)
            host, activities[place] = self._run_layer(place, layer, signal, first, units)
            beyond[f"{place}/state"] = self._beyond(place, host.m)
            m.append(host.m)
            h.append(host.h if units is None else units.h)
            signal = host.output
        readout = self.network.host.readout
        if units is None:
            y = apply_readout(readout, signal)
        else:
            y = units.y if readout.bias is None else units.y + readout.bias
        synops = self._synops(activities)
        if units is not None:
            synops += self._synops_of_units(units, activities[place])
            activities[Place(place.node, "hidden")] = units.activity()
        shape = (self.chips, *inputs.shape[:2], -1)
        self._done += len(inputs)
        return Batch(
            m=np.concatenate(m, axis=2).reshape(shape),
            h=np.concatenate(h, axis=2).reshape(shape),
            y=y.reshape(shape),
            events={str(place): activity.counts for place, activity in activities.items()},
            synops=synops,
            beyond=beyond,
            rasters={str(p): a.rasters for p, a in activities.items() if a.rasters is not None},
            counted={str(p): a.counted for p, a in activities.items()},
        )

    def _run_layer(
        self, place: Place, layer: LMULayer, signal: np.ndarray, first: bool, units: Units | None
    ) -> tuple[HostLayer, Activity]:
        memories, host = self.memories[place], HostLayer(layer, signal)
        samples = len(signal) // len(memories)

        def observe(step: int, states: np.ndarray) -> None:
            host.observe(step, states)
            self._report(samples)

        activity = run_memory(
            self.network,
            memories,
            Boundary(host.channels, observe),
            samples=samples,
            steps=self.steps,
            starts=self.starts[place],
            noise_seed=int(self.noise[place].integers(2**31)),
            rasters=first and self._raster_size(memories) <= LARGEST_RASTER,
            units=units,
            counted=self._counted(memories, samples),
        )
        return host, activity

    def _beyond(self, place: Place, m: np.ndarray) -> np.ndarray:
        by_chip = np.abs(m.reshape(self.chips, -1, m.shape[2]))
        ranges = np.stack([memory.scales.reshape(-1) for memory in self.memories[place]])
        return np.count_nonzero(by_chip > CALIBRATION_MARGIN * ranges[:, None], axis=(1, 2))

    def _synops(self, activities: Mapping[Place, Activity]) -> np.ndarray:
        synops = np.zeros(self.chips, np.int64)
        for place, activity in activities.items():
            for chip, memory in enumerate(self.memories[place]):
                synops[chip] += activity.by_neuron[chip] @ memory.synapses
        return synops

    def _synops_of_units(self, units: Units, memory: Activity) -> np.ndarray:
        """Count the synaptic operations of all spikes in units and readout."""
        own = units.activity().by_neuron
        return np.array(
            [
                memory.by_neuron[chip] @ on.synapses_of_memory + own[chip] @ on.synapses
                for chip, on in enumerate(self.units)
            ]
        )

    def _raster_size(self, chips: Sequence[SpikingMemory] | Sequence[SpikingUnits]) -> int:
        chip_steps = self.steps * self.network.steps_per_presentation
        return len(chips) * chips[0].neurons * chip_steps

    def _counted(
        self, chips: Sequence[SpikingMemory] | Sequence[SpikingUnits], samples: int
    ) -> int:
        """Return in how many of the samples of this batch spikes are counted."""
        most = samples_counted(self.steps, chips[0].neurons * len(chips))
        return max(0, min(most - self._done, samples)) if self._done < self.record else 0

    def _report(self, samples: int) -> None:
        """Count presentations of all memories, and report whole samples."""
        self._presented += samples
        if self.progress:
            per_sample = self.steps * len(self.memories)
            self.progress(self._presented // per_sample, self.samples)
