"""Find the arrays of each layer in a file of Keras, in both of its layouts.

- By variables (`.keras`, `.weights.h5`): ``layers/KEY/.../vars/NUMBER``, KEY from the layer's
  class, numbered in the order in which the layer made them. The hidden cell lies in a group
  ``hidden_cell`` of its own.
- By names (`.h5` of Keras 2, whole-model `.h5` of both): ``LAYER/...`` with the attribute
  `weight_names`, whose last parts are kernel, recurrent_kernel, bias, theta_inv; those of the
  hidden cell lie one level deeper.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from converters.contained import Contents
from converters.keras_lmu.architecture import KerasLayer
from converters.keras_lmu.blocks import Expected

Arrays = dict[str, np.ndarray]
_VARIABLE_ROOTS = ("layers", "_layer_checkpoint_dependencies")
_NOT_WEIGHTS = ("delay_layer", "seed_generator", "dropout_layer")


class LayerWeights:
    """The arrays of all layers of one file."""

    def __init__(self, contents: Contents, layers: Iterable[KerasLayer]) -> None:
        self._arrays = contents.arrays
        self._roots = _variable_groups(contents.arrays)
        self._named = _named_groups(contents)
        self._order = [layer.name for layer in layers]

    def of(
        self, layer: KerasLayer, expected: Expected, problems: list[str]
    ) -> dict[str, np.ndarray]:
        """Give a layer's arrays by role (``kernel``, ``hidden/kernel``); add to `problems`."""
        own, hidden = self._by_variables(layer) if self._roots else self._by_names(layer, expected)
        found: Arrays = {}
        for prefix, wanted, arrays in (
            ("", expected.own, own),
            ("hidden/", expected.hidden, hidden),
        ):
            if len(wanted) != len(arrays):
                problems.append(
                    f"{layer} has {len(arrays)} {'hidden ' if prefix else ''}weights in the file, "
                    f"and its configuration asks for {len(wanted)}"
                )
                continue
            found.update(_assign(prefix, wanted, arrays))
        return found

    def unused(self, layers: Iterable[KerasLayer]) -> list[str]:
        """Give the names of groups with weights that belong to none of `layers`."""
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


def _assign(prefix: str, wanted: tuple[str, ...], arrays: Arrays) -> Arrays:
    """Give arrays their roles: by name where they have one, else in the order of their making."""
    names = {path.rpartition("/")[2].partition(":")[0]: array for path, array in arrays.items()}
    if set(names) == set(wanted):
        return {prefix + role: names[role] for role in wanted}
    ordered = sorted(arrays.items(), key=lambda item: _number(item[0]))
    return {prefix + role: array for role, (_, array) in zip(wanted, ordered, strict=True)}


def _number(path: str) -> int:
    last = path.rpartition("/")[2]
    return int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0


def _variable_groups(arrays: Arrays) -> dict[str, Arrays]:
    """Sort ``layers/KEY/...`` by KEY, leaving out what a network's answer does not depend on."""
    groups: dict[str, Arrays] = {}
    for path, array in arrays.items():
        root, _, rest = path.partition("/")
        key, _, inner = rest.partition("/")
        parts = inner.split("/")
        if root in _VARIABLE_ROOTS and "vars" in parts and not set(parts) & set(_NOT_WEIGHTS):
            groups.setdefault(key, {})[inner] = array
    return groups


def _named_groups(contents: Contents) -> dict[str, Arrays]:
    """Sort arrays by the layer that names them, in the order of the layers."""
    attributes: dict[str, dict[str, Any]] = contents.header["attributes"]
    root = "model_weights/" if "model_weights" in attributes else ""
    groups: dict[str, Arrays] = {}
    for layer in _list(attributes.get(root.rstrip("/"), {}), "layer_names"):
        names = _list(attributes.get(f"{root}{layer}", {}), "weight_names")
        paths = [f"{root}{layer}/{name}" for name in names]
        found = {path: contents.arrays[path] for path in paths if path in contents.arrays}
        if found:
            groups[layer] = found
    return groups


def _list(attributes: dict[str, Any], name: str) -> list[str]:
    """Read a list of texts, which Keras cuts into name0, name1, ... when it is long."""
    whole = attributes.get(name)
    if isinstance(whole, list):
        return whole
    pieces: list[str] = []
    for number in range(len(attributes)):
        piece = attributes.get(f"{name}{number}")
        pieces.extend(piece if isinstance(piece, list) else [])
    return pieces
