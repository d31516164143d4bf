"""All layers of a LoihiNetwork in order, and the recorded activity of each memory.

Memories run on neurons, everything else on the host. The two targets that run such networks differ
only in how they run one memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.spiking.loihi import LoihiMemory, LoihiNetwork
from targets.base import LARGEST_RASTER
from targets.host import apply_readout, observed, run_lstm

_BYTE = 255
KINDS = ("memory", "relay", "input")
"""Populations of a layer: LIF neurons, relays, and the host's messages."""
PLACES = ("input", "relay/state", "relay/message")
"""Places of saturations."""


@dataclass(frozen=True)
class Boundary:
    """Interface of host and chip, used once per presentation.

    Attributes
    ----------
    channels : callable
        Returns the memory's input for a presentation, shape (samples, channels).
    observe : callable
        Receives (presentation, states m at its end), shape (samples, states).
    """

    channels: Callable[[int], np.ndarray]
    observe: Callable[[int, np.ndarray], None]


@dataclass
class Activity:
    """States and events of a batch, recorded while it runs.

    Attributes
    ----------
    states : ndarray, shape (samples, presentations, states), int32
        X of the relays at the end of each presentation.
    counts : mapping of kind to ndarray, shape (samples, presentations), int64
        Events.
    by_neuron : mapping of kind to ndarray, shape (senders,), int64
        Events of each sender, all samples and presentations together.
    rasters : mapping of kind to ndarray, shape (chip steps, senders), uint8
        Events of sample 0; empty where they were not recorded.
    saturations : mapping of place to int
    """

    states: np.ndarray
    counts: dict[str, np.ndarray]
    by_neuron: dict[str, np.ndarray]
    rasters: dict[str, np.ndarray]
    saturations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))

    def synops(self, memory: LoihiMemory) -> int:
        """Return the synaptic operations of all events."""
        fans = memory.fan_out
        return sum(int(self.by_neuron[kind] @ fans[kind]) for kind in KINDS)


class Tally:
    """Event counter of one kind; it counts in bytes and sums them before they can overflow.

    Parameters
    ----------
    done : Activity
        Receives the counts.
    kind : str
    """

    def __init__(self, done: Activity, kind: str) -> None:
        self._counts, self._by_sender = done.counts[kind], done.by_neuron[kind]
        self._raster = done.rasters.get(kind)
        self._bytes = np.zeros((len(self._counts), len(self._by_sender)), np.uint8)
        self._steps = 0

    def add(self, events: np.ndarray, presentation: int, step: int) -> None:
        """Count the events of a chip step, bool with a row for each sample."""
        rows = events.reshape(self._bytes.shape)
        self._bytes += rows.view(np.uint8)
        self._steps += 1
        if self._raster is not None:
            self._raster[step] = rows[0]
        if self._steps == _BYTE:
            self.flush(presentation)

    def flush(self, presentation: int) -> None:
        """Add the counts since the last call to a presentation; call it at the end of each."""
        self._counts[:, presentation] += self._bytes.sum(axis=1, dtype=np.int64)
        self._by_sender += self._bytes.sum(axis=0, dtype=np.int64)
        self._bytes[:] = 0
        self._steps = 0


def senders(memory: LoihiMemory) -> dict[str, int]:
    """Return the number of senders of each kind."""
    return {"memory": memory.size, "relay": memory.states, "input": memory.channels}


def empty_activity(
    memory: LoihiMemory, samples: int, presentations: int, presentation_steps: int, raster: bool
) -> Activity:
    """Build an activity of zeros.

    Parameters
    ----------
    memory : LoihiMemory
    samples, holds, hold_steps : int
    raster : bool
        Record every event of sample 0, if that takes at most 50 MB.
    """
    sizes, chip_steps = senders(memory), presentations * presentation_steps + 1
    keep = raster and memory.size * chip_steps <= LARGEST_RASTER
    return Activity(
        states=np.zeros((samples, presentations, memory.states), np.int32),
        counts={kind: np.zeros((samples, presentations), np.int64) for kind in KINDS},
        by_neuron={kind: np.zeros(size, np.int64) for kind, size in sizes.items()},
        rasters={k: np.zeros((chip_steps, n), np.uint8) for k, n in sizes.items() if keep},
    )


def merged(parts: Sequence[Activity]) -> Activity:
    """Merge the activities of consecutive batches; rasters are those of the first.

    Parameters
    ----------
    parts : sequence of Activity
        At least one.
    """
    return Activity(
        states=np.concatenate([part.states for part in parts]),
        counts={kind: np.concatenate([part.counts[kind] for part in parts]) for kind in KINDS},
        by_neuron={k: np.sum([part.by_neuron[k] for part in parts], axis=0) for k in KINDS},
        rasters=parts[0].rasters,
        saturations={place: sum(part.saturations[place] for part in parts) for place in PLACES},
    )


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
            name = str(Place(job.name, kind))
            self.neurons[name], self.events[name] = sizes[kind], done.counts[kind]
            if kind in done.rasters:
                self.rasters[name] = done.rasters[kind]
        for place, count in done.saturations.items():
            self.saturations[str(Place(job.name, place))] = count
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
        job = Job(
            network.host.node_names[number], memory, layer, signal, network.steps_per_presentation
        )
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
