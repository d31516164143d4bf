r"""A spiking network in NumPy, each of whose memories can be ideal; what its spikes lack, measured.

A memory that spikes runs as spiking_network.py says: its synapses are the Brian2 target's own and
its neurons draw what Brian2 draws, so its states are that target's with ``==`` (a batch of the
target holds all samples here). An ideal memory has :math:`S^{-1} A' S x` in the place of
W s / dt: with all ideal the network is the float one. Units on neurons read their layer's memory,
so they spike where that does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.spiking.neurons import NEURONS, Neurons
from lmu_deploy.network import LSTMLayer
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.brian2.synapses import Boundary, Synapses
from targets.brian2.units import Units
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


class Draws:
    """The numbers that the Brian2 target draws for neurons: where membranes start, then noise.

    Stands in for a NumPy generator. The noise comes from NumPy's old generator, as in Brian2, and
    a memory and the units that read it draw it in turn.

    Parameters
    ----------
    starts : Generator
    noise : RandomState
    """

    def __init__(self, starts: np.random.Generator, noise: np.random.RandomState) -> None:
        self._starts, self._noise, self._started = starts, noise, False

    def random(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """Draw membranes the first time, chances of Poisson spikes after that; always float64."""
        if self._started:
            return np.asarray(self._noise.random_sample(shape))
        self._started = True
        return self._starts.random(shape)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the noise of membranes."""
        return np.asarray(self._noise.standard_normal(shape))


def run_hybrid(
    network: SpikingNetwork,
    inputs: np.ndarray,
    spiking: Collection[int],
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
    seed : int
        Of where membranes start and of noise, as in the Brian2 target.
    observe : callable, optional
        Sees every step of the memories that spike.
    """
    signal, states, memories = inputs, list[np.ndarray](), 0
    units: Units | None = None
    for number, layer in enumerate(network.host.layers):
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            continue
        memory = network.memories[number]
        assert memory is not None
        host = HostLayer(layer, signal)
        if number in spiking:
            seen = None if observe is None else _seen(observe, number)
            if network.units is not None and layer is network.host.layers[-1]:
                starts = np.random.default_rng([seed, memories + 1, 2])
                units = Units(network, [network.units], layer, signal, starts)
            _run_spiking(network, memory, host, (seed, memories), seen, units)
        else:
            _run_ideal(network, memory, host)
        states.append(host.m)
        signal, memories = host.output, memories + 1
    readout = network.host.readout
    y = signal @ readout.kernel.astype(np.float64) if units is None else units.y
    return Outcome(states, y if readout.bias is None else y + readout.bias)


def ideal_drive(memory: SpikingMemory) -> Callable[[np.ndarray], np.ndarray]:
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


def _seen(observe: Observer, number: int) -> Callable[[np.ndarray, np.ndarray], None]:
    return lambda x, spikes: observe(number, x, spikes)


def _run_spiking(
    network: SpikingNetwork,
    memory: SpikingMemory,
    host: HostLayer,
    seeds: tuple[int, int],
    observe: Callable[[np.ndarray, np.ndarray], None] | None,
    units: Units | None,
) -> None:
    samples, steps, _ = host.m.shape
    noise = np.random.RandomState(int(np.random.default_rng([*seeds, 1]).integers(2**31)))
    of_chip = (network.neuron, network.device, network.dt_ms, samples)
    kind = NEURONS[network.neuron.kind]
    draws: Any = Draws(np.random.default_rng(seeds), noise)  # neurons use two of its methods
    neurons: Neurons = kind(memory.populations, *of_chip, draws, np.float64)
    firing: Neurons | None = None
    if units is not None:
        draws = Draws(units.starts, noise)
        firing = kind(units.units[0].populations, *of_chip, draws, np.float64)
    boundary = Boundary(host.channels, host.observe)
    synapses = Synapses(network, [memory], boundary, samples, steps, rasters=False)
    x = np.zeros((samples, memory.states))
    for _ in range(steps * network.steps_per_hold):
        spikes = neurons.step(x)
        own = None if units is None or firing is None else firing.step(units.shown)
        if observe is not None:
            observe(x, spikes)
        synapses.advance(x.reshape(-1), np.flatnonzero(spikes))
        if units is not None and own is not None:
            units.advance(synapses.u, synapses.fired(), np.flatnonzero(own))


def _run_ideal(network: SpikingNetwork, memory: SpikingMemory, host: HostLayer) -> None:
    decay, drive = network.decay, ideal_drive(memory)
    x = np.zeros((len(host.m), memory.states))
    for step in range(host.m.shape[1]):
        entering = (host.channels(step)[:, :, None] * memory.scaled_input).reshape(x.shape)
        for _ in range(network.steps_per_hold):
            x = decay * x + (1.0 - decay) * (drive(x) + entering)
        host.observe(step, x * memory.scales.reshape(-1))
