r"""Which population of a spiking memory its calibration fits least, by fitting it anew alone.

On the trajectory that the network really takes, what the synapses get differs from what they should
by a residual r, filtered as the synapses filter,

.. math:: r = h * \big(S^{-1} A' S x - W s / dt\big).

W was fitted to all populations together, so no population has a right contribution of its own. But
one that has changed since leaves a residual that its own spikes explain:
:math:`\Delta W_j` is the ridge regression of r on population j's filtered spikes alone, over half
of the samples, and what it explains of the other half says how far j is to blame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.fidelity.attribution.spiking_hybrid import effects, ideal_drive, run_hybrid
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork

_RIDGE = 1e-3
_EVERY = 4


@dataclass(frozen=True)
class Blame:
    """One population.

    Attributes
    ----------
    layer, state : int
    explained : float
        Share of the squared residual of its channel that fitting it anew takes away, on samples
        that it was not fitted to; below zero where it does harm.
    change : ndarray, shape (order, neurons)
        To its columns of W, in seconds.
    """

    layer: int
    state: int
    explained: float
    change: np.ndarray


def blame_populations(network: SpikingNetwork, inputs: np.ndarray, seed: int = 0) -> list[Blame]:
    """Fit each population anew, all else as it is; the most to blame first.

    Parameters
    ----------
    network : SpikingNetwork
        With synapses that are linear filters.
    inputs : ndarray, shape (at least 2, steps, n_in)
        Samples of even number are fitted to, the others judge.
    seed : int
    """
    layers = {n: _Layer(network, m) for n, m in enumerate(network.memories) if m is not None}
    run_hybrid(network, inputs, layers, seed, lambda n, x, spikes: layers[n].take(x, spikes))
    found = [blame for number, layer in layers.items() for blame in layer.blames(number)]
    return sorted(found, key=lambda blame: -blame.explained)


def mended(network: SpikingNetwork, blame: Blame) -> SpikingNetwork:
    """Give the network with one population's columns of W fitted anew."""
    memory = network.memories[blame.layer]
    assert memory is not None
    channel, state = divmod(blame.state, memory.order)
    weights = memory.weights.copy()
    neurons = memory.populations.neurons
    weights[channel, :, state * neurons : (state + 1) * neurons] += blame.change
    memories = list(network.memories)
    memories[blame.layer] = replace(memory, weights=weights)
    return replace(network, memories=tuple(memories))


class _Layer:
    """Sums of products for every population's regression, gathered step by step."""

    def __init__(self, network: SpikingNetwork, memory: SpikingMemory) -> None:
        self.memory, self.decay, self.dt_ms = memory, network.decay, network.dt_ms
        self._ideal: Callable[[np.ndarray], np.ndarray] = ideal_drive(memory)
        self._effects = effects(memory, network.dt_ms)
        neurons, order = memory.populations.neurons, memory.order
        self._squares = np.zeros((2, memory.states, neurons, neurons))
        self._products = np.zeros((2, memory.states, neurons, order))
        self._power = np.zeros((2, memory.channels))
        self._step = 0

    def take(self, x: np.ndarray, spikes: np.ndarray) -> None:
        """Filter one step's spikes and residual, and add up their products now and then."""
        memory, samples = self.memory, len(x)
        shape = (samples, memory.channels, memory.order, memory.populations.neurons)
        fired = spikes.reshape(shape).astype(np.float64)
        given = np.einsum("scjn,cjni->sci", fired, self._effects, optimize=True)
        lacking = self._ideal(x).reshape(given.shape) - given
        if self._step == 0:
            self._filtered, self._residual = np.zeros_like(fired), np.zeros_like(lacking)
        self._filtered = self.decay * self._filtered + (1.0 - self.decay) * fired
        self._residual = self.decay * self._residual + (1.0 - self.decay) * lacking
        self._step += 1
        if self._step % _EVERY:
            return
        for half in range(2):
            features, wanted = self._filtered[half::2], self._residual[half::2]
            rows = features.reshape(len(features), memory.states, -1).transpose(1, 0, 2)
            per_state = np.repeat(wanted, memory.order, axis=1).transpose(1, 0, 2)
            self._squares[half] += rows.transpose(0, 2, 1) @ rows
            self._products[half] += rows.transpose(0, 2, 1) @ per_state
            self._power[half] += (wanted**2).sum(axis=(0, 2))

    def blames(self, number: int) -> list[Blame]:
        """Solve every population's regression."""
        found = []
        for state in range(self.memory.states):
            squares, products = self._squares[0, state], self._products[0, state]
            ridge = _RIDGE * max(float(np.trace(squares)) / len(squares), 1e-30)
            change = np.linalg.solve(squares + ridge * np.eye(len(squares)), products)
            judged, power = self._squares[1, state], self._power[1, state // self.memory.order]
            gained = 2.0 * np.sum(change * self._products[1, state])
            gained -= np.sum(change * (judged @ change))
            explained = float(gained / power) if power > 0 else 0.0
            found.append(Blame(number, state, explained, change.T * (self.dt_ms * 1e-3)))
        return found
