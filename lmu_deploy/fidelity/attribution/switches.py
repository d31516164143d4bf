"""Every operation by which an integer network differs from its float one, as a switch of its own.

A switch is a kind of operation at a place; the places are those of integer-semantics.md. With
no switch on, the hybrid of simulator.py is the float network; with all on, it is the integer one.
Sources are groups of switches, in the order in which a signal meets them: what a report lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lmu_deploy.core.integer.graph import edges, from_outside, populations
from lmu_deploy.core.integer.layers import SeriesMemory
from lmu_deploy.core.integer.network import IntegerNetwork, IntegerReadout

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
"""In the order in which they are switched on."""

NEURONS, MISMATCH, NOISE = "neurons", "mismatch", "membrane noise"
WEIGHT_BITS, CALIBRATION, UNITS = "weight bits", "calibration", "hidden units and readout"
"""Sources of a spiking network, in the order in which they are switched on; the neurons stand for
each layer. The calibration is to blame for what another set of weights would make up for."""


@dataclass(frozen=True, order=True)
class Switch:
    """One kind of operation at one place.

    Attributes
    ----------
    kind : {"realization", "weights", "width", "threshold", "activation", "saturation"}
        The memory's series or delay line in place of its matrix; integer weights or biases;
        rounding to the units of a format; messages that are held until they have changed enough;
        lines in place of the activation; limits.
    place : str
        Such as ``layer0/memory/recurrent`` (weights), ``layer0/memory/state`` (width, saturation).
    row : int or None
        With weights, the only row that is of integers; None for all rows.
    """

    kind: Kind
    place: str
    row: int | None = None


@dataclass(frozen=True)
class Switches:
    """Which switches are on.

    Attributes
    ----------
    on : frozenset of Switch
    """

    on: frozenset[Switch]

    @classmethod
    def of(cls, *groups: Iterable[Switch]) -> Switches:
        """Switch on all of several groups."""
        return cls(frozenset(switch for group in groups for switch in group))

    def has(self, kind: Kind, place: str) -> bool:
        """Whether a whole place is switched on."""
        return Switch(kind, place) in self.on

    def rows(self, place: str) -> list[int]:
        """Rows of a place whose weights are switched on by themselves."""
        return [s.row for s in self.on if s.place == place and s.row is not None]


def sources(network: IntegerNetwork) -> dict[str, tuple[Switch, ...]]:
    """All switches of a network by source, in the order of :data:`SOURCES`.

    A source that the network does not have is there without switches: a memory that applies the
    float network's own matrix has no error of discretization.
    """
    found: dict[str, list[Switch]] = {name: [] for name in SOURCES}
    for name in filter(from_outside, populations(network)):
        found["message widths"].append(Switch("width", name))
        found["saturation"].append(Switch("saturation", name))
    for number, layer in network.on_chip:
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
    if isinstance(network.readout, IntegerReadout):
        if network.readout.bias is not None:
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
