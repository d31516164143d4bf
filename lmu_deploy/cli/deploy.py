"""`lmu-deploy deploy`: one target, one result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    metric, reference = summary["metric"], summary["reference"]
    print(
        f"{summary['target']}: {metric['name']} {metric['value']:.4f} "
        f"({metric['ci95'][0]:.4f} to {metric['ci95'][1]:.4f}) on {summary['n_samples']} samples; "
        f"reference {reference['value']:.4f}, agreement {reference['agreement']:.4f}"
    )
