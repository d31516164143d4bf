"""Command `sweep`: many trials, one table and one plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import Scheduler

Spec = Annotated[
    Path, typer.Argument(help="TOML file with the settings to vary.", show_default=False)
]


def sweep(
    spec: Spec,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.", show_default=False)],
    scheduler: Scheduler = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes of the local cluster. By default the number of cores."
        ),
    ] = None,
) -> None:
    """Run many trials with different settings, and write a table and a Pareto plot.

    Trials that an earlier run in the same folder finished are not repeated.

    Example: lmu-deploy sweep examples/sweeps/digits-widths.toml --out widths
    """
    from lmu_deploy.api.sweep import describe, sweep
    from lmu_deploy.studies.spec import read_spec

    result = sweep(spec, out=out, scheduler=scheduler, workers=workers)
    objectives = read_spec(spec).objectives
    print(f"{len(result.rows)} trials: {result.done} done, {result.found} of them found finished")
    for point in sorted(result.front, key=lambda point: point.horizontal):
        print(f"on the front: {describe(point, objectives)}")
    for row in result.rows:
        if row.record.error:
            print(f"{row.record.status}: {dict(row.trial.varied)}: {row.record.error}")
    for file in result.files:
        print(file)
