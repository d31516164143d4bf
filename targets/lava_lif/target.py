"""Target `lava-lif`: each memory of a LoihiNetwork as a run of Lava in a child process.

Jobs and their records are files, in a folder per job and part. Samples of a job run side by side in
one run of Lava, as many as its Dense processes can simulate at the speed of one; the others follow
in further runs. The host process writes its records while it runs, as `.npy` files mapped into
memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.files import load, save
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.graph import LOIHI_GRAPH_CLASSES, LoihiEnsemble, LoihiGraph, OnLoihi
from lmu_deploy.core.spiking.loihi import LOIHI_CLASSES, ONE, LoihiNetwork
from targets.base import LARGEST_RASTER, Run, check_run
from targets.lava import supervisor
from targets.lava.compat import lava_settings, lava_version
from targets.lava.target import TimeLimited
from targets.spiking.graph import Activity as GraphActivity
from targets.spiking.graph import GraphRunner, Stage
from targets.spiking.layers import KINDS, PLACES, Activity, Job, empty_activity, merged, run_layers
from targets.spiking.target import host_messages, make_run

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
_ASSEMBLY = "targets.lava_lif.assembly"
_SIMULATED = "Simulated by Lava in fixed point, not run on a chip."
_MOST_FEATURES = 256
"""Messages of 16 bits, times twice a weight of 8 bits, whose sum fits 32 bits."""


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
        supervisor.supervise(folder, time_limit, progress, _ASSEMBLY)
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


_GRAPH, _STAGE = "graph.safetensors", "stage.json"


@dataclass(frozen=True)
class StagePart:
    """A process of a stage of a graph, and where its records are.

    Attributes
    ----------
    folder : Path
    file : str
        Beginning of the names of its files.
    samples, presentations, presentation_steps, size : int
        `size` is the number of its senders or relays.
    decay, fast_decay, message_shift : int
        Of relays.
    sends : bool
        Whether messages of these relays go to neurons.
    reports : bool
        Whether it reports progress.
    """

    folder: Path
    file: str
    samples: int
    presentations: int
    presentation_steps: int
    size: int
    decay: int = 0
    fast_decay: int = 0
    message_shift: int = 0
    sends: bool = False
    reports: bool = False

    def path(self, name: str) -> Path:
        """Return the file of a record."""
        return self.folder / f"{self.file}-{name}.npy"

    def opened(self, name: str) -> Any:
        """Return a record that is written in place; None if there is none."""
        path = self.path(name)
        return np.load(path, mmap_mode="r+", allow_pickle=False) if path.exists() else None

    def write_saturations(self, *counts: int) -> None:
        """Write the numbers of saturated registers and messages, once, at the end."""
        np.save(self.path("saturations"), np.array(counts), allow_pickle=False)


class StoredStage:
    """A stage of a graph for some samples, in a folder.

    Parameters
    ----------
    folder : Path
        Written by :meth:`write`.

    Attributes
    ----------
    parts : tuple of LoihiEnsemble
        Ensembles and probes.
    relays, neurons, inputs : mapping of name or source to StagePart
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.graph = load(folder / _GRAPH, LOIHI_GRAPH_CLASSES)
        told = json.loads((folder / _STAGE).read_text(encoding="utf-8"))
        self.samples, self.presentations = told["samples"], told["presentations"]
        ensembles, probes = self.graph.stages[told["number"]]
        self.parts: tuple[LoihiEnsemble, ...] = (*ensembles, *probes)
        sources = dict.fromkeys(each.source for one in self.parts for each in one.currents)
        self.inputs = {
            source: self._part(f"input{number}", len(self.graph.input(source).scales))
            for number, source in enumerate(sources)
        }
        self.relays, self.neurons = dict[str, StagePart](), dict[str, StagePart]()
        for number, each in enumerate(self.parts):
            self.relays[each.name] = self._part(
                f"relays{number}",
                each.size,
                decay=self.graph.decay,
                fast_decay=self.graph.fast_decay,
                message_shift=each.message_shift,
                sends=each.populations is not None,
                reports=number == 0,
            )
            if each.populations is not None:
                made = self._part(f"neurons{number}", each.neurons)
                self.neurons[each.name] = made

    @property
    def chip_steps(self) -> int:
        """Chip steps of a sample."""
        return int(self.presentations * self.graph.steps_per_presentation + 1)

    @property
    def senders(self) -> dict[str, StagePart]:
        """What counts the events of each sender, by its name in a run."""
        return {
            **self.neurons,
            **{each.relays: self.relays[each.name] for each in self.parts if each.populations},
            **{self.graph.input(source).place: part for source, part in self.inputs.items()},
        }

    def _part(self, file: str, size: int, **more: Any) -> StagePart:
        steps = self.graph.steps_per_presentation
        return StagePart(self.folder, file, self.samples, self.presentations, steps, size, **more)

    def messages(self, source: str) -> np.ndarray:
        """Return what the host sends of a source, shape (samples, presentations, features)."""
        return np.asarray(np.load(self.inputs[source].path("messages"), allow_pickle=False))

    @classmethod
    def write(
        cls, folder: Path, stage: Stage, messages: Mapping[str, np.ndarray], first: int, end: int
    ) -> StoredStage:
        """Write a stage for some of its samples, with records of zeros."""
        folder.mkdir()
        number = next(
            number
            for number, (ensembles, probes) in enumerate(stage.graph.stages)
            if (ensembles, probes) == (stage.ensembles, stage.probes)
        )
        save(stage.graph, folder / _GRAPH)
        told = {"number": number, "samples": end - first, "presentations": stage.steps}
        (folder / _STAGE).write_text(json.dumps(told), encoding="utf-8")
        np.save(folder / _PROGRESS, np.zeros(1, np.int64), allow_pickle=False)
        stored, shape = cls(folder), (end - first, stage.steps)
        for source, part in stored.inputs.items():
            np.save(part.path("messages"), messages[source][first:end], allow_pickle=False)
        for part in stored.relays.values():
            np.save(part.path("drives"), np.zeros((*shape, part.size), np.int64))
        rasters = stage.rasters and first == 0
        for part in stored.senders.values():
            np.save(part.path("counts"), np.zeros(shape, np.int64))
            np.save(part.path("by-neuron"), np.zeros(part.size, np.int64))
            if rasters and part.size * stored.chip_steps <= LARGEST_RASTER:
                np.save(part.path("raster"), np.zeros((stored.chip_steps, part.size), np.uint8))
        return stored

    def add_to(self, done: GraphActivity, first: int) -> None:
        """Add the records of a run to the activity of all samples."""
        rows = slice(first, first + self.samples)
        for each in self.parts:
            part = self.relays[each.name]
            reals = part.opened("drives") / ONE
            if each.populations is None:
                done.read[each.name][rows] = reals * each.scales
            else:
                done.drives[each.name][rows] = reals
            saturated = part.opened("saturations")
            for kind, count in zip(("state", "message"), saturated, strict=True):
                if kind == "state" or part.sends:
                    place = str(Place(each.name, kind))
                    done.saturations[place] = done.saturations.get(place, 0) + int(count)
        for name, part in self.senders.items():
            done.counts[name][rows] = part.opened("counts")
            done.by_neuron[name] += part.opened("by-neuron")
            if (raster := part.opened("raster")) is not None:
                done.rasters[name][:] = raster


def stage_folders(folder: Path) -> list[Path]:
    """Return the folders of all stages of a graph, in the order in which they run."""
    return sorted(path.parent for path in folder.glob(f"*/{_STAGE}"))


def run_stages(stages: Sequence[Stage], time_limit: Callable[[int], float]) -> list[GraphActivity]:
    """Run stages of graphs in one child process, one after the other.

    Parameters
    ----------
    stages : sequence of Stage
    time_limit : callable
        Given a number of chip steps, returns seconds.

    Raises
    ------
    RunError
        When the run failed, died, or took too long.
    MissingDependencyError
        When Lava cannot be imported.
    """
    found = [GraphActivity.empty(stage, extra_steps=1) for stage in stages]
    with supervisor.temporary_folder() as folder:
        stored: list[tuple[GraphActivity, int, StoredStage]] = []
        for number, (stage, done) in enumerate(zip(stages, found, strict=True)):
            messages = host_messages(stage.graph, stage.values, done.saturations)
            together = _together(stage)
            for first in range(0, stage.samples, together):
                place, end = folder / f"{number:04d}-{first:06d}", first + together
                written = StoredStage.write(place, stage, messages, first, min(end, stage.samples))
                stored.append((done, first, written))
        seconds = time_limit(sum(each.chip_steps for _, _, each in stored))
        supervisor.supervise(folder, seconds, None, _ASSEMBLY)
        for done, first, each in stored:
            each.add_to(done, first)
    return found


def _together(stage: Stage) -> int:
    """Return how many samples run side by side: the largest Dense has a copy for each."""
    sizes = [each.neurons * each.size for each in stage.ensembles]
    for part in (*stage.ensembles, *stage.probes):
        sizes += [each.size * each.senders for each in part.connections]
    return max(1, int(np.sqrt(_LARGEST_DENSE / max(sizes))))


class LavaLifTarget(TimeLimited):
    """Run networks on Lava's fixed-point LIF neurons.

    Each layer, or each stage of a graph, has the time limit.
    """

    name = "lava-lif"
    accepts: tuple[type, ...] = (LoihiNetwork, LoihiGraph)

    def unsupported(self, network: OnLoihi) -> list[str]:
        """Return why a network cannot run: the host sends more messages than Lava can add up."""
        if isinstance(network, LoihiNetwork):
            return []
        return [
            f"the host sends {len(each.scales)} values of {each.source}, and Lava adds up at most "
            f"{_MOST_FEATURES} in 32 bits"
            for each in network.inputs
            if len(each.scales) > _MOST_FEATURES
        ]

    def run(
        self,
        network: OnLoihi,
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
        if isinstance(network, LoihiGraph):
            runner = GraphRunner(
                self.name,
                network,
                inputs,
                seed,
                lambda stage: run_stages([stage], self.seconds)[0],
                lava_settings(version),
                progress,
            )
            found = runner.run(record)
            return replace(found, notes=(*found.notes, _SIMULATED))
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
            notes=(_SIMULATED,),
            settings=lava_settings(version),
        )
