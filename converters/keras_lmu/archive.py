"""Open a file that Keras saved: its configuration, if it has one, and its arrays.

A `.keras` file is an archive of `config.json` and `model.weights.h5`; a whole-model `.h5` keeps the
configuration in an attribute; a weights-only `.h5` has none. Nothing is ever unpacked under a name
that the archive gives.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from converters.contained import Contents, limits, read_contained
from lmu_deploy.errors import InputError

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
_DIGITS = 30
_BLOCK = 2**20


def open_keras(path: Path) -> tuple[dict[str, Any] | None, Contents]:
    """Give the model's configuration (None in a weights-only file) and its contents.

    Raises
    ------
    InputError
        When the file is damaged, too large, or no file of Keras.
    """
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive:
        return _open_archive(path)
    contents = read_contained("hdf5", path)
    text = contents.header["attributes"].get("", {}).get("model_config")
    return (parse_json(text, str(path)) if isinstance(text, str) else None), contents


def parse_json(text: str | bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object of limited size.

    Raises
    ------
    InputError
        When it is too long, no JSON, nested too deeply, or no object.
    """
    if len(text) > limits.JSON_BYTES:
        raise InputError(f"{what}: its JSON text is longer than {limits.JSON_BYTES} bytes.")
    try:
        found = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: its JSON text is damaged; save the file again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{what}: its JSON text is no object; save the file again.")
    return found


def _integer(digits: str) -> int:
    """Read an integer; one of a million digits would take minutes to convert."""
    if len(digits) > _DIGITS:
        raise ValueError("an integer with too many digits")
    return int(digits)


def _open_archive(path: Path) -> tuple[dict[str, Any], Contents]:
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            _check_names(path, archive.namelist())
            config = parse_json(_take(archive, CONFIG, limits.JSON_BYTES), str(path))
            weights = Path(folder) / WEIGHTS
            weights.write_bytes(_take(archive, WEIGHTS, limits.ARRAY_BYTES))
            try:
                return config, read_contained("hdf5", weights)
            except InputError as error:
                raise InputError(str(error).replace(str(weights), f"{path}, {WEIGHTS}")) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
        raise InputError(
            f"{path} is no readable .keras file ({type(error).__name__}); save it again."
        ) from error


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse archives that were made to harm whoever unpacks them."""
    if len(names) > limits.OBJECTS or len(set(names)) < len(names):
        raise InputError(f"{path} holds an entry twice, or too many; save it again.")
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in name:
            raise InputError(
                f"{path} holds an entry that leads out of the archive ({name[:80]!r}); "
                "do not unpack it, and get the file from another source."
            )
    if missing := [name for name in (CONFIG, WEIGHTS) if name not in names]:
        raise InputError(f"{path} holds no {missing[0]}; save it with model.save('NAME.keras').")


def _take(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Read an entry, never more than `most` bytes, whatever the archive says of its size."""
    taken = bytearray()
    with archive.open(name) as entry:
        while block := entry.read(_BLOCK):
            taken += block
            if len(taken) > most:
                raise InputError(f"{name} unpacks to more than {most} bytes; it is not imported.")
    return bytes(taken)
