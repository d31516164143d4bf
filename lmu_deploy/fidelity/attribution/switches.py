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

from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.graph import sources as senders
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Input, Output, Pointwise, Population, Product
from lmu_deploy.core.integer.reductions import Maximum, Reduction

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
DAMAGE = "damage"
WEIGHT_BITS, CALIBRATION, UNITS = "weight bits", "calibration", "hidden units and readout"
"""Sources of error of a spiking network, in the order in which they are enabled; neurons are one
source for each layer. Damage are neurons that are not as they were made: what it costs after a new
calibration. The calibration is the source of errors that other weights would remove."""


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


def sources(network: IntegerNetwork) -> dict[str, tuple[Switch, ...]]:
    """Return all switches of a network by source, in the order of :data:`SOURCES`.

    A source that the network does not have has no switches. For example, a memory that applies the
    matrix of the float network has no discretization error.
    """
    found: dict[str, list[Switch]] = {name: [] for name in SOURCES}
    for place, source in senders(network).items():
        if source.outside:
            found["message widths"].append(Switch("width", str(place)))
            found["saturation"].append(Switch("saturation", str(place)))
    for population in network.on_chip:
        if not isinstance(population, Input):
            _of_population(network, population, found)
    for edge in edges(network):
        slices = range(len(edge.connection.slices))
        found["saturation"] += [Switch("saturation", f"{edge.place}/slice{k}") for k in slices]
        weights = _source_of(network, edge.target, "weights")
        found[weights].append(Switch("weights", edge.place))
        if edge.connection.threshold > 1:
            found["message thresholds"].append(Switch("threshold", edge.place))
    return {name: tuple(switches) for name, switches in found.items()}


def _of_population(
    network: IntegerNetwork, population: Population, found: dict[str, list[Switch]]
) -> None:
    """Add the switches of a population."""
    place = str(population.place)
    if isinstance(population, Series) or (
        isinstance(population, Integrators) and population.realization == "fir"
    ):
        found["discretization"].append(Switch("realization", place))
    if population.functions:
        found["activation"].append(Switch("activation", place))
    if population.bias is not None:
        weights = _source_of(network, population.entrance, "weights")
        found[weights].append(Switch("weights", f"{population.entrance}/bias"))
    sums = rounded_at(population)
    found[_source_of(network, population.entrance, "width")].append(Switch("width", sums))
    rounded = [f"{place}/{part}" for part in ROUNDED[type(population)]]
    if isinstance(population, Series):
        rounded.append(f"{population.inner}/message")
    found["message widths"] += [Switch("width", name) for name in rounded if name != sums]
    found["saturation"] += [Switch("saturation", name) for name in population.saturation_places]


ROUNDED: dict[type[Population], tuple[str, ...]] = {
    Integrators: ("message",),
    Series: ("message",),
    Pointwise: ("message",),
    Product: ("factor", "message"),
    LSTMUnits: ("gate", "state", "message"),
    GRUUnits: ("gate", "state", "message"),
    Maximum: ("message",),
    Reduction: ("message",),
    Output: (),
}
"""Where a population rounds, besides its sums."""

_SUMS: dict[type[Population], str] = {
    Integrators: "state",
    Series: "state",
    Reduction: "state",
    Maximum: "message",
    Output: "output",
}


def rounded_at(population: Population) -> str:
    """Return the place of the width at which the sums that enter a population are integers."""
    return f"{population.place}/{_SUMS.get(type(population), 'drive')}"


def _source_of(network: IntegerNetwork, target: Place, kind: str) -> str:
    """Return the source of error of the weights that enter a place, or of the width of its sums."""
    population = network[target]
    if population.place == network.output:
        return "readout"
    if isinstance(population, Integrators | Series):
        return "memory weights" if kind == "weights" else "memory state width"
    return "hidden weights" if kind == "weights" else "hidden drive width"
