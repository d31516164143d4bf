"""What one memory on neurons did with a batch of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.spiking.loihi import LoihiMemory

LARGEST_RASTER = 50_000_000
_BYTE = 255
KINDS = ("memory", "relay", "input")
"""Populations of a layer: LIF neurons, relays, and the host's messages."""
PLACES = ("input", "relay/state", "relay/message")
"""Where something may saturate."""


@dataclass(frozen=True)
class Boundary:
    """Where host and chip meet, once for each hold.

    Attributes
    ----------
    channels : callable
        Gives the memory's input for a hold, shape (samples, channels).
    observe : callable
        Takes (hold, states m at its end), shape (samples, states).
    """

    channels: Callable[[int], np.ndarray]
    observe: Callable[[int, np.ndarray], None]


@dataclass
class Activity:
    """Filled while a batch runs.

    Attributes
    ----------
    states : ndarray, shape (samples, holds, states), int32
        X of the relays at the end of each hold.
    counts : mapping of kind to ndarray, shape (samples, holds), int64
        Events.
    by_neuron : mapping of kind to ndarray, shape (senders,), int64
        Events of each sender, all samples and holds together.
    rasters : mapping of kind to ndarray, shape (chip steps, senders), uint8
        Events of sample 0; empty where they were not wanted.
    saturations : mapping of place to int
    """

    states: np.ndarray
    counts: dict[str, np.ndarray]
    by_neuron: dict[str, np.ndarray]
    rasters: dict[str, np.ndarray]
    saturations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))

    def synops(self, memory: LoihiMemory) -> int:
        """Synaptic operations of all events."""
        fans = memory.fan_out
        return sum(int(self.by_neuron[kind] @ fans[kind]) for kind in KINDS)


class Tally:
    """Counts the events of one kind, quickly: bytes are summed when they could overflow.

    Parameters
    ----------
    done : Activity
        Where the counts go.
    kind : str
    """

    def __init__(self, done: Activity, kind: str) -> None:
        self._counts, self._by_sender = done.counts[kind], done.by_neuron[kind]
        self._raster = done.rasters.get(kind)
        self._bytes = np.zeros((len(self._counts), len(self._by_sender)), np.uint8)
        self._held = 0

    def add(self, events: np.ndarray, hold: int, step: int) -> None:
        """Count the events of a chip step, bool with a row for each sample."""
        rows = events.reshape(self._bytes.shape)
        self._bytes += rows.view(np.uint8)
        self._held += 1
        if self._raster is not None:
            self._raster[step] = rows[0]
        if self._held == _BYTE:
            self.flush(hold)

    def flush(self, hold: int) -> None:
        """Put what was counted since the last time down to `hold`; at the end of each hold."""
        self._counts[:, hold] += self._bytes.sum(axis=1, dtype=np.int64)
        self._by_sender += self._bytes.sum(axis=0, dtype=np.int64)
        self._bytes[:] = 0
        self._held = 0


def senders(memory: LoihiMemory) -> dict[str, int]:
    """Give the number of senders of each kind."""
    return {"memory": memory.size, "relay": memory.states, "input": memory.channels}


def empty_activity(
    memory: LoihiMemory, samples: int, holds: int, hold_steps: int, raster: bool
) -> Activity:
    """Give an activity of zeros.

    Parameters
    ----------
    memory : LoihiMemory
    samples, holds, hold_steps : int
    raster : bool
        Keep every event of sample 0, where that takes no more than 50 MB.
    """
    sizes, chip_steps = senders(memory), holds * hold_steps + 1
    keep = raster and memory.size * chip_steps <= LARGEST_RASTER
    return Activity(
        states=np.zeros((samples, holds, memory.states), np.int32),
        counts={kind: np.zeros((samples, holds), np.int64) for kind in KINDS},
        by_neuron={kind: np.zeros(size, np.int64) for kind, size in sizes.items()},
        rasters={k: np.zeros((chip_steps, n), np.uint8) for k, n in sizes.items() if keep},
    )


def merged(parts: Sequence[Activity]) -> Activity:
    """Put the activities of consecutive batches together; rasters are those of the first.

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
