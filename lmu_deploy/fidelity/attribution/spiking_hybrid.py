r"""A spiking network in NumPy, each of whose memories can be ideal; what its spikes lack, measured.

A memory that spikes runs as spiking_network.py says: its synapses are the Brian2 target's own and
its neurons draw what Brian2 draws, so its states are that target's with ``==`` (a batch of the
target holds all samples here). An ideal memory has :math:`S^{-1} A' S x` in the place of
W s / dt: with all ideal the network is the float one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from converters.spiking.neurons import NEURONS, Neurons
from lmu_deploy.network import LSTMLayer
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.brian2.synapses import Boundary, Synapses
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
    """The numbers that the Brian2 target draws for one memory: where membranes start, then noise.

    Stands in for a NumPy generator. The noise comes from NumPy's old generator, as in Brian2.

    Parameters
    ----------
    seed : int
        Of the run.
    number : int
        Which memory of the network.
    """

    def __init__(self, seed: int, number: int) -> None:
        self._starts = np.random.default_rng([seed, number])
        noise_seed = int(np.random.default_rng([seed, number, 1]).integers(2**31))
        self._noise = np.random.RandomState(noise_seed)
        self._started = False

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
    signal, states, memories = inputs, [], 0
    for number, layer in enumerate(network.host.layers):
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            continue
        memory = network.memories[number]
        assert memory is not None
        host = HostLayer(layer, signal)
        if number in spiking:
            seen = None if observe is None else _seen(observe, number)
            _run_spiking(network, memory, host, Draws(seed, memories), seen)
        else:
            _run_ideal(network, memory, host)
        states.append(host.m)
        signal, memories = host.output, memories + 1
    readout = network.host.readout
    y = signal @ readout.kernel.astype(np.float64)
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
    draws: Draws,
    observe: Callable[[np.ndarray, np.ndarray], None] | None,
) -> None:
    samples, steps, _ = host.m.shape
    rng = cast(np.random.Generator, draws)  # of which neurons use these two methods
    neurons: Neurons = NEURONS[network.neuron.kind](
        memory.populations, network.neuron, network.device, network.dt_ms, samples, rng, np.float64
    )
    boundary = Boundary(host.channels, host.observe)
    synapses = Synapses(network, [memory], boundary, samples, steps, rasters=False)
    x = np.zeros((samples, memory.states))
    for _ in range(steps * network.steps_per_hold):
        spikes = neurons.step(x)
        if observe is not None:
            observe(x, spikes)
        synapses.advance(x.reshape(-1), np.flatnonzero(spikes))


def _run_ideal(network: SpikingNetwork, memory: SpikingMemory, host: HostLayer) -> None:
    decay, drive = network.decay, ideal_drive(memory)
    x = np.zeros((len(host.m), memory.states))
    for step in range(host.m.shape[1]):
        entering = (host.channels(step)[:, :, None] * memory.scaled_input).reshape(x.shape)
        for _ in range(network.steps_per_hold):
            x = decay * x + (1.0 - decay) * (drive(x) + entering)
        host.observe(step, x * memory.scales.reshape(-1))
