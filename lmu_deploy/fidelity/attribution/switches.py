r"""Switches for the operations by which an integer network differs from its float network.

A switch is a kind of operation at a place of the network; docs/reference/integer-semantics.md lists
the places. With no switch enabled, the simulator of simulator.py is the float network; with all
switches enabled, it is the integer network. Sources of error are groups of switches in the order of
computation; a report lists these sources.

Rounding and saturation of connections can be disabled separately.

With W_k and g_k the slices and gains on the chip, and W the matrix that they represent,

.. math:: D_i = \sum_k \mathrm{round}\Big(g_{ki}\,\mathrm{sat}\big(\sum_j W_{kij} X_j\big)\Big),
   \qquad \text{the last slice's sum with } \sum_j \big(W - \textstyle\sum_k g_k W_k\big)_{ij} X_j
   \text{ when rounding of weights is disabled.}

Accumulators therefore saturate as on the chip even with unrounded weights, and the input of a state
is an integer whenever its width is enabled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.graph import sources as senders
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Place, accumulator_place, largest
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
        found["saturation"] += [Switch("saturation", place) for place in edge.accumulators]
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


@dataclass
class Tally:
    """Recorder of saturations and largest values at each place of a run.

    Attributes
    ----------
    saturations : dict of place to ndarray, shape (n,), int64
        Number of saturated values by row.
    widest : dict of place to ndarray, shape (n,), float64
        Largest magnitude before saturation by row.
    """

    saturations: dict[str, np.ndarray] = field(default_factory=dict)
    widest: dict[str, np.ndarray] = field(default_factory=dict)

    def record(self, place: str, values: np.ndarray, limit: float) -> None:
        """Record values of shape (..., n) before they are limited to +-limit."""
        magnitudes = np.abs(values).reshape(-1, values.shape[-1])
        top = magnitudes.max(axis=0, initial=0.0)
        self.widest[place] = np.maximum(self.widest.get(place, 0.0), top)
        counts = self.saturations.setdefault(place, np.zeros(len(top), np.int64))
        if (top > limit).any():
            counts += (magnitudes > limit).sum(axis=0)


def half_up(values: np.ndarray) -> np.ndarray:
    """Round to integers as an arithmetic shift does: floor(v + 1/2)."""
    return np.asarray(np.floor(values + 0.5))


def limited(
    values: np.ndarray, limit: int, place: str, switches: Switches, tally: Tally | None
) -> np.ndarray:
    """Return values limited to +-limit if saturation is enabled at this place."""
    if tally is not None:
        tally.record(place, values, limit)
    return np.clip(values, -limit, limit) if switches.has("saturation", place) else values


class Synapses:
    """One connection, prepared for simulation.

    Parameters
    ----------
    place : str
        Such as ``layer0/memory/recurrent``.
    connection : Connection
    exact : ndarray, shape (n_out, n_in)
        The unrounded matrix.
    rounded : bool
        Whether the sums of the target are integers.
    switches : Switches
    tally : Tally or None
        Recorder of sums and saturations; sums are then computed slice by slice.
    """

    def __init__(
        self,
        place: str,
        connection: Connection,
        exact: np.ndarray,
        rounded: bool,
        switches: Switches,
        tally: Tally | None,
    ) -> None:
        self._switches, self._tally, self._rounded = switches, tally, rounded
        self._gains, self._limit = connection.gains, largest(connection.accumulator_bits)
        self._places = [accumulator_place(place, k) for k in range(len(connection.slices))]
        residual = np.zeros_like(exact)
        if not switches.has("weights", place):
            residual = exact - connection.dequantized
            residual[switches.rows(place)] = 0.0
        self._residual = bool(residual.any())
        limits = any(switches.has("saturation", slice_place) for slice_place in self._places)
        self._sliced = rounded or limits or tally is not None
        n_slices, n_out, n_in = connection.slices.shape
        if not self._sliced:
            self._columns = (connection.dequantized + residual).T.copy()
            return
        stacked = [connection.slices.reshape(n_slices * n_out, n_in).astype(np.float64)]
        self._columns = np.concatenate(stacked + [residual] * self._residual).T.copy()

    def drive(self, messages: np.ndarray, remembered: np.ndarray | None = None) -> np.ndarray:
        """Return the input of the target.

        Parameters
        ----------
        messages : ndarray, shape (batch, n_in)
            In units of their format, integers or not.
        remembered : ndarray, shape (batch, n_out), optional
            Additional input, which is rounded together with the last slice.
        """
        sums = messages @ self._columns
        if not self._sliced:
            return sums if remembered is None else sums + remembered
        parts = np.split(sums, len(self._places) + self._residual, axis=1)
        total = np.zeros_like(parts[0])
        for k, place in enumerate(self._places):
            part = limited(parts[k], self._limit, place, self._switches, self._tally)
            part = part * self._gains[k]
            if k == len(self._places) - 1:
                if self._residual:
                    part += parts[-1]
                if remembered is not None:
                    part += remembered
            total += half_up(part) if self._rounded else part
        return total
