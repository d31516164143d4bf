"""Synapses of many copies of a memory: decoding, filters, input, and records.

Brian2 runs this network operation once per step, between threshold and reset, which is the order of
the equations in :mod:`lmu_deploy.core.spiking.network`. Copies are ordered chip by chip, and sample
by sample on each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lmu_deploy.core.spiking.chip import DPISynapse
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork


@dataclass(frozen=True)
class Boundary:
    """Interface of host and chips, used once per presentation.

    Attributes
    ----------
    channels : callable
        Returns the memories' input for a task step, shape (copies, channels).
    observe : callable
        Receives (task step, states at its end), shape (copies, states).
    """

    channels: Callable[[int], np.ndarray]
    observe: Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Activity:
    """Spikes of a batch.

    Attributes
    ----------
    counts : ndarray, shape (chips, samples, steps), int64
    by_neuron : ndarray, shape (chips, neurons), int64
        Sum over all samples.
    rasters : ndarray, shape (chips, chip_steps, neurons), uint8, or None
        Events of sample 0 of each chip.
    """

    counts: np.ndarray
    by_neuron: np.ndarray
    rasters: np.ndarray | None


class LinearFilter:
    """First-order synapses; see :mod:`lmu_deploy.core.spiking.network`."""

    parts = 1

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def advance(self, x: np.ndarray, drive: np.ndarray) -> None:
        """Advance `x` in place; both shape (rows, order)."""
        x *= self.decay
        x += (1.0 - self.decay) * drive


class DPIFilter:
    """Pairs of DPI synapses; see :class:`lmu_deploy.core.spiking.chip.DPISynapse`."""

    parts = 2

    def __init__(self, decay: float, synapse: DPISynapse, rows: int, order: int) -> None:
        self.decay, self.synapse = decay, synapse
        self.current = np.full((rows, 2 * order), synapse.dark)

    def advance(self, x: np.ndarray, drive: np.ndarray) -> None:
        """Advance `x` in place, shape (rows, order); drives are excitatory, then inhibitory."""
        current, order = self.current, x.shape[1]
        share = (1.0 - self.decay) * current / (current + self.synapse.gain)
        current *= self.decay
        current += share * drive
        np.maximum(current, self.synapse.dark, out=current)
        np.subtract(current[:, :order], current[:, order:], out=x)


class Synapses:
    """Network operation: decoding by W, input, synapses, and records.

    Parameters
    ----------
    network : SpikingNetwork
        Times and synapses.
    memories : sequence of SpikingMemory
        One for each chip, of the same shape.
    boundary : Boundary
    samples, steps : int
        Samples of each chip, and task steps.
    rasters : bool
        Record the spikes of each chip's sample 0.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        memories: Sequence[SpikingMemory],
        boundary: Boundary,
        samples: int,
        steps: int,
        rasters: bool,
    ) -> None:
        self.memory, self.chips = memories[0], len(memories)
        self.boundary, self.samples, self.presentation_steps = (
            boundary,
            samples,
            network.steps_per_presentation,
        )
        channels, order, per_channel = self.memory.weights.shape
        self.copies = self.chips * samples
        rows = self.copies * channels
        self.bounds = np.arange(rows + 1) * per_channel
        self.filter: LinearFilter | DPIFilter = LinearFilter(network.decay)
        if network.synapse is not None:
            self.filter = DPIFilter(network.decay, network.synapse, rows, order)
        per_spike = 1.0 / (network.dt_ms * 1e-3)
        effects = np.concatenate([m.weights.transpose(0, 2, 1) for m in memories])
        self.effects = self._split(effects.reshape(-1, order) * per_spike)
        self.scaled_input = np.stack([m.scaled_input for m in memories])
        self.scales = np.stack([m.scales.reshape(-1) for m in memories])
        self.input = np.zeros((rows, self.effects.shape[1]))
        self.u = np.zeros((self.copies, channels))
        self.step = 0
        self._last = np.zeros(0, np.int64), np.zeros(self.copies + 1, np.int64)
        self.counts = np.zeros((self.copies, steps), dtype=np.int64)
        self.by_neuron = np.zeros(self.chips * self.memory.neurons, dtype=np.int64)
        shape = (self.chips, steps * self.presentation_steps, self.memory.neurons)
        self.rasters = np.zeros(shape, np.uint8) if rasters else None

    def advance(self, x: np.ndarray, spikes: np.ndarray) -> None:
        """Advance the states `x` (flat, in place) by one simulation step."""
        neurons, (presentation, part) = (
            self.memory.neurons,
            divmod(self.step, self.presentation_steps),
        )
        if part == 0:
            self.input = self._input(presentation)
        ends = np.searchsorted(spikes, self.bounds)
        copy, neuron = np.divmod(spikes, neurons)
        column = copy // self.samples * neurons + neuron
        shape = (len(self.bounds) - 1, self.chips * neurons)
        drive = csr_array((np.ones(len(spikes)), column, ends), shape=shape) @ self.effects
        self.filter.advance(x.reshape(len(drive), -1), drive + self.input)

        self.by_neuron += np.bincount(column, minlength=len(self.by_neuron))
        of_copies = ends[:: self.memory.channels]
        self._last = column, of_copies
        self.counts[:, presentation] += np.diff(of_copies)
        if self.rasters is not None:
            for chip, first in enumerate(range(0, self.copies, self.samples)):
                fired = neuron[of_copies[first] : of_copies[first + 1]]
                self.rasters[chip, self.step, fired] = 1
        self.step += 1
        if part == self.presentation_steps - 1:
            states = x.reshape(self.chips, self.samples, -1) * self.scales[:, None]
            self.boundary.observe(presentation, states.reshape(self.copies, -1))

    def fired(self) -> csr_array:
        """Return the spikes of the last step, shape (copies, chips * neurons)."""
        column, ends = self._last
        shape = (self.copies, self.chips * self.memory.neurons)
        return csr_array((np.ones(len(column)), column, ends), shape=shape)

    def _input(self, presentation: int) -> np.ndarray:
        self.u = self.boundary.channels(presentation)
        u = self.u.reshape(self.chips, self.samples, -1, 1)
        effect = u * self.scaled_input[:, None]
        return self._split(effect.reshape(-1, self.memory.order))

    def _split(self, effects: np.ndarray) -> np.ndarray:
        """Return effects by synapse: one linear, or a pair of DPIs."""
        if self.filter.parts == 1:
            return effects
        return np.hstack([np.maximum(effects, 0.0), np.maximum(-effects, 0.0)])

    def activity(self) -> Activity:
        """Return the records."""
        return Activity(
            self.counts.reshape(self.chips, self.samples, -1),
            self.by_neuron.reshape(self.chips, -1),
            self.rasters,
        )
