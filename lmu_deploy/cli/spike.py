"""`lmu-deploy spike`: a memory to spiking neurons."""

from __future__ import annotations

from typing import Annotated

import typer

from lmu_deploy.cli.options import File, Out, Profile, TaskName


def spike(
    file: File,
    out: Out,
    profile: Profile = "generic-analog",
    task: TaskName = None,
    neurons_per_state: Annotated[int, typer.Option(help="Neurons for each memory state.")] = 100,
    calibration: Annotated[str, typer.Option(help="dynamic, static or none.")] = "dynamic",
    mismatch: Annotated[
        float | None, typer.Option(help="Spread of the devices; by default the profile's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which virtual chip, and its neurons.")] = 0,
) -> None:
    """Lower a float network's memory onto spiking neurons of one virtual analog chip.

    Example: lmu-deploy spike digits.safetensors --out digits-lif.safetensors
    """
    from lmu_deploy.commands.spike import spike

    spike(
        file,
        profile=profile,
        task=task,
        out=out,
        neurons_per_state=neurons_per_state,
        calibration=calibration,
        mismatch=mismatch,
        seed=seed,
    )
    print(out)
