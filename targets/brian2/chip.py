"""One memory on Brian2: all populations of many samples, on many chips, in one group of neurons.

The last layer's units are a second group, which reads drives in the place of states.

Encoding is part of the neurons' equation (each reads its state through a linked variable).
Decoding, the synapse and the input are one network operation; see synapses.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmu_deploy.spiking_chip import Populations
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.brian2.library import brian2_library
from targets.brian2.neurons import Curves, neuron_group
from targets.brian2.synapses import Activity, Boundary, Synapses
from targets.brian2.units import Units


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
        simulation.run(steps * network.hold_ms * b2.ms, namespace={})
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
