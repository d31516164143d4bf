"""`lmu-deploy validate`: several targets, one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import File, Limit, Seed, TaskName


def validate(
    file: File,
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.", show_default=False)],
    targets: Annotated[
        str,
        typer.Option(
            help="Names, each with a form of the network and a limit if wanted: "
            "integer,lava:8,onnxruntime/integer."
        ),
    ] = "onnxruntime,integer",
    task: TaskName = None,
    limit: Limit = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Of each test sample only so many steps, where every step is answered."),
    ] = None,
    use: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file that quantise or spike made of this network, to run in place of what "
            "their defaults would make; may be given several times.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    attribution: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Samples on which each source of an integer network's error is switched on by "
            "itself; 0 for none. By default as many as take a minute or two.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a float network on several targets and write fidelity.json and report.html.

    Example: lmu-deploy validate digits.safetensors --targets integer,lava:8 --out report
    """
    from lmu_deploy.commands.validate import validate

    print(
        validate(
            file,
            targets=targets,
            task=task,
            limit=limit,
            steps=steps,
            use=use or (),
            out=out,
            seed=seed,
            attribution=attribution,
        )
    )
