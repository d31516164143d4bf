"""`lmu-deploy doctor`: which libraries work."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Run the commands that mend it.")] = False,
) -> None:
    """Show each library, its version, whether it works, and the command that mends it."""
    from lmu_deploy.commands.doctor import doctor

    if not all(finding.works for finding in doctor(fix=fix)):
        raise typer.Exit(1)
