"""`lmu-deploy deploy`: one target, one result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lmu_deploy.cli.options import File, Limit, Seed, TaskName


def deploy(
    file: File,
    target: Annotated[str, typer.Option(help="Where to run; see lmu-deploy targets.")],
    task: TaskName = None,
    limit: Limit = None,
    record: Annotated[Path | None, typer.Option(help="Write m, h, y of every step (.npz).")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON here.")] = None,
    seed: Seed = 0,
) -> None:
    """Run a network on a target with its task's test data.

    Example: lmu-deploy deploy digits-int.safetensors --target lava --limit 8
    """
    from lmu_deploy.commands.deploy import deploy

    summary = deploy(
        file, target=target, task=task, limit=limit, record=record, json=json, seed=seed
    )
    print(result_line(summary))
    for note in summary["notes"]:
        print(note, file=sys.stderr)


def result_line(summary: dict[str, Any]) -> str:
    """Say in one line what a run reached, and how far it is from the float reference.

    Parameters
    ----------
    summary : dict
        As :func:`lmu_deploy.commands.deploy.deploy` gives it.
    """
    metric, reference = summary["metric"], summary["reference"]
    low, high = metric["ci95"]
    line = (
        f"{summary['target']}: {metric['name']} {metric['value']:.4f} ({low:.4f} to {high:.4f}) "
        f"on {summary['n_samples']} samples"
    )
    if reference["value"] is None:
        return f"{line}; no float reference in the file"
    line += f"; reference {reference['value']:.4f}"
    if reference["agreement"] is not None:
        return f"{line}, agreement {reference['agreement']:.4f}"
    return f"{line}, outputs {reference['deviation']:.4f} apart (relative rms)"
