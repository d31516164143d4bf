"""`targets`: what can run a network here."""

from __future__ import annotations

from dataclasses import dataclass

from lmu_deploy.errors import MissingDependencyError
from targets.base import get_target, target_names


@dataclass(frozen=True)
class TargetInfo:
    """A target's name, the representations that it runs, and what stops it here, if anything."""

    name: str
    runs: str
    missing: str


def targets() -> list[TargetInfo]:
    """List every installed target, those of plugins included."""
    found = []
    for name in target_names():
        try:
            target = get_target(name)
            runs = ", ".join(cls.__name__ for cls in target.accepts)
            found.append(TargetInfo(name, runs, ""))
        except (MissingDependencyError, ImportError) as error:
            found.append(TargetInfo(name, "", str(error)))
    return found
