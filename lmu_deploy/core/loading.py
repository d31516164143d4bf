"""Load a model file, whichever representation it holds, and say which was wanted.

In: a path. Out: an LMUNetwork, IntegerNetwork, SpikingNetwork or LoihiNetwork, checked by its own
class.
"""

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
"""Representations by the name that a user gives them behind a target's."""
_ALL = tuple(dict.fromkeys((*FLOAT_CLASSES, *INTEGER_CLASSES, *SPIKING_CLASSES, *LOIHI_CLASSES)))


def load_any(path: Path | str) -> Network:
    """Load a network of any representation.

    Raises
    ------
    InputError
        When there is no such file, or it holds no network.
    """
    network = load(path, _ALL)
    if not isinstance(network, Network):
        raise InputError(f"{path} holds a {type(network).__name__}, not a network; give a network.")
    return network


def load_float(path: Path | str, command: str) -> LMUNetwork:
    """Load a float network for a command that can use no other.

    Raises
    ------
    InputError
        When the file holds another representation, or no network.
    """
    network = load_any(path)
    if isinstance(network, LMUNetwork):
        return network
    raise InputError(
        f"{command} needs a float LMUNetwork, and {path} holds a {type(network).__name__}; "
        "give the float file that it was made from."
    )


def float_source(network: Network) -> LMUNetwork | None:
    """Give the float network behind any representation, or None when it is not kept."""
    if isinstance(network, SpikingNetwork | LoihiNetwork):
        return network.host
    return network.source if isinstance(network, IntegerNetwork) else network
