"""`lmu-deploy yield`: how many of a batch of virtual chips would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import File, Limit, Profile, Seed, TaskName
from lmu_deploy.cli.spike import MaxRates, NeuronsPerUnit, TauMismatch, ThresholdNoise, Units


def chip_yield(
    file: File,
    profile: Profile = "generic-analog",
    task: TaskName = None,
    chips: Annotated[int, typer.Option(help="How many virtual chips.")] = 100,
    first_chip: Annotated[int, typer.Option(help="Seed of the first chip.")] = 0,
    limit: Limit = None,
    steps: Annotated[
        int | None, typer.Option(help="Of each test sample, where every step is answered.")
    ] = None,
    neurons_per_state: Annotated[int, typer.Option(help="Neurons for each memory state.")] = 100,
    neuron: Annotated[
        str | None, typer.Option(help="lif, dpi, if or poisson; by default the profile's.")
    ] = None,
    hold_ms: Annotated[
        float | None, typer.Option(help="Milliseconds an input is held; by default 50.")
    ] = None,
    tau_ms: Annotated[
        float | None, typer.Option(help="Synapses, milliseconds; by default the profile's.")
    ] = None,
    mismatch: Annotated[
        float | None, typer.Option(help="Spread of the devices; by default the profile's.")
    ] = None,
    membrane_noise: Annotated[
        float | None, typer.Option(help="In thresholds; by default the profile's.")
    ] = None,
    weight_bits: Annotated[
        int | None, typer.Option(help="Sign included, 0 for real; by default the profile's.")
    ] = None,
    threshold_noise: ThresholdNoise = None,
    tau_mismatch: TauMismatch = None,
    max_rates: MaxRates = None,
    units: Units = None,
    neurons_per_unit: NeuronsPerUnit = None,
    calibration_samples: Annotated[
        int | None, typer.Option(help="Training samples that a chip is calibrated on; 200.")
    ] = None,
    calibration_steps: Annotated[
        int | None, typer.Option(help="Of each of them; by default as many as fit in memory.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write every chip's figure as JSON here, as the study goes on; chips that stand "
            "there already are not judged again."
        ),
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(help="Take over the chips of such a file of the same study; repeatable."),
    ] = None,
) -> None:
    """Judge a network on many virtual analog chips, before and after each is calibrated.

    Every chip has its own mismatch; all share tuning curves and data. "none" are the decoders of an
    ideal chip on this one, "dynamic" is this chip's own calibration. Prints the distribution.

    Example: lmu-deploy yield digits.safetensors --chips 100 --mismatch 0.2 --out yield.json
    """
    from lmu_deploy.commands.chip_yield import chip_yield
    from lmu_deploy.commands.yield_figures import histogram, table, verdict

    options = {
        "neuron": neuron,
        "hold_ms": hold_ms,
        "tau_ms": tau_ms,
        "mismatch": mismatch,
        "membrane_noise": membrane_noise,
        "weight_bits": weight_bits,
        "threshold_noise": threshold_noise,
        "tau_mismatch": tau_mismatch,
        "maximum_rates": max_rates,
        "units": units,
        "neurons_per_unit": neurons_per_unit,
        "calibration_samples": calibration_samples,
        "calibration_steps": calibration_steps,
    }
    found = chip_yield(
        file,
        profile=profile,
        task=task,
        chips=chips,
        first_chip=first_chip,
        limit=limit,
        steps=steps,
        seed=seed,
        out=out,
        add=add or (),
        neurons_per_state=neurons_per_state,
        **options,
    )
    print(verdict(found), table(found), histogram(found), sep="\n\n")
