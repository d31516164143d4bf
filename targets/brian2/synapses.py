"""Synapses of many copies of a memory, and of the units of the last layer, with their records.

Brian2 runs them in one network operation per step, between threshold and reset, which is the order
of the equations in :mod:`lmu_deploy.core.spiking.network`.
Copies are ordered chip by chip, and sample by sample on each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.reference import activate
from lmu_deploy.core.spiking.chip import DPISynapse
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork, SpikingUnits


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
    counted : ndarray, shape (chips, first samples, steps, neurons), uint16
        Events of every neuron.
    """

    counts: np.ndarray
    by_neuron: np.ndarray
    rasters: np.ndarray | None
    counted: np.ndarray


def count(
    counted: np.ndarray,
    samples: int,
    step: int,
    neuron: np.ndarray,
    ends: np.ndarray,
) -> None:
    """Count the spikes of every neuron in the first samples of each chip.

    Parameters
    ----------
    counted : ndarray, shape (chips, first samples, steps, neurons)
    samples, step : int
        Samples of each chip, and the presentation.
    neuron : ndarray of int
        Neurons that spiked, of one copy behind those of the other.
    ends : ndarray of int, shape (copies + 1,)
        Where those of each copy begin and end.
    """
    first = counted.shape[1]
    for chip in range(len(counted) if first else 0):
        own = ends[chip * samples : chip * samples + first + 1]
        sample = np.repeat(np.arange(first), np.diff(own))
        counted[chip, sample, step, neuron[own[0] : own[-1]]] += 1


class SpikeMatrix:
    """Spikes of one step as a sparse matrix, filled again at every step.

    The arrays of one matrix are replaced, because a new one is first checked and converted, which
    takes longer than its product.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._matrix = csr_array((rows, columns))

    def filled(self, column: np.ndarray, ends: np.ndarray) -> csr_array:
        """Return the matrix with a one at every spike.

        Parameters
        ----------
        column : ndarray of int64, shape (spikes,)
            Columns, row after row and ascending in each.
        ends : ndarray of int64, shape (rows + 1,)
            Spikes before each row, and all of them.
        """
        matrix = self._matrix
        matrix.data, matrix.indices, matrix.indptr = np.ones(len(column)), column, ends
        return matrix


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
    counted : int
        Number of first samples in which the spikes of every neuron are counted.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        memories: Sequence[SpikingMemory],
        boundary: Boundary,
        samples: int,
        steps: int,
        rasters: bool,
        counted: int = 0,
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
        self._spikes = SpikeMatrix(rows, self.chips * self.memory.neurons)
        self._fired = SpikeMatrix(self.copies, self.chips * self.memory.neurons)
        self._last = np.zeros(0, np.int64), np.zeros(self.copies + 1, np.int64)
        self.counts = np.zeros((self.copies, steps), dtype=np.int64)
        self.by_neuron = np.zeros(self.chips * self.memory.neurons, dtype=np.int64)
        shape = (self.chips, steps * self.presentation_steps, self.memory.neurons)
        self.rasters = np.zeros(shape, np.uint8) if rasters else None
        self.counted = np.zeros((self.chips, counted, steps, self.memory.neurons), np.uint16)

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
        drive = self._spikes.filled(column, ends) @ self.effects
        self.filter.advance(x.reshape(len(drive), -1), drive + self.input)

        self.by_neuron += np.bincount(column, minlength=len(self.by_neuron))
        of_copies = ends[:: self.memory.channels]
        self._last = column, of_copies
        self.counts[:, presentation] += np.diff(of_copies)
        count(self.counted, self.samples, presentation, neuron, of_copies)
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
        return self._fired.filled(*self._last)

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
            self.counted,
        )


class Units:
    """Drives and outputs of many copies of the units on several chips.

    Parameters
    ----------
    network : SpikingNetwork
        Times.
    units : sequence of SpikingUnits
        One for each chip, of the same shape.
    layer : LMULayer
        The last layer.
    signal : ndarray, shape (copies, steps, n_in)
        Its inputs.
    starts : Generator
        Draws initial membranes, sample after sample, the same on every chip.
    rasters : bool
        Record the spikes of each chip's sample 0.
    counted : int
        As of :class:`Synapses`.

    Attributes
    ----------
    shown : ndarray, shape (copies, units)
        Drives of the neurons: z + i.
    h : ndarray, shape (copies, steps, units)
        f(Z(z + i)) at the end of each presentation.
    y : ndarray, shape (copies, steps, n_out)
        Outputs at the end of each presentation, without the readout's bias.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        units: Sequence[SpikingUnits],
        layer: LMULayer,
        signal: np.ndarray,
        starts: np.random.Generator,
        rasters: bool = False,
        counted: int = 0,
    ) -> None:
        self.units, self.layer, self.signal, self.starts = list(units), layer, signal, starts
        first, (copies, steps, _) = units[0], signal.shape
        self.samples, self.presentation_steps = copies // len(units), network.steps_per_presentation
        self.decay = network.decay
        self.readout_decay = float(np.exp(-network.dt_ms / first.tau_ms))
        per_spike = 1.0 / (network.dt_ms * 1e-3)
        self.drive = np.concatenate([one.drive.T for one in units]) * per_spike
        self.decoders = np.concatenate([one.decoders.T for one in units]) * per_spike
        self.z = np.zeros((copies, first.units))
        self.answer = np.zeros((copies, len(first.decoders)))
        self.h = np.zeros((copies, steps, first.units))
        self.y = np.zeros((copies, steps, len(first.decoders)))
        self._spikes = SpikeMatrix(copies, len(self.decoders))
        self.counts = np.zeros((copies, steps), dtype=np.int64)
        self.by_neuron = np.zeros(len(units) * first.neurons, dtype=np.int64)
        shape = (len(units), steps * self.presentation_steps, first.neurons)
        self.rasters = np.zeros(shape, np.uint8) if rasters else None
        self.counted = np.zeros((len(units), counted, steps, first.neurons), np.uint16)
        self.step, self.entering = 0, self.z
        self.injected = self._injected(0)
        self.shown = self.injected.copy()

    def advance(self, u: np.ndarray, fired: csr_array, spikes: np.ndarray) -> None:
        """Advance by one simulation step.

        Parameters
        ----------
        u : ndarray, shape (copies, channels)
            Inputs of the memory during this presentation.
        fired : sparse array, shape (copies, chips * memory's neurons)
            The memory's spikes, those of each copy in the columns of its chip.
        spikes : ndarray of int
            Spiking neurons of the units, all copies, ascending.
        """
        presentation, part = divmod(self.step, self.presentation_steps)
        if part == 0:
            self.entering = self._entering(u)
        drive = fired @ self.drive + self.entering
        self.z = self.decay * self.z + (1.0 - self.decay) * drive
        neurons, copies = self.units[0].neurons, len(self.z)
        copy, neuron = np.divmod(spikes, neurons)
        column = copy // self.samples * neurons + neuron
        ends = np.searchsorted(spikes, np.arange(copies + 1) * neurons)
        own = self._spikes.filled(column, ends)
        decay = self.readout_decay
        self.answer = decay * self.answer + (1.0 - decay) * (own @ self.decoders)
        self.by_neuron += np.bincount(column, minlength=len(self.by_neuron))
        self.counts[:, presentation] += np.diff(ends)
        count(self.counted, self.samples, presentation, neuron, ends)
        if self.rasters is not None:
            for chip, first in enumerate(range(0, copies, self.samples)):
                self.rasters[chip, self.step, neuron[ends[first] : ends[first + 1]]] = 1
        self.step += 1
        if part == self.presentation_steps - 1:
            self._observe(presentation)
        self.shown[...] = self.z + self.injected

    def _observe(self, presentation: int) -> None:
        hidden = self.layer.hidden
        assert hidden is not None
        scales = np.repeat([one.scales for one in self.units], self.samples, axis=0)
        self.h[:, presentation] = activate(hidden.activation, (self.z + self.injected) * scales)
        self.y[:, presentation] = self.answer
        if presentation + 1 < self.signal.shape[1]:
            self.injected = self._injected(presentation + 1)

    def _injected(self, presentation: int) -> np.ndarray:
        x = self._by_chip(self.signal[:, presentation])
        found = [one.injected(self.layer, of) for one, of in zip(self.units, x, strict=True)]
        return np.concatenate(found)

    def _entering(self, u: np.ndarray) -> np.ndarray:
        """Return C u, each sample by itself, so that its last bits do not depend on the batch."""
        parts = zip(self.units, self._by_chip(u), strict=True)
        return np.concatenate([(of[:, None, :] @ one.input.T)[:, 0] for one, of in parts])

    def _by_chip(self, rows: np.ndarray) -> np.ndarray:
        return rows.reshape(len(self.units), self.samples, -1)

    def activity(self) -> Activity:
        """Return the records of the spikes."""
        return Activity(
            self.counts.reshape(len(self.units), self.samples, -1),
            self.by_neuron.reshape(len(self.units), -1),
            self.rasters,
            self.counted,
        )
