r"""IntegerNetwork: populations and connections in integers, in which every state is specified.

docs/reference/integer-semantics.md specifies the operations. A population computes one frame at a
time from the sum of the drives of its edges (:mod:`lmu_deploy.core.integer.parts`) by its own rule
(:mod:`lmu_deploy.core.integer.populations`). An edge with negative offsets reads earlier frames of
its source; edges to the same or an earlier population, which are recurrent, read the frame before.

What has no integer form runs on the host, in float64: :class:`HostNodes` hold operators of the
float network, read dequantized messages, and send messages or the outputs of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import GRAPH_CLASSES, Network
from lmu_deploy.core.integer.functions import PiecewiseLinear, Segments
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place, check_type
from lmu_deploy.core.integer.populations import Input, Output, Pointwise, Population, Product
from lmu_deploy.core.integer.reductions import Maximum, Reduction
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.representation import Part, Representation, Summary, counted
from lmu_deploy.core.validation import (
    check_array,
    check_flag,
    check_provenance,
    check_text,
    set_fields,
)


@dataclass(frozen=True, eq=False, repr=False)
class HostNodes(Part):
    """Nodes of the float network that the host computes in float64.

    Attributes
    ----------
    place : Place
    network : Network
        The nodes; its input is the sum of all readings.
    message : Format or None
        Format of the messages to the chip, ``sat(rint(real / scale))``, ties to even; None where
        nothing on the chip receives them.
    """

    place: Place
    network: Network
    message: Format | None
    bias: ClassVar[None] = None
    stateless: ClassVar[bool] = False
    sends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_type("host", self.place, Place)
        check_type("host", self.network, Network)
        if self.message is not None:
            check_type("host", self.message, Format)

    @property
    def size(self) -> int:
        """Number of values of a frame that the host computes."""
        return self.network.n_out

    @property
    def drive_size(self) -> int:
        """Number of values of a frame that the host reads."""
        return self.network.n_in

    @property
    def entrance(self) -> Place:
        """Place at which readings enter."""
        return self.place

    @property
    def inner_edges(self) -> tuple[Edge, ...]:
        """None."""
        return ()

    @property
    def scale(self) -> float:
        """Real value of one unit of what is recorded: real numbers."""
        return 1.0

    def sent(self, recorded: np.ndarray) -> np.ndarray:
        """Return the messages to the chip that belong to recorded values."""
        if self.message is None:
            return recorded
        units = np.rint(recorded / self.message.scale)
        return np.clip(units, -self.message.limit, self.message.limit).astype(np.int64)

    @property
    def saturation_places(self) -> tuple[str, ...]:
        """The messages, where there are any."""
        return () if self.message is None else (str(self.place),)


@dataclass(frozen=True, eq=False, repr=False)
class Reading(Part):
    """A value that the host reads: ``matrix @ (M * scale)`` for the messages M of a population.

    Attributes
    ----------
    source, target : Place
    matrix : ndarray, shape (values, source.size), or None
        None means the identity.
    """

    source: Place
    target: Place
    matrix: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_type("reading", self.source, Place)
        check_type("reading", self.target, Place)
        if self.matrix is not None:
            set_fields(self, matrix=check_array("reading matrix", self.matrix, (None, None)))


Node = Population | HostNodes


@dataclass(frozen=True, eq=False, repr=False)
class IntegerNetwork(Representation):
    """A network as populations and connections in integers.

    Attributes
    ----------
    populations : tuple of Population or HostNodes
        In the order of computation; the first is the Input.
    edges : tuple of Edge
    readings : tuple of Reading
    output : Place
        Of a Output, a Reduction, or nodes of the host without messages.
    return_sequences : bool
        Whether the network answers at every frame of its output; otherwise at its last.
    task : str or None
    profile : str
        Name of the hardware profile for which it was quantized.
    provenance : mapping of str to str
    source : Network, LMUNetwork or None
        The float network from which it was quantized, so that a file can be evaluated alone.

    Raises
    ------
    InputError
        At construction, when a place is missing or taken, or a shape or type is invalid.
    """

    populations: tuple[Node, ...]
    edges: tuple[Edge, ...]
    readings: tuple[Reading, ...]
    output: Place
    return_sequences: bool = False
    task: str | None = None
    profile: str = "loihi2"
    provenance: Mapping[str, str] = field(default_factory=dict)
    source: Network | LMUNetwork | None = None

    FILE_NAME: ClassVar[str] = "IntegerGraph"

    def __post_init__(self) -> None:
        populations, edges, readings = (
            tuple(self.populations),
            tuple(self.edges),
            tuple(self.readings),
        )
        for population in populations:
            if not isinstance(population, HostNodes | Population):
                raise InputError(f"a {type(population).__name__} is no population.")
        for edge in edges:
            check_type("network", edge, Edge)
        for reading in readings:
            check_type("network", reading, Reading)
        if self.task is not None:
            check_text("task", self.task, 200)
        check_text("profile", self.profile, 200)
        check_flag("return_sequences", self.return_sequences)
        if self.source is not None and not isinstance(self.source, Network | LMUNetwork):
            raise InputError("the source of an integer network is a float network.")
        set_fields(
            self,
            populations=populations,
            edges=edges,
            readings=readings,
            provenance=check_provenance(self.provenance),
        )
        object.__setattr__(self, "_index", _check_populations(populations))
        _check_edges(self)
        _check_loops(self)
        if self.output not in self._by_place:
            raise InputError(f"the output {self.output} is no population of the network.")

    @property
    def _by_place(self) -> dict[Place, int]:
        found: dict[Place, int] = self.__dict__["_index"]
        return found

    def __getitem__(self, place: Place) -> Node:
        """Return the population at a place, or the series whose terms are there."""
        return self.populations[self._by_place[place]]

    def order(self, place: Place) -> int:
        """Return the position of a population in the order of computation."""
        return self._by_place[place]

    @property
    def on_chip(self) -> tuple[Population, ...]:
        """The populations in integers, the input included."""
        return tuple(p for p in self.populations if isinstance(p, Population))

    @property
    def on_host(self) -> tuple[HostNodes, ...]:
        """The nodes that the host computes."""
        return tuple(p for p in self.populations if isinstance(p, HostNodes))

    @property
    def memories(self) -> tuple[Integrators | Series, ...]:
        """The linear memories, in order."""
        return tuple(p for p in self.populations if isinstance(p, Integrators | Series))

    @property
    def units(self) -> tuple[Node, ...]:
        """Populations that compute hidden units, on the chip or on the host, in order."""
        others = Input, Integrators, Series, Output
        return tuple(
            p for p in self.populations if not isinstance(p, others) and p.place != self.output
        )

    @property
    def input(self) -> Input:
        """The input."""
        first = self.populations[0]
        assert isinstance(first, Input)
        return first

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.input.features

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self[self.output].size

    @property
    def y_scale(self) -> float:
        """Real value of one unit of the output; 1 where the host computes it in float64."""
        return self[self.output].scale

    def leads_back(self, edge: Edge) -> bool:
        """Return whether an edge leads to the same or an earlier population."""
        return self.order(edge.source) >= self.order(edge.target)

    def entering(self, place: Place) -> tuple[Edge, ...]:
        """Return the edges that enter at a place, without those inside an update."""
        return tuple(edge for edge in self.edges if edge.target == place)

    def summary(self) -> Summary:
        """Return the populations of the network with their widths and weights, as a table."""
        rows, weights = [], 0
        for population in self.populations:
            entering = self.entering(population.entrance)
            found = sum(edge.connection.slices.size for edge in entering)
            weights += found
            kind = _kind(population)
            bits = "" if population.message is None else f"{population.message.bits}"
            on_host = isinstance(population, HostNodes)
            shown = "" if on_host else f"{found:,}"
            rows.append((str(population.place), kind, f"{population.size:,}", bits, shown))
        facts = [
            counted(self.n_in, "input"),
            counted(self.n_out, "output"),
            counted(weights, "weight"),
            f"profile {self.profile}",
            *([] if self.task is None else [f"task {self.task}"]),
        ]
        return Summary(facts, ("population", "kind", "size", "message bits", "weights"), rows)


def _kind(population: Node) -> str:
    if isinstance(population, HostNodes):
        operators = ", ".join(n.operator.describe() for n in population.network.nodes)
        return f"on the host, float: {operators}"
    if isinstance(population, Integrators | Series):
        return population.realization
    return type(population).__name__.lower()


def _check_populations(populations: tuple[Node, ...]) -> dict[Place, int]:
    """Return the number of the population at every place."""
    if not populations or not isinstance(populations[0], Input):
        raise InputError("the first population of an integer network is its input.")
    found: dict[Place, int] = {}
    texts: set[str] = set()
    for number, population in enumerate(populations):
        if number and isinstance(population, Input):
            raise InputError("an integer network has one input.")
        for place in dict.fromkeys((population.place, population.entrance)):
            if str(place) in texts:
                raise InputError(f"two populations have the place {place}; each needs its own.")
            texts.add(str(place))
            found[place] = number
    return found


def _check_edges(network: IntegerNetwork) -> None:
    """Raise InputError unless edges and readings fit what they join."""
    index = network._by_place
    places: set[str] = set()
    for edge in network.edges:
        if edge.place in places:
            raise InputError(f"two edges have the place {edge.place}; each needs its own.")
        places.add(edge.place)
        for end in (edge.source, edge.target):
            if end not in index:
                raise InputError(f"edge {edge.place} joins {end}, which is no population.")
        source, target = network[edge.source], network[edge.target]
        if source.message is None or not source.sends or source.place != edge.source:
            raise InputError(f"edge {edge.place} leaves {edge.source}, which sends no messages.")
        if isinstance(target, HostNodes | Input) or target.entrance != edge.target:
            raise InputError(f"edge {edge.place} enters {edge.target}, which takes no drive.")
        if edge.n_source != source.size:
            raise InputError(
                f"edge {edge.place} takes {edge.n_source} messages and {edge.source} sends "
                f"{source.size}; the two must be equal."
            )
        if edge.row + edge.connection.n_out > target.drive_size:
            raise InputError(
                f"edge {edge.place} drives {edge.row + edge.connection.n_out} sums and "
                f"{edge.target} has {target.drive_size}."
            )
        if network.leads_back(edge) and not edge.recurrent:
            raise InputError(
                f"edge {edge.place} leads back to {edge.target}; it must read the frame before."
            )
    for reading in network.readings:
        for end in (reading.source, reading.target):
            if end not in index:
                raise InputError(f"a reading joins {end}, which is no population.")
        source, host = network[reading.source], network[reading.target]
        if not isinstance(host, HostNodes) or index[reading.source] >= index[reading.target]:
            raise InputError(f"a reading of {reading.source} must lead to the host, behind it.")
        size = source.size
        rows, columns = (size, size) if reading.matrix is None else reading.matrix.shape
        if columns != size or rows != host.drive_size:
            raise InputError(
                f"{reading.target} reads {host.drive_size} values and {reading.source} gives "
                f"{rows} of {columns} messages; the shapes must fit."
            )


def component_labels(network: IntegerNetwork) -> np.ndarray:
    """Return the number of the strongly connected component of every population."""
    pairs = [(network.order(e.source), network.order(e.target)) for e in network.edges]
    pairs += [(network.order(r.source), network.order(r.target)) for r in network.readings]
    count = len(network.populations)
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    return np.asarray(connected_components(graph, connection="strong")[1])


def _check_loops(network: IntegerNetwork) -> None:
    """Raise InputError unless every population is driven, and loops are on the chip, in step."""
    driven = {e.target for e in network.edges if not network.leads_back(e)}
    driven |= {reading.target for reading in network.readings}
    labels = component_labels(network)
    for population, label in zip(network.populations[1:], labels[1:], strict=True):
        if population.entrance not in driven:
            raise InputError(f"nothing before {population.place} drives it; leave it out.")
        loop = np.count_nonzero(labels == label) > 1 or any(
            network[e.target] is network[e.source] is population for e in network.edges
        )
        if loop and isinstance(population, HostNodes | Reduction):
            raise InputError(f"{population.place} is part of a loop; only the chip has loops.")
    for edge in network.edges:
        inside = labels[network.order(edge.source)] == labels[network.order(edge.target)]
        if inside and not network.leads_back(edge) and not edge.plain:
            raise InputError(
                f"edge {edge.place} is part of a loop; it must read one frame, of the same step."
            )


INTEGER_CLASSES: tuple[type, ...] = (
    IntegerNetwork,
    HostNodes,
    Reading,
    Input,
    Integrators,
    Series,
    Pointwise,
    Product,
    LSTMUnits,
    GRUUnits,
    Maximum,
    Reduction,
    Output,
    PiecewiseLinear,
    Segments,
    Edge,
    Place,
    Connection,
    Format,
    *GRAPH_CLASSES,
)
"""Classes that may occur in a file of this representation, for `core.files.load`."""
