"""Result folders: ``fidelity.json``, and ``plots.npz`` with the rasters that a report draws.

A report depends on these files only, so it can be regenerated from the folder. Numbers of
fidelity.json are read exactly as they were written. The JSON text has a fixed order and lists of
numbers on one line, so that two files can be compared line by line. While a validation runs, the
folder also holds what it has finished (:class:`Parts`).
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from converters.spiking.recipe import CALIBRATION_CLASSES, Calibrated
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write, load, save, write_text
from lmu_deploy.core.loading import NETWORK_CLASSES, AnyNetwork
from lmu_deploy.fidelity.attribution import Attribution, Cause, Errors, Step
from lmu_deploy.fidelity.attribution.shapley import Part as ShapleyPart
from lmu_deploy.fidelity.attribution.shapley import Parts as ShapleyParts
from lmu_deploy.fidelity.attribution.switches import Tally
from lmu_deploy.fidelity.measures.events import Counted, RasterExcerpt
from lmu_deploy.fidelity.schema import Fidelity
from lmu_deploy.fidelity.streaming import StreamedRun
from targets.base import States

_LOG = logging.getLogger(__name__)

_NUMBERS = re.compile(r"\[\n[-+.,eE\d\snul]+\]")


def plain(value: Any) -> Any:
    """Convert settings of a target into values that JSON can represent.

    NumPy scalars and arrays become Python numbers and lists, non-finite numbers become None, and
    any other object becomes its text.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def canonical_json(value: Any) -> str:
    """Return plain values as JSON text in their own order, with a newline at the end.

    Raises
    ------
    ValueError
        When a number is not finite.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return _NUMBERS.sub(_on_one_line, text) + "\n"


def _on_one_line(found: re.Match[str]) -> str:
    """Join the lines of a list of numbers; JSON strings contain no newline and never match."""
    return " ".join(found.group().split()).replace("[ ", "[").replace(" ]", "]")


FIDELITY = "fidelity.json"
PLOTS = "plots.npz"


def write_fidelity(
    folder: Path | str, fidelity: Fidelity, excerpts: dict[str, RasterExcerpt] | None = None
) -> Path:
    """Write both files into `folder`, which must exist; return the path of fidelity.json.

    Raises
    ------
    InputError
        When the folder cannot be written.
    """
    folder = Path(folder)
    excerpts = excerpts or {}
    arrays: dict[str, Any] = {str(i): e.packed() for i, e in enumerate(excerpts.values())}
    arrays["names"] = np.array(list(excerpts), dtype=np.str_)
    with atomic_write(folder / PLOTS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    write_text(folder / FIDELITY, canonical_json(fidelity.model_dump(mode="json", by_alias=True)))
    return folder / FIDELITY


_RENAMED_KEYS = {("divergence", "partings"): "points", ("equal_to", "apart"): "on_host"}
_RENAMED_WORDS = {
    "discretiser": "discretizer",
    "discretisation": "discretization",
    "realisation": "realization",
    "synchronisation": "synchronization",
    "hold_ms": "presentation_ms",
}
_OLD_WORD = re.compile(rf"\b({'|'.join(_RENAMED_WORDS)})\b")
_VERBATIM = "command"
"""Key of texts that are never changed: a command must stay as it was run."""


def _upgraded(value: Any, key: str = "") -> Any:
    """Return JSON data of version 1 with the names of version 2, as keys and in texts."""
    if isinstance(value, dict):
        return {_upgraded_key(key, name): _upgraded(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_upgraded(item, key) for item in value]
    return _american(value) if isinstance(value, str) and key != _VERBATIM else value


def _upgraded_key(parent: str, name: str) -> str:
    return _RENAMED_KEYS.get((parent, name), _american(name))


def _american(text: str) -> str:
    return _OLD_WORD.sub(lambda found: _RENAMED_WORDS[found[0]], text)


def _current(data: Any) -> Any:
    """Return JSON data of any known version as that of the current version."""
    if isinstance(data, dict) and data.get("version") == 1:
        return {**_upgraded(data), "version": 2}
    return data


def read_fidelity(folder: Path | str) -> Fidelity:
    """Read fidelity.json from `folder`, of version 2 or 1.

    Raises
    ------
    InputError
        When the file does not exist, is not JSON, or has another format.
    """
    path = Path(folder) / FIDELITY
    if not path.is_file():
        raise InputError(f"{path}: no such file; create it with lmu-deploy validate.")
    try:
        return Fidelity.model_validate(_current(json.loads(path.read_bytes())))
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise InputError(
                f"{path} is not JSON ({error}); create it again with lmu-deploy validate."
            ) from error
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path} is not a fidelity.json of version 1 or 2 ({place}: {first['msg']}); "
            "create it again with lmu-deploy validate."
        ) from error


def read_excerpts(folder: Path | str) -> dict[str, RasterExcerpt]:
    """Read the rasters of plots.npz; return an empty dict when there is no file.

    Raises
    ------
    InputError
        When the file is corrupt.
    """
    path = Path(folder) / PLOTS
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["names"]]
            return {n: RasterExcerpt.unpacked(arrays[str(i)]) for i, n in enumerate(names)}
    except (ValueError, KeyError, OSError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is corrupt ({type(error).__name__}); create it again with lmu-deploy validate."
        ) from error


PARTS = "parts"
"""Folder within a result folder with what an unfinished validation has done."""
_ATTRIBUTION = (Attribution, Step, Errors, Cause, Tally, ShapleyParts, ShapleyPart)
_RANDOM = "?" * 8
"""Pattern of what :func:`atomic_write` adds to the name of a file until it is complete."""


class Parts:
    """What a validation has finished, each part in a file whose name is the hash of its inputs.

    A validation that was stopped finds the parts again and goes on: runs of a target or of some of
    its samples, converted networks, calibrated chips and single ensembles of neurons, and
    attributions with their single runs.
    The file of a part is written whole or not at all, and the folder is removed when the validation
    is complete.

    Parameters
    ----------
    folder : path or None
        The result folder; without one nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / PARTS
        self._made: set[Path] = set()

    def run(self, make: Callable[[], StreamedRun], *inputs: Any) -> StreamedRun:
        """Return the run that `make` returns, or the one that was kept for the same inputs.

        Parameters
        ----------
        make : callable
        *inputs : JSON values and ndarray
            Everything that the run depends on.
        """
        return self._part(make, _plain_run, (StreamedRun, Counted, States), "run", inputs)

    def network(self, make: Callable[[], AnyNetwork], *inputs: Any) -> AnyNetwork:
        """Return the network that `make` returns, or the one that was kept for the same inputs."""
        return self._part(make, _unchanged, NETWORK_CLASSES, "network", inputs)

    def ensemble(self, make: Callable[[], Calibrated], *inputs: Any) -> Calibrated:
        """Return the calibrated ensemble that `make` returns, or the one kept for the inputs."""
        return self._part(make, _unchanged, CALIBRATION_CLASSES, "ensemble", inputs)

    def attribution(self, make: Callable[[], Attribution], *inputs: Any) -> Attribution:
        """Return the attribution that `make` returns, or the one kept for the same inputs."""
        return self._part(make, _unchanged, _ATTRIBUTION, "attribution", inputs)

    def errors(self, make: Callable[[], Errors], *inputs: Any) -> Errors:
        """Return the errors that `make` returns, or those kept for the same inputs."""
        return self._part(make, _unchanged, (Errors,), "errors", inputs)

    def _part(
        self,
        make: Callable[[], Any],
        storable: Callable[[Any], Any],
        classes: tuple[type, ...],
        kind: str,
        inputs: tuple[Any, ...],
    ) -> Any:
        if self._folder is None:
            return make()
        path = self._folder / f"{kind}-{hash_of(kind, *inputs)}.safetensors"
        if path.is_file():
            try:
                found = load(path, classes)
            except InputError:
                path.unlink()  # of another version, or damaged: it is made again
            else:
                if path not in self._made:
                    _LOG.info("kept from an earlier start: %s", path.name)
                return found
        made = make()
        self._folder.mkdir(exist_ok=True)
        save(storable(made), path)
        self._made.add(path)
        return made

    def remove(self) -> None:
        """Remove all parts, and what a killed validation began to write in the result folder."""
        if self._folder is None:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        for path in list(self._folder.parent.iterdir()):
            begun = f".{glob.escape(path.stem)}-{_RANDOM}{glob.escape(path.suffix)}"
            for unfinished in path.parent.glob(begun):
                unfinished.unlink(missing_ok=True)


def hash_of(*values: Any) -> str:
    """Return a short hash of arrays and of what JSON can represent, and of the version of this."""
    digest = hashlib.sha256(version("lmu-deploy").encode())
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(json.dumps(plain(value), sort_keys=True).encode())
    return digest.hexdigest()[:24]


def _unchanged(made: Any) -> Any:
    return made


def _plain_run(run: StreamedRun) -> StreamedRun:
    """Return a run whose numbers and settings a file can hold."""
    numbers = ("neurons", "synops", "saturations", "steps", "chip_steps", "wall_seconds", "seed")
    names = (*numbers, "carried", "notes", "settings")
    return replace(run, events={}, **{name: plain(getattr(run, name)) for name in names})
