"""`check`: whether a network fits a digital chip, and how full each core gets."""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.hardware.placement import OnChip, place, table
from lmu_deploy.hardware.preflight import check as preflight
from lmu_deploy.hardware.profile import DigitalProfile, load_profile
from lmu_deploy.hardware.rules import Violation

_LOIHI_HOST = (
    "Only the memories are on cores: encoders, hidden units, LSTM layers and the readout run on "
    "the host, and so do the relays where a chip's messages have fewer than 16 bits."
)


def check(network: OnChip | Path | str, *, profile: str = "loihi2") -> list[Violation]:
    """List every violation of the chip's limits, each with the smallest change that fixes it.

    Raises
    ------
    InputError
        When the file holds no network for a digital chip, or the profile is unknown or not digital.
    """
    return preflight(_on_chip(network), _digital(profile))


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
