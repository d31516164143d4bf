"""`spike`: a float network onto spiking neurons, calibrated on the chip that a profile names.

`spike` for a digital chip: a float network onto LIF neurons in fixed point.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import save
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.hardware.profile import load_profile
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for

TAKEN = ("neurons_per_state", "hold_ms", "tau_ms", "maximum_rates", "seed")


def spike_loihi(
    network: LMUNetwork,
    inputs: np.ndarray,
    profile: str,
    out: Path | str | None,
    options: Mapping[str, Any],
) -> LoihiNetwork:
    """Lower a network's memories onto a digital chip's LIF neurons.

    Parameters
    ----------
    network : LMUNetwork
    inputs : ndarray, shape (samples, steps, n_in)
        To calibrate on.
    profile, out
        As for :func:`lmu_deploy.spike`.
    options : mapping
        Those of `spike`; one of an analog chip is refused, unless it asks for what is done anyway.

    Raises
    ------
    InputError
        When an option or the profile is wrong, or the chip cannot hold the network.
    """
    from converters.loihi import loihi_spike

    given = {name: value for name, value in options.items() if value is not None}
    if given.get("calibration") == "dynamic":
        del given["calibration"]
    if wrong := sorted(set(given) - set(TAKEN)):
        raise InputError(
            f"profile {profile} is a digital chip, for which {wrong[0]} has no meaning; leave it "
            f"out, or choose an analog profile (it takes {', '.join(TAKEN)})."
        )
    with progress_bar("spike", "steps") as progress:
        lowered = loihi_spike(network, inputs, profile, progress=progress, **given)
    if out is not None:
        save(lowered, out)
    return lowered


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
        or to :func:`converters.loihi.loihi_spike`, which takes fewer.

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
