"""Records of Lava runs: `.npy` files that neuron processes write while they run.

Each network has a folder, and each group of neurons files of its own, mapped into memory. Its
process writes them in place, and the worker's parent reads them after the run. Reading states
through ``Var.get`` would take one message per value.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from targets.lava.plan import Group, Plan, Timetable

_INPUTS = "inputs.npy"
_PROGRESS = "progress.npy"


@dataclass(frozen=True)
class Record:
    """Recorded events and states of one group.

    Attributes
    ----------
    events : ndarray, shape (samples, steps), int64
        Messages or changes sent.
    synops : int
    carried : dict of connection to int
        Events on each connection.
    saturations : dict of place to int
    states : ndarray, shape (samples, steps, neurons), int32, or None
        m of a memory, H of hidden units, y of the readout; None unless recorded.
    raster : ndarray, shape (chip_steps, neurons), uint8
        Events of sample 0.
    """

    events: np.ndarray
    synops: int
    carried: dict[str, int]
    saturations: dict[str, int]
    states: np.ndarray | None
    raster: np.ndarray


def create(folder: Path, plan: Plan, inputs: np.ndarray, record: bool) -> None:
    """Create all files before the run: input messages, and records of zeros.

    Parameters
    ----------
    folder : Path
    plan : Plan
    inputs : ndarray, shape (samples, steps, n_in), integer
    record : bool
        Whether states of memories and hidden units are recorded.
    """
    np.save(folder / _INPUTS, inputs.astype(np.int32), allow_pickle=False)
    _create(folder / _PROGRESS, (1,), np.int64)
    table = plan.timetable
    for group in plan.groups:
        stem = _stem(folder, group)
        _create(f"{stem}.counts.npy", (table.samples, table.steps, 2), np.int64)
        _create(f"{stem}.carried.npy", (max(1, len(group.outlets)),), np.int64)
        _create(f"{stem}.saturations.npy", (max(1, len(group.places)),), np.int64)
        _create(f"{stem}.raster.npy", (table.chip_steps, group.neurons), np.uint8)
        if group.name == "readout" or (record and group.has_states):
            shape = (table.samples, table.steps, group.neurons)
            _create(f"{stem}.states.npy", shape, np.int32)


def read(folder: Path, group: Group) -> Record:
    """Read the record of a group; the arrays are copies."""
    stem = _stem(folder, group)
    counts = np.load(f"{stem}.counts.npy", allow_pickle=False)
    carried = np.load(f"{stem}.carried.npy", allow_pickle=False).tolist()
    saturations = np.load(f"{stem}.saturations.npy", allow_pickle=False)
    states = Path(f"{stem}.states.npy")
    return Record(
        events=counts[..., 0].copy(),
        synops=int(counts[..., 1].sum()),
        carried={
            edge.place: events
            for outlet, events in zip(group.outlets, carried, strict=False)
            for edge in outlet.edges
        },
        saturations=dict(zip(group.places, saturations.tolist(), strict=False)),
        states=np.load(states, allow_pickle=False) if states.exists() else None,
        raster=np.load(f"{stem}.raster.npy", allow_pickle=False),
    )


def input_messages(folder: Path) -> np.ndarray:
    """Return the input messages, shape (samples, steps, n_in), int32, mapped from the file."""
    return np.asarray(np.load(folder / _INPUTS, mmap_mode="r", allow_pickle=False))


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
        self._fan_outs = [outlet.fan_out for outlet in group.outlets]
        self._numbers = {place: number for number, place in enumerate(group.places)}
        self._counts = _open(f"{stem}.counts.npy")
        self._carried = _open(f"{stem}.carried.npy")
        self._saturations = _open(f"{stem}.saturations.npy")
        self._raster = _open(f"{stem}.raster.npy")
        states = Path(f"{stem}.states.npy")
        self._states = _open(states) if states.exists() else None
        self._progress = _open(folder / _PROGRESS)

    def saturated(self, place: str, times: int) -> None:
        """Count saturations at a place of the group."""
        if times:
            self._saturations[self._numbers[place]] += times

    def state(self, sample: int, step: int, values: np.ndarray) -> None:
        """Record the states of a step, if requested."""
        if self._states is not None:
            self._states[sample, step] = values

    def sent(self, sample: int, step: int, tick: int, outlet: int, events: np.ndarray) -> None:
        """Count the events of an outlet, and their synaptic operations."""
        event = events != 0
        number = np.count_nonzero(event)
        self._counts[sample, step, 0] += number
        self._counts[sample, step, 1] += self._fan_outs[outlet][event].sum()
        self._carried[outlet] += number
        if sample == 0:
            self._raster[tick] += event

    def finished(self, steps: int) -> None:
        """Report that `steps` sample steps of the whole run are done."""
        self._progress[0] = steps


def cases(folder: Path) -> list[Path]:
    """Return the folders of all networks of a run, in order."""
    return sorted(path.parent for path in folder.glob(f"*/{_PROGRESS}"))


def case_folder(folder: Path, number: int) -> Path:
    """Return the folder of a network by its number, from 0."""
    return folder / f"{number:06}"


def progress(folder: Path) -> int:
    """Return the number of sample steps done, of all networks; 0 before the run has begun."""
    try:
        files = folder.rglob(_PROGRESS)
        return sum(int(np.load(path, allow_pickle=False)[0]) for path in files)
    except (OSError, ValueError, EOFError):
        return 0


def _stem(folder: Path, group: Group) -> str:
    return str(folder / group.name.replace("/", "-"))


def _create(path: Path | str, shape: tuple[int, ...], dtype: type) -> None:
    np.lib.format.open_memmap(path, "w+", dtype, shape)  # type: ignore[no-untyped-call]


def _open(path: Path | str) -> np.ndarray:
    return np.load(path, mmap_mode="r+", allow_pickle=False)
