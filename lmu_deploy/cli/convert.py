"""Commands of conversions: `quantize`, `spike` and `yield`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.options import SpikeOptions, TaskQuantizeOptions
from lmu_deploy.cli.options import (
    File,
    Limit,
    Out,
    Profile,
    Scheduler,
    TaskName,
    with_options,
)


@with_options(TaskQuantizeOptions)
def quantize(
    file: File,
    out: Out,
    options: TaskQuantizeOptions,
    profile: Profile = "loihi2",
    task: TaskName = None,
) -> None:
    """Convert a float network to integers for a digital chip.

    Example: lmu-deploy quantize digits.safetensors --out digits-int.safetensors
    """
    from lmu_deploy.studies.quantization import quantize_for_task

    quantize_for_task(file, options, profile=profile, task=task, out=out)
    print(out)


@with_options(SpikeOptions)
def spike(
    file: File,
    out: Out,
    options: SpikeOptions,
    profile: Profile = "generic-analog",
    task: TaskName = None,
    save_calibration: Annotated[
        Path | None, typer.Option(help="File to write the measured calibration of the chip to.")
    ] = None,
    load_calibration: Annotated[
        Path | None, typer.Option(help="Calibration file to use instead of measuring the chip.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.npz",
            help="Device to calibrate in place of a virtual chip: a plug-in, virtual, or a file "
            "of recorded currents and spikes.",
        ),
    ] = None,
    record_session: Annotated[
        Path | None,
        typer.Option(help="File (.npz) to write the currents and spikes of the calibration to."),
    ] = None,
) -> None:
    """Convert a float network to spiking neurons of one virtual analog chip, or of Loihi.

    With --profile loihi1 the neurons are those of Loihi in fixed point, and options of analog
    devices are refused.

    Example: lmu-deploy spike digits.safetensors --out digits-lif.safetensors
    """
    from lmu_deploy.api.spike import spike_for_task

    spike_for_task(
        file,
        options,
        profile=profile,
        task=task,
        out=out,
        save_calibration=save_calibration,
        load_calibration=load_calibration,
        device=device,
        record_session=record_session,
    )
    print(out)


@with_options(SpikeOptions, exclude=("calibration", "chip_seed"))
def chip_yield(
    file: File,
    options: SpikeOptions,
    profile: Profile = "generic-analog",
    task: TaskName = None,
    chips: Annotated[int, typer.Option(help="Number of virtual chips.")] = 100,
    first_chip: Annotated[int, typer.Option(help="Seed of the first chip.")] = 0,
    limit: Limit = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Number of steps of each test sample, for a network that answers at every step. "
            "By default all."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of the results, written during the study. Chips in an existing file "
            "are not run again."
        ),
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(help="Another such file of the same study whose chips are added; repeatable."),
    ] = None,
    age: Annotated[
        str | None,
        typer.Option(
            metavar="1d,30d,365d",
            help="Ages at which the chips are judged while they drift and lose neurons, in days, "
            "weeks (w) or years (y). By default the chips are new.",
        ),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(
            metavar="0,25,60",
            help="With --age: temperatures, in degrees Celsius. By default the reference "
            "temperature of the profile.",
        ),
    ] = None,
    recalibrate: Annotated[
        str,
        typer.Option(
            metavar="never|30d|on-error", help="With --age: when chips are calibrated again."
        ),
    ] = "never",
    recalibration: Annotated[
        str,
        typer.Option(help="With --age: what is calibrated again. One of full, readout."),
    ] = "full",
    keep: Annotated[
        float,
        typer.Option(
            help="With --age: largest loss of a chip, in points of accuracy or percent of an NRMSE."
        ),
    ] = 2.0,
    plot: Annotated[
        Path | None, typer.Option(help="With --age: SVG file of the metric over age.")
    ] = None,
    scheduler: Scheduler = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of processes that run the chips. By default this process."),
    ] = None,
) -> None:
    """Run a network on many virtual analog chips, before and after calibration of each.

    Every chip has its own mismatch; tuning curves and data are the same for all. Row "none" is a
    chip with the decoders of an ideal chip, row "dynamic" a chip with its own calibration.

    With --age the calibrated chips drift, warm up and lose neurons, as the profile's section drift
    says, and the fewest calibrations are found with which 95 % of them lose at most --keep.

    Example: lmu-deploy yield digits.safetensors --chips 100 --mismatch 0.2 --out yield.json
    """
    from lmu_deploy.studies.chip_yield import yield_of_chips

    if age is not None:
        from lmu_deploy.core.errors import InputError
        from lmu_deploy.studies.life_record import parse_temperatures
        from lmu_deploy.studies.lifetime import lifetime_of_chips

        if steps is not None or add:
            raise InputError("--steps and --add cannot be combined with --age; leave them out.")
        life = lifetime_of_chips(
            file,
            options,
            ages=age.split(","),
            temperatures=None if temperature is None else parse_temperatures(temperature),
            recalibrate=recalibrate,
            recalibration=recalibration,
            keep=keep,
            profile=profile,
            task=task,
            chips=chips,
            first_chip=first_chip,
            limit=limit,
            out=out,
            plot=plot,
            scheduler=scheduler,
            workers=workers,
        )
        print(life.verdict(), life.table(), sep="\n\n")
        return
    found = yield_of_chips(
        file,
        options,
        profile=profile,
        task=task,
        chips=chips,
        first_chip=first_chip,
        limit=limit,
        steps=steps,
        out=out,
        add=add or (),
        scheduler=scheduler,
        workers=workers,
    )
    print(found.verdict(), found.table(), found.histogram(), sep="\n\n")
