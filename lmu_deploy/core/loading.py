"""Load model files of any representation: float, integer, spiking or Loihi."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load as load_tree
from lmu_deploy.core.integer.layered import LAYERED_CLASSES, LayeredNetwork
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
_ALL = tuple(
    dict.fromkeys(
        (*FLOAT_CLASSES, *INTEGER_CLASSES, *LAYERED_CLASSES, *SPIKING_CLASSES, *LOIHI_CLASSES)
    )
)


def load(path: Path | str) -> Network:
    """Load a network of any representation from its ``.safetensors`` file.

    Parameters
    ----------
    path : path

    Returns
    -------
    LMUNetwork, IntegerNetwork, SpikingNetwork or LoihiNetwork

    Raises
    ------
    InputError
        When the file does not exist or contains no network.

    Examples
    --------
    >>> import lmu_deploy as ld
    >>> ld.load("examples/models/digits.safetensors")
    LMUNetwork(8 inputs, 10 outputs, 5,262 parameters, task digits)
    """
    network = load_tree(path, _ALL)
    if isinstance(network, LayeredNetwork):
        network = network.graph()
    if not isinstance(network, Network):
        raise InputError(
            f"{path} contains a {type(network).__name__}, not a network; give a network file."
        )
    return network


def as_network(network: Network | Path | str) -> Network:
    """Return a network as it is, or load it from its file.

    Raises
    ------
    InputError
        When the file does not exist or contains no network.
    """
    return network if isinstance(network, Network) else load(network)


def load_float(network: Network | Path | str, command: str) -> LMUNetwork:
    """Return a float network, as it is or from its file, for a command that needs one.

    Raises
    ------
    InputError
        When the network has another representation, or the file contains no network.
    """
    found = as_network(network)
    if isinstance(found, LMUNetwork):
        return found
    what = f"{network} contains a" if isinstance(network, str | Path) else "this is a"
    raise InputError(
        f"{command} needs a float LMUNetwork, and {what} {type(found).__name__}; "
        "give the float file that it was converted from."
    )


def float_source(network: Network) -> LMUNetwork | None:
    """Return the float network that a representation was converted from; None if not stored."""
    if isinstance(network, SpikingNetwork | LoihiNetwork):
        return network.host
    return network.source if isinstance(network, IntegerNetwork) else network
