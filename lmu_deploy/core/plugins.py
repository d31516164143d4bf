"""What is registered by entry points, ours and that of other packages: targets and importers.

A group is a kind of plugin; a name in it leads to a class that is made without arguments.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lmu_deploy.core.errors import InputError, MissingDependencyError


def plugin_names(group: str) -> list[str]:
    """Names of all plugins of a group that are installed, sorted; nothing is imported."""
    return sorted({entry.name for entry in entry_points(group=group)})


def make_plugin(group: str, name: str, kind: str, asked: str = "") -> Any:
    """Import and make the plugin called `name`.

    Parameters
    ----------
    group : str
        Of entry points, such as ``lmu_deploy.targets``.
    name : str
    kind : str
        What a plugin of the group is called, for messages.
    asked : str, optional
        What the user named, where that is called otherwise.

    Raises
    ------
    InputError
        When there is none of that name (the valid names are listed).
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
    """Package and version that bring a plugin; None when its package does not say."""
    for entry in _registered(group, name):
        if entry.dist is not None:
            return f"{entry.dist.name} {entry.dist.version}"
    return None


def _registered(group: str, name: str) -> list[EntryPoint]:
    return [entry for entry in entry_points(group=group) if entry.name == name]
