"""A folder of results: ``fidelity.json``, and ``plots.npz`` with the rasters that a report draws.

The two are all that a report is made from, so it can be made again from the folder alone. Numbers
of fidelity.json come back as they were written.

JSON that people read and that compares line by line: one order, lists of numbers on one line.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write, write_text
from lmu_deploy.fidelity.measures.events import RasterExcerpt
from lmu_deploy.fidelity.schema import Fidelity

_NUMBERS = re.compile(r"\[\n[-+.,eE\d\snul]+\]")


def plain(value: Any) -> Any:
    """Turn what a target may put into its settings into what JSON can hold.

    NumPy's numbers and arrays become Python's, numbers that are not finite None, and anything else
    its text.
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
    """Write plain values as JSON, in their own order, with a newline at the end.

    Raises
    ------
    ValueError
        When a number is not finite.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return _NUMBERS.sub(_on_one_line, text) + "\n"


def _on_one_line(found: re.Match[str]) -> str:
    """Join the lines of a list of numbers; no text holds a bare newline, so none is matched."""
    return " ".join(found.group().split()).replace("[ ", "[").replace(" ]", "]")


FIDELITY = "fidelity.json"
PLOTS = "plots.npz"


def write_fidelity(
    folder: Path | str, fidelity: Fidelity, excerpts: dict[str, RasterExcerpt] | None = None
) -> Path:
    """Write both files into `folder`, which must exist; give the path of fidelity.json.

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


_RENAMED = {
    "discretiser": "discretizer",
    "realisation": "realization",
    "discretisation": "discretization",
}
"""Names in files of versions before 0.2, and what they are called now."""


def _renamed(value: Any) -> Any:
    """Return JSON data with the names of today as keys and texts."""
    if isinstance(value, dict):
        return {_RENAMED.get(key, key): _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return _RENAMED.get(value, value) if isinstance(value, str) else value


def read_fidelity(folder: Path | str) -> Fidelity:
    """Read fidelity.json from `folder`.

    Raises
    ------
    InputError
        When it is not there, or holds something else.
    """
    path = Path(folder) / FIDELITY
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with lmu-deploy validate.")
    try:
        return Fidelity.model_validate(_renamed(json.loads(path.read_bytes())))
    except ValueError as error:
        if not isinstance(error, ValidationError):
            raise InputError(f"{path} is no JSON ({error}); make it again.") from error
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path} is no fidelity.json of version 1 ({place}: {first['msg']}); make it again."
        ) from error


def read_excerpts(folder: Path | str) -> dict[str, RasterExcerpt]:
    """Read the rasters of plots.npz; none when the file is not there.

    Raises
    ------
    InputError
        When the file is damaged.
    """
    path = Path(folder) / PLOTS
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["names"]]
            return {n: RasterExcerpt.unpacked(arrays[str(i)]) for i, n in enumerate(names)}
    except (ValueError, KeyError, OSError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}); make it again.") from error
