"""One memory on Brian2: all populations of many samples, on many chips, in one group of neurons.

The last layer's units are a second group, which reads drives in the place of states.

Encoding is part of the neurons' equation (each reads its state through a linked variable).
Decoding, the synapse and the input are one network operation; see synapses.py.

A batch through all layers: memories, maybe the last units, on chips; all else on the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import CALIBRATION_MARGIN, Populations
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork
from lmu_deploy.core.spiking.units import SpikingUnits
from targets.brian2.library import brian2_library
from targets.brian2.neurons import Curves, neuron_group
from targets.brian2.synapses import Activity, Boundary, Synapses
from targets.brian2.units import Units
from targets.host import HostLayer, run_lstm


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
) -> Activity:
    """Simulate a memory for a batch, on each of several chips, and units that read it.

    Parameters
    ----------
    network : SpikingNetwork
        Its times, neuron model, synapses and noise, which all chips share.
    memories : sequence of SpikingMemory
        One for each chip, all of the same shape.
    boundary : Boundary
    samples, steps : int
        Of each chip, and of the task.
    starts : Generator
        Draws where membranes start, sample after sample, alike on every chip.
    noise_seed : int
    rasters : bool
        Keep the spikes of each chip's sample 0.
    units : Units, optional
        Of the same copies; they keep what they did.
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
    operation = Synapses(network, memories, boundary, samples, steps, rasters)
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
    """Give the neurons of all copies, chip by chip; membranes start alike on every chip."""
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


_LARGEST_RASTER = 50_000_000


@dataclass(frozen=True)
class Batch:
    """What some samples did on every chip.

    Attributes
    ----------
    m, h, y : ndarray, shape (chips, samples, steps, states | units | n_out)
        As :class:`targets.base.States` orders them.
    events : mapping of population to ndarray, shape (chips, samples, steps), int64
    synops : ndarray, shape (chips,), int64
    beyond : mapping of memory to ndarray, shape (chips,), int64
        How often a state at the end of a hold was farther out than any that a calibration shows.
    rasters : mapping of population to ndarray, shape (chips, chip_steps, neurons), uint8
        Of the run's sample 0; left out where it would take more than 50 MB.
    """

    m: np.ndarray
    h: np.ndarray
    y: np.ndarray
    events: Mapping[str, np.ndarray]
    synops: np.ndarray
    beyond: Mapping[str, np.ndarray]
    rasters: Mapping[str, np.ndarray]

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
        return cls(m, h, y, events, synops, beyond, batches[0].rasters)


class Pipeline:
    """Runs batches one after the other; their order decides which numbers each draws.

    Parameters
    ----------
    chips : sequence of SpikingNetwork
        One network on several virtual chips; all alike but for mismatch and weights.
    samples, steps : int
        Of all batches together, on each chip.
    seed : int
    progress : callable, optional
    """

    def __init__(
        self,
        chips: Sequence[SpikingNetwork],
        samples: int,
        steps: int,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.network, self.samples, self.steps = chips[0], samples, steps
        self.progress = progress
        self.memories: dict[str, list[SpikingMemory]] = {}
        for number, memories in enumerate(zip(*(c.memories for c in chips), strict=True)):
            present = [memory for memory in memories if memory is not None]
            if present:
                self.memories[f"layer{number}/memory"] = present
        numbered = list(enumerate(self.memories))
        self.starts = {name: np.random.default_rng([seed, number]) for number, name in numbered}
        self.noise = {name: np.random.default_rng([seed, number, 1]) for number, name in numbered}
        self.units = [chip.units for chip in chips if chip.units is not None]
        self.unit_starts = np.random.default_rng([seed, len(numbered), 2])
        self.chips, self._holds_done = len(chips), 0

    def run(self, inputs: np.ndarray) -> Batch:
        """Run the next batch on every chip; inputs of shape (samples, steps, n_in)."""
        signal = np.tile(inputs, (self.chips, 1, 1))
        m, h = [signal[:, :, :0]], [signal[:, :, :0]]
        activities, first, units = {}, not self._holds_done, None
        beyond: dict[str, np.ndarray] = {}
        for number, layer in enumerate(self.network.host.layers):
            if isinstance(layer, LSTMLayer):
                signal = run_lstm(layer, signal)
                h.append(signal)
                continue
            name = f"layer{number}/memory"
            if self.units and layer is self.network.host.layers[-1]:
                kept = first and self._raster_size(self.units) <= _LARGEST_RASTER
                starts = self.unit_starts
                units = Units(self.network, self.units, layer, signal, starts, rasters=kept)
            host, activities[name] = self._run_layer(name, layer, signal, first, units)
            beyond[f"{name}/state"] = self._beyond(name, host.m)
            m.append(host.m)
            h.append(host.h if units is None else units.h)
            signal = host.output
        readout = self.network.host.readout
        y = signal @ readout.kernel.astype(np.float64) if units is None else units.y
        y = y if readout.bias is None else y + readout.bias
        synops = self._synops(activities)
        if units is not None:
            synops += self._synops_of_units(units, activities[name])
            activities[name.replace("memory", "hidden")] = units.activity()
        shape = (self.chips, *inputs.shape[:2], -1)
        return Batch(
            m=np.concatenate(m, axis=2).reshape(shape),
            h=np.concatenate(h, axis=2).reshape(shape),
            y=y.reshape(shape),
            events={name: activity.counts for name, activity in activities.items()},
            synops=synops,
            beyond=beyond,
            rasters={n: a.rasters for n, a in activities.items() if a.rasters is not None},
        )

    def _run_layer(
        self, name: str, layer: LMULayer, signal: np.ndarray, first: bool, units: Units | None
    ) -> tuple[HostLayer, Activity]:
        memories, host = self.memories[name], HostLayer(layer, signal)
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
            starts=self.starts[name],
            noise_seed=int(self.noise[name].integers(2**31)),
            rasters=first and self._raster_size(memories) <= _LARGEST_RASTER,
            units=units,
        )
        return host, activity

    def _beyond(self, name: str, m: np.ndarray) -> np.ndarray:
        by_chip = np.abs(m.reshape(self.chips, -1, m.shape[2]))
        ranges = np.stack([memory.scales.reshape(-1) for memory in self.memories[name]])
        return np.count_nonzero(by_chip > CALIBRATION_MARGIN * ranges[:, None], axis=(1, 2))

    def _synops(self, activities: Mapping[str, Activity]) -> np.ndarray:
        synops = np.zeros(self.chips, np.int64)
        for name, activity in activities.items():
            for chip, memory in enumerate(self.memories[name]):
                synops[chip] += activity.by_neuron[chip] @ memory.synapses
        return synops

    def _synops_of_units(self, units: Units, memory: Activity) -> np.ndarray:
        """Count what the memory's spikes do to units, and theirs to the answers."""
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

    def _report(self, samples: int) -> None:
        """Count holds of all memories, told as whole samples."""
        self._holds_done += samples
        if self.progress:
            per_sample = self.steps * len(self.memories)
            self.progress(self._holds_done // per_sample, self.samples)
