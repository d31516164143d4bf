"""Commands that read or write float networks: `train`, `import` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.options import SpikeOptions
from lmu_deploy.cli.options import File, Out, Seed, TaskName, with_options
from lmu_deploy.core.options import options_of

_OF_CHIPS = (
    "neurons_per_state",
    "weight_bits",
    "mismatch",
    "membrane_noise",
    "presentation_ms",
    "tau_ms",
    "neuron",
    "units",
    "neurons_per_unit",
)


@with_options(SpikeOptions, exclude=set(options_of(SpikeOptions)) - set(_OF_CHIPS))
def train(
    task: Annotated[
        str, typer.Argument(help="Task to train on, such as digits.", show_default=False)
    ],
    out: Out,
    options: SpikeOptions,
    model: Annotated[
        str | None,
        typer.Option(
            help="Kind of network: lmu, parallel, lstm, hybrid or stack. By default stack for your "
            "own data with a class for each sample, and lmu otherwise."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings of the training.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Largest number of epochs.")] = None,
    seed: Seed = 0,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="File that is written after each epoch and that a stopped training resumes from."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    blocks: Annotated[int | None, typer.Option(help="Blocks of a stack.")] = None,
    width: Annotated[
        int | None, typer.Option(help="Features of a stack between its blocks.")
    ] = None,
    stem_stride: Annotated[
        int | None, typer.Option(help="Steps of the input that a stack takes together as one.")
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(
            help="Scaling of input channels and of the outputs of a regression: standard, robust, "
            "min-max or none. By default standard for your own data."
        ),
    ] = None,
    devices: Annotated[
        int,
        typer.Option(help="Processes that train together, each with a share of every batch."),
    ] = 1,
    strategy: Annotated[
        str,
        typer.Option(help="How several processes train: auto or ddp (distributed data parallel)."),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="Precision: 32, or bf16-mixed (bfloat16 outside LMU memories).")
    ] = "32",
    chip: Annotated[
        str | None,
        typer.Option(
            help="Profile of an analog chip: train with the noise that its calibrated chips show. "
            "The options below are those of `spike` and describe the chip."
        ),
    ] = None,
) -> None:
    """Train a network on a task and write it to one file.

    Example: lmu-deploy train digits --out digits.safetensors
    """
    from lmu_deploy.api.train import train
    from lmu_deploy.core.errors import InputError

    if chip is None and (given := sorted(options.changed())):
        raise InputError(f"{given[0]} describes a chip; add --chip PROFILE, or leave it out.")

    result = train(
        task,
        model,
        config=config,
        epochs=epochs,
        seed=seed,
        out=out,
        checkpoint=checkpoint,
        device=device,
        blocks=blocks,
        width=width,
        stem_stride=stem_stride,
        scaling=scaling,
        devices=devices,
        strategy=strategy,
        precision=precision,
        chip=None if chip is None else {"profile": chip, **options.changed()},
    )
    for name, value in result.figures.items():
        print(f"{name.replace('_', ' ')}: {_readable(value)}")
    print(out)


def _readable(value: float) -> str:
    """Format a count without decimals and other numbers with four significant digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) > 1 else f"{value:.4g}"


def import_network(
    file: Annotated[Path, typer.Argument(help="File of another program.", show_default=False)],
    out: Out,
    format: Annotated[  # noqa: A002 (the option's own name)
        str | None,
        typer.Option(
            "--format",
            "--from",
            help="Format: keras-lmu, paper-lmu, pytorch-lmu, onnx, nir or one of a plugin. By "
            "default it is detected.",
        ),
    ] = None,
    architecture: Annotated[
        Path | None,
        typer.Option(help="For a file of weights only: output of model.to_json() of Keras."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Property that the file does not contain, as NAME=VALUE, such as theta=784; "
            "repeatable. docs/how-to/import.md lists them."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            help="Name of one of several outputs of the model, or of any node. What it does not "
            "need is left out."
        ),
    ] = None,
    task: TaskName = None,
) -> None:
    """Import a network that was trained with Keras, the package of the LMU paper or PyTorch.

    Example: lmu-deploy import psmnist.keras --task psmnist --out psmnist.safetensors

    Example: lmu-deploy import module.pt --option activation=relu --out module.safetensors
    """
    from lmu_deploy.api.exchange import import_network, parse_options

    import_network(
        file,
        out=out,
        format=format,
        architecture=architecture,
        options=parse_options(option or []),
        output=output,
        task=task,
    )
    print(out)


def export(
    file: File,
    out: Out,
    to: Annotated[
        str,
        typer.Option(
            help="Format. For a float network: onnx (whole sequence), onnx-step or nir. For an "
            "integer network: onnx-int, onnx-int-step (integer operators), onnx-qdq (for "
            "int8 runtimes) or c (a folder of C99 without dependencies). For a spiking network: "
            "nir."
        ),
    ] = "onnx",
    dt: Annotated[
        float | None,
        typer.Option(
            help="For NIR of a float network: duration of a step, in seconds. By default 0.001."
        ),
    ] = None,
    tau: Annotated[
        float | None,
        typer.Option(
            help="For NIR of a float network: time constant of the leaky integrators, "
            "in seconds. By default 8 dt."
        ),
    ] = None,
    integrator: Annotated[
        str | None,
        typer.Option(
            help="For NIR: integration method of the simulator that reads the file, euler (Norse, "
            "snnTorch) or exponential. By default euler."
        ),
    ] = None,
    sparse: Annotated[
        bool,
        typer.Option(help="For C: store only the nonzero weights where that takes less memory."),
    ] = False,
    pack: Annotated[
        bool,
        typer.Option(help="For C: store two weights in a byte where they have at most 4 bits."),
    ] = False,
) -> None:
    """Export a network to ONNX, C or NIR.

    Example: lmu-deploy export digits-int.safetensors --to onnx-int --out digits-int.onnx

    Example: lmu-deploy export digits-int.safetensors --to c --out digits-c

    Example: lmu-deploy export delay.safetensors --to nir --dt 0.002 --tau 0.02 --out delay.nir
    """
    from lmu_deploy.api.exchange import export

    path = export(
        file, to=to, out=out, dt=dt, tau=tau, integrator=integrator, sparse=sparse, pack=pack
    )
    print(path)


def vectors(
    file: File,
    out: Out,
    samples: Annotated[int, typer.Option(help="Number of sequences.")] = 2,
    steps: Annotated[int, typer.Option(help="Number of steps of each sequence.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the inputs.")] = 0,
) -> None:
    """Write test vectors of an integer network as JSON: inputs, and every state of every step.

    They check other implementations of the integer semantics, in any language;
    examples/vectors/check_vectors.py is an example of 50 lines.

    Example: lmu-deploy vectors digits-int.safetensors --out digits-vectors.json
    """
    from lmu_deploy.api.exchange import vectors

    print(vectors(file, out, samples=samples, steps=steps, seed=seed))
