"""`lmu-deploy targets`: what can run here."""

from __future__ import annotations


def targets() -> None:
    """List the targets that are installed, and what each runs."""
    from lmu_deploy.commands.targets import targets

    for info in targets():
        print(f"{info.name:<14}{info.runs}{info.missing}")
