"""Open a file that Keras saved: its configuration, if it has one, and the arrays of each layer.

A `.keras` file is an archive of `config.json` and `model.weights.h5`; a whole-model `.h5` stores
the configuration in an attribute; a weights-only `.h5` has none. No entry is ever unpacked under
the name that the archive gives it.

Keras has two layouts of weights:

- By variables (`.keras`, `.weights.h5`): ``layers/KEY/.../vars/NUMBER``, with KEY from the layer's
  class, numbered in the order in which the layer created them. The hidden cell has a group
  ``hidden_cell`` of its own.
- By names (`.h5` of Keras 2, whole-model `.h5` of both): ``LAYER/...`` with the attribute
  `weight_names`, whose last parts are kernel, recurrent_kernel, bias, theta_inv; those of the
  hidden cell are one level deeper.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from converters.keras_lmu.architecture import KerasLayer
from converters.keras_lmu.blocks import Expected
from converters.sandbox import FileContents, limits, read_in_sandbox
from lmu_deploy.core.errors import InputError

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
_DIGITS = 30
_BLOCK = 2**20


def open_keras(path: Path) -> tuple[dict[str, Any] | None, FileContents]:
    """Return the model's configuration (None for a weights-only file) and the file's contents.

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
    text = contents.header["attributes"].get("", {}).get("model_config")
    return (parse_json(text, str(path)) if isinstance(text, str) else None), contents


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


def _open_archive(path: Path) -> tuple[dict[str, Any], FileContents]:
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            _check_names(path, archive.namelist())
            config = parse_json(_take(archive, CONFIG, limits.JSON_BYTES), str(path))
            weights = Path(folder) / WEIGHTS
            weights.write_bytes(_take(archive, WEIGHTS, limits.ARRAY_BYTES))
            try:
                return config, read_in_sandbox("hdf5", weights)
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


Arrays = dict[str, np.ndarray]
_VARIABLE_ROOTS = ("layers", "_layer_checkpoint_dependencies")
_NOT_WEIGHTS = ("delay_layer", "seed_generator", "dropout_layer")


class LayerWeights:
    """The arrays of all layers of one file."""

    def __init__(self, contents: FileContents, layers: Iterable[KerasLayer]) -> None:
        self._arrays = contents.arrays
        self._roots = _variable_groups(contents.arrays)
        self._named = _named_groups(contents)
        self._order = [layer.name for layer in layers]

    def of(
        self, layer: KerasLayer, expected: Expected, problems: list[str]
    ) -> dict[str, np.ndarray]:
        """Return a layer's arrays by role (``kernel``, ``hidden/kernel``); add to `problems`."""
        own, hidden = self._by_variables(layer) if self._roots else self._by_names(layer, expected)
        found: Arrays = {}
        for prefix, wanted, arrays in (
            ("", expected.own, own),
            ("hidden/", expected.hidden, hidden),
        ):
            if not prefix:
                names = {_role(path) for path in arrays}
                wanted = (*wanted, *(role for role in expected.optional if role in names))
            if len(wanted) != len(arrays):
                problems.append(
                    f"{layer} has {len(arrays)} {'hidden ' if prefix else ''}weights in the file, "
                    f"and its configuration needs {len(wanted)}"
                )
                continue
            found.update(_assign(prefix, wanted, arrays))
        return found

    def unused(self, layers: Iterable[KerasLayer]) -> list[str]:
        """Return the names of groups with weights that belong to none of `layers`."""
        if self._roots:
            return sorted(set(self._roots) - {layer.key for layer in layers})
        by_place = len(self._order) == len(self._named)
        return [] if by_place else sorted(set(self._named) - {layer.name for layer in layers})

    def _by_variables(self, layer: KerasLayer) -> tuple[Arrays, Arrays]:
        group = self._roots.get(layer.key, {})
        own = {path: array for path, array in group.items() if "hidden_cell" not in path.split("/")}
        hidden = {path: array for path, array in group.items() if path not in own}
        return own, hidden

    def _by_names(self, layer: KerasLayer, expected: Expected) -> tuple[Arrays, Arrays]:
        group = self._named.get(layer.name)
        if group is None and layer.name in self._order and len(self._order) == len(self._named):
            group = list(self._named.values())[self._order.index(layer.name)]
        if group is None:
            return {}, {}
        parents = sorted({_parent(path) for path in group}, key=len)
        if not expected.hidden or (not expected.own and len(parents) == 1):
            return ({}, group) if expected.hidden else (group, {})
        own = {
            path: array for path, array in group.items() if path.rpartition("/")[0] == parents[0]
        }
        return own, {path: array for path, array in group.items() if path not in own}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _role(path: str) -> str:
    """Return the last part of a path without the number that Keras 2 puts behind it."""
    return path.rpartition("/")[2].partition(":")[0]


def _assign(prefix: str, wanted: tuple[str, ...], arrays: Arrays) -> Arrays:
    """Assign arrays to roles: by name where they have one, otherwise in order of creation."""
    names = {_role(path): array for path, array in arrays.items()}
    if set(names) == set(wanted):
        return {prefix + role: names[role] for role in wanted}
    ordered = sorted(arrays.items(), key=lambda item: _number(item[0]))
    return {prefix + role: array for role, (_, array) in zip(wanted, ordered, strict=True)}


def _number(path: str) -> int:
    last = path.rpartition("/")[2]
    return int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0


def _variable_groups(arrays: Arrays) -> dict[str, Arrays]:
    """Group ``layers/KEY/...`` by KEY, without variables that do not affect the output."""
    groups: dict[str, Arrays] = {}
    for path, array in arrays.items():
        root, _, rest = path.partition("/")
        key, _, inner = rest.partition("/")
        parts = inner.split("/")
        if root in _VARIABLE_ROOTS and "vars" in parts and not set(parts) & set(_NOT_WEIGHTS):
            groups.setdefault(key, {})[inner] = array
    return groups


def _named_groups(contents: FileContents) -> dict[str, Arrays]:
    """Group arrays by the layer that names them, in the order of the layers."""
    attributes: dict[str, dict[str, Any]] = contents.header["attributes"]
    root = "model_weights/" if "model_weights" in attributes else ""
    groups: dict[str, Arrays] = {}
    for layer in _list(attributes.get(root.rstrip("/"), {}), "layer_names"):
        group = f"{root}{layer}"
        names = _list(attributes.get(group, {}), "weight_names")
        paths = [f"{group}/{name}" for name in names] or [
            path for path in contents.arrays if path.startswith(f"{group}/")
        ]
        found = {path: contents.arrays[path] for path in paths if path in contents.arrays}
        if found:
            groups[layer] = found
    return groups


def _list(attributes: dict[str, Any], name: str) -> list[str]:
    """Read a list of texts, which Keras splits into name0, name1, ... when it is long."""
    whole = attributes.get(name)
    if isinstance(whole, list):
        return whole
    pieces: list[str] = []
    for number in range(len(attributes)):
        piece = attributes.get(f"{name}{number}")
        pieces.extend(piece if isinstance(piece, list) else [])
    return pieces
