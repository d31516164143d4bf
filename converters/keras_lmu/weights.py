"""Find the arrays of each layer in a file of Keras.

Keras has two layouts of weights:

- By variables (`.keras`, `.weights.h5`): ``layers/KEY/.../vars/NUMBER``, with KEY from the layer's
  class, numbered in the order in which the layer created them. What a layer contains has groups of
  its own: ``cell``, ``hidden_cell``, ``forward_layer``, ``layers`` of a model inside the model.
- By names (`.h5` of Keras 2, whole-model `.h5` of both): ``LAYER/...`` with the attribute
  `weight_names`, whose last parts are kernel, recurrent_kernel, bias and so on, and whose other
  parts are names of what the layer contains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from converters.keras_lmu.architecture import KerasLayer
from converters.sandbox import FileContents
from lmu_deploy.core.errors import InputError

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
