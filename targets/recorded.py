"""Target `recorded`: results of a board or another program, read from an .npz file.

A recording is judged like the run of any target. docs/how-to/board.md describes the file. It is
read without pickle, and the type, shape and size of every array are checked before it is loaded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import DAMAGED
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.representation import shortened
from targets.base import InOnePart, Run, States, checked_inputs

LARGEST = 2**31
"""Bytes of all arrays of a recording."""
STATES, EVENTS = "states/", "events/"
_ARRAYS = ("y", "m", "h")
_SCALES = ("y_scale", "m_scale", "h_scale")
_WHOLE = 1e-3
"""Largest distance of a real from a whole number of units that still counts as an integer."""


@dataclass(frozen=True)
class Recording:
    """Arrays of a recording.

    Attributes
    ----------
    name : str
    arrays : mapping of str to ndarray
        See docs/how-to/board.md.
    """

    name: str
    arrays: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        """Return one line of at most 100 characters."""
        return shortened(f"Recording({self.name}: {', '.join(self.arrays)})")

    @classmethod
    def load(cls, path: Path | str) -> Recording:
        """Read a file.

        Raises
        ------
        InputError
            When it is no .npz file, holds Python objects, or is too large.
        """
        path = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                _check(path, archive)
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; give a recording (.npz).") from error
        except DAMAGED as error:
            raise InputError(
                f"{path} is no recording: {shortened(str(error), 200)}; write it with "
                "numpy.savez, without objects."
            ) from error
        return cls(path.stem, arrays)

    def number(self, name: str, size: int, default: np.ndarray) -> np.ndarray:
        """Return a scale, shape (size,), or the default where the recording has none."""
        if name not in self.arrays:
            return default
        value = np.asarray(self.arrays[name], np.float64)
        if value.shape not in ((), (size,)) or not (np.isfinite(value) & (value > 0)).all():
            raise InputError(
                f"{self.name}: {name} must be a positive number, or {size} of them, and it has "
                f"shape {value.shape}."
            )
        return np.broadcast_to(value, (size,))

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array of a shape, with at least as many samples.

        Raises
        ------
        InputError
            When it has another shape, or values that are not finite.
        """
        value = self.arrays[name]
        if value.ndim != len(shape) or value.shape[1:] != shape[1:] or len(value) < shape[0]:
            raise InputError(
                f"{self.name}: {name} has shape {value.shape}, and the network and its inputs need "
                f"{shape}, or more samples; record the same samples in the same order."
            )
        if not np.isfinite(value).all():
            raise InputError(f"{self.name}: {name} has values that are not finite; leave it out.")
        return value[: shape[0]]


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise InputError unless all members are arrays of numbers of the size that they state."""
    total = 0
    for member in archive.infolist():
        with archive.open(member) as file:
            version: tuple[int, int] = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
            read: Any = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            name, start = member.filename.removesuffix(".npy"), file.tell()
        if dtype.kind not in "biuf":
            raise InputError(f"{path}: {name} is of type {dtype}; a recording holds numbers only.")
        size = dtype.itemsize
        for length in shape:
            size *= int(length)
        if size != member.file_size - start:
            raise InputError(
                f"{path}: {name} states {size:,} bytes and has {member.file_size - start:,}; the "
                "file is corrupt."
            )
        total += size
    if total > LARGEST:
        raise InputError(
            f"{path} holds {total:,} bytes; at most {LARGEST:,} are possible: record fewer samples."
        )


class RecordedTarget(InOnePart):
    """Return a recording as the run of a network.

    Parameters
    ----------
    recording : Recording, path or str
    """

    accepts: tuple[type, ...] = (IntegerNetwork,)

    def __init__(self, recording: Recording | Path | str) -> None:
        if not isinstance(recording, Recording):
            recording = Recording.load(recording)
        self.recording = recording
        self.name = f"recorded/{recording.name}"

    @property
    def samples(self) -> int:
        """Number of samples of the shortest array."""
        lengths = [len(v) for n, v in self.recording.arrays.items() if n not in _SCALES and v.ndim]
        return min(lengths, default=0)

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Return the reasons why the recording is none of this network: arrays that it lacks."""
        known = {str(p.place) for p in network.populations}
        reasons = [
            f"{name} names no population of the network ({', '.join(sorted(known))})"
            for name in self.recording.arrays
            if name.startswith((STATES, EVENTS)) and name.partition("/")[2] not in known
        ]
        if "y" not in self.recording.arrays and f"{STATES}{network.output}" not in (
            self.recording.arrays
        ):
            reasons.append("the recording has no outputs y")
        return reasons

    def run(
        self,
        network: IntegerNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Return the recording of these inputs; nothing runs.

        Raises
        ------
        InputError
            When an array has another shape than the network and the inputs need.
        """
        from lmu_deploy.core.integer.graph import sources  # which imports SciPy

        inputs = checked_inputs(self, network, inputs)
        samples, steps = inputs.shape[:2]
        parts = _Parts(self.recording, network, samples, steps)
        y = parts.outputs()
        if progress:
            progress(samples, samples)
        return Run(
            target=self.name,
            outputs=y,
            neurons={str(place): source.neurons for place, source in sources(network).items()},
            events=parts.events(),
            synops=0,
            saturations={},
            steps=steps,
            chip_steps=steps,
            wall_seconds=0.0,
            seed=seed,
            states=parts.states() if record else None,
            notes=tuple(parts.notes),
            settings={"recording": self.recording.name, "arrays": list(self.recording.arrays)},
        )


class _Parts:
    """A recording cut into populations."""

    def __init__(
        self, recording: Recording, network: IntegerNetwork, samples: int, steps: int
    ) -> None:
        from lmu_deploy.core.integer.graph import frame_counts  # which imports SciPy

        self.recording, self.network, self.samples = recording, network, samples
        self.frames = frame_counts(network, steps)
        self.notes: list[str] = []
        self.named = {
            name.removeprefix(EVENTS): p.place
            for name in recording.arrays
            for p in network.populations
            if name == f"{EVENTS}{p.place}"
        }

    def _shape(self, place: Place) -> tuple[int, int, int]:
        return self.samples, self.frames[place], self.network[place].size

    def outputs(self) -> np.ndarray:
        """Return the outputs as real numbers, of the last frame for a network that answers once."""
        network = self.network
        samples, frames, size = self._shape(network.output)
        if "y" not in self.recording.arrays:
            name = f"{STATES}{network.output}"
            values = self.recording.array(name, (samples, frames, size))
        elif self.recording.arrays["y"].ndim == 2 and not network.return_sequences:
            return self._real_y(self.recording.array("y", (samples, size)))
        else:
            values = self.recording.array("y", (samples, frames, size))
        real = self._real_y(values)
        return real if network.return_sequences else real[:, -1]

    def _real_y(self, values: np.ndarray) -> np.ndarray:
        own = self.network.y_scale if values.dtype.kind in "biu" else 1.0
        scale = self.recording.number("y_scale", values.shape[-1], np.full(values.shape[-1], own))
        return np.asarray(values * scale)

    def events(self) -> dict[str, np.ndarray]:
        """Return recorded events by population."""
        return {
            name: self.recording.array(
                f"{EVENTS}{name}", (self.samples, self.frames[place])
            ).astype(np.int64)
            for name, place in self.named.items()
        }

    def states(self) -> States:
        """Return what was recorded as states, in integers wherever it can be."""
        found: dict[Place, np.ndarray] = {}
        for array, populations in (("m", self.network.memories), ("h", self.network.units)):
            if array in self.recording.arrays:
                found |= self._cut(array, list(populations))
        for p in self.network.populations:
            name = f"{STATES}{p.place}"
            if name in self.recording.arrays and not isinstance(p, Input):
                self._take(found, p, name, self.recording.array(name, self._shape(p.place)))
        output = self.network.output
        if output not in found and "y" in self.recording.arrays:
            y = self.recording.arrays["y"]
            if y.ndim == 3:
                self._take(found, self.network[output], "y", y[: self.samples])
        return self._joined(found)

    def _cut(self, array: str, populations: list[Any]) -> dict[Place, np.ndarray]:
        """Cut the columns of m or h into those of each population."""
        frames = {self.frames[p.place] for p in populations}
        if len(frames) > 1:
            raise InputError(
                f"{self.recording.name}: populations in {array} have different numbers of frames; "
                f"record each as {STATES}PLACE."
            )
        sizes = [p.size for p in populations]
        shape = self.samples, *frames, sum(sizes)
        values, found, start = self.recording.array(array, shape), dict[Place, np.ndarray](), 0
        for p, size in zip(populations, sizes, strict=True):
            self._take(found, p, array, values[..., start : start + size], start, shape[-1])
            start += size
        return found

    def _take(
        self,
        found: dict[Place, np.ndarray],
        p: Any,
        name: str,
        values: np.ndarray,
        start: int = 0,
        columns: int | None = None,
    ) -> None:
        """Keep an array of a population, as integers in its own units if it is one."""
        columns = p.size if columns is None else columns
        if isinstance(p, HostNodes):
            found[p.place] = values.astype(np.float64)
            return
        scale = f"{name}_scale" if name in _ARRAYS else ""
        if values.dtype.kind in "biu" and scale not in self.recording.arrays:
            found[p.place] = values.astype(np.int64)
            return
        default = np.full(columns, p.scale if values.dtype.kind in "biu" else 1.0)
        unit = self.recording.number(scale, columns, default)[start : start + p.size]
        units = values * (unit / p.scale)
        whole = np.rint(units)
        if np.abs(units - whole).max(initial=0.0) <= _WHOLE:
            found[p.place] = whole.astype(np.int64)
        else:
            self.notes.append(
                f"{name} holds real numbers of {p.place} that are no whole multiples of "
                f"{p.scale:.3g}, so they cannot equal the specification's integers and are not "
                "replayed."
            )

    def _joined(self, found: dict[Place, np.ndarray]) -> States:
        """Return States; arrays that were not recorded have no columns."""
        network = self.network
        whole = all(p.place in found for p in (*network.memories, *network.units))
        if whole and network.output in found:
            return States.of_integers(network, found)
        m = [found[p.place] for p in network.memories if p.place in found]
        same = len(m) == len(network.memories) and len({a.shape[1] for a in m}) == 1
        same = (
            same and network.output in found and not isinstance(network[network.output], HostNodes)
        )
        frames = max(self.frames.values())
        none = np.zeros((self.samples, frames, 0), np.int32)
        scales = [np.full(p.size, p.scale) for p in network.memories] if same and m else []
        parts = {str(place): values for place, values in found.items()}
        states = States(none, none, none, np.zeros(0), np.zeros(0), 1.0, parts=parts)
        if not same or not m:
            return states
        from lmu_deploy.core.integer.graph import memory_basis  # which imports SciPy

        return replace(
            states,
            m=np.concatenate(m, axis=2),
            y=found[network.output],
            y_scale=network.y_scale,
            m_scale=np.concatenate(scales),
            m_basis=memory_basis(network),
        )
