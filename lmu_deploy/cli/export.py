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
    from lmu_deploy.commands.export import export

    print(export(file, to=to, out=out, dt=dt, tau=tau, integrator=integrator))
