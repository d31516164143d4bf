"""`lmu-deploy report`: the report, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[
        Path, typer.Argument(help="Folder with a fidelity.json.", show_default=False)
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an earlier report: what changed since is written to comparison.html "
            "and comparison.md."
        ),
    ] = None,
    yields: Annotated[
        list[Path] | None,
        typer.Option(
            "--yield",
            help="What lmu-deploy yield wrote: show how many chips would do; repeatable.",
            show_default=False,
        ),
    ] = None,
    sweeps: Annotated[
        list[Path] | None,
        typer.Option(
            "--sweep",
            help="Folder that lmu-deploy sweep wrote: show its trials; repeatable.",
            show_default=False,
        ),
    ] = None,
    fail_below: Annotated[
        float | None, typer.Option(help="Exit code 1 when a target's accuracy is below this.")
    ] = None,
    fail_above: Annotated[
        float | None, typer.Option(help="Exit code 1 when a target's NRMSE is above this.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="Exit code 1 when a target loses more than this against float: 0.002 is 0.2 "
            "points of accuracy, or 0.2 % of the NRMSE."
        ),
    ] = None,
    must_fit: Annotated[
        bool,
        typer.Option(
            "--must-fit", help="Exit code 1 when a network does not fit the chip it was made for."
        ),
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(help="Write these checks as JUnit XML, for a pipeline.")
    ] = None,
) -> None:
    """Write report.html and report.md anew from a folder's fidelity.json, and hold it to limits.

    Example: lmu-deploy report demo-report --fail-below 0.97 --junit fidelity.xml
    """
    from lmu_deploy.commands.report import report

    print(
        report(
            folder,
            against=against,
            yields=yields or (),
            sweeps=sweeps or (),
            fail_below=fail_below,
            fail_above=fail_above,
            max_loss=max_loss,
            must_fit=must_fit,
            junit=junit,
        )
    )
