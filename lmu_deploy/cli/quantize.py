"""`lmu-deploy quantize`: floats to integers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import File, Out, Profile, Seed, TaskName


def quantize(
    file: File,
    out: Out,
    profile: Profile = "loihi2",
    task: TaskName = None,
    sparsity_threshold: Annotated[
        float | None,
        typer.Option(
            help="Send changes of messages from this share of their range on; 0 sends every change."
        ),
    ] = None,
    sparsity_loss: Annotated[
        float | None,
        typer.Option(
            help="Tune thresholds on validation data to this loss: 0.002 is 0.2 points of accuracy."
        ),
    ] = None,
    budget_kib: Annotated[
        float | None,
        typer.Option(help="Choose slices and widths of weights for at most so much memory."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="ptq: round the weights; qat: train on with weights rounded.")
    ] = "ptq",
    slices: Annotated[
        int | None,
        typer.Option(help="int8 slices of the memory's matrix; by default 2, or 1 for qat."),
    ] = None,
    kernel_slices: Annotated[
        int | None,
        typer.Option(help="Slices of the other matrices; by default 1, or 2 for regression."),
    ] = None,
    kernel_bits: Annotated[
        int | None, typer.Option(help="Width of their weights; by default the profile's.")
    ] = None,
    message_bits: Annotated[int, typer.Option(help="Width of the memory's messages.")] = 12,
    hidden_bits: Annotated[
        int | None,
        typer.Option(help="Width of hidden messages; by default 8, or 12 for regression."),
    ] = None,
    input_bits: Annotated[
        int | None, typer.Option(help="Width of input messages; by default the memory's.")
    ] = None,
    calibration_method: Annotated[
        str, typer.Option(help="Range of messages: max, percentile or mse.")
    ] = "max",
    scales: Annotated[
        str | None,
        typer.Option(help="Row gains, power-of-two or free; by default free for one slice."),
    ] = None,
    realization: Annotated[
        str,
        typer.Option(
            help="dense-incremental, schur, hessenberg, fir, sign-taylor, or auto for the cheapest."
        ),
    ] = "dense-incremental",
    taps: Annotated[
        int | None, typer.Option(help="Steps that fir holds; by default the window.")
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Fit what reads a memory to it as it is rounded; by default for one slice.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings of the training (qat).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most this many epochs (qat).")] = None,
    seed: Seed = 0,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Written after each epoch; resumed from if it is there (qat)."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda (qat).")] = "auto",
) -> None:
    """Turn a float network into integers for a digital chip.

    Example: lmu-deploy quantize digits.safetensors --out digits-int.safetensors
    """
    from lmu_deploy.studies.quantization import quantize

    options = {
        "message_bits": message_bits,
        "kernel_slices": kernel_slices,
        "kernel_bits": kernel_bits,
        "hidden_bits": hidden_bits,
        "input_bits": input_bits,
        "calibration_method": calibration_method,
        "scales": scales,
        "realization": realization,
        "taps": taps,
        "refit": refit,
    }
    quantize(
        file,
        profile=profile,
        task=task,
        out=out,
        method=method,
        config=config,
        epochs=epochs,
        seed=seed,
        checkpoint=checkpoint,
        device=device,
        sparsity_threshold=sparsity_threshold,
        sparsity_loss=sparsity_loss,
        budget_kib=budget_kib,
        **(options if slices is None else {"slices": slices, **options}),
    )
    print(out)
