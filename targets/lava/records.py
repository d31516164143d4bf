"""Records of Lava runs: `.npy` files that neuron processes write while they run.

Each stage of a network has a folder, and each group of neurons separate files, mapped into
memory. Its process writes them in place, and the worker's parent reads them after the run. Reading
states through ``Var.get`` would take one message per value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmu_deploy.core.integer.parts import Place
from targets.lava.plan import Group, Plan
from targets.lava.schedule import Timetable

_PROGRESS = "progress.npy"
_STAGE = "stage.npy"

NETWORK = "network.safetensors"
"""File of the network in the folder of a case."""


@dataclass(frozen=True)
class Record:
    """Recorded events and states of one group.

    Attributes
    ----------
    events : dict of Place to ndarray, shape (samples, frames), int64
        Messages or changes sent, by source: a series has two.
    rasters : dict of Place to ndarray, shape (chip_steps, neurons), uint8
        Events of sample 0.
    synops : int
    carried : dict of edge to int
        Events on each edge.
    saturations : dict of place to int
    states : ndarray, shape (samples, frames, neurons), int32, or None
        m of a memory, the message of any other population; None unless recorded.
    messages : ndarray, shape (samples, frames, neurons), int32, or None
        None unless another stage or the host needs them.
    """

    events: dict[Place, np.ndarray]
    rasters: dict[Place, np.ndarray]
    synops: int
    carried: dict[str, int]
    saturations: dict[str, int]
    states: np.ndarray | None
    messages: np.ndarray | None


def create(
    folder: Path, plan: Plan, stage: int, played: Mapping[Place, np.ndarray], recorded: set[Place]
) -> None:
    """Create all files before the run: messages from outside, and records of zeros.

    Parameters
    ----------
    folder : Path
    plan : Plan
    stage : int
        Which the plan is for.
    played : mapping of Place to ndarray, shape (samples, frames, neurons), integer
        Messages of all groups that only replay them.
    recorded : set of Place
        Populations whose states are recorded.
    """
    table = plan.timetable
    facts = np.array([stage, table.samples, table.steps], np.int64)
    np.save(folder / _STAGE, facts, allow_pickle=False)
    _create(folder / _PROGRESS, (1,), np.int64)
    for group in plan.groups:
        stem, exits = _stem(folder, group), max(1, len(group.exits))
        shape = table.samples, group.slot.sends.frames, group.neurons
        if group.replays:
            messages = played[group.place].astype(np.int32)
            np.save(f"{stem}.played.npy", messages, allow_pickle=False)
        if group.counted:
            _create(f"{stem}.counts.npy", (exits, *shape[:2], 2), np.int64)
            _create(f"{stem}.raster.npy", (exits, table.chip_steps, group.neurons), np.uint8)
            _create(f"{stem}.saturations.npy", (max(1, len(group.places)),), np.int64)
        if group.kept:
            _create(f"{stem}.messages.npy", shape, np.int32)
        if group.place in recorded and not group.replays:
            _create(f"{stem}.states.npy", shape, np.int32)


def read(folder: Path, group: Group) -> Record:
    """Read the record of a group whose events count; the arrays are copies."""
    stem = _stem(folder, group)
    counts, raster, saturations = (
        np.load(f"{stem}.{name}.npy", allow_pickle=False)
        for name in ("counts", "raster", "saturations")
    )
    events: dict[Place, np.ndarray] = {}
    rasters: dict[Place, np.ndarray] = {}
    carried: dict[str, int] = {}
    for way, own, drawn in zip(group.exits, counts, raster, strict=False):
        source = way.outlet.source
        events[source] = events.get(source, 0) + own[..., 0]
        rasters[source] = rasters.get(source, np.uint8(0)) + drawn
        carried |= {edge.place: int(own[..., 0].sum()) for edge in way.outlet.edges}
    states, messages = (
        np.load(path, allow_pickle=False) if path.exists() else None
        for path in (Path(f"{stem}.states.npy"), Path(f"{stem}.messages.npy"))
    )
    return Record(
        events,
        rasters,
        int(counts[..., 1].sum()),
        carried,
        dict(zip(group.places, saturations.tolist(), strict=False)),
        states,
        messages,
    )


def played(folder: Path, group: Group) -> np.ndarray:
    """Return the messages that a group replays, int32, mapped from the file."""
    path = f"{_stem(folder, group)}.played.npy"
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


class Recorder:
    """Open files of one group, written in place.

    Parameters
    ----------
    folder : Path
    group : Group
    timetable : Timetable
    """

    def __init__(self, folder: Path, group: Group, timetable: Timetable) -> None:
        stem = _stem(folder, group)
        self._steps, self._frames = timetable.steps, group.slot.sends.frames
        self._fan_outs = [
            [way.outlet.fan_out(n) for n in range(way.outlet.period)]
            if way.outlet.edges
            else [np.zeros(group.neurons, np.int64)]
            for way in group.exits
        ]
        self._numbers = {place: number for number, place in enumerate(group.places)}
        names = "counts", "raster", "saturations", "states", "messages"
        self._files = {name: _open(Path(f"{stem}.{name}.npy")) for name in names}
        self._progress = _open(folder / _PROGRESS)

    def saturated(self, place: str, times: int) -> None:
        """Count saturations at a place of the group."""
        if times:
            found = self._files["saturations"]
            assert found is not None  # only groups that compute have places
            found[self._numbers[place]] += times

    def frame(self, sample: int, frame: int, state: np.ndarray, message: np.ndarray) -> None:
        """Record the state and the message of a frame, if requested."""
        for name, values in (("states", state), ("messages", message)):
            if (file := self._files[name]) is not None:
                file[sample, frame] = values

    def sent(self, sample: int, frame: int, tick: int, way: int, events: np.ndarray) -> None:
        """Count the events of an exit, and their synaptic operations."""
        counts, raster = self._files["counts"], self._files["raster"]
        if counts is None or raster is None:
            return
        event = events != 0
        by_phase = self._fan_outs[way]
        counts[way, sample, frame, 0] += np.count_nonzero(event)
        counts[way, sample, frame, 1] += by_phase[frame % len(by_phase)][event].sum()
        if sample == 0:
            raster[way, tick] += event

    def finished(self, sample: int, frame: int) -> None:
        """Report that the last group of a stage has sent a frame."""
        assert self._progress is not None
        steps = (frame + 1) * self._steps // self._frames
        self._progress[0] = sample * self._steps + steps


def cases(folder: Path) -> list[Path]:
    """Return the folders of all networks of a run, in order."""
    return sorted(path.parent for path in folder.glob(f"*/{_PROGRESS}"))


def case_folder(folder: Path, number: int) -> Path:
    """Return the folder of a network by its number, from 0."""
    return folder / f"{number:06}"


def planned(case: Path) -> tuple[int, int, int]:
    """Return stage, samples and steps for which a folder was created."""
    stage, samples, steps = np.load(case / _STAGE, allow_pickle=False).tolist()
    return stage, samples, steps


def progress(folder: Path) -> int:
    """Return the number of sample steps done, of all networks; 0 before the run has begun."""
    try:
        files = folder.rglob(_PROGRESS)
        return sum(int(np.load(path, allow_pickle=False)[0]) for path in files)
    except (OSError, ValueError, EOFError):
        return 0


def _stem(folder: Path, group: Group) -> str:
    return str(folder / f"{group.number:04}")


def _create(path: Path | str, shape: tuple[int, ...], dtype: type) -> None:
    np.lib.format.open_memmap(path, "w+", dtype, shape)  # type: ignore[no-untyped-call]


def _open(path: Path) -> np.ndarray | None:
    return np.load(path, mmap_mode="r+", allow_pickle=False) if path.exists() else None
