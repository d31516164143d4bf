"""Open a file that Keras saved: its configuration, if it has one, its arrays, and its version.

A `.keras` file is an archive of `config.json` and `model.weights.h5`; a whole-model `.h5` stores
the configuration in an attribute; a weights-only `.h5` has none. No entry is ever unpacked under
the name that the archive gives it.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from converters.sandbox import FileContents, limits, read_in_sandbox
from lmu_deploy.core.errors import InputError

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
METADATA = "metadata.json"
_DIGITS = 30
_BLOCK = 2**20


@dataclass(frozen=True)
class KerasFile:
    """What a file of Keras holds.

    Attributes
    ----------
    config : dict or None
        The model's configuration; None for a weights-only file.
    contents : FileContents
    version : str
        Version of Keras that wrote it, such as ``2.2.4``; empty if the file does not say.
    """

    config: dict[str, Any] | None
    contents: FileContents
    version: str


def open_keras(path: Path) -> KerasFile:
    """Read a file that Keras saved.

    Raises
    ------
    InputError
        When the file is damaged, too large, or not a file of Keras.
    """
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive:
        return _open_archive(path)
    contents = read_in_sandbox("hdf5", path)
    root = contents.header["attributes"].get("", {})
    inner = contents.header["attributes"].get("model_weights", {})
    text = root.get("model_config")
    config = parse_json(text, str(path)) if isinstance(text, str) else None
    version = root.get("keras_version", inner.get("keras_version", ""))
    return KerasFile(config, contents, version if isinstance(version, str) else "")


def parse_json(text: str | bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object of limited size.

    Raises
    ------
    InputError
        When it is too long, not JSON, nested too deeply, or not an object.
    """
    if len(text) > limits.JSON_BYTES:
        raise InputError(f"{what}: its JSON text is longer than {limits.JSON_BYTES} bytes.")
    try:
        found = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what}: its JSON text is damaged; save the file again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{what}: its JSON text is not an object; save the file again.")
    return found


def _integer(digits: str) -> int:
    """Parse an integer; one with a million digits would take minutes."""
    if len(digits) > _DIGITS:
        raise ValueError("an integer with too many digits")
    return int(digits)


def _open_archive(path: Path) -> KerasFile:
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            _check_names(path, archive.namelist())
            config = parse_json(_take(archive, CONFIG, limits.JSON_BYTES), str(path))
            version = _version(archive, str(path))
            weights = Path(folder) / WEIGHTS
            weights.write_bytes(_take(archive, WEIGHTS, limits.ARRAY_BYTES))
            try:
                return KerasFile(config, read_in_sandbox("hdf5", weights), version)
            except InputError as error:
                raise InputError(str(error).replace(str(weights), f"{path}, {WEIGHTS}")) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, RuntimeError) as error:
        raise InputError(
            f"{path} is not a readable .keras file ({type(error).__name__}); save it again."
        ) from error


def _check_names(path: Path, names: list[str]) -> None:
    """Check the names of the entries; a malicious archive may name files outside of it."""
    if len(names) > limits.OBJECTS or len(set(names)) < len(names):
        raise InputError(f"{path} has duplicate entries, or too many; save it again.")
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in name:
            raise InputError(
                f"{path} has an entry that leads out of the archive ({name[:80]!r}); "
                "do not unpack it, and get the file from another source."
            )
    if missing := [name for name in (CONFIG, WEIGHTS) if name not in names]:
        raise InputError(f"{path} has no {missing[0]}; save it with model.save('NAME.keras').")


def _take(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Read an entry of at most `most` bytes, whatever size the archive states."""
    taken = bytearray()
    with archive.open(name) as entry:
        while block := entry.read(_BLOCK):
            taken += block
            if len(taken) > most:
                raise InputError(f"{name} unpacks to more than {most} bytes; it is not imported.")
    return bytes(taken)


def _version(archive: zipfile.ZipFile, what: str) -> str:
    """Return the version that an archive records, if it does."""
    if METADATA not in archive.namelist():
        return ""
    found = parse_json(_take(archive, METADATA, limits.JSON_BYTES), what).get("keras_version")
    return found if isinstance(found, str) else ""
