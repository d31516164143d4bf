"""`spike`: a float network onto spiking neurons, calibrated on the chip that a profile names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmu_deploy.commands.spike_loihi import spike_loihi
from lmu_deploy.commands.task_data import CALIBRATION_SAMPLES, limited, task_for
from lmu_deploy.files import save
from lmu_deploy.hardware.profile import load_profile
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.progress import progress_bar
from lmu_deploy.representations import load_float
from lmu_deploy.spiking_network import SpikingNetwork


def spike(
    network: LMUNetwork | Path | str,
    *,
    profile: str = "generic-analog",
    task: str | None = None,
    out: Path | str | None = None,
    save_calibration: Path | str | None = None,
    load_calibration: Path | str | None = None,
    **options: Any,
) -> SpikingNetwork | LoihiNetwork:
    """Lower a float network's memory onto populations of spiking neurons.

    Parameters
    ----------
    network : LMUNetwork or path
    profile : str
        An analog chip, which gives a SpikingNetwork, or a digital one with LIF neurons, which gives
        a LoihiNetwork.
    task : str, optional
        Whose training inputs give the ranges of the states.
    out : path, optional
        Where to write the `.safetensors` file.
    save_calibration : path, optional
        Where to write what was measured on the chip, for `load_calibration`.
    load_calibration : path, optional
        Use this instead of measuring the chip; it must be of this network, chip and options.
    **options
        Passed to :func:`converters.spiking.spike`: neurons_per_state, calibration, mismatch, ...,
        or to :func:`converters.loihi_spiking.loihi_spike`, which takes fewer.

    Raises
    ------
    InputError
        When a file, task or profile is wrong, the chip cannot hold the network, or the calibration
        is of something else.
    """
    from converters.spiking import saved
    from converters.spiking import spike as convert

    if not isinstance(network, LMUNetwork):
        network = load_float(network, "spike")
    if load_calibration is not None:
        options["saved"] = saved.load_calibration(load_calibration)
    inputs = limited(task_for(network, task).load().train, CALIBRATION_SAMPLES).inputs
    if load_profile(profile).kind == "digital":
        kept = {"save_calibration": save_calibration, "load_calibration": load_calibration}
        return spike_loihi(network, inputs, profile, out, options | kept)
    with progress_bar("spike", "steps") as progress:
        spiking = convert(network, inputs, profile, progress=progress, **options)
    if save_calibration is not None:
        save(saved.keep_calibration(spiking), save_calibration)
    if out is not None:
        save(spiking, out)
    return spiking
