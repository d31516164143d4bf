"""`check`: whether a network fits a chip, and whether data are fit for a network."""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load, load_float
from lmu_deploy.core.spiking.graph import AnalogNetwork, LoihiGraph, OnLoihi, SpikingGraph
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.hardware.placement import OnChip, place, table
from lmu_deploy.hardware.preflight import Violation, demand_table
from lmu_deploy.hardware.preflight import check as rules_broken
from lmu_deploy.hardware.profile import AnalogProfile, DigitalProfile, load_profile
from lmu_deploy.tasks.dataset import TaskLike, find_task
from lmu_deploy.tasks.preflight import Baseline, Finding, baseline, preflight
from lmu_deploy.tasks.selection import task_for

_USUAL = "loihi2"
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


def check(
    network: OnChip | AnalogNetwork | Path | str, *, profile: str | None = None
) -> list[Violation]:
    """List every violation of the chip's limits, each with the smallest change that fixes it.

    Parameters
    ----------
    network : IntegerNetwork, LoihiNetwork, SpikingNetwork or path
    profile : str, optional
        ``loihi2`` if absent; for a SpikingNetwork the profile of its chip.

    Raises
    ------
    InputError
        When the file holds no network for a chip, or the profile is unknown or of a chip that
        cannot run such a network.
    """
    network = _checkable(network)
    if isinstance(network, AnalogNetwork):
        return rules_broken(network, _analog(profile or usual_profile(network)))
    return rules_broken(network, _digital(profile or _USUAL))


def usual_profile(network: OnChip | AnalogNetwork | Path | str) -> str:
    """Return the profile against which `check` compares a network if none is given."""
    network = _checkable(network)
    return network.device.profile if isinstance(network, AnalogNetwork) else _USUAL


def placement(network: OnChip | AnalogNetwork | Path | str, *, profile: str | None = None) -> str:
    """Show where the network's neurons sit and how full each core gets, a line each.

    For an analog chip, show how much of it the network needs.

    Raises
    ------
    InputError
        As `check`.
    """
    network = _checkable(network)
    if isinstance(network, AnalogNetwork):
        return demand_table(network, _analog(profile or usual_profile(network)))
    cores = _digital(profile or _USUAL)
    return table(place(network, cores), cores)


def remarks(network: OnChip | AnalogNetwork | Path | str) -> list[str]:
    """Return what breaks no rule but is worth knowing: layers on the host, memories that grow.

    Raises
    ------
    InputError
        When the file holds no network for a digital chip.
    """
    from converters.quantize import memory_analysis
    from targets.spiking.graph import notes as graph_notes

    network = _checkable(network)
    if isinstance(network, LoihiNetwork):
        return [_LOIHI_HOST]
    if isinstance(network, SpikingGraph | LoihiGraph):
        return [note for note in graph_notes(network, 1) if "host" in note]
    if isinstance(network, AnalogNetwork):
        return []
    return memory_analysis.remarks(network)


def _digital(profile: str) -> DigitalProfile:
    chip = load_profile(profile, "digital")
    assert isinstance(chip, DigitalProfile)  # load_profile was asked for this kind
    return chip


def _analog(profile: str) -> AnalogProfile:
    chip = load_profile(profile, "analog")
    assert isinstance(chip, AnalogProfile)  # load_profile was asked for this kind
    return chip


def _checkable(network: OnChip | AnalogNetwork | Path | str) -> OnChip | AnalogNetwork:
    if isinstance(network, IntegerNetwork | OnLoihi | AnalogNetwork):
        return network
    loaded = load(network)
    if not isinstance(loaded, IntegerNetwork | OnLoihi | AnalogNetwork):
        raise InputError(
            f"check needs an IntegerNetwork, a LoihiNetwork or a SpikingNetwork, and {network} "
            f"holds a {type(loaded).__name__}; make one with lmu-deploy quantize or spike."
        )
    return loaded
