"""Jobs of compiled simulations, their files, and the subprocess that runs them."""

from __future__ import annotations

import contextlib
import json
import os
import re
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
"""File in which the program reports the share of its steps that is done."""


@dataclass(frozen=True)
class Job:
    """Simulation of one memory.

    Attributes
    ----------
    network : SpikingNetwork
        Times, neuron model, noise and memories.
    layer : int
        Layer of the memory.
    channels : ndarray, shape (samples, presentations, channels)
        Inputs of the memory.
    membranes : ndarray, shape (samples, neurons)
        Initial membranes, relative to the threshold; of a DPI, to its onset.
    noise_seed : int
    raster : bool
        Record the spikes of sample 0.
    report_progress : bool
        Write the progress for :func:`read_progress`.
    """

    network: SpikingNetwork
    layer: int
    channels: np.ndarray
    membranes: np.ndarray
    noise_seed: int
    raster: bool
    report_progress: bool

    @property
    def memory(self) -> SpikingMemory:
        """The memory to simulate."""
        memory = self.network.memories[self.layer]
        assert memory is not None  # jobs are built for layers with a memory
        return memory


@dataclass(frozen=True)
class Outcome:
    """Results of one memory.

    Attributes
    ----------
    m : ndarray, shape (samples, presentations, states)
        Unscaled states at the ends of presentations.
    counts : ndarray, shape (samples, presentations), int64
        Number of spikes.
    synops : int
        Synaptic operations, all samples.
    raster : ndarray, shape (chip_steps, neurons), uint8
        Spikes of sample 0; without steps if not recorded.
    seconds : mapping of "build" and "run" to (float, float)
        Wall time and processor time of generating and compiling the program, and of running it.
    version : str
        Version of Brian2.
    """

    m: np.ndarray
    counts: np.ndarray
    synops: int
    raster: np.ndarray
    seconds: Mapping[str, Sequence[float]]
    version: str


def write_job(job: Job, folder: Path) -> None:
    """Write the files of a job."""
    save(job.network, folder / _NETWORK)
    np.savez(folder / _ARRAYS, channels=job.channels, membranes=job.membranes)
    numbers = {
        name: getattr(job, name) for name in ("layer", "noise_seed", "raster", "report_progress")
    }
    (folder / _NUMBERS).write_text(json.dumps(numbers))


def read_job(folder: Path) -> Job:
    """Read the files of a job."""
    with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    numbers = json.loads((folder / _NUMBERS).read_text())
    return Job(network=load(folder / _NETWORK, SPIKING_CLASSES), **given, **numbers)


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """Write the files of an outcome."""
    np.savez(folder / _OUTCOME, m=outcome.m, counts=outcome.counts, raster=outcome.raster)
    costs = {name: getattr(outcome, name) for name in ("synops", "seconds", "version")}
    (folder / _COSTS).write_text(json.dumps(costs))


def read_outcome(folder: Path) -> Outcome:
    """Read the files of an outcome."""
    with np.load(folder / _OUTCOME, allow_pickle=False) as arrays:
        given = {name: arrays[name] for name in arrays.files}
    return Outcome(**given, **json.loads((folder / _COSTS).read_text()))


def read_progress(folder: Path) -> float:
    """Read the share of a job that is done; 0 before the first report."""
    try:
        return float((folder / PROGRESS).read_text())
    except (OSError, ValueError):  # missing, or being written
        return 0.0


_WORKER = "targets.brian2.standalone.worker"
_SECONDS_BETWEEN_CHECKS = 0.1
_MOST_LINES = 3


def run_job(job: Job, progress: Callable[[float], None] | None = None) -> Outcome:
    """Compile and run a memory in a subprocess.

    Parameters
    ----------
    job : Job
    progress : callable, optional
        Called repeatedly with the share that is done, if the job reports it.

    Raises
    ------
    MissingDependencyError
        When there is no compiler, no make, or no Brian2.
    RunError
        When the program could not be compiled, or failed.
    """
    check_compiler()
    with tempfile.TemporaryDirectory(prefix="lmu-brian2-") as name:
        folder = Path(name)
        write_job(job, folder)
        _work(folder, progress)
        return read_outcome(folder)


def check_compiler() -> None:
    """Raise MissingDependencyError unless a C++ compiler and make are installed."""
    for program in (_cxx().split()[0], "make"):
        if shutil.which(program) is None:
            raise MissingDependencyError(
                f"target brian2-cpp needs a C++ compiler and make, and {program} is not installed; "
                "install them with: apt-get install g++ make (or your system's command), or use "
                "target brian2, which runs the same network without them."
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
                code = worker.wait(_SECONDS_BETWEEN_CHECKS)
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
    """Return the compiler's errors, which the worker's exception does not include.

    A path in a command of make may contain the word too, so the colon counts.
    """
    lines = log.read_text(errors="replace").splitlines()
    errors = [line.strip() for line in lines if re.search(r"\berror:", line, re.IGNORECASE)]
    return f" ({'; '.join(errors[:_MOST_LINES])})" if errors else ""
