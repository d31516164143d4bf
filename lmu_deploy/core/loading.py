"""Load model files of any representation: float, integer, spiking or Loihi."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.network import INTEGER_CLASSES, IntegerNetwork
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.core.spiking.loihi import LOIHI_CLASSES, LoihiNetwork
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, SpikingNetwork

Network = LMUNetwork | IntegerNetwork | SpikingNetwork | LoihiNetwork
FORMS: Mapping[str, type] = {
    "float": LMUNetwork,
    "integer": IntegerNetwork,
    "spiking": SpikingNetwork,
    "loihi": LoihiNetwork,
}
"""Representations by the name that follows a target's, such as ``integer``."""
_ALL = tuple(dict.fromkeys((*FLOAT_CLASSES, *INTEGER_CLASSES, *SPIKING_CLASSES, *LOIHI_CLASSES)))


def load_any(path: Path | str) -> Network:
    """Load a network in any representation.

    Raises
    ------
    InputError
        When the file does not exist or contains no network.
    """
    network = load(path, _ALL)
    if not isinstance(network, Network):
        raise InputError(
            f"{path} contains a {type(network).__name__}, not a network; give a network file."
        )
    return network


def load_float(path: Path | str, command: str) -> LMUNetwork:
    """Load a float network for a command that needs one.

    Raises
    ------
    InputError
        When the file contains another representation or no network.
    """
    network = load_any(path)
    if isinstance(network, LMUNetwork):
        return network
    raise InputError(
        f"{command} needs a float LMUNetwork, and {path} contains a {type(network).__name__}; "
        "give the float file that it was converted from."
    )


def float_source(network: Network) -> LMUNetwork | None:
    """Return the float network that a representation was converted from; None if not stored."""
    if isinstance(network, SpikingNetwork | LoihiNetwork):
        return network.host
    return network.source if isinstance(network, IntegerNetwork) else network
