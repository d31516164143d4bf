"""`lmu-deploy train`: a network from a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import Out, Seed


def train(
    task: Annotated[str, typer.Argument(help="What to learn, such as digits.", show_default=False)],
    out: Out,
    model: Annotated[str, typer.Option(help="lmu, parallel, lstm or hybrid.")] = "lmu",
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most this many epochs.")] = None,
    seed: Seed = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Written after each epoch; resumed from if it is there.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a network on a task and write it to one file.

    Example: lmu-deploy train digits --out digits.safetensors
    """
    from lmu_deploy.commands.train import train

    result = train(
        task,
        model,
        config=config,
        epochs=epochs,
        seed=seed,
        out=out,
        checkpoint=checkpoint,
        device=device,
    )
    for name, value in result.figures.items():
        print(f"{name.replace('_', ' ')}: {_readable(value)}")
    print(out)


def _readable(value: float) -> str:
    """Write a count without decimals, anything else with four digits that count."""
    return f"{value:,.0f}" if value == int(value) and abs(value) > 1 else f"{value:.4g}"
