"""All layers of a LoihiNetwork in order: memories on neurons, everything else on the host.

The two targets that run such networks differ only in how they run one memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.spiking.loihi import LoihiMemory, LoihiNetwork
from targets.host import apply_readout, observed, run_lstm
from targets.spiking.activity import KINDS, Activity


@dataclass(frozen=True)
class Job:
    """Simulation of one memory for all samples.

    Attributes
    ----------
    name : str
        Name of the layer.
    memory : LoihiMemory
    layer : LMULayer
        Its other parts run on the host.
    signal : ndarray, shape (samples, holds, n_in)
        Inputs of the layer.
    hold_steps : int
        Chip steps of one presentation.
    """

    name: str
    memory: LoihiMemory
    layer: LMULayer
    signal: np.ndarray
    presentation_steps: int

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.signal)

    @property
    def presentations(self) -> int:
        """Task steps of a sample."""
        return int(self.signal.shape[1])

    @property
    def chip_steps(self) -> int:
        """Chip steps of a sample."""
        return self.presentations * self.presentation_steps + 1

    def part(self, samples: slice) -> Job:
        """Return the job for some of the samples."""
        return Job(
            self.name, self.memory, self.layer, self.signal[samples], self.presentation_steps
        )


@dataclass
class Outcome:
    """Results of all layers.

    Attributes
    ----------
    m : ndarray, shape (samples, steps, states), int32
        States of all relays.
    h, y : ndarray, shape (samples, steps, units) and (samples, steps, n_out)
    unit : ndarray, shape (states,)
        Real value of one unit of m.
    neurons, events, rasters, saturations : mappings
        As in :class:`targets.base.Run`.
    synops : int
    """

    m: np.ndarray
    h: np.ndarray
    y: np.ndarray
    unit: np.ndarray
    neurons: dict[str, int] = field(default_factory=dict)
    events: dict[str, np.ndarray] = field(default_factory=dict)
    rasters: dict[str, np.ndarray] = field(default_factory=dict)
    saturations: dict[str, int] = field(default_factory=dict)
    synops: int = 0

    def add(self, job: Job, done: Activity) -> None:
        """Add the activity of one memory."""
        sizes = {kind: len(counts) for kind, counts in done.by_neuron.items()}
        for kind in KINDS:
            name = f"{job.name}/{kind}"
            self.neurons[name], self.events[name] = sizes[kind], done.counts[kind]
            if kind in done.rasters:
                self.rasters[name] = done.rasters[kind]
        for place, count in done.saturations.items():
            self.saturations[f"{job.name}/{place}"] = count
        self.synops += done.synops(job.memory)


def run_layers(
    network: LoihiNetwork, inputs: np.ndarray, run_job: Callable[[Job], Activity]
) -> Outcome:
    """Run all layers on inputs of shape (samples, steps, n_in).

    Parameters
    ----------
    network : LoihiNetwork
    inputs : ndarray, float64
    run_job : callable
        Runs one memory.
    """
    samples, steps, _ = inputs.shape
    nothing = np.zeros((samples, steps, 0))
    m, h, unit = [nothing.astype(np.int32)], [nothing], [np.zeros(0)]
    outcome = Outcome(m[0], h[0], nothing, unit[0])
    signal = inputs
    for number, layer in enumerate(network.host.layers):
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            h.append(signal)
            continue
        memory = network.memories[number]
        assert memory is not None  # a LoihiNetwork has one for every LMU layer
        job = Job(f"layer{number}", memory, layer, signal, network.steps_per_presentation)
        done = run_job(job)
        outcome.add(job, done)
        host = observed(layer, signal, done.states * memory.state_unit)
        m.append(done.states)
        h.append(host.h)
        unit.append(memory.state_unit)
        signal = host.output
    outcome.y = apply_readout(network.host.readout, signal)
    outcome.m, outcome.h = np.concatenate(m, axis=2), np.concatenate(h, axis=2)
    outcome.unit = np.concatenate(unit)
    return outcome
