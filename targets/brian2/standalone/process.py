"""Start the worker, wait for it, and leave nothing of it behind.

A memory's job and what came of it, and the files in which they go to the worker and back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmu_deploy.core.errors import MissingDependencyError, RunError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, SpikingMemory, SpikingNetwork
from targets import workers

_NETWORK, _ARRAYS, _NUMBERS = "network.safetensors", "job.npz", "job.json"
_OUTCOME, _COSTS = "outcome.npz", "costs.json"
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
    (folder / _COSTS).write_text(json.dumps(told))


def read_outcome(folder: Path) -> Outcome:
    """Read what :func:`write_outcome` wrote."""
    with np.load(folder / _OUTCOME, allow_pickle=False) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    return Outcome(**given, **json.loads((folder / _COSTS).read_text()))


def read_progress(folder: Path) -> float:
    """Read the share of a job that is done; 0 where nothing can be read yet."""
    try:
        return float((folder / PROGRESS).read_text())
    except (OSError, ValueError):  # not begun, or in the middle of being written
        return 0.0


_WORKER = "targets.brian2.standalone.worker"
_SECONDS_BETWEEN_LOOKS = 0.1
_MOST_LINES = 3


def run_job(job: Job, progress: Callable[[float], None] | None = None) -> Outcome:
    """Compile and run a memory in a process of its own.

    Parameters
    ----------
    job : Job
    progress : callable, optional
        Called now and then with the share that is done, if the job tells.

    Raises
    ------
    MissingDependencyError
        When there is no compiler, no make, or no Brian2.
    RunError
        When the program could not be made, or failed.
    """
    check_compiler()
    with tempfile.TemporaryDirectory(prefix="lmu-brian2-") as name:
        folder = Path(name)
        write_job(job, folder)
        _work(folder, progress)
        return read_outcome(folder)


def check_compiler() -> None:
    """Raise MissingDependencyError unless the programs that Brian2 calls are there."""
    for program in (_cxx().split()[0], "make"):
        if shutil.which(program) is None:
            raise MissingDependencyError(
                f"target brian2-cpp needs a C++ compiler and make, and {program} is not there; "
                "install them with: apt-get install g++ make (or as your system does it), or use "
                "target brian2, which runs the same network without."
            )


def _cxx() -> str:
    return os.environ.get("CXX") or "g++"


def _work(folder: Path, progress: Callable[[float], None] | None) -> None:
    log = folder / "output.txt"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", _WORKER, str(folder), str(os.getpid())],
            cwd=folder,
            env=workers.environment(folder, CXX=_cxx()),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = worker.wait(_SECONDS_BETWEEN_LOOKS)
                break
            if progress:
                progress(read_progress(folder))
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)  # the worker, and its compiler or program
            worker.wait()
    workers.raise_failure(folder, "the compiled run", _compiler_errors(log))
    if code != 0:
        raise RunError(f"the compiled run died with exit code {code}{_compiler_errors(log)}.")


def _compiler_errors(log: Path) -> str:
    """Give the compiler's errors, which the worker's own exception does not hold."""
    lines = log.read_text(errors="replace").splitlines()
    told = [line.strip() for line in lines if "error" in line.lower() and "Error (" not in line]
    return f" ({'; '.join(told[:_MOST_LINES])})" if told else ""
