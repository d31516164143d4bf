"""One memory on Brian2: all populations of many samples, on many chips, in one group of neurons.

Encoding is part of the neurons' equation (each reads its state through a linked variable).
Decoding, the synapse and the input are one network operation; see synapses.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.brian2.library import brian2_library
from targets.brian2.neurons import namespace, start, words
from targets.brian2.synapses import Activity, Boundary, Synapses


def run_memory(
    network: SpikingNetwork,
    memories: Sequence[SpikingMemory],
    boundary: Boundary,
    samples: int,
    steps: int,
    starts: np.random.Generator,
    noise_seed: int,
    rasters: bool = False,
) -> Activity:
    """Simulate a memory for a batch, on each of several chips.

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
    """
    b2 = brian2_library()
    clock = b2.Clock(dt=network.dt_ms * b2.ms, name="lmu_clock")
    count = len(memories) * samples * memories[0].states
    states = b2.NeuronGroup(count, "x : 1", clock=clock, name="lmu_states", namespace={})
    neurons = _neuron_group(b2, network, memories, states, samples, clock, starts)
    operation = Synapses(network, memories, boundary, samples, steps, rasters)
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
    memories: Sequence[SpikingMemory],
    states: Any,
    samples: int,
    clock: Any,
    starts: np.random.Generator,
) -> Any:
    model, memory = words(network), memories[0]
    group = b2.NeuronGroup(
        len(memories) * samples * memory.neurons,
        model.equations,
        method=model.method,
        threshold=model.threshold,
        reset=model.reset,
        refractory=network.neuron.refractory_ms * b2.ms if network.neuron.refractory_ms else False,
        clock=clock,
        namespace=namespace(network, b2),
        name="lmu_neurons",
    )
    group.slope = _for_samples([m.populations.slopes for m in memories], samples)
    group.offset = _for_samples([m.populations.offsets for m in memories], samples)
    source = np.repeat(np.arange(len(states)), memory.populations.neurons)
    group.x = b2.linked_var(states, "x", index=source)
    membranes = starts.random((samples, memory.neurons)).reshape(-1)
    start(network, group, np.tile(membranes, len(memories)), b2)
    return group


def _for_samples(by_chip: list[np.ndarray], samples: int) -> np.ndarray:
    """Repeat each chip's values for its samples; flat."""
    return np.concatenate([np.tile(values.reshape(-1), samples) for values in by_chip])
