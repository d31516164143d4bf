"""Plugins found through entry points: targets and importers of this and other packages.

Each entry point of a group refers to a class that is instantiated without arguments.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lmu_deploy.core.errors import InputError, MissingDependencyError


def plugin_names(group: str) -> list[str]:
    """Return the sorted names of the installed plugins of a group, without importing them."""
    return sorted({entry.name for entry in entry_points(group=group)})


def make_plugin(group: str, name: str, kind: str, asked: str = "") -> Any:
    """Import and instantiate the plugin called `name`.

    Parameters
    ----------
    group : str
        Entry-point group, such as ``lmu_deploy.targets``.
    name : str
    kind : str
        Noun for a plugin of the group, for messages.
    asked : str, optional
        Noun for what the user specified, where it differs from `kind`.

    Raises
    ------
    InputError
        When no plugin has that name (the message lists the valid names).
    MissingDependencyError
        When it cannot be imported.
    """
    if not (found := _registered(group, name)):
        valid = ", ".join(plugin_names(group))
        raise InputError(f"unknown {asked or kind} {name!r}; choose one of {valid}.")
    try:
        return found[0].load()()
    except ImportError as error:
        raise MissingDependencyError(
            f"{kind} {name} cannot be imported ({error}); install what it needs, or remove the "
            "package that registers it."
        ) from error


def plugin_version(group: str, name: str) -> str | None:
    """Return the package and version that provide a plugin, or None if unknown."""
    for entry in _registered(group, name):
        if entry.dist is not None:
            return f"{entry.dist.name} {entry.dist.version}"
    return None


def _registered(group: str, name: str) -> list[EntryPoint]:
    return [entry for entry in entry_points(group=group) if entry.name == name]
