"""Files of recordings: arrays of numbers, whose types, shapes and sizes are checked.

A file is read without pickle, and the type, shape and size of every array are checked before it is
loaded. docs/how-to/board.md describes the arrays.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import DAMAGED
from lmu_deploy.core.loading import FORMS
from lmu_deploy.core.representation import shortened

LARGEST = 2**31
"""Bytes of all arrays of a recording."""
STATES, EVENTS, SPIKES, COUNTS, LIST = "states/", "events/", "spikes/", "counts/", "aer/"
"""Beginnings of the names of arrays that belong to one population."""
SCALES = ("y_scale", "m_scale", "h_scale")
WHOLE = 1e-3
"""Largest distance of a real from a whole number of units that still counts as an integer."""
_BY_SAMPLE = "y", "m", "h", STATES, EVENTS
"""Arrays whose first axis is that of the samples."""


@dataclass(frozen=True)
class Recording:
    """Arrays of a recording.

    Attributes
    ----------
    name : str
    arrays : mapping of str to ndarray
        See docs/how-to/board.md.
    form : {"", "integer", "spiking", "loihi"}
        Which network was recorded; by default the one that was given, or the integer one.

    Raises
    ------
    InputError
        When no such form can be recorded.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    form: str = ""

    def __post_init__(self) -> None:
        forms = [form for form in FORMS if form != "float"]
        if self.form and self.form not in forms:
            raise InputError(
                f"a recording of the form {self.form!r} is not possible; choose one of "
                f"{', '.join(forms)}."
            )

    def __repr__(self) -> str:
        """Return one line of at most 100 characters."""
        return shortened(f"Recording({self.name}: {', '.join(self.arrays)})")

    @classmethod
    def load(cls, path: Path | str) -> Recording:
        """Read a file.

        Parameters
        ----------
        path : path or str
            Such as ``board.npz``, or with the form in front ``spiking=board.npz``.

        Raises
        ------
        InputError
            When it is no .npz file, holds Python objects, or is too large.
        """
        form, equals, rest = str(path).partition("=")
        if not equals or form not in FORMS:
            form, rest = "", str(path)
        path = Path(rest)
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
        return cls(path.stem, arrays, form)

    @property
    def samples(self) -> int:
        """Number of samples of the shortest array; 0 if there is none."""
        lengths = [
            len(values)
            for name, values in self.arrays.items()
            if values.ndim and (name in _BY_SAMPLE or name.startswith(_BY_SAMPLE[3:]))
        ]
        return min(lengths, default=0)

    @property
    def of_neurons(self) -> bool:
        """Whether some array is one that only networks on neurons have."""
        ends = "/drive", "/read"
        return any(n.startswith((SPIKES, COUNTS, LIST)) or n.endswith(ends) for n in self.arrays)

    def named(self, *beginnings: str) -> Iterator[tuple[str, str]]:
        """Yield the names of arrays that begin so, and of the population that each belongs to."""
        for name in self.arrays:
            if name.startswith(beginnings):
                yield name, name.partition("/")[2]

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

    def outputs(
        self, shape: tuple[int, int, int], unit: float, sequences: bool
    ) -> tuple[np.ndarray, bool]:
        """Return y as real numbers, and whether it has all frames.

        Parameters
        ----------
        shape : (samples, frames, n_out)
        unit : float
            Real value of one unit, of integers without a scale.
        sequences : bool
            Whether every frame is an answer; otherwise the last one alone is enough.
        """
        samples, _, size = shape
        values = self.arrays["y"]
        whole = values.ndim == 3 or sequences
        values = self.array("y", shape if whole else (samples, size))
        integers = values.dtype.kind in "biu"
        if not integers and "y_scale" not in self.arrays:
            return values, whole
        own = np.full(size, unit if integers else 1.0)
        return np.asarray(values * self.number("y_scale", size, own)), whole


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
