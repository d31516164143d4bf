"""A batch through all layers: memories on the chip, everything else on the host."""

from __future__ import annotations

import numpy as np

from lmu_deploy.network import LMULayer, LSTMLayer
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.base import Progress
from targets.brian2.chip import Boundary, run_memory
from targets.host import HostLayer, run_lstm

_LARGEST_RASTER = 50_000_000


class Pipeline:
    """Runs batches one after the other and gathers what they did.

    Parameters
    ----------
    network : SpikingNetwork
    samples, steps : int
        Of all batches together.
    seed : int
    progress : callable, optional

    Attributes
    ----------
    events : mapping of population to ndarray, shape (samples, steps), int64
    rasters : mapping of population to ndarray, shape (chip_steps, neurons), uint8
        Of sample 0; left out where it would take more than 50 MB.
    synops : int
    """

    def __init__(
        self,
        network: SpikingNetwork,
        samples: int,
        steps: int,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.network, self.samples, self.steps = network, samples, steps
        self.progress = progress
        self.memories = {
            f"layer{number}/memory": memory
            for number, memory in enumerate(network.memories)
            if memory is not None
        }
        numbered = list(enumerate(self.memories))
        self.starts = {name: np.random.default_rng([seed, number]) for number, name in numbered}
        self.noise = {name: np.random.default_rng([seed, number, 1]) for number, name in numbered}
        self.events = {name: np.zeros((samples, steps), np.int64) for name in self.memories}
        self.rasters: dict[str, np.ndarray] = {}
        self.synops = 0
        self._holds_done = 0

    def run(self, inputs: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run one batch.

        Parameters
        ----------
        inputs : ndarray, shape (samples, steps, n_in)
        first : int
            Number of its first sample among all.

        Returns
        -------
        m, h, y : ndarray, shape (samples, steps, states | units | n_out)
            As :class:`targets.base.States` orders them.
        """
        signal = inputs
        m, h = [inputs[:, :, :0]], [inputs[:, :, :0]]
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
        return np.concatenate(m, axis=2), np.concatenate(h, axis=2), y

    def _run_layer(self, name: str, layer: LMULayer, signal: np.ndarray, first: int) -> HostLayer:
        memory, host = self.memories[name], HostLayer(layer, signal)

        def observe(step: int, states: np.ndarray) -> None:
            host.observe(step, states)
            self._report(len(signal))

        activity = run_memory(
            self.network,
            memory,
            Boundary(host.channels, observe),
            samples=len(signal),
            steps=self.steps,
            starts=self.starts[name],
            noise_seed=int(self.noise[name].integers(2**31)),
            raster=first == 0 and self._raster_size(memory) <= _LARGEST_RASTER,
        )
        self.events[name][first : first + len(signal)] = activity.counts
        self.synops += int(activity.by_neuron @ memory.synapses)
        if activity.raster is not None:
            self.rasters[name] = activity.raster
        return host

    def _raster_size(self, memory: SpikingMemory) -> int:
        return memory.neurons * self.steps * self.network.steps_per_hold

    def _report(self, samples: int) -> None:
        """Count holds of all memories, told as whole samples."""
        self._holds_done += samples
        if self.progress:
            per_sample = self.steps * len(self.memories)
            self.progress(self._holds_done // per_sample, self.samples)
