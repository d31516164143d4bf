"""A batch through all layers: memories on the chips, everything else on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmu_deploy.network import LMULayer, LSTMLayer
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.base import Progress
from targets.brian2.chip import run_memory
from targets.brian2.synapses import Boundary
from targets.host import HostLayer, run_lstm

_LARGEST_RASTER = 50_000_000


class Pipeline:
    """Runs batches one after the other and gathers what they did.

    Parameters
    ----------
    chips : sequence of SpikingNetwork
        One network on several virtual chips; all alike but for mismatch and weights.
    samples, steps : int
        Of all batches together, on each chip.
    seed : int
    progress : callable, optional

    Attributes
    ----------
    events : mapping of population to ndarray, shape (chips, samples, steps), int64
    rasters : mapping of population to ndarray, shape (chips, chip_steps, neurons), uint8
        Of sample 0; left out where it would take more than 50 MB.
    synops : ndarray, shape (chips,), int64
    """

    def __init__(
        self,
        chips: Sequence[SpikingNetwork],
        samples: int,
        steps: int,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.network, self.samples, self.steps = chips[0], samples, steps
        self.progress = progress
        self.memories: dict[str, list[SpikingMemory]] = {}
        for number, memories in enumerate(zip(*(c.memories for c in chips), strict=True)):
            present = [memory for memory in memories if memory is not None]
            if present:
                self.memories[f"layer{number}/memory"] = present
        numbered = list(enumerate(self.memories))
        self.starts = {name: np.random.default_rng([seed, number]) for number, name in numbered}
        self.noise = {name: np.random.default_rng([seed, number, 1]) for number, name in numbered}
        shape = (len(chips), samples, steps)
        self.events = {name: np.zeros(shape, np.int64) for name in self.memories}
        self.rasters: dict[str, np.ndarray] = {}
        self.synops = np.zeros(len(chips), np.int64)
        self._holds_done = 0

    def run(self, inputs: np.ndarray, first: int) -> tuple[np.ndarray, ...]:
        """Run one batch on every chip.

        Parameters
        ----------
        inputs : ndarray, shape (samples, steps, n_in)
        first : int
            Number of its first sample among all.

        Returns
        -------
        m, h, y : ndarray, shape (chips, samples, steps, states | units | n_out)
            As :class:`targets.base.States` orders them.
        """
        chips = len(self.synops)
        signal = np.tile(inputs, (chips, 1, 1))
        m, h = [signal[:, :, :0]], [signal[:, :, :0]]
        for number, layer in enumerate(self.network.host.layers):
            if isinstance(layer, LSTMLayer):
                signal = run_lstm(layer, signal)
                h.append(signal)
                continue
            host = self._run_layer(f"layer{number}/memory", layer, signal, first)
            m.append(host.m)
            h.append(host.h)
            signal = host.output
        readout = self.network.host.readout
        y = signal @ readout.kernel.astype(np.float64)
        y = y if readout.bias is None else y + readout.bias
        arrays = (np.concatenate(m, axis=2), np.concatenate(h, axis=2), y)
        return tuple(a.reshape(chips, len(inputs), *a.shape[1:]) for a in arrays)

    def _run_layer(self, name: str, layer: LMULayer, signal: np.ndarray, first: int) -> HostLayer:
        memories, host = self.memories[name], HostLayer(layer, signal)
        samples = len(signal) // len(memories)

        def observe(step: int, states: np.ndarray) -> None:
            host.observe(step, states)
            self._report(samples)

        activity = run_memory(
            self.network,
            memories,
            Boundary(host.channels, observe),
            samples=samples,
            steps=self.steps,
            starts=self.starts[name],
            noise_seed=int(self.noise[name].integers(2**31)),
            rasters=first == 0 and self._raster_size(memories) <= _LARGEST_RASTER,
        )
        self.events[name][:, first : first + samples] = activity.counts
        self.synops += [
            fired @ memory.synapses
            for fired, memory in zip(activity.by_neuron, memories, strict=True)
        ]
        if activity.rasters is not None:
            self.rasters[name] = activity.rasters
        return host

    def _raster_size(self, memories: list[SpikingMemory]) -> int:
        chip_steps = self.steps * self.network.steps_per_hold
        return len(memories) * memories[0].neurons * chip_steps

    def _report(self, samples: int) -> None:
        """Count holds of all memories, told as whole samples."""
        self._holds_done += samples
        if self.progress:
            per_sample = self.steps * len(self.memories)
            self.progress(self._holds_done // per_sample, self.samples)
