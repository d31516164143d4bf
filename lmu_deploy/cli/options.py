"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="A .safetensors network file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="Where to write.", show_default=False)]
Profile = Annotated[str, typer.Option(help="Chip profile.")]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task", help="Task, or an .npz file of your own data; by default what the file records."
    ),
]
Limit = Annotated[int | None, typer.Option(help="Only the first N test samples.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is random.")]
