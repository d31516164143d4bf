"""A network with other connections in some places; all else stays as it is.

Places are those of docs/integer-semantics.md, such as ``layer0/memory/recurrent`` or ``readout``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import Connection, IntegerLayer, IntegerNetwork
from lmu_deploy.wiring import wires


def with_connections(
    network: IntegerNetwork, connections: Mapping[str, Connection]
) -> IntegerNetwork:
    """Give a network whose connections at some places are others.

    Parameters
    ----------
    network : IntegerNetwork
    connections : mapping of place to Connection
        Of the shapes that stand there.

    Raises
    ------
    InputError
        When the network has no such place, or a shape does not fit.
    """
    _check_places([wire.place for wire in wires(network)], connections)
    layers = tuple(
        _layer(f"layer{number}", layer, connections) if isinstance(layer, IntegerLayer) else layer
        for number, layer in enumerate(network.layers)
    )
    readout = network.readout
    if "readout" in connections:
        readout = replace(network.chip_readout, connection=connections["readout"])
    return replace(network, layers=layers, readout=readout)


def with_thresholds(network: IntegerNetwork, thresholds: Mapping[str, int]) -> IntegerNetwork:
    """Give a network whose connections at some places send changes from a threshold on.

    Parameters
    ----------
    network : IntegerNetwork
    thresholds : mapping of place to int
        In units of the message; 0 stands for messages themselves.

    Raises
    ------
    InputError
        When the network has no such place, or a threshold is out of range. The loop of a series
        has none.
    """
    present = {wire.place: wire.connection for wire in wires(network)}
    _check_places(present, thresholds)
    changed = {
        place: replace(present[place], threshold=threshold)
        for place, threshold in thresholds.items()
        if threshold != present[place].threshold
    }
    return with_connections(network, changed)


def _check_places(present: Iterable[str], asked: Iterable[str]) -> None:
    """Raise InputError when a place that is asked for is not there."""
    present = list(present)
    if unknown := [place for place in asked if place not in present]:
        raise InputError(
            f"the network has no connection {unknown[0]}; choose among {', '.join(present)}."
        )


def _layer(name: str, layer: IntegerLayer, connections: Mapping[str, Connection]) -> IntegerLayer:
    inside = {
        tuple(place.split("/")[1:]): connection
        for place, connection in connections.items()
        if place.startswith(f"{name}/")
    }
    into_memory: dict[str, Any] = {
        field: c for (part, field), c in inside.items() if part != "hidden"
    }
    into_hidden: dict[str, Any] = {
        field: c for (part, field), c in inside.items() if part == "hidden"
    }
    if ("series", "recurrent") in inside:
        raise InputError(f"{name}/series/recurrent is a matrix of signs, and cannot be another.")
    memory = replace(layer.memory, **into_memory) if into_memory else layer.memory
    hidden = layer.hidden
    if into_hidden and hidden is not None:
        hidden = replace(hidden, **into_hidden)
    return replace(layer, memory=memory, hidden=hidden)
