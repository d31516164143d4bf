"""Integer networks as layers, for tests that change one weight, width or gain of a layer."""

from __future__ import annotations

import dataclasses

from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.integer.layered import IntegerReadout, LayeredNetwork, layer_views
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.populations import Output


def layered(network):
    """Return an integer network of LMU layers with a readout as layers; `graph()` leads back.

    A network that has layers already is returned as it is.
    """
    if isinstance(network, Network):
        return as_layers(network, "test")
    if not isinstance(network, IntegerNetwork):
        return network
    names = list(dict.fromkeys(memory.place.node for memory in network.memories))
    views = layer_views(network, names)
    assert all(view is not None for view in views)
    output = network[network.output]
    assert isinstance(output, Output)
    (edge,) = network.entering(network.output)
    source = network.source
    return LayeredNetwork(
        network.input.message,
        tuple(view for view in views if view is not None),
        IntegerReadout(edge.connection, output.bias, output.message),
        network.return_sequences,
        network.task,
        network.profile,
        network.provenance,
        as_layers(source, "test") if isinstance(source, Network) else source,
    )


def relayered(network, **fields):
    """Return a network of layers with other fields, such as `layers` or `readout`."""
    found = dataclasses.replace(layered(network), **fields)
    return found.graph() if isinstance(network, IntegerNetwork) else found


def with_layer(network, number: int, **parts):
    """Return the network with other parts, such as `memory`, of one of its layers."""
    layers = list(layered(network).layers)
    layers[number] = dataclasses.replace(layers[number], **parts)
    return relayered(network, layers=tuple(layers))
