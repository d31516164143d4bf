"""The populations of an integer network and the connections between them, as flat lists.

Targets, pre-flight rules and placement all ask what sends to what; the names here are those of
docs/integer-semantics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmu_deploy.integer_network import Connection, Format, IntegerNetwork


@dataclass(frozen=True)
class Population:
    """Neurons that send messages of one format.

    Attributes
    ----------
    name : str
        ``input``, ``layer<i>/memory`` or ``layer<i>/hidden``.
    neurons : int
    message : Format
    """

    name: str
    neurons: int
    message: Format


@dataclass(frozen=True)
class Wire:
    """A connection and what it joins.

    Attributes
    ----------
    place : str
        Such as ``layer0/memory/recurrent``; its accumulators are ``<place>/slice<k>``.
    source : str
        Population whose messages it carries.
    target : str
        Population that it drives, or ``readout``.
    connection : Connection
    """

    place: str
    source: str
    target: str
    connection: Connection


def populations(network: IntegerNetwork) -> dict[str, Population]:
    """All populations by name, in the order in which they send: input, then layer by layer."""
    found = [Population("input", network.n_in, network.input)]
    for number, layer in enumerate(network.layers):
        memory, hidden = layer.memory, layer.hidden
        found.append(Population(f"layer{number}/memory", memory.size, memory.message))
        if hidden is not None:
            found.append(Population(f"layer{number}/hidden", hidden.units, hidden.message))
    return {population.name: population for population in found}


def wires(network: IntegerNetwork) -> list[Wire]:
    """All connections, target by target in the order in which the targets are updated."""
    found: list[tuple[str, str, str, Connection | None]] = []
    sender = "input"
    for number, layer in enumerate(network.layers):
        memory, hidden = f"layer{number}/memory", f"layer{number}/hidden"
        found += [
            ("recurrent", memory, memory, layer.memory.recurrent),
            ("input", sender, memory, layer.memory.input),
            ("hidden", hidden, memory, layer.memory.hidden),
        ]
        if layer.hidden is not None:
            found += [
                ("memory", memory, hidden, layer.hidden.memory),
                ("input", sender, hidden, layer.hidden.input),
                ("recurrent", hidden, hidden, layer.hidden.recurrent),
            ]
        sender = memory if layer.hidden is None else hidden
    joined = [
        Wire(f"{target}/{name}", source, target, connection)
        for name, source, target, connection in found
        if connection is not None
    ]
    return [*joined, Wire("readout", sender, "readout", network.readout.connection)]


def delayed(network: IntegerNetwork) -> list[str]:
    """Places of the connections that carry the messages of the step before."""
    order = [*populations(network), "readout"]
    return [
        wire.place
        for wire in wires(network)
        if order.index(wire.source) >= order.index(wire.target)
    ]
