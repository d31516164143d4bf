"""`lmu-deploy report`: the report, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="Folder with a fidelity.json.")],
) -> None:
    """Write report.html anew from a folder's fidelity.json.

    Example: lmu-deploy report demo-report
    """
    from lmu_deploy.commands.report import report

    print(report(folder))
