"""Target `lava-lif`: each memory of a LoihiNetwork as a run of Lava in a child process.

Jobs and their records are files, in a folder per job and part. Samples of a job run side by side in
one run of Lava, as many as its Dense processes can simulate at the speed of one; the others follow
in further runs. The host process writes its records while it runs, as `.npy` files mapped into
memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lmu_deploy.core.files import load, save
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.loihi import LOIHI_CLASSES, LoihiNetwork
from targets.base import Run, check_run
from targets.lava import supervisor
from targets.lava.compat import lava_settings, lava_version
from targets.lava.target import TimeLimited
from targets.spiking.layers import KINDS, PLACES, Activity, Job, empty_activity, merged, run_layers
from targets.spiking.target import make_run

_PROGRESS = "progress.npy"


def create(folder: Path, empty: Activity) -> None:
    """Create the files of an activity of zeros, and the file of progress."""
    for name, array in _arrays(empty).items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    np.save(folder / _PROGRESS, np.zeros(1, np.int64), allow_pickle=False)


def opened(folder: Path, mode: str | None = "r+") -> Activity:
    """Return the activity in the files of a folder.

    Parameters
    ----------
    folder : Path
    mode : str or None
        "r+" to write in place; None to read copies.
    """

    def array(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]

    saturations = dict.fromkeys(PLACES, 0)
    for path in folder.glob("saturations-*.json"):
        saturations.update(json.loads(path.read_text(encoding="utf-8")))
    return Activity(
        states=array("states"),
        counts={kind: array(f"counts-{kind}") for kind in KINDS},
        by_neuron={kind: array(f"by-neuron-{kind}") for kind in KINDS},
        rasters={k: array(f"raster-{k}") for k in KINDS if (folder / f"raster-{k}.npy").exists()},
        saturations=saturations,
    )


def write_saturations(folder: Path, counts: dict[str, int]) -> None:
    """Write the saturations of some places, once, at the end of a run."""
    name = "-".join(place.replace("/", "-") for place in counts)
    path = folder / f"saturations-{name}.json"
    path.write_text(json.dumps(counts), encoding="utf-8")


def note_progress(folder: Path, presentations: int) -> None:
    """Report the number of presentations done, of all samples."""
    np.load(folder / _PROGRESS, mmap_mode="r+", allow_pickle=False)[0] = presentations


def _arrays(activity: Activity) -> dict[str, np.ndarray]:
    named = {"states": activity.states}
    named |= {f"counts-{kind}": array for kind, array in activity.counts.items()}
    named |= {f"by-neuron-{kind}": array for kind, array in activity.by_neuron.items()}
    return named | {f"raster-{kind}": array for kind, array in activity.rasters.items()}


_MEMORY, _LAYER, _SIGNAL = "memory.safetensors", "layer.safetensors", "signal.npy"
_LARGEST_DENSE = 2**18
_WORKER = "targets.lava_lif.worker"


def run_jobs(
    jobs: Sequence[Job], time_limit: float, progress: Callable[[int], None] | None = None
) -> list[Activity]:
    """Run jobs in one child process.

    Parameters
    ----------
    jobs : sequence of Job
    time_limit : float
        Seconds, for all of them.
    progress : callable, optional
        Called repeatedly with the number of presentations done, of all jobs and samples.

    Raises
    ------
    RunError
        When the run failed, died, or took too long.
    MissingDependencyError
        When Lava cannot be imported.
    """
    with supervisor.temporary_folder() as folder:
        placed: list[list[Path]] = []
        for number, job in enumerate(jobs):
            placed.append([])
            for first, part in _side_by_side(job):
                place = folder / f"{number:04d}-{first:06d}"
                _write_job(place, part, raster=first == 0)
                placed[-1].append(place)
        supervisor.supervise(folder, time_limit, progress, _WORKER)
        return [merged([opened(p, mode=None) for p in places]) for places in placed]


def chip_steps(job: Job) -> int:
    """Return the chip steps of a job in all runs of Lava."""
    return sum(part.chip_steps for _, part in _side_by_side(job))


def job_folders(folder: Path) -> list[Path]:
    """Return the folders of all jobs, in the order in which they run."""
    return sorted(path.parent for path in folder.glob(f"*/{_SIGNAL}"))


def read_job(place: Path) -> Job:
    """Read a job that :func:`run_jobs` wrote."""
    presentation_steps = int(np.load(place / "presentation_steps.npy", allow_pickle=False))
    return Job(
        place.name,
        load(place / _MEMORY, LOIHI_CLASSES),
        load(place / _LAYER, LOIHI_CLASSES),
        np.load(place / _SIGNAL, allow_pickle=False),
        presentation_steps,
    )


def _write_job(place: Path, job: Job, raster: bool) -> None:
    place.mkdir()
    save(job.memory, place / _MEMORY)
    save(job.layer, place / _LAYER)
    np.save(place / _SIGNAL, job.signal, allow_pickle=False)
    np.save(place / "presentation_steps.npy", np.int64(job.presentation_steps), allow_pickle=False)
    empty = empty_activity(
        job.memory, job.samples, job.presentations, job.presentation_steps, raster
    )
    create(place, empty)


def _side_by_side(job: Job) -> list[tuple[int, Job]]:
    """Divide a job into parts; return each with the number of its first sample."""
    one = job.memory.states * job.memory.size
    together = max(1, int(np.sqrt(_LARGEST_DENSE / one)))
    firsts = range(0, job.samples, together)
    return [(first, job.part(slice(first, first + together))) for first in firsts]


class LavaLifTarget(TimeLimited):
    """Run LoihiNetworks on Lava's fixed-point LIF neurons; each layer has the time limit."""

    name = "lava-lif"
    accepts: tuple[type, ...] = (LoihiNetwork,)

    def unsupported(self, network: LoihiNetwork) -> list[str]:
        """Return no reason: every LoihiNetwork is supported."""
        return []

    def run(
        self,
        network: LoihiNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run on Lava; see :class:`targets.base.Target`. Nothing is random: `seed` is not used.

        Raises
        ------
        MissingDependencyError
            When Lava is not installed.
        """
        inputs, seed = check_run(self, network, inputs, seed)
        version = lava_version()
        start = time.perf_counter()
        samples, steps, _ = inputs.shape
        memories = sum(memory is not None for memory in network.memories)
        before = 0

        def run_job(job: Job) -> Activity:
            nonlocal before

            def show(presentations: int) -> None:
                if progress:
                    progress((before + presentations) // (steps * memories), samples)

            done = run_jobs([job], self.seconds(chip_steps(job)), show)[0]
            show(samples * steps)
            before += samples * steps
            return done

        outcome = run_layers(network, inputs, run_job)
        return make_run(
            self.name,
            network,
            outcome,
            record=record,
            seed=seed,
            wall_seconds=time.perf_counter() - start,
            notes=("Simulated by Lava in fixed point, not run on a chip.",),
            settings=lava_settings(version),
        )
