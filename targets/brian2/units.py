"""Units of the last layer and the readout: their synapses and records.

They advance in the same operation as the memory's synapses (synapses.py), from the same spikes. The
equations are those of :mod:`lmu_deploy.core.spiking.units`. Copies are ordered as the memory's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.reference import activate
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.spiking.units import SpikingUnits
from targets.brian2.synapses import Activity


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
        self.counts = np.zeros((copies, steps), dtype=np.int64)
        self.by_neuron = np.zeros(len(units) * first.neurons, dtype=np.int64)
        shape = (len(units), steps * self.presentation_steps, first.neurons)
        self.rasters = np.zeros(shape, np.uint8) if rasters else None
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
        own = csr_array((np.ones(len(spikes)), column, ends), shape=(copies, len(self.decoders)))
        decay = self.readout_decay
        self.answer = decay * self.answer + (1.0 - decay) * (own @ self.decoders)
        self.by_neuron += np.bincount(column, minlength=len(self.by_neuron))
        self.counts[:, presentation] += np.diff(ends)
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
        )
