"""What the neuron processes write down while they run, as `.npy` files in one folder.

Each group of neurons has its own files, mapped into memory: its process writes them in place, the
worker's parent reads them when the run is over. Moving states out through ``Var.get`` would take
one message a value.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from targets.lava.plan import Group, Plan, Timetable

FAILURE = "failure.json"
_PROGRESS = "progress.npy"


@dataclass(frozen=True)
class Record:
    """What one group did.

    Attributes
    ----------
    events : ndarray, shape (samples, steps), int64
        Messages that were not zero.
    synops : int
    saturations : dict of place to int
    states : ndarray, shape (samples, steps, neurons), int32, or None
        m of a memory, H of hidden units, y of the readout; None unless recorded.
    raster : ndarray, shape (chip_steps, neurons), uint8
        Events of sample 0.
    """

    events: np.ndarray
    synops: int
    saturations: dict[str, int]
    states: np.ndarray | None
    raster: np.ndarray


def create(folder: Path, plan: Plan, record: bool) -> None:
    """Make all files, zeroed, before the run; states of memory and hidden units if `record`."""
    _create(folder / _PROGRESS, (1,), np.int64)
    table = plan.timetable
    for group in plan.groups:
        stem = _stem(folder, group)
        _create(f"{stem}.counts.npy", (table.samples, table.steps, 2), np.int64)
        _create(f"{stem}.saturations.npy", (max(1, len(group.places)),), np.int64)
        _create(f"{stem}.raster.npy", (table.chip_steps, group.neurons), np.uint8)
        if group.name == "readout" or (record and group.part is not None):
            shape = (table.samples, table.steps, group.neurons)
            _create(f"{stem}.states.npy", shape, np.int32)


def read(folder: Path, group: Group) -> Record:
    """Read what the group wrote into `folder`; the arrays are copies."""
    stem = _stem(folder, group)
    counts = np.load(f"{stem}.counts.npy", allow_pickle=False)
    saturations = np.load(f"{stem}.saturations.npy", allow_pickle=False)
    states = Path(f"{stem}.states.npy")
    return Record(
        events=counts[..., 0].copy(),
        synops=int(counts[..., 1].sum()),
        saturations=dict(zip(group.places, saturations.tolist(), strict=False)),
        states=np.load(states, allow_pickle=False) if states.exists() else None,
        raster=np.load(f"{stem}.raster.npy", allow_pickle=False),
    )


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
        self._fan_out = group.fan_out
        self._counts = _open(f"{stem}.counts.npy")
        self._saturations = _open(f"{stem}.saturations.npy")
        self._raster = _open(f"{stem}.raster.npy")
        states = Path(f"{stem}.states.npy")
        self._states = _open(states) if states.exists() else None
        self._progress = _open(folder / _PROGRESS)

    def saturated(self, place: int, times: int) -> None:
        """Count saturations at the place of that number; -1 is the last."""
        if times:
            self._saturations[place] += times

    def state(self, sample: int, step: int, values: np.ndarray) -> None:
        """Keep the states of a step, if that was asked for."""
        if self._states is not None:
            self._states[sample, step] = values

    def sent(self, sample: int, step: int, tick: int, message: np.ndarray) -> None:
        """Count the events of a step and the synaptic operations that they cost."""
        event = message != 0
        self._counts[sample, step, 0] = np.count_nonzero(event)
        self._counts[sample, step, 1] = self._fan_out[event].sum()
        if sample == 0:
            self._raster[tick] = event

    def finished(self, steps: int) -> None:
        """Say that `steps` sample steps of the whole run are done."""
        self._progress[0] = steps


def progress(folder: Path) -> int:
    """Sample steps done so far; 0 before the run has begun."""
    try:
        return int(np.load(folder / _PROGRESS, allow_pickle=False)[0])
    except (OSError, ValueError, EOFError):
        return 0


def write_failure(folder: Path, kind: str, message: str) -> None:
    """Leave word of what went wrong; of several failures the first stays."""
    draft = folder / f"failure.{os.getpid()}"
    draft.write_text(json.dumps({"kind": kind, "message": message}), encoding="utf-8")
    try:
        os.link(draft, folder / FAILURE)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def read_failure(folder: Path) -> tuple[str, str] | None:
    """Kind and message of the first failure, or None."""
    path = folder / FAILURE
    if not path.exists():
        return None
    failure = json.loads(path.read_text(encoding="utf-8"))
    return failure["kind"], failure["message"]


def _stem(folder: Path, group: Group) -> str:
    return str(folder / group.name.replace("/", "-"))


def _create(path: Path | str, shape: tuple[int, ...], dtype: type) -> None:
    np.lib.format.open_memmap(path, "w+", dtype, shape)  # type: ignore[no-untyped-call]


def _open(path: Path | str) -> np.ndarray:
    return np.load(path, mmap_mode="r+", allow_pickle=False)
