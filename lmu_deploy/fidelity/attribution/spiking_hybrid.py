r"""A spiking network in NumPy, each of whose memories can be ideal; what its spikes lack, measured.

A memory that spikes runs as spiking_network.py says and gives the Brian2 target's states. An ideal
one has :math:`S^{-1} A' S x` in the place of W s / dt: with all ideal the network is the float one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.neurons import NEURONS
from lmu_deploy.network import LSTMLayer
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.host import HostLayer, run_lstm

Observer = Callable[[int, np.ndarray, np.ndarray], None]
"""Takes a layer's number, x before a step of the simulation, (samples, states), and its spikes,
(samples, states, neurons)."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes
    ----------
    m : list of ndarray, shape (samples, steps, states)
        Of each memory.
    y : ndarray, shape (samples, steps, n_out)
    """

    m: list[np.ndarray]
    y: np.ndarray


def run_hybrid(
    network: SpikingNetwork,
    inputs: np.ndarray,
    spiking: Collection[int],
    noise: bool = True,
    seed: int = 0,
    observe: Observer | None = None,
) -> Outcome:
    """Run a network of which only some memories spike.

    Parameters
    ----------
    network : SpikingNetwork
        With synapses that are linear filters.
    inputs : ndarray, shape (samples, steps, n_in)
    spiking : collection of int
        Numbers of the layers whose memory spikes.
    noise : bool
        Whether membranes are as noisy as the device says.
    seed : int
        Of where membranes start, as in the Brian2 target.
    observe : callable, optional
        Sees every step of the memories that spike.
    """
    signal, states, memories = inputs, [], 0
    for number, layer in enumerate(network.host.layers):
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            continue
        memory = network.memories[number]
        assert memory is not None
        host, x = HostLayer(layer, signal), np.zeros((len(signal), memory.states))
        rng = np.random.default_rng([seed, memories])
        drive = ideal_drive(memory)
        if number in spiking:
            drive = _spiking_drive(network, memory, len(signal), noise, rng, number, observe)
        _run(network, memory, host, x, drive)
        states.append(host.m)
        signal, memories = host.output, memories + 1
    readout = network.host.readout
    y = signal @ readout.kernel.astype(np.float64)
    return Outcome(states, y if readout.bias is None else y + readout.bias)


Drive = Callable[[np.ndarray], np.ndarray]


def ideal_drive(memory: SpikingMemory) -> Drive:
    """Give the map from scaled states, (samples, states), to what W s / dt is meant to be."""
    order, matrix = memory.order, np.zeros((memory.states, memory.states))
    for channel, scales in enumerate(memory.scales):
        block = slice(channel * order, (channel + 1) * order)
        matrix[block, block] = (memory.recurrent * scales[None, :] / scales[:, None]).T
    return lambda x: x @ matrix


def effects(memory: SpikingMemory, dt_ms: float) -> np.ndarray:
    """Give what a spike adds to the drive; (channels, order, neurons, order), source first."""
    shape = (memory.channels, memory.order, memory.order, memory.populations.neurons)
    return np.asarray(memory.weights.reshape(shape).transpose(0, 2, 3, 1) / (dt_ms * 1e-3))


def _spiking_drive(
    network: SpikingNetwork,
    memory: SpikingMemory,
    samples: int,
    noise: bool,
    rng: np.random.Generator,
    number: int,
    observe: Observer | None,
) -> Drive:
    device = network.device if noise else replace(network.device, membrane_noise=0.0)
    make, dt_ms = NEURONS[network.neuron.kind], network.dt_ms
    neurons = make(memory.populations, network.neuron, device, dt_ms, samples, rng, np.float64)
    columns = effects(memory, dt_ms).reshape(memory.channels, -1, memory.order)

    def drive(x: np.ndarray) -> np.ndarray:
        spikes = neurons.step(x)
        if observe is not None:
            observe(number, x, spikes)
        by_channel = spikes.reshape(samples, memory.channels, -1).transpose(1, 0, 2)
        return np.asarray((by_channel @ columns).transpose(1, 0, 2).reshape(x.shape))

    return drive


def _run(
    network: SpikingNetwork,
    memory: SpikingMemory,
    host: HostLayer,
    x: np.ndarray,
    drive: Drive,
) -> None:
    decay = network.decay
    for step in range(host.m.shape[1]):
        u = host.channels(step)
        entering = (u[:, :, None] * memory.scaled_input).reshape(x.shape)
        for _ in range(network.steps_per_hold):
            x = decay * x + (1.0 - decay) * (drive(x) + entering)
        host.observe(step, x * memory.scales.reshape(-1))
