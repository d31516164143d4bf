"""`lmu-deploy check`: whether a network fits a chip."""

from __future__ import annotations

import typer

from lmu_deploy.cli.options import File, Profile


def check(file: File, profile: Profile = "loihi2") -> None:
    """List every way in which an integer network does not fit a chip; exit code 1 if any.

    Then shows where its neurons would sit, and how full each core gets.

    Example: lmu-deploy check digits-int.safetensors --profile loihi2
    """
    from lmu_deploy.commands.check import check, placement

    violations = check(file, profile=profile)
    for violation in violations:
        print(violation)
    if not violations:
        print(f"{file} fits {profile}.")
    print(placement(file, profile=profile))
    if violations:
        raise typer.Exit(1)
