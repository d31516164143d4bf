"""`lmu-deploy doctor`: which libraries work.

`lmu-deploy demo`: the whole chain in one go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import Seed


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Run the commands that mend it.")] = False,
) -> None:
    """Show each library, its version, whether it works, and the command that mends it."""
    from lmu_deploy.api.doctor import doctor

    if not all(finding.works for finding in doctor(fix=fix)):
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("demo-report"),
    seed: Seed = 0,
) -> None:
    """Train, convert and deploy a small network everywhere, and write the report.

    Example: lmu-deploy demo --out my-report
    """
    from lmu_deploy.api.train import demo

    print(demo(out=out, seed=seed).path)
