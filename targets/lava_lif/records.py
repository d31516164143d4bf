"""What the host process writes down while it runs, as `.npy` files mapped into memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from targets.spiking.activity import KINDS, PLACES, Activity

_PROGRESS = "progress.npy"


def create(folder: Path, empty: Activity) -> None:
    """Write the arrays of an activity of zeros, and the file of progress."""
    for name, array in _arrays(empty).items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    np.save(folder / _PROGRESS, np.zeros(1, np.int64), allow_pickle=False)


def opened(folder: Path, mode: str | None = "r+") -> Activity:
    """Give the activity whose arrays are the files; saturations as far as they were written.

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
    """Leave the counts of some places, once, at the end of a run."""
    name = "-".join(place.replace("/", "-") for place in counts)
    path = folder / f"saturations-{name}.json"
    path.write_text(json.dumps(counts), encoding="utf-8")


def note_progress(folder: Path, holds: int) -> None:
    """Say how many holds of all samples are done."""
    np.load(folder / _PROGRESS, mmap_mode="r+", allow_pickle=False)[0] = holds


def _arrays(activity: Activity) -> dict[str, np.ndarray]:
    named = {"states": activity.states}
    named |= {f"counts-{kind}": array for kind, array in activity.counts.items()}
    named |= {f"by-neuron-{kind}": array for kind, array in activity.by_neuron.items()}
    return named | {f"raster-{kind}": array for kind, array in activity.rasters.items()}
