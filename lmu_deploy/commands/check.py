"""`check`: whether an integer network fits a chip, and how full each core gets."""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.errors import InputError
from lmu_deploy.hardware.placement import place, table
from lmu_deploy.hardware.preflight import Violation
from lmu_deploy.hardware.preflight import check as preflight
from lmu_deploy.hardware.profile import DigitalProfile, load_profile
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.representations import load_any
from lmu_deploy.segments import host_sentence


def check(network: IntegerNetwork | Path | str, *, profile: str = "loihi2") -> list[Violation]:
    """List every way in which `network` does not fit the chip, each with the least mending change.

    Raises
    ------
    InputError
        When the file holds no integer network, or the profile is unknown or not digital.
    """
    return preflight(_integer(network), _digital(profile))


def placement(network: IntegerNetwork | Path | str, *, profile: str = "loihi2") -> str:
    """Show where the network's neurons sit and how full each core gets, a line each.

    Raises
    ------
    InputError
        As `check`.
    """
    chip = _digital(profile)
    return table(place(_integer(network), chip), chip)


def remarks(network: IntegerNetwork | Path | str) -> list[str]:
    """Say what breaks no rule but should be known: layers on the host, memories that grow.

    Raises
    ------
    InputError
        When the file holds no integer network.
    """
    from converters.quantise.stability import growing_memories

    network = _integer(network)
    sentence = host_sentence(network)
    return [*([sentence] if sentence else []), *growing_memories(network)]


def _digital(profile: str) -> DigitalProfile:
    chip = load_profile(profile, "digital")
    assert isinstance(chip, DigitalProfile)  # load_profile was asked for this kind
    return chip


def _integer(network: IntegerNetwork | Path | str) -> IntegerNetwork:
    if isinstance(network, IntegerNetwork):
        return network
    loaded = load_any(network)
    if not isinstance(loaded, IntegerNetwork):
        raise InputError(
            f"check needs an IntegerNetwork, and {network} holds a {type(loaded).__name__}; "
            "make one with lmu-deploy quantise."
        )
    return loaded
