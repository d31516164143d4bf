"""`demo`: the whole chain on data that comes with scikit-learn, in a few minutes."""

from __future__ import annotations

import sys
from pathlib import Path

from lmu_deploy.commands.export import export
from lmu_deploy.commands.train import train
from lmu_deploy.commands.validate import validate

TASK = "digits"
TARGETS = "onnxruntime,integer,lava:8,brian2"


def demo(out: Path | str = "demo-report", *, seed: int = 0) -> Path:
    """Train a network on 8x8 digits, convert it, run it on every target, and write the report.

    Parameters
    ----------
    out : path
        Folder of the report; beside it lie the network in every form.
    seed : int

    Returns
    -------
    path
        Of report.html.

    Raises
    ------
    InputError
        When a library is absent or the folder cannot be made.
    RunError
        When a target failed.
    """
    folder = Path(out)
    network = train(TASK, seed=seed).network
    command = f"lmu-deploy demo --out {folder} --seed {seed}"
    page = validate(network, targets=TARGETS, out=folder, seed=seed, command=command)
    for form in ("onnx", "onnx-step"):
        export(network, to=form, out=folder / f"{form}.onnx")
    print("The report, and the network in every form beside it:", file=sys.stderr)
    return page
