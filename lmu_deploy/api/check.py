"""`check`: whether a network fits a digital chip, and whether data are fit for a network."""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load, load_float
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.hardware.placement import OnChip, place, table
from lmu_deploy.hardware.preflight import check as rules_broken
from lmu_deploy.hardware.profile import DigitalProfile, load_profile
from lmu_deploy.hardware.rules import Violation
from lmu_deploy.tasks.dataset import TaskLike, find_task
from lmu_deploy.tasks.own.preflight import Baseline, Finding, baseline, preflight
from lmu_deploy.tasks.selection import task_for

_LOIHI_HOST = (
    "Only the memories are on cores: encoders, hidden units, LSTM layers and the readout run on "
    "the host, and so do the relays where a chip's messages have fewer than 16 bits."
)


def check_data(
    data: TaskLike, network: Network | Path | str | None = None
) -> tuple[Baseline, list[Finding]]:
    """Examine data, and a float network for them, before any work.

    Parameters
    ----------
    data : str, path, Task or Dataset
    network : Network or path, optional

    Returns
    -------
    baseline : Baseline
        What needs no network: the majority class, the mean or the last value.
    findings : list of Finding
        Each with its remedy.

    Raises
    ------
    InputError
        When there are no such data, or inputs, outputs or labels do not match the network.
    """
    if network is None:
        task, source = find_task(data), None
    else:
        source = load_float(network, "check --task")
        task = task_for(source, data)
    return baseline(task), preflight(task, source)


def check(network: OnChip | Path | str, *, profile: str = "loihi2") -> list[Violation]:
    """List every violation of the chip's limits, each with the smallest change that fixes it.

    Raises
    ------
    InputError
        When the file holds no network for a digital chip, or the profile is unknown or not digital.
    """
    return rules_broken(_on_chip(network), _digital(profile))


def placement(network: OnChip | Path | str, *, profile: str = "loihi2") -> str:
    """Show where the network's neurons sit and how full each core gets, a line each.

    Raises
    ------
    InputError
        As `check`.
    """
    chip = _digital(profile)
    return table(place(_on_chip(network), chip), chip)


def remarks(network: OnChip | Path | str) -> list[str]:
    """Return what breaks no rule but is worth knowing: layers on the host, memories that grow.

    Raises
    ------
    InputError
        When the file holds no network for a digital chip.
    """
    from converters.quantize import memory_analysis

    network = _on_chip(network)
    if isinstance(network, LoihiNetwork):
        return [_LOIHI_HOST]
    return memory_analysis.remarks(network)


def _digital(profile: str) -> DigitalProfile:
    chip = load_profile(profile, "digital")
    assert isinstance(chip, DigitalProfile)  # load_profile was asked for this kind
    return chip


def _on_chip(network: OnChip | Path | str) -> OnChip:
    if isinstance(network, IntegerNetwork | LoihiNetwork):
        return network
    loaded = load(network)
    if not isinstance(loaded, IntegerNetwork | LoihiNetwork):
        raise InputError(
            f"check needs an IntegerNetwork or a LoihiNetwork, and {network} holds a "
            f"{type(loaded).__name__}; make one with lmu-deploy quantize, or with lmu-deploy spike "
            "--profile loihi1."
        )
    return loaded
