"""One memory on Brian2: all populations of many samples in a single group of neurons.

Encoding is part of the neurons' equation (each reads its state through a linked variable).
Decoding, the synapse and the input are a sparse matrix product in a network operation between
threshold and reset, which is the order that spiking_network.py's equations have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.brian2.library import brian2_library
from targets.brian2.neurons import namespace, start, words


@dataclass(frozen=True)
class Boundary:
    """Where host and chip meet, once for each hold.

    Attributes
    ----------
    channels : callable
        Gives the memory's input for a step, shape (samples, channels).
    observe : callable
        Takes (step, states at its end), shape (samples, states).
    """

    channels: Callable[[int], np.ndarray]
    observe: Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Activity:
    """Spikes of a batch.

    Attributes
    ----------
    counts : ndarray, shape (samples, steps), int64
    by_neuron : ndarray, shape (neurons,), int64
        All samples together.
    raster : ndarray, shape (chip_steps, neurons), uint8, or None
        Sample 0.
    """

    counts: np.ndarray
    by_neuron: np.ndarray
    raster: np.ndarray | None


def run_memory(
    network: SpikingNetwork,
    memory: SpikingMemory,
    boundary: Boundary,
    samples: int,
    steps: int,
    starts: np.random.Generator,
    noise_seed: int,
    raster: bool = False,
) -> Activity:
    """Simulate `memory` for a batch.

    Parameters
    ----------
    network : SpikingNetwork
        Its times, neuron model and noise.
    memory : SpikingMemory
    boundary : Boundary
    samples, steps : int
    starts : Generator
        Draws where membranes start, sample after sample.
    noise_seed : int
    raster : bool
        Keep the spikes of sample 0.
    """
    b2 = brian2_library()
    clock = b2.Clock(dt=network.dt_ms * b2.ms, name="lmu_clock")
    states = b2.NeuronGroup(
        samples * memory.states, "x : 1", clock=clock, name="lmu_states", namespace={}
    )
    neurons = _neuron_group(b2, network, memory, states, samples, clock, starts)
    operation = _Synapses(network, memory, boundary, samples, steps, raster)
    x = states.variables["x"].get_value()

    def synapses() -> None:
        operation.advance(x, neurons.spikes)

    update = b2.NetworkOperation(synapses, clock=clock, when="synapses", name="lmu_synapses")
    simulation = b2.Network(states, neurons, update)
    generator_state = np.random.get_state()  # noqa: NPY002 - Brian2 seeds and uses this one
    try:
        b2.seed(noise_seed)
        simulation.run(steps * network.hold_ms * b2.ms, namespace={})
    finally:
        np.random.set_state(generator_state)  # noqa: NPY002
    return operation.activity()


def _neuron_group(
    b2: Any,
    network: SpikingNetwork,
    memory: SpikingMemory,
    states: Any,
    samples: int,
    clock: Any,
    starts: np.random.Generator,
) -> Any:
    model = words(network)
    group = b2.NeuronGroup(
        samples * memory.neurons,
        model.equations,
        method=model.method,
        threshold=model.threshold,
        reset=model.reset,
        refractory=network.neuron.refractory_ms * b2.ms or False,
        clock=clock,
        namespace=namespace(network, b2),
        name="lmu_neurons",
    )
    group.slope = np.tile(memory.populations.slopes.reshape(-1), samples)
    group.offset = np.tile(memory.populations.offsets.reshape(-1), samples)
    source = np.repeat(np.arange(samples * memory.states), memory.populations.neurons)
    group.x = b2.linked_var(states, "x", index=source)
    membranes = starts.random((samples, memory.neurons)).reshape(-1)
    start(network, group, membranes, b2)
    return group


class _Synapses:
    """The network operation: spikes through W, the input, the synapse, and what is recorded."""

    def __init__(
        self,
        network: SpikingNetwork,
        memory: SpikingMemory,
        boundary: Boundary,
        samples: int,
        steps: int,
        raster: bool,
    ) -> None:
        self.memory, self.boundary, self.samples = memory, boundary, samples
        self.decay, self.hold = network.decay, network.steps_per_hold
        per_channel = memory.weights.shape[2]
        self.rows = np.arange(samples * memory.channels + 1) * per_channel
        per_spike = 1.0 / (network.dt_ms * 1e-3)
        self.effects = (memory.weights * per_spike).transpose(0, 2, 1).reshape(-1, memory.order)
        self.step = 0
        self.input = np.zeros((samples * memory.channels, memory.order))
        self.counts = np.zeros((samples, steps), dtype=np.int64)
        self.by_neuron = np.zeros(memory.neurons, dtype=np.int64)
        chip_steps = steps * self.hold
        self.raster = np.zeros((chip_steps, memory.neurons), np.uint8) if raster else None

    def advance(self, x: np.ndarray, spikes: np.ndarray) -> None:
        """Move the states `x` (flat; written in place) over one step of the simulation."""
        memory, (hold, part) = self.memory, divmod(self.step, self.hold)
        if part == 0:
            u = self.boundary.channels(hold)
            self.input = (u[:, :, None] * memory.scaled_input).reshape(self.input.shape)
        bounds = np.searchsorted(spikes, self.rows)
        neuron = spikes % memory.neurons
        shape = (len(self.rows) - 1, memory.neurons)
        drive = csr_array((np.ones(len(spikes)), neuron, bounds), shape=shape) @ self.effects
        now = x.reshape(self.input.shape)
        now *= self.decay
        now += (1.0 - self.decay) * (drive + self.input)

        self.by_neuron += np.bincount(neuron, minlength=memory.neurons)
        self.counts[:, hold] += np.diff(bounds[:: memory.channels])
        if self.raster is not None:
            self.raster[self.step, spikes[: bounds[memory.channels]]] = 1
        self.step += 1
        if part == self.hold - 1:
            self.boundary.observe(hold, x.reshape(self.samples, -1) * memory.scales.reshape(-1))

    def activity(self) -> Activity:
        return Activity(self.counts, self.by_neuron, self.raster)
