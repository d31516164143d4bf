"""Switches for the operations by which an integer network differs from its float network.

A switch is a kind of operation at a place of the network; docs/reference/integer-semantics.md lists
the places. With no switch enabled, the simulator of simulator.py is the float network; with all
switches enabled, it is the integer network. Sources of error are groups of switches in the order of
computation; a report lists these sources.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lmu_deploy.core.integer.layered import SeriesMemory
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.fidelity.attribution.layers import Layers, edges, layers_of

Kind = Literal["realization", "weights", "width", "threshold", "activation", "saturation"]

SOURCES = (
    "discretization",
    "memory weights",
    "memory state width",
    "message widths",
    "message thresholds",
    "activation",
    "hidden weights",
    "hidden drive width",
    "readout",
    "saturation",
)
"""Sources of error of an integer network, in the order in which they are enabled."""

NEURONS, MISMATCH, NOISE = "neurons", "mismatch", "membrane noise"
WEIGHT_BITS, CALIBRATION, UNITS = "weight bits", "calibration", "hidden units and readout"
"""Sources of error of a spiking network, in the order in which they are enabled; neurons are one
source for each layer. The calibration is the source of errors that other weights would remove."""


@dataclass(frozen=True, order=True)
class Switch:
    """One kind of operation at one place.

    Attributes
    ----------
    kind : {"realization", "weights", "width", "threshold", "activation", "saturation"}
        A series or delay line instead of the memory matrix; integer weights or biases; rounding to
        the units of a format; messages that are sent only after a sufficient change; a piecewise
        linear activation; saturation.
    place : str
        Such as ``layer0/memory/recurrent`` (weights), ``layer0/memory/state`` (width, saturation).
    row : int or None
        For weights, the only row with integers; None for all rows.
    """

    kind: Kind
    place: str
    row: int | None = None


@dataclass(frozen=True)
class Switches:
    """Set of enabled switches.

    Attributes
    ----------
    on : frozenset of Switch
    """

    on: frozenset[Switch]

    @classmethod
    def of(cls, *groups: Iterable[Switch]) -> Switches:
        """Enable all switches of several groups."""
        return cls(frozenset(switch for group in groups for switch in group))

    def has(self, kind: Kind, place: str) -> bool:
        """Return whether all rows of a place are enabled."""
        return Switch(kind, place) in self.on

    def rows(self, place: str) -> list[int]:
        """Return the rows of a place whose weights are enabled individually."""
        return [s.row for s in self.on if s.place == place and s.row is not None]


def sources(network: IntegerNetwork | Layers) -> dict[str, tuple[Switch, ...]]:
    """Return all switches of a network by source, in the order of :data:`SOURCES`.

    A source that the network does not have has no switches. For example, a memory that applies the
    matrix of the float network has no discretization error.
    """
    network = layers_of(network)
    found: dict[str, list[Switch]] = {name: [] for name in SOURCES}
    found["message widths"].append(Switch("width", "input"))
    found["saturation"].append(Switch("saturation", "input"))
    for number, layer in network.numbered:
        place, series = f"layer{number}", isinstance(layer.memory, SeriesMemory)
        into = f"{place}/{'series' if series else 'memory'}"
        if series or layer.memory.realization == "fir":
            found["discretization"].append(Switch("realization", f"{place}/memory"))
        if layer.memory.bias is not None:
            found["memory weights"].append(Switch("weights", f"{into}/bias"))
        found["memory state width"].append(Switch("width", f"{place}/memory/state"))
        limited = [f"{place}/memory/state", f"{place}/memory/message"]
        rounded = [f"{place}/memory/message"]
        if series:
            limited += [f"{place}/series/{part}" for part in ("drive", "term", "message")]
            rounded.append(f"{place}/series/message")
        if layer.hidden is not None:
            limited += [f"{place}/hidden/drive", f"{place}/hidden/message"]
            rounded.append(f"{place}/hidden/message")
            found["activation"].append(Switch("activation", f"{place}/hidden"))
            found["hidden drive width"].append(Switch("width", f"{place}/hidden/drive"))
            if layer.hidden.bias is not None:
                found["hidden weights"].append(Switch("weights", f"{place}/hidden/bias"))
        found["message widths"] += [Switch("width", name) for name in rounded]
        found["saturation"] += [Switch("saturation", name) for name in limited]
    if network.chip_readout.bias is not None:
        found["readout"].append(Switch("weights", "readout/bias"))
    found["readout"].append(Switch("width", "readout/output"))
    found["saturation"].append(Switch("saturation", "readout/output"))
    for edge in edges(network):
        slices = range(len(edge.connection.slices))
        found["saturation"] += [Switch("saturation", f"{edge.place}/slice{k}") for k in slices]
        found[_weights_of(edge.target)].append(Switch("weights", edge.place))
        if edge.connection.threshold > 1:
            found["message thresholds"].append(Switch("threshold", edge.place))
    return {name: tuple(switches) for name, switches in found.items()}


def _weights_of(target: str) -> str:
    if target == "readout":
        return target
    return "hidden weights" if target.endswith("/hidden") else "memory weights"
