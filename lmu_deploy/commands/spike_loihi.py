"""`spike` for a digital chip: a float network onto LIF neurons in fixed point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.errors import InputError
from lmu_deploy.files import save
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.progress import progress_bar

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
    from converters.loihi_spiking import loihi_spike

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
