"""`lmu-deploy check`: whether a network fits a chip."""

from __future__ import annotations

import sys

import typer

from lmu_deploy.cli.options import File, Profile


def check(file: File, profile: Profile = "loihi2") -> None:
    """List every way in which a network does not fit a digital chip; exit code 1 if any.

    The network is one that `quantise` made, or `spike` for Loihi.

    Then shows where its neurons would sit and how full each core gets, and says which layers are
    on the host and which memories would grow in a stream without end.

    Example: lmu-deploy check digits-int.safetensors --profile loihi2
    """
    from lmu_deploy.commands.check import check, placement, remarks

    violations = check(file, profile=profile)
    for violation in violations:
        print(violation)
    if not violations:
        print(f"{file} fits {profile}.")
    print(placement(file, profile=profile))
    for remark in remarks(file):
        print(remark, file=sys.stderr)
    if violations:
        raise typer.Exit(1)
