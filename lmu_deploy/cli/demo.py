"""`lmu-deploy demo`: the whole chain in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import Seed


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("demo-report"),
    seed: Seed = 0,
) -> None:
    """Train, convert and deploy a small network everywhere, and write the report.

    Example: lmu-deploy demo --out my-report
    """
    from lmu_deploy.commands.demo import demo

    print(demo(out=out, seed=seed))
