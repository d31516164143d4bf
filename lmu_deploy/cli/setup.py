"""Commands for a first try: `doctor` checks the installation, `demo` runs the whole chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import Seed


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Run the commands that repair the installation.")
    ] = False,
) -> None:
    """Show each library, its version, whether it works, and the command that repairs it.

    Example: lmu-deploy doctor --fix
    """
    from lmu_deploy.api.doctor import doctor

    if not all(finding.works for finding in doctor(fix=fix)):
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("demo-report"),
    seed: Seed = 0,
) -> None:
    """Train a small network, convert it, run it on every target, and write a report.

    Example: lmu-deploy demo --out my-report
    """
    from lmu_deploy.api.train import demo

    print(demo(out=out, seed=seed).path)
