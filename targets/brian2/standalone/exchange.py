"""A memory's job and what came of it, and the files in which they go to the worker and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmu_deploy.files import load, save
from lmu_deploy.spiking_network import SPIKING_CLASSES, SpikingMemory, SpikingNetwork

_NETWORK, _ARRAYS, _NUMBERS = "network.safetensors", "job.npz", "job.json"
_OUTCOME, _TOLD, _FAILURE = "outcome.npz", "told.json", "failure.json"
PROGRESS = "progress.txt"
"""Where the program writes the share of its steps that is done."""


@dataclass(frozen=True)
class Job:
    """A memory to simulate, with all that reaches it.

    Attributes
    ----------
    network : SpikingNetwork
        Its times, neuron model and noise, and the memories.
    layer : int
        The layer whose memory it is.
    channels : ndarray, shape (samples, holds, channels)
        Input of the memory.
    membranes : ndarray, shape (samples, neurons)
        Where they start, as shares of the threshold (of a DPI, of its onset).
    noise_seed : int
    raster : bool
        Keep sample 0's spikes.
    tell : bool
        Write how far it is, for :func:`read_progress`.
    """

    network: SpikingNetwork
    layer: int
    channels: np.ndarray
    membranes: np.ndarray
    noise_seed: int
    raster: bool
    tell: bool

    @property
    def memory(self) -> SpikingMemory:
        """The memory to simulate."""
        memory = self.network.memories[self.layer]
        assert memory is not None  # whoever made the job looked
        return memory


@dataclass(frozen=True)
class Outcome:
    """What a memory did.

    Attributes
    ----------
    m : ndarray, shape (samples, holds, states)
        Unscaled states at the ends of the holds.
    counts : ndarray, shape (samples, holds), int64
        Spikes.
    synops : int
        Synapses that these spikes met, all samples.
    raster : ndarray, shape (chip_steps, neurons), uint8
        Of sample 0; of no steps where it was not asked for.
    seconds : mapping of "build" and "run" to (float, float)
        Spent on writing and compiling the program, and on running it: by the clock, and of the
        processor.
    version : str
        Of Brian2.
    """

    m: np.ndarray
    counts: np.ndarray
    synops: int
    raster: np.ndarray
    seconds: Mapping[str, Sequence[float]]
    version: str


def write_job(job: Job, folder: Path) -> None:
    """Write what :func:`read_job` reads."""
    save(job.network, folder / _NETWORK)
    np.savez(folder / _ARRAYS, channels=job.channels, membranes=job.membranes)
    numbers = {name: getattr(job, name) for name in ("layer", "noise_seed", "raster", "tell")}
    (folder / _NUMBERS).write_text(json.dumps(numbers))


def read_job(folder: Path) -> Job:
    """Read what :func:`write_job` wrote."""
    with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    numbers = json.loads((folder / _NUMBERS).read_text())
    return Job(network=load(folder / _NETWORK, SPIKING_CLASSES), **given, **numbers)


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """Write what :func:`read_outcome` reads."""
    np.savez(folder / _OUTCOME, m=outcome.m, counts=outcome.counts, raster=outcome.raster)
    told = {name: getattr(outcome, name) for name in ("synops", "seconds", "version")}
    (folder / _TOLD).write_text(json.dumps(told))


def read_outcome(folder: Path) -> Outcome:
    """Read what :func:`write_outcome` wrote."""
    with np.load(folder / _OUTCOME, allow_pickle=False) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    return Outcome(**given, **json.loads((folder / _TOLD).read_text()))


def read_progress(folder: Path) -> float:
    """Read the share of a job that is done; 0 where nothing can be read yet."""
    try:
        return float((folder / PROGRESS).read_text())
    except (OSError, ValueError):  # not begun, or in the middle of being written
        return 0.0


def write_failure(folder: Path, kind: str, message: str) -> None:
    """Leave word of what ended the worker: kind "missing" or "run"."""
    (folder / _FAILURE).write_text(json.dumps([kind, message]))


def read_failure(folder: Path) -> tuple[str, str] | None:
    """Read the word that was left; None where there is none."""
    try:
        kind, message = json.loads((folder / _FAILURE).read_text())
    except (OSError, ValueError):
        return None
    return kind, message
