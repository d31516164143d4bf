r"""SpikingGraph: a float graph on spiking neurons, as ensembles, connections and currents.

An ensemble has a drive :math:`d` of several values, each of which one population of neurons
represents. The drive has two sums of spikes, one behind the slow synapses with which memories
integrate, one behind fast synapses, and a part that the host sets. Every step of the simulation
computes for each ensemble p, from the spikes :math:`s_q` of all ensembles q of the same step,

.. math::
   s_p &= \text{spikes of the neuron model}(g e\, (x_p + r_p + i_p) + b) \\
   x_p &\leftarrow a\, x_p + (1 - a)\,\Bigl(\sum_q W_{pq}\, s_q / dt + \sum_v C_{pv}\, v\Bigr),
   \qquad a = e^{-dt/\tau} \\
   r_p &\leftarrow a_r\, r_p + (1 - a_r) \sum_q D_{pq}\, s_q / dt, \qquad a_r = e^{-dt/\tau_r} \\
   i_p &= \sum_v B_{pv}\, v

where v are values that the host sends once per presentation: the input, nodes that it computes, and
the constant 1. A memory is an ensemble whose W has a connection from itself (Principle 3, see
:mod:`lmu_deploy.core.spiking.network`); what drives it enters through :math:`S^{-1} B'`. Units are
an ensemble whose neurons encode the argument of the activation; a readout is a probe, whose drive
the host reads at the end of each presentation and which has no neurons. docs/explanation/
spiking-graphs.md derives the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import GRAPH_CLASSES, INPUT, Network
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.representation import Part, Representation, Summary
from lmu_deploy.core.spiking.chip import (
    Calibration,
    Device,
    NeuronModel,
    Populations,
    check_multiple,
    check_rates,
)
from lmu_deploy.core.spiking.network import (
    Hosted,
    NeuronGroup,
    SpikingNetwork,
    check_noise,
    check_type,
)
from lmu_deploy.core.validation import (
    check_array,
    check_flag,
    check_number,
    check_provenance,
    check_text,
    set_fields,
)

ONE = ""
"""Source of a constant current."""


@dataclass(frozen=True, eq=False, repr=False)
class SpikeConnection(Part):
    """Synapses from the neurons of one ensemble to the drive of another, or of its own.

    Attributes
    ----------
    source : str
        Ensemble that spikes.
    weights : ndarray, shape (blocks, rows, columns)
        Diagonal blocks of W or D as the chip stores them, in seconds: contribution of a spike rate
        in hertz to the scaled drive. Rows are values of the drive and columns neurons of the
        source, population by population; a full matrix is one block.
    fast : bool
        Whether they are fast synapses, D, or those of the memories, W.
    """

    source: str
    weights: np.ndarray
    fast: bool

    def __post_init__(self) -> None:
        set_fields(
            self,
            source=check_text("connection source", self.source, 200),
            weights=check_array("connection weights", self.weights, (None, None, None)),
            fast=check_flag("connection fast", self.fast),
        )

    @property
    def size(self) -> int:
        """Number of values of the drive that it reaches."""
        return int(self.weights.shape[0] * self.weights.shape[1])

    @property
    def senders(self) -> int:
        """Number of neurons that send."""
        return int(self.weights.shape[0] * self.weights.shape[2])

    @property
    def fan_in(self) -> np.ndarray:
        """Number of synapses onto each value of the drive, shape (size,)."""
        return np.asarray((self.weights != 0.0).sum(axis=2).reshape(-1), np.int64)

    @property
    def fan_out(self) -> np.ndarray:
        """Number of values that each neuron reaches, shape (senders,)."""
        return np.asarray((self.weights != 0.0).sum(axis=1).reshape(-1), np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class InputCurrent(Part):
    """A current that the host sets once per presentation.

    Attributes
    ----------
    source : str
        ``input``, a node that the host computes, or empty for the constant 1.
    weights : ndarray, shape (size, features)
        C or B: contribution of each feature to the scaled drive.
    direct : bool
        Whether it is added to the drive at once (B), or enters through the slow synapses (C).
    """

    source: str
    weights: np.ndarray
    direct: bool

    def __post_init__(self) -> None:
        set_fields(
            self,
            source=check_text("current source", self.source, 200),
            weights=check_array("current weights", self.weights, (None, None)),
            direct=check_flag("current direct", self.direct),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble(Part):
    """Values with their synapses, and the populations that represent them.

    Attributes
    ----------
    name : str
        Node of the float graph: a memory, an activation, or of a probe any node.
    scales : ndarray, shape (size,)
        What a drive of 1 stands for: a state of the memory, or an argument of the activation.
    connections : tuple of SpikeConnection
    currents : tuple of InputCurrent
    populations : Populations, one for each value, or None
        None for a probe.
    """

    name: str
    scales: np.ndarray
    connections: tuple[SpikeConnection, ...]
    currents: tuple[InputCurrent, ...]
    populations: Populations | None = None

    def __post_init__(self) -> None:
        name = check_text("ensemble name", self.name, 200)
        scales = check_array(f"{name}, scales", self.scales, (None,))
        if not len(scales) or not np.all(scales > 0.0):
            raise InputError(f"{name}: the scales of its drive must be positive throughout.")
        set_fields(
            self, scales=scales, connections=tuple(self.connections), currents=tuple(self.currents)
        )
        for parts, kind in ((self.connections, SpikeConnection), (self.currents, InputCurrent)):
            for each in parts:
                check_type(each, kind)
        sizes = [each.size for each in self.connections]
        sizes += [len(each.weights) for each in self.currents]
        if self.populations is not None:
            check_type(self.populations, Populations)
            sizes.append(self.populations.states)
        if wrong := [size for size in sizes if size != self.size]:
            raise InputError(
                f"{name} has {self.size} values, and a part of it is for {wrong[0]}; the two must "
                "be equal."
            )

    @property
    def size(self) -> int:
        """Number of values of the drive."""
        return len(self.scales)

    @property
    def neurons(self) -> int:
        """Number of neurons of all populations."""
        return 0 if self.populations is None else self.size * self.populations.neurons

    @property
    def sources(self) -> Iterator[str]:
        """Names of the ensembles whose spikes it receives."""
        return (each.source for each in self.connections)

    @property
    def fan_in(self) -> np.ndarray:
        """Number of synapses onto each neuron of a population, shape (size,)."""
        none = np.zeros(self.size, np.int64)
        return np.asarray(sum((each.fan_in for each in self.connections), none))


@dataclass(frozen=True, eq=False, repr=False)
class SpikingGraph(Hosted, Representation):
    """A network whose ensembles feed each other by spikes; the host does the rest.

    Attributes
    ----------
    ensembles : tuple of Ensemble
        With neurons, in the order of the nodes of `host`; each behind those it receives from.
    probes : tuple of Ensemble
        Without neurons: what the host reads.
    host : Network
        The float graph, in which an ensemble's name is a memory or an activation.
    neuron : NeuronModel
    device : Device
    calibration : Calibration
    dt_ms, tau_ms, fast_tau_ms, presentation_ms : float
        Step of the simulation, time constants of the slow and the fast synapses, and presentation
        time of an input, whole multiples of the first; milliseconds.
    provenance : mapping of str to str
    maximum_rates : (float, float), optional
        Range of the firing rates at the end of the range of a value, hertz.

    Raises
    ------
    InputError
        At construction, when a shape, name or value is invalid.
    """

    ensembles: tuple[Ensemble, ...]
    probes: tuple[Ensemble, ...]
    host: Network
    neuron: NeuronModel
    device: Device
    calibration: Calibration
    dt_ms: float
    tau_ms: float
    fast_tau_ms: float
    presentation_ms: float
    provenance: Mapping[str, str] = field(default_factory=dict)
    maximum_rates: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        kinds = {"host": Network, "neuron": NeuronModel, "device": Device}
        for name, kind in {**kinds, "calibration": Calibration}.items():
            check_type(getattr(self, name), kind)
        dt = check_number("dt_ms", self.dt_ms, 1e-3, 1e3)
        for name in ("tau_ms", "fast_tau_ms", "presentation_ms"):
            set_fields(self, **{name: check_multiple(name, getattr(self, name), dt)})
        check_multiple("refractory_ms", self.neuron.refractory_ms, dt, least=0)
        check_noise(self.neuron, self.device)
        set_fields(
            self,
            dt_ms=dt,
            ensembles=tuple(self.ensembles),
            probes=tuple(self.probes),
            provenance=check_provenance(self.provenance),
        )
        if self.maximum_rates is not None:
            set_fields(self, maximum_rates=check_rates(self.maximum_rates, self.neuron))
        if not self.ensembles or not self.probes:
            raise InputError("a spiking graph needs an ensemble of neurons, and one to read.")
        for each in (*self.ensembles, *self.probes):
            check_type(each, Ensemble)
        object.__setattr__(self, "_stages", _Stages(self))

    def __getitem__(self, name: str) -> Ensemble:
        """Return the ensemble of neurons of that name."""
        return next(each for each in self.ensembles if each.name == name)

    @property
    def neurons(self) -> int:
        """Number of neurons of all ensembles."""
        return sum(each.neurons for each in self.ensembles)

    @property
    def decay(self) -> float:
        """Decay factor of a slow synapse per step of the simulation, exp(-dt / tau)."""
        return float(np.exp(-self.dt_ms / self.tau_ms))

    @property
    def fast_decay(self) -> float:
        """Decay factor of a fast synapse per step of the simulation."""
        return float(np.exp(-self.dt_ms / self.fast_tau_ms))

    @property
    def stages(self) -> Sequence[tuple[tuple[Ensemble, ...], tuple[Ensemble, ...]]]:
        """Ensembles and probes that run at the same time, in order.

        A stage needs what the host computed from the probes of the stage before.
        """
        stages: _Stages = self.__dict__["_stages"]
        last = max(stages.of_probes.values())
        return [
            (
                tuple(one for one in self.ensembles if stages.of_ensembles[one.name] == number),
                tuple(one for one in self.probes if stages.of_probes[one.name] == number),
            )
            for number in range(last + 1)
        ]

    @property
    def round_trips(self) -> int:
        """Times that a presentation goes through the host on its way through the chip."""
        return len(self.stages) - 1

    @property
    def on_host(self) -> tuple[str, ...]:
        """Nodes that the host computes, in their order."""
        needed = {each.source for one in self._all for each in one.currents} | {self.host.output}
        probed = {each.name for each in self.probes}
        found = []
        for node in reversed(self.host.nodes):
            if node.name in needed and node.name not in probed:
                found.append(node.name)
                needed.update(node.inputs)
        return tuple(reversed(found))

    @property
    def _all(self) -> tuple[Ensemble, ...]:
        return (*self.ensembles, *self.probes)

    def kind(self, ensemble: Ensemble) -> str:
        """Return what an ensemble of neurons represents: "memory" or "units"."""
        is_memory = isinstance(self.host[ensemble.name].operator, LinearMemory)
        return "memory" if is_memory else "units"

    def neurons_per(self, kind: str) -> int:
        """Return the number of neurons of a value of "memory" or "units"; 0 if there is none."""
        found = [each for each in self.ensembles if self.kind(each) == kind]
        return found[0].neurons // found[0].size if found else 0

    def fan_out(self, name: str) -> np.ndarray:
        """Return the number of outgoing synapses of each neuron of an ensemble."""
        found = np.zeros(self[name].neurons, np.int64)
        for target in self._all:
            copies = 1 if target.populations is None else target.populations.neurons
            for each in target.connections:
                if each.source == name:
                    found += each.fan_out * copies
        return found

    def groups(self) -> Iterator[NeuronGroup]:
        """Yield each ensemble of neurons with its numbers of synapses."""
        for each in self.ensembles:
            assert each.populations is not None  # checked at construction
            arrays = tuple(one.weights for one in each.connections)
            memory, neurons = self.kind(each) == "memory", each.populations.neurons
            yield NeuronGroup(each.name, neurons, each.fan_in, arrays, memory)
        for each in self.probes:
            arrays = tuple(one.weights for one in each.connections)
            yield NeuronGroup(each.name, 0, each.fan_in, arrays)

    def summary(self) -> Summary:
        """Return ensembles and nodes with their values and neurons, as a table."""
        rows = [("input", "", f"{self.n_in:,}", "0")]
        neurons = {each.name: each for each in self.ensembles}
        probed, host = {each.name: each for each in self.probes}, set(self.on_host)
        for node in self.host.nodes:
            if (found := neurons.get(node.name)) is not None:
                kind = f"{node.operator.describe()}, {self.neuron.kind} neurons"
                rows.append((node.name, kind, f"{found.size:,}", f"{found.neurons:,}"))
            elif (found := probed.get(node.name)) is not None:
                kind = f"{node.operator.describe()}, synapses on the chip"
                rows.append((node.name, kind, f"{found.size:,}", "0"))
            elif node.name in host:
                size = self.host.shapes[node.name].size
                kind = f"{node.operator.describe()}, on the host"
                rows.append((node.name, kind, f"{size:,}", "0"))
        facts = self.facts(self.neurons, self.device.profile)
        return Summary(facts, ("node", "kind", "values", "neurons"), rows)


class _Stages:
    """In which stage each ensemble and each probe runs; it checks all names and shapes."""

    def __init__(self, graph: SpikingGraph) -> None:
        self.of_ensembles: dict[str, int] = {}
        self.of_probes: dict[str, int] = {}
        self._known = {ONE: 0, INPUT: 0}
        self._features = {ONE: 1, INPUT: graph.n_in}
        self._neurons: dict[str, int] = {}
        neurons = {each.name: each for each in graph.ensembles}
        probes = {each.name: each for each in graph.probes}
        if len(neurons) + len(probes) < len(graph.ensembles) + len(graph.probes):
            raise InputError("two ensembles of a spiking graph have one name.")
        for node in graph.host.nodes:
            name = node.name
            if (found := neurons.pop(name, None)) is not None:
                _check_ensemble(found, node.operator)
                self._neurons[name] = found.neurons
                self.of_ensembles[name] = self._stage(found)
            inputs = [self._known.get(each) for each in node.inputs]
            if (probe := probes.pop(name, None)) is not None:
                if probe.size != graph.host.shapes[name].size or probe.populations is not None:
                    raise InputError(f"the probe of {name} does not fit its node.")
                self.of_probes[name] = self._stage(probe)
                self._known[name] = self.of_probes[name] + 1
            elif None not in inputs:
                self._known[name] = max(each for each in inputs if each is not None)
            self._features[name] = graph.host.shapes[name].size
        if left := [*neurons, *probes]:
            raise InputError(f"the ensemble {left[0]} is no node of the float graph.")
        if graph.host.output not in self._known:
            raise InputError("the host cannot compute the output of a spiking graph.")

    def _stage(self, ensemble: Ensemble) -> int:
        stages = [0]
        for current in ensemble.currents:
            if current.source not in self._known or (
                self._features[current.source] != current.weights.shape[1]
            ):
                raise InputError(
                    f"{ensemble.name} takes {current.weights.shape[1]} values of "
                    f"{current.source or 1}, which is nothing that the host has then."
                )
            stages.append(self._known[current.source])
        own = [each for each in ensemble.connections if each.source != ensemble.name]
        stages += [self.of_ensembles.get(each.source, 0) for each in own]
        stage = max(stages)
        for each in ensemble.connections:
            if self._neurons.get(each.source) != each.senders:
                raise InputError(
                    f"{ensemble.name} receives {each.senders} neurons of {each.source}, which is "
                    "no ensemble of as many before it."
                )
        if any(self.of_ensembles[each.source] < stage for each in own):
            raise InputError(
                f"{ensemble.name} needs the host and spikes of before; they must come through it."
            )
        return stage


def _check_ensemble(ensemble: Ensemble, operator: object) -> None:
    """Raise InputError unless an ensemble has neurons and represents its node."""
    if isinstance(operator, LinearMemory) and operator.activation is None:
        fits = ensemble.size == operator.memory.size
    else:
        fits = isinstance(operator, Activation)
    if not fits or ensemble.populations is None:
        raise InputError(
            f"the ensemble {ensemble.name} needs neurons, and as its node a linear memory of its "
            "size or an activation."
        )


AnalogNetwork = SpikingNetwork | SpikingGraph
"""A network on a virtual analog chip: a chain of layers, or any graph."""

SPIKING_GRAPH_CLASSES: tuple[type, ...] = (
    SpikingGraph,
    Ensemble,
    SpikeConnection,
    InputCurrent,
    Populations,
    NeuronModel,
    Device,
    Calibration,
    *GRAPH_CLASSES,
)
"""Classes that may occur in a file of this representation, for `core.files.load`."""
