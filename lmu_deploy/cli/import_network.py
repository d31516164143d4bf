"""`lmu-deploy import`: a network from another program's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import Out, TaskName


def import_network(
    file: Annotated[Path, typer.Argument(help="A file of another program.", show_default=False)],
    out: Out,
    format: Annotated[  # noqa: A002 (the option's own name)
        str | None,
        typer.Option(
            "--format",
            "--from",
            help="keras-lmu, paper-lmu, pytorch-lmu, onnx, nir or a plugin's; recognised from the "
            "file if not given.",
        ),
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option(help="For bare weights: what Keras's model.to_json() wrote.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="What the file does not say, as NAME=VALUE: theta=784, matrices=exact. "
            "Repeatable; docs/formats.md lists them."
        ),
    ] = None,
    task: TaskName = None,
) -> None:
    """Read a network that keras-lmu, the paper's package or a PyTorch LMU trained.

    Example: lmu-deploy import psmnist.keras --task psmnist --out psmnist.safetensors

    Example: lmu-deploy import module.pt --option activation=relu --out module.safetensors
    """
    from lmu_deploy.commands.import_network import import_network, parse_options

    import_network(
        file,
        out=out,
        format=format,
        architecture=architecture,
        options=parse_options(option or []),
        task=task,
    )
    print(out)
