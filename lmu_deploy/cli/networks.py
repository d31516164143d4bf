"""`lmu-deploy train`: a network from a task.

`lmu-deploy import`: a network from another program's file.

`lmu-deploy export`: to ONNX or NIR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import File, Out, Seed, TaskName


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
    from lmu_deploy.api.train import train

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


def import_network(
    file: Annotated[Path, typer.Argument(help="A file of another program.", show_default=False)],
    out: Out,
    format: Annotated[  # noqa: A002 (the option's own name)
        str | None,
        typer.Option(
            "--format",
            "--from",
            help="keras-lmu, paper-lmu, pytorch-lmu, onnx, nir or a plugin's; recognized from the "
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
            "Repeatable; docs/how-to/import-and-export.md lists them."
        ),
    ] = None,
    task: TaskName = None,
) -> None:
    """Read a network that keras-lmu, the paper's package or a PyTorch LMU trained.

    Example: lmu-deploy import psmnist.keras --task psmnist --out psmnist.safetensors

    Example: lmu-deploy import module.pt --option activation=relu --out module.safetensors
    """
    from lmu_deploy.api.import_network import import_network, parse_options

    import_network(
        file,
        out=out,
        format=format,
        architecture=architecture,
        options=parse_options(option or []),
        task=task,
    )
    print(out)


def export(
    file: File,
    out: Out,
    to: Annotated[
        str,
        typer.Option(
            help="Of a float network: onnx (whole sequence), onnx-step or nir; of an integer one: "
            "onnx-int, onnx-int-step (integer operators alone) or onnx-qdq (for int8 runtimes); of "
            "a spiking one: nir."
        ),
    ] = "onnx",
    dt: Annotated[
        float | None,
        typer.Option(
            help="To NIR, of a float network: seconds that one of its steps lasts; "
            "0.001 if not given."
        ),
    ] = None,
    tau: Annotated[
        float | None,
        typer.Option(
            help="To NIR, of a float network: seconds of the leaky integrators that hold its "
            "memory; 8 dt if not given."
        ),
    ] = None,
    integrator: Annotated[
        str | None,
        typer.Option(
            help="To NIR: how the simulator that reads it steps, euler (Norse, snnTorch) or "
            "exponential; euler if not given."
        ),
    ] = None,
) -> None:
    """Write a network as ONNX or NIR.

    Example: lmu-deploy export digits-int.safetensors --to onnx-int --out digits-int.onnx

    Example: lmu-deploy export delay.safetensors --to nir --dt 0.002 --tau 0.02 --out delay.nir
    """
    from lmu_deploy.api.export import export

    print(export(file, to=to, out=out, dt=dt, tau=tau, integrator=integrator))
