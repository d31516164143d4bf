"""Load model files of any representation: float, integer, spiking or Loihi."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load as load_tree
from lmu_deploy.core.graph.executor import check_frames
from lmu_deploy.core.graph.network import GRAPH_CLASSES, Network
from lmu_deploy.core.integer.layered import LAYERED_CLASSES, LayeredNetwork
from lmu_deploy.core.integer.network import INTEGER_CLASSES, IntegerNetwork
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.core.spiking.graph import (
    LOIHI_GRAPH_CLASSES,
    SPIKING_GRAPH_CLASSES,
    LoihiGraph,
    SpikingGraph,
)
from lmu_deploy.core.spiking.loihi import LOIHI_CLASSES, LoihiNetwork
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, SpikingNetwork
from lmu_deploy.core.validation import check_inputs

AnyNetwork = Network | IntegerNetwork | SpikingNetwork | SpikingGraph | LoihiNetwork | LoihiGraph
FORMS: Mapping[str, type] = {
    "float": Network,
    "integer": IntegerNetwork,
    "spiking": SpikingNetwork,
    "loihi": LoihiNetwork,
}
"""Representations by the name that follows a target's, such as ``integer``."""
NETWORK_CLASSES = tuple(
    dict.fromkeys(
        (
            *GRAPH_CLASSES,
            *FLOAT_CLASSES,
            *INTEGER_CLASSES,
            *LAYERED_CLASSES,
            *SPIKING_CLASSES,
            *SPIKING_GRAPH_CLASSES,
            *LOIHI_CLASSES,
            *LOIHI_GRAPH_CLASSES,
        )
    )
)


def load(path: Path | str) -> AnyNetwork:
    """Load a network of any representation from its ``.safetensors`` file.

    Parameters
    ----------
    path : path

    Returns
    -------
    Network, IntegerNetwork, SpikingNetwork, SpikingGraph, LoihiNetwork or LoihiGraph
        A float file of version 0.1, which holds layers, gives the graph of these layers.

    Raises
    ------
    InputError
        When the file does not exist or contains no network.

    Examples
    --------
    >>> import lmu_deploy as ld
    >>> ld.load("examples/models/digits.safetensors")
    Network(8 inputs, 10 outputs, 5,262 parameters, 3 nodes, task digits)
    """
    network = as_graph(load_tree(path, NETWORK_CLASSES))
    if not isinstance(network, AnyNetwork):
        raise InputError(
            f"{path} contains a {type(network).__name__}, not a network; give a network file."
        )
    return network


def as_graph(network: Any) -> Any:
    """Return the graph of a network of layers, float or integer; anything else as it is."""
    if isinstance(network, LayeredNetwork):
        return network.graph()
    return Network.from_layers(network) if isinstance(network, LMUNetwork) else network


def as_network(network: AnyNetwork | LMUNetwork | Path | str) -> AnyNetwork:
    """Return a network as it is, or load it from its file.

    Raises
    ------
    InputError
        When the file does not exist or contains no network.
    """
    found: AnyNetwork = load(network) if isinstance(network, Path | str) else as_graph(network)
    return found


def load_float(network: AnyNetwork | LMUNetwork | Path | str, command: str) -> Network:
    """Return a float network, as it is or from its file, for a command that needs one.

    Raises
    ------
    InputError
        When the network has another representation, or the file contains no network.
    """
    found = as_network(network)
    if isinstance(found, Network):
        return found
    what = f"{network} contains a" if isinstance(network, str | Path) else "this is a"
    raise InputError(
        f"{command} needs a float Network, and {what} {type(found).__name__}; "
        "give the float file that it was converted from."
    )


def check_network_inputs(network: AnyNetwork, inputs: Any) -> np.ndarray:
    """Return inputs as finite float64 of shape (samples, steps, *frame), as a network takes them.

    A network that was converted from one with frames of several axes takes vectors too.

    Raises
    ------
    InputError
        When they have another shape, or there are none.
    """
    source = float_source(network)
    frame = (network.n_in,) if source is None else source.frame
    if len(frame) == 1:
        return check_inputs(inputs, network.n_in)
    array = np.asarray(inputs)
    if source is not network and array.ndim == 3 and array.shape[2] == network.n_in:
        array = array.reshape(*array.shape[:2], *frame)
    return check_frames(array, frame).astype(np.float64)


def float_source(network: AnyNetwork) -> Network | None:
    """Return the float network that a representation was converted from; None if not stored."""
    if isinstance(network, SpikingNetwork | LoihiNetwork):
        return Network.from_layers(network.host)
    if isinstance(network, SpikingGraph | LoihiGraph):
        return network.host
    if isinstance(network, IntegerNetwork):
        source: Network | None = as_graph(network.source)
        return source
    return network
