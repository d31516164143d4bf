"""Networks whose connections have different widths of weights.

Formats of states and messages do not depend on the widths of weights, so connections of networks
that were quantised at different widths fit together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from converters.quantise.calibrate import Calibration
from converters.quantise.ptq import Quantiser
from converters.quantise.settings import Settings
from lmu_deploy.integer_network import Connection, IntegerNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.rewiring import with_connections
from lmu_deploy.wiring import wires

Width = tuple[int, int]
"""Slices, and bits of each."""

WIDEST: Width = (2, 8)


@dataclass(frozen=True)
class Widths:
    """A choice of widths.

    Attributes
    ----------
    network : IntegerNetwork
    widths : dict of place to (slices, bits)
    memory : dict of place to int
        Bytes of the synapses that are not zero.
    """

    network: IntegerNetwork
    widths: dict[str, Width]
    memory: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all synapses."""
        return sum(self.memory.values())


def memory_of(connection: Connection) -> int:
    """Bytes of the synapses of a connection that are not zero."""
    return -(-int(np.count_nonzero(connection.slices)) * connection.weight_bits // 8)


def at_width(
    network: LMUNetwork, calibration: Calibration, settings: Settings, width: Width
) -> IntegerNetwork:
    """Quantise a network with every connection at one width."""
    slices, bits = width
    figure = settings.profile.weight_bits.model_copy(update={"value": bits})
    narrow = settings.profile.model_copy(update={"weight_bits": figure})
    # A kernel fitted to its memory's rounding would fit no memory of another width.
    uniform = replace(
        settings,
        profile=narrow,
        slices=slices,
        kernel_slices=slices,
        kernel_bits=None,
        refit=False,
    )
    return Quantiser(uniform, calibration).network(network)


def connections_of(network: IntegerNetwork) -> dict[str, Connection]:
    """Give the connections of a network by their places."""
    return {wire.place: wire.connection for wire in wires(network)}


def mix_widths(made: Mapping[Width, IntegerNetwork], chosen: dict[str, Width]) -> Widths:
    """Put a network together of connections of several widths."""
    connections = {place: connections_of(made[width])[place] for place, width in chosen.items()}
    changed = {place: c for place, c in connections.items() if chosen[place] != WIDEST}
    network = with_connections(made[WIDEST], changed)
    needs = {
        f"{place}/{part}": need
        for place, width in chosen.items()
        for part, need in _needs(made[width], place).items()
    }
    # What is exact, such as a matrix of signs, is narrower than was asked for.
    widths = {place: (len(c.slices), c.weight_bits) for place, c in connections.items()}
    provenance = {
        **network.provenance,
        "accumulators": json.dumps(needs),
        "widths": json.dumps(widths),
    }
    memory = {place: memory_of(connection) for place, connection in connections.items()}
    return Widths(replace(network, provenance=provenance), widths, memory)


def _needs(network: IntegerNetwork, place: str) -> dict[str, str]:
    """Give what the accumulators of a connection need, slice by slice."""
    needs: dict[str, str] = json.loads(network.provenance["accumulators"])
    parts = {name.rpartition("/")[::2]: need for name, need in needs.items()}
    return {part: need for (where, part), need in parts.items() if where == place}
