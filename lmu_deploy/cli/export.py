"""`lmu-deploy export`: to ONNX or NIR."""

from __future__ import annotations

from typing import Annotated

import typer

from lmu_deploy.cli.options import File, Out


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
) -> None:
    """Write a network as ONNX or NIR.

    Example: lmu-deploy export digits-int.safetensors --to onnx-int --out digits-int.onnx
    """
    from lmu_deploy.commands.export import export

    print(export(file, to=to, out=out))
