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
from lmu_deploy.core.files import LATER
from lmu_deploy.core.graph.network import GRAPH_CLASSES, INPUT, Network
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.representation import Part, Summary
from lmu_deploy.core.spiking.chip import (
    Calibration,
    Device,
    NeuronModel,
    Populations,
    check_multiple,
    check_rates,
)
from lmu_deploy.core.spiking.ensembles import (
    NeuronGraph,
    NeuronGroup,
    Synapses,
    Values,
    check_noise,
    check_type,
)
from lmu_deploy.core.spiking.loihi import (
    DECAY_ONE,
    LoihiConnection,
    LoihiCurrent,
    LoihiNetwork,
    LoihiNeurons,
    RelayGroup,
    fan_outs,
)
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.validation import (
    check_array,
    check_flag,
    check_integer,
    check_number,
    check_text,
    set_fields,
)


@dataclass(frozen=True, eq=False, repr=False)
class SpikeConnection(Synapses):
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
class Ensemble(Values):
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
    hidden : bool
        Whether they are the hidden units of an LMU, which a recording of the float network has.
    """

    name: str
    scales: np.ndarray
    connections: tuple[SpikeConnection, ...]
    currents: tuple[InputCurrent, ...]
    populations: Populations | None = None
    hidden: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        self.check(SpikeConnection, InputCurrent, Populations)


@dataclass(frozen=True, eq=False, repr=False)
class SpikingGraph(NeuronGraph):
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
        set_fields(self, dt_ms=dt)
        if self.maximum_rates is not None:
            set_fields(self, maximum_rates=check_rates(self.maximum_rates, self.neuron))
        self.check_graph(Ensemble)

    @property
    def decay(self) -> float:
        """Decay factor of a slow synapse per step of the simulation, exp(-dt / tau)."""
        return float(np.exp(-self.dt_ms / self.tau_ms))

    @property
    def fast_decay(self) -> float:
        """Decay factor of a fast synapse per step of the simulation."""
        return float(np.exp(-self.dt_ms / self.fast_tau_ms))

    def fan_out(self, name: str) -> np.ndarray:
        """Return the number of outgoing synapses of each neuron of an ensemble."""
        found = np.zeros(self[name].neurons, np.int64)
        for target in self.parts:
            copies = 1 if target.populations is None else target.populations.neurons
            for each in target.connections:
                if each.source == name:
                    found += each.fan_out * copies
        return found

    def senders(self) -> dict[str, np.ndarray]:
        """Return the ensembles of neurons with the number of synapses of each neuron."""
        return {each.name: self.fan_out(each.name) for each in self.ensembles}

    def senders_of(self, parts: Sequence[Values]) -> set[str]:
        """Return the names of ensembles of neurons."""
        return {each.name for each in parts if each.populations is not None}

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
        return self.described(self.neuron.kind, self.device.profile)


@dataclass(frozen=True, eq=False, repr=False)
class LoihiInput(Part):
    """What the host sends once per presentation, as messages of 16 bits.

    Attributes
    ----------
    source : str
        ``input``, a node that the host computes, or empty for the constant 1.
    scales : ndarray, shape (features,)
        Value per unit of a message.
    """

    source: str
    scales: np.ndarray

    def __post_init__(self) -> None:
        source = check_text("input source", self.source, 200)
        scales = check_array("input scales", self.scales, (None,))
        if not len(scales) or not np.all(scales > 0.0):
            raise InputError("the scales of messages must be positive throughout.")
        set_fields(self, source=source, scales=scales)

    @property
    def place(self) -> str:
        """Name of its messages in a run."""
        return INPUT if self.source == INPUT else str(Place(self.source or "constant", "host"))


@dataclass(frozen=True, eq=False, repr=False)
class LoihiEnsemble(Values):
    """Relays of several values, and the LIF neurons that encode these.

    Attributes
    ----------
    name : str
        Node of the float graph, as of :class:`Ensemble`.
    scales : ndarray, shape (size,)
        Value of the drive at 1.
    connections : tuple of LoihiConnection
    currents : tuple of LoihiCurrent
    message_shift : int
        Shift from the drive to the message of a relay, 0 to 15.
    populations : LoihiNeurons or None
        None for a probe, whose relays only the host reads.
    hidden : bool
        As of :class:`Ensemble`.
    """

    name: str
    scales: np.ndarray
    connections: tuple[LoihiConnection, ...]
    currents: tuple[LoihiCurrent, ...]
    message_shift: int
    populations: LoihiNeurons | None = None
    hidden: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        self.check(LoihiConnection, LoihiCurrent, LoihiNeurons)
        set_fields(self, message_shift=check_integer("message shift", self.message_shift, 0, 15))

    @property
    def relays(self) -> str:
        """Name of its relays in a run."""
        return str(Place(self.name, "relay"))


@dataclass(frozen=True, eq=False, repr=False)
class LoihiGraph(NeuronGraph):
    """A graph of relays and LIF neurons in Loihi's fixed point; the host does the rest.

    docs/reference/loihi-semantics.md specifies every spike.

    Attributes
    ----------
    ensembles, probes : tuple of LoihiEnsemble
        As of :class:`SpikingGraph`.
    inputs : tuple of LoihiInput
        One for each source of a current.
    host : Network
    profile : str
        Name of the hardware profile.
    calibration : Calibration
    decay, fast_decay : int
        Decays of the registers X and R of a relay per step, in 4096ths, 1 to 4095.
    dt_ms, tau_ms, fast_tau_ms, presentation_ms : float
        Duration of a chip step, time constants that were asked for, and presentation time of an
        input, whole multiples of the first; milliseconds.
    provenance : mapping of str to str

    Raises
    ------
    InputError
        At construction, when a shape, name or value is invalid.
    """

    ensembles: tuple[LoihiEnsemble, ...]
    probes: tuple[LoihiEnsemble, ...]
    inputs: tuple[LoihiInput, ...]
    host: Network
    profile: str
    calibration: Calibration
    decay: int
    fast_decay: int
    dt_ms: float
    tau_ms: float
    fast_tau_ms: float
    presentation_ms: float
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_type(self.host, Network)
        check_type(self.calibration, Calibration)
        dt = check_number("dt_ms", self.dt_ms, 1e-3, 1e3)
        set_fields(
            self,
            dt_ms=dt,
            profile=check_text("profile", self.profile, 200),
            inputs=tuple(self.inputs),
        )
        for name in ("tau_ms", "fast_tau_ms", "presentation_ms"):
            set_fields(self, **{name: check_multiple(name, getattr(self, name), dt)})
        for name in ("decay", "fast_decay"):
            set_fields(self, **{name: check_integer(name, getattr(self, name), 1, DECAY_ONE - 1)})
        self.check_graph(LoihiEnsemble)
        for each in self.inputs:
            check_type(each, LoihiInput)
        features = {each.source: len(each.scales) for each in self.inputs}
        if len(features) != len(self.inputs):
            raise InputError("two inputs of a graph on Loihi have one source.")
        for part in self.parts:
            for current in part.currents:
                if features.get(current.source) != current.weights.shape[1]:
                    raise InputError(
                        f"{part.name} takes {current.weights.shape[1]} messages of "
                        f"{current.source or 1}, and the host sends "
                        f"{features.get(current.source, 0)}; the two must be equal."
                    )

    def input(self, source: str) -> LoihiInput:
        """Return what the host sends of a source."""
        return next(each for each in self.inputs if each.source == source)

    def senders(self) -> dict[str, np.ndarray]:
        """Return what sends events, with the number of synapses that each sender reaches."""
        return fan_outs(self.groups())

    def senders_of(self, parts: Sequence[LoihiEnsemble]) -> set[str]:
        """Return the names of ensembles, their relays, and the messages that reach them."""
        neurons = [each for each in parts if each.populations is not None]
        sources = {current.source for each in parts for current in each.currents}
        return {
            *(each.name for each in neurons),
            *(each.relays for each in neurons),
            *(each.place for each in self.inputs if each.source in sources),
        }

    def groups(self) -> Iterator[RelayGroup]:
        """Yield each ensemble with what reaches its relays, for placement and sizes."""
        for each in self.parts:
            reaching = [(one.source, one.weights) for one in each.connections]
            reaching += [(self.input(one.source).place, one.weights[None]) for one in each.currents]
            yield RelayGroup(
                each.relays,
                each.name,
                each.size,
                each.populations,
                tuple(reaching),
                frozenset(each.sources),
                1 + any(one.fast for one in each.connections),
            )

    def summary(self) -> Summary:
        """Return ensembles and nodes with their values and neurons, as a table."""
        return self.described("LIF", self.profile)


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

LOIHI_GRAPH_CLASSES: tuple[type, ...] = (
    LoihiGraph,
    LoihiEnsemble,
    LoihiConnection,
    LoihiCurrent,
    LoihiInput,
    LoihiNeurons,
    Calibration,
    *GRAPH_CLASSES,
)
"""Likewise for graphs on Loihi."""

OnLoihi = LoihiNetwork | LoihiGraph
"""A network on LIF neurons in Loihi's fixed point: a chain of layers, or any graph."""
