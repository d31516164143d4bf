"""A batch through all layers: each memory a compiled program, everything else on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmu_deploy.network import LMULayer, LSTMLayer
from lmu_deploy.spiking_chip import REACH
from lmu_deploy.spiking_network import SpikingNetwork
from targets.base import Progress
from targets.brian2.standalone.child import run_job
from targets.brian2.standalone.exchange import Job, Outcome
from targets.host import HostLayer, run_lstm

_LARGEST_RASTER = 50_000_000


@dataclass(frozen=True)
class Answers:
    """What all layers did.

    Attributes
    ----------
    m, h, y : ndarray, shape (samples, steps, states | units | n_out)
        As :class:`targets.base.States` orders them.
    outcomes : mapping of population to Outcome
    beyond : mapping of memory to int
        How often a state at the end of a hold was farther out than any that a calibration shows.
    """

    m: np.ndarray
    h: np.ndarray
    y: np.ndarray
    outcomes: Mapping[str, Outcome]
    beyond: Mapping[str, int]


def run_layers(
    network: SpikingNetwork, inputs: np.ndarray, seed: int, progress: Progress | None
) -> Answers:
    """Run layer after layer; inputs of shape (samples, steps, n_in).

    Membranes start where target brian2 has them start with the same seed.
    """
    signal = inputs
    m, h = [signal[:, :, :0]], [signal[:, :, :0]]
    outcomes: dict[str, Outcome] = {}
    beyond: dict[str, int] = {}
    told = _Told(sum(memory is not None for memory in network.memories), len(inputs), progress)
    for number, layer in enumerate(network.host.layers):
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            h.append(signal)
            continue
        job = _job(network, number, layer, signal, [seed, len(outcomes)], told.wanted)
        outcome = run_job(job, told.share)
        told.one_more()
        host = HostLayer(layer, signal)
        for step in range(inputs.shape[1]):
            host.observe(step, outcome.m[:, step])
        outcomes[f"layer{number}/memory"] = outcome
        reached = REACH * job.memory.scales.reshape(-1)
        beyond[f"layer{number}/memory/state"] = int(np.count_nonzero(np.abs(host.m) > reached))
        m.append(host.m)
        h.append(host.h)
        signal = host.output
    readout = network.host.readout
    y = signal @ readout.kernel.astype(np.float64)
    y = y if readout.bias is None else y + readout.bias
    return Answers(np.concatenate(m, axis=2), np.concatenate(h, axis=2), y, outcomes, beyond)


def _job(
    network: SpikingNetwork,
    number: int,
    layer: LMULayer,
    signal: np.ndarray,
    seeds: list[int],
    tell: bool,
) -> Job:
    memory = network.memories[number]
    assert memory is not None  # a SpikingNetwork has one for every LMU layer
    samples, steps, _ = signal.shape
    host = HostLayer(layer, signal)
    return Job(
        network=network,
        layer=number,
        channels=np.stack([host.channels(step) for step in range(steps)], axis=1),
        membranes=np.random.default_rng(seeds).random((samples, memory.neurons)),
        noise_seed=int(np.random.default_rng([*seeds, 1]).integers(2**31)),
        raster=memory.neurons * steps * network.steps_per_hold <= _LARGEST_RASTER,
        tell=tell,
    )


class _Told:
    """Shares of programs, told as whole samples, each number once."""

    def __init__(self, memories: int, samples: int, progress: Progress | None) -> None:
        self.memories, self.samples, self.progress = memories, samples, progress
        self.done, self.last = 0, 0

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return self.progress is not None

    def share(self, share: float) -> None:
        """Tell that so much of the present program is done."""
        samples = int((self.done + min(share, 1.0)) / self.memories * self.samples)
        if self.progress and samples > self.last:
            self.last = samples
            self.progress(samples, self.samples)

    def one_more(self) -> None:
        """Tell that a program is done."""
        self.done += 1
        self.share(0.0)
