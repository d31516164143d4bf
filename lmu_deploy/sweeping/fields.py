"""Settings by dotted names, such as ``network.train.settings.layers.0.order``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmu_deploy.errors import InputError

ALIASES = {"task": "task.name", "network": "network.file"}
"""What a plain text under a table's name stands for."""

DEFAULT = "default"
"""A value that takes a setting out, so that its default holds (TOML has no null)."""


def leaves(
    tree: Mapping[str, Any], is_leaf: Callable[[Any], bool], prefix: str = ""
) -> dict[str, Any]:
    """Give every leaf of nested tables by its dotted name, in their order.

    Parameters
    ----------
    tree : mapping
    is_leaf : callable
        Whether a value is no table of names any more.
    prefix : str
        What stands before each name.
    """
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and not is_leaf(value):
            found.update(leaves(value, is_leaf, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def placed(tree: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Give a copy of `tree` with the setting of a dotted name replaced; `tree` stays as it was.

    Raises
    ------
    InputError
        When the name leads through a setting that holds no others.
    """
    meant = ALIASES.get(name, name) if isinstance(value, str) else name
    changed = _placed(tree, meant.split("."), value, name)
    assert isinstance(changed, dict)  # as the tree was
    return changed


def merged(base: Any, change: Any) -> Any:
    """Lay `change` over `base`: tables name by name, a list by a table of its places."""
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        joined = {name: merged(base[name], v) for name, v in change.items() if name in base}
        return {**base, **change, **joined}
    if isinstance(base, list | tuple) and _is_places(change):
        items = list(base)
        for place, item in change.items():
            number = _index(place, items, place)
            items[number] = merged(items[number], item)
        return items
    return change


def _placed(node: Any, parts: list[str], value: Any, name: str) -> Any:
    part, *rest = parts
    if isinstance(node, list | tuple):
        number = _index(part, node, name)
        item = _placed(node[number], rest, value, name) if rest else value
        return [*node[:number], item, *node[number + 1 :]]
    if not isinstance(node, Mapping):
        raise InputError(f"{name} leads through {node!r}, which holds no settings; name another.")
    if rest:
        return {**node, part: _placed(node.get(part, {}), rest, value, name)}
    if value == DEFAULT:
        return {key: item for key, item in node.items() if key != part}
    return {**node, part: value}


def _index(part: str, items: list[Any] | tuple[Any, ...], name: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise InputError(
            f"{name}: {part!r} is no place in a list of {len(items)}; count from 0 to "
            f"{len(items) - 1}."
        )
    return int(part)


def _is_places(change: Any) -> bool:
    return isinstance(change, Mapping) and all(str(place).isdecimal() for place in change)
