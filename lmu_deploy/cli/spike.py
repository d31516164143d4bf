"""`lmu-deploy spike`: a memory to spiking neurons.

`lmu-deploy yield`: how many of a batch of virtual chips would do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmu_deploy.cli.options import File, Limit, Out, Profile, Seed, TaskName

MaxRates = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH",
        help="Hertz, between which a neuron's rate at the end of its range is drawn; by default "
        "the profile's.",
    ),
]
ThresholdNoise = Annotated[
    float | None, typer.Option(help="Of a threshold from step to step, a share of it; default 0.")
]
TauMismatch = Annotated[
    float | None, typer.Option(help="Spread of membranes' time constants; by default 0.")
]
Units = Annotated[
    str | None,
    typer.Option(
        help="Where the last layer's feed-forward units and the readout are: auto (default; on the "
        "chip where they can be), chip or host."
    ),
]
NeuronsPerUnit = Annotated[
    int | None, typer.Option(help="Neurons for each hidden unit on the chip; by default 20.")
]


def spike(
    file: File,
    out: Out,
    profile: Profile = "generic-analog",
    task: TaskName = None,
    neurons_per_state: Annotated[int, typer.Option(help="Neurons for each memory state.")] = 100,
    neuron: Annotated[
        str | None, typer.Option(help="lif, dpi, if or poisson; by default the profile's.")
    ] = None,
    synapse: Annotated[
        str | None, typer.Option(help="linear, or dpi for pairs of integrators; default linear.")
    ] = None,
    hold_ms: Annotated[
        float | None, typer.Option(help="Milliseconds an input is held; by default 50.")
    ] = None,
    dt_ms: Annotated[
        float | None, typer.Option(help="Step of the simulation, milliseconds; by default 1.")
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
    calibration: Annotated[
        str | None, typer.Option(help="dynamic (default), static or none.")
    ] = None,
    units: Units = None,
    neurons_per_unit: NeuronsPerUnit = None,
    readout_tau_ms: Annotated[
        float | None,
        typer.Option(help="Synapses of a readout on the chip; by default 0.3 of a hold."),
    ] = None,
    calibration_samples: Annotated[
        int | None, typer.Option(help="Training samples that the chip is calibrated on; 200.")
    ] = None,
    calibration_steps: Annotated[
        int | None, typer.Option(help="Of each of them; by default as many as fit in memory.")
    ] = None,
    save_calibration: Annotated[
        Path | None, typer.Option(help="Write what was measured on the chip here.")
    ] = None,
    load_calibration: Annotated[
        Path | None, typer.Option(help="Use such a file instead of measuring again.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of tuning curves and calibration.")] = 0,
    chip_seed: Annotated[
        int | None, typer.Option(help="Which virtual chip; by default the seed.")
    ] = None,
) -> None:
    """Lower a float network onto spiking neurons of one virtual analog chip, or of Loihi.

    With --profile loihi1 the neurons are Loihi's, in fixed point, and the options of analog devices
    have no meaning.

    Example: lmu-deploy spike digits.safetensors --out digits-lif.safetensors
    """
    from lmu_deploy.api.spike import spike

    options = {
        "neuron": neuron,
        "synapse": synapse,
        "hold_ms": hold_ms,
        "dt_ms": dt_ms,
        "tau_ms": tau_ms,
        "mismatch": mismatch,
        "membrane_noise": membrane_noise,
        "weight_bits": weight_bits,
        "threshold_noise": threshold_noise,
        "tau_mismatch": tau_mismatch,
        "maximum_rates": max_rates,
        "calibration": calibration,
        "units": units,
        "neurons_per_unit": neurons_per_unit,
        "readout_tau_ms": readout_tau_ms,
        "calibration_samples": calibration_samples,
        "calibration_steps": calibration_steps,
        "chip_seed": chip_seed,
    }
    spike(
        file,
        profile=profile,
        task=task,
        out=out,
        save_calibration=save_calibration,
        load_calibration=load_calibration,
        neurons_per_state=neurons_per_state,
        seed=seed,
        **{name: value for name, value in options.items() if value is not None},
    )
    print(out)


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
    from lmu_deploy.studies.chip_yield import chip_yield
    from lmu_deploy.studies.yield_figures import histogram, table, verdict

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
