"""Open a file that Keras saved, and find the arrays of each layer in it.

A `.keras` file is an archive of `config.json` and `model.weights.h5`; a whole-model `.h5` stores
the configuration in an attribute; a weights-only `.h5` has none. No entry is ever unpacked under
the name that the archive gives it.

There are two layouts of weights:

- By variables (`.keras`, `.weights.h5`): ``layers/KEY/.../vars/NUMBER``, with KEY from the layer's
  class, numbered in the order in which the layer created them. What a layer contains has groups of
  its own: ``cell``, ``hidden_cell``, ``forward_layer``, ``layers`` of a model inside the model.
- By names (`.h5` of Keras 2, whole-model `.h5` of both): ``LAYER/...`` with the attribute
  `weight_names`, whose last parts are kernel, recurrent_kernel, bias and so on, and whose other
  parts are names of what the layer contains.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from converters.keras_lmu.architecture import KerasLayer
from converters.sandbox import FileContents, process, read_in_sandbox
from lmu_deploy.core.errors import InputError

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
METADATA = "metadata.json"
_DIGITS = 30
_BLOCK = 2**20


@dataclass(frozen=True)
class KerasFile:
    """Contents of a file of Keras.

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
    if len(text) > process.JSON_BYTES:
        raise InputError(f"{what}: its JSON text is longer than {process.JSON_BYTES} bytes.")
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
            config = parse_json(_take(archive, CONFIG, process.JSON_BYTES), str(path))
            version = _version(archive, str(path))
            weights = Path(folder) / WEIGHTS
            weights.write_bytes(_take(archive, WEIGHTS, process.ARRAY_BYTES))
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
    if len(names) > process.OBJECTS or len(set(names)) < len(names):
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
    found = parse_json(_take(archive, METADATA, process.JSON_BYTES), what).get("keras_version")
    return found if isinstance(found, str) else ""


_ROOTS = ("layers", "_layer_checkpoint_dependencies")
_NOT_WEIGHTS = ("delay_layer", "delay_", "seed_generator", "dropout_layer", "_random_generator")
Entry = tuple[tuple[str, ...], np.ndarray]
"""The parts of an array's path inside its layer, and the array."""


class Arrays:
    """The arrays of one layer, or of a layer or cell inside it.

    Parameters
    ----------
    entries : iterable of Entry
        In the order in which Keras created them.
    taken : set of int
        Identities of the arrays that were taken, shared by all arrays of a file.
    """

    def __init__(self, entries: Iterable[Entry], taken: set[int]) -> None:
        self._entries = list(entries)
        self._taken = taken

    def __len__(self) -> int:
        return len(self._entries)

    def group(self, *names: str, start: bool = False) -> Arrays:
        """Return the arrays that lie in a group of one of these names, or of such a beginning."""

        def belongs(part: str) -> bool:
            return part.startswith(names) if start else part in names

        return Arrays((e for e in self._entries if any(map(belongs, e[0][:-1]))), self._taken)

    def without(self, other: Arrays) -> Arrays:
        """Return the arrays that are not among others."""
        others = {id(array) for _, array in other._entries}
        return Arrays((e for e in self._entries if id(e[1]) not in others), self._taken)

    def of_layer(self, layer: KerasLayer) -> Arrays:
        """Return the arrays of a layer of the model whose arrays these are."""
        if any(parts[0] in _ROOTS for parts, _ in self._entries):
            inner = [
                (parts[2:], array)
                for parts, array in self._entries
                if len(parts) > 2 and parts[0] in _ROOTS and parts[1] == layer.key
            ]
            return Arrays(inner, self._taken)
        return self.group(layer.name)

    def deepest(self) -> Arrays:
        """Return the arrays that lie deeper than the first level."""
        parents = sorted({parts[:-1] for parts, _ in self._entries}, key=len)
        return Arrays((e for e in self._entries if e[0][:-1] != parents[0]), self._taken)

    def below(self, name: str) -> Arrays:
        """Return the arrays of a group with their paths inside it."""
        return Arrays(
            (
                (parts[parts.index(name) + 1 :], array)
                for parts, array in self._entries
                if name in parts[:-1]
            ),
            self._taken,
        )

    def reals(self) -> Arrays:
        """Return the arrays of real numbers, without counters."""
        return Arrays((e for e in self._entries if e[1].dtype.kind == "f"), self._taken)

    def split(self, counts: Sequence[int]) -> list[Arrays]:
        """Return the arrays in groups of so many, in their order."""
        entries = iter(self._entries)
        return [
            Arrays([next(entries) for _ in range(min(n, len(self)))], self._taken) for n in counts
        ]

    def names(self) -> set[str]:
        """Return the roles of the arrays, as far as the file names them."""
        return {_role(parts) for parts, _ in self._entries}

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the arrays, in the order in which Keras created them."""
        return [array.shape for _, array in self._entries]

    def numbered(self) -> bool:
        """Return whether the file numbers the arrays in place of naming them."""
        return all(name.isdigit() for name in self.names())

    def take(self, *wanted: str, optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
        """Return arrays by role (``kernel``, ``bias``), in at least float32.

        Parameters
        ----------
        *wanted : str
            Roles in the order in which Keras creates them.
        optional : tuple of str
            Roles that some versions store, by name.

        Raises
        ------
        InputError
            When there are more or fewer arrays than roles, or one holds no real numbers.
        """
        names = self.names()
        roles = (*wanted, *(role for role in optional if role in names))
        if len(roles) != len(self._entries):
            raise InputError(
                f"has {len(self._entries)} weights in the file, and its configuration needs "
                f"{len(roles)}"
            )
        if names == set(roles):
            found = {_role(parts): array for parts, array in self._entries}
        else:
            ordered = (array for _, array in self._entries)
            found = dict(zip(roles, ordered, strict=True))
        self._taken.update(id(array) for _, array in self._entries)
        return {role: _float(found[role]) for role in roles}

    def pass_over(self) -> None:
        """Mark all arrays as taken: they do not affect the output."""
        self._taken.update(id(array) for _, array in self._entries)

    def left(self) -> bool:
        """Return whether some arrays were not taken."""
        return any(id(array) not in self._taken for _, array in self._entries)


def _role(parts: tuple[str, ...]) -> str:
    """Return the last part of a path without the number that Keras 2 puts behind it."""
    return parts[-1].partition(":")[0]


def _float(array: np.ndarray) -> np.ndarray:
    """Return an array in at least float32, the type in which Keras computes."""
    if array.dtype.kind != "f":
        raise InputError(f"a weight has type {array.dtype}; weights must be real numbers.")
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


class FileWeights:
    """The arrays of all layers of one file.

    Parameters
    ----------
    contents : FileContents
    layers : iterable of KerasLayer
        Those of the whole model that can have weights, in the order of the file.
    """

    def __init__(self, contents: FileContents, layers: Iterable[KerasLayer]) -> None:
        self._taken: set[int] = set()
        self._variables = _variable_groups(contents)
        self._groups = self._variables or _named_groups(contents)
        self._owners = self._assign(list(layers))

    def _assign(self, layers: list[KerasLayer]) -> dict[str, KerasLayer]:
        """Return the layer of each group: that of its name, or of its place if there are as many.

        Keras itself loads weights by their place.
        """
        if self._variables:
            return {layer.key: layer for layer in layers if layer.key in self._groups}
        owners = {layer.name: layer for layer in layers if layer.name in self._groups}
        if len(layers) == len(self._groups):
            for group, layer in zip(self._groups, layers, strict=True):
                owners.setdefault(group, layer)
        return owners

    def of(self, layer: KerasLayer) -> Arrays:
        """Return the arrays of a layer of the whole model."""
        for group, owner in self._owners.items():
            if owner.name == layer.name:
                return Arrays(self._groups[group], self._taken)
        return Arrays((), self._taken)

    def left(self, used: Iterable[str]) -> list[str]:
        """Return the names of groups with weights that no layer takes.

        Parameters
        ----------
        used : iterable of str
            Layers that the network needs; the weights of others may be left.
        """
        used = set(used)
        found = []
        for group, entries in self._groups.items():
            owner = self._owners.get(group)
            if owner is None or (owner.name in used and Arrays(entries, self._taken).left()):
                found.append(group)
        return sorted(found)


def _variable_groups(contents: FileContents) -> dict[str, list[Entry]]:
    """Group ``layers/KEY/...`` by KEY, without variables that do not affect the output."""
    groups: dict[str, list[tuple[tuple[str, ...], np.ndarray]]] = {}
    for path, array in contents.arrays.items():
        root, _, rest = path.partition("/")
        key, _, inner = rest.partition("/")
        parts = tuple(inner.split("/"))
        if root in _ROOTS and "vars" in parts and not set(parts) & set(_NOT_WEIGHTS):
            kept = (*(part for part in parts[:-1] if part != "vars"), parts[-1])
            groups.setdefault(key, []).append((kept, array))
    return {key: sorted(group, key=_number) for key, group in groups.items()}


def _number(entry: Entry) -> tuple[tuple[str, ...], int]:
    last = entry[0][-1]
    number = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0
    return entry[0][:-1], number


def _named_groups(contents: FileContents) -> dict[str, list[Entry]]:
    """Group arrays by the layer that names them, in the order of the layers."""
    attributes: dict[str, dict[str, Any]] = contents.header["attributes"]
    root = "model_weights/" if "model_weights" in attributes else ""
    groups: dict[str, list[Entry]] = {}
    for layer in _list(attributes.get(root.rstrip("/"), {}), "layer_names"):
        group = f"{root}{layer}"
        names = _list(attributes.get(group, {}), "weight_names")
        paths = [f"{group}/{name}" for name in names] or [
            path for path in contents.arrays if path.startswith(f"{group}/")
        ]
        found = list(_entries_of(group, paths, contents.arrays))
        if found:
            groups[layer] = found
    return groups


def _entries_of(group: str, paths: Iterable[str], arrays: dict[str, np.ndarray]) -> Iterator[Entry]:
    for path in dict.fromkeys(paths):
        parts = tuple(path[len(group) + 1 :].split("/"))
        if path in arrays and not set(parts) & set(_NOT_WEIGHTS):
            yield parts, arrays[path]


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
