"""What networks on neurons have in common: a host, and in graphs ensembles that run in stages.

An ensemble has a drive of several values, each of which one population of neurons represents. What
a drive is, and how neurons answer to it, depends on the chip
(:mod:`lmu_deploy.core.spiking.graph`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.core.representation import Part, Representation, Summary, counted
from lmu_deploy.core.spiking.chip import NOISY_KINDS, Device, NeuronModel
from lmu_deploy.core.validation import (
    check_array,
    check_flag,
    check_provenance,
    check_text,
    set_fields,
)

ONE = ""
"""Source of a constant current."""


class Hosted:
    """Base class of networks with memories on neurons and the other parts on a host."""

    host: LMUNetwork | Network
    dt_ms: float
    presentation_ms: float

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.host.n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.host.n_out

    @property
    def return_sequences(self) -> bool:
        """Whether the output is y at every step, or y at the last step only."""
        return self.host.return_sequences

    @property
    def task(self) -> str | None:
        """Name of the task on which it was trained."""
        return self.host.task

    def facts(self, neurons: int, profile: str) -> list[str]:
        """Return short statements about the network, for its summary."""
        return [
            counted(self.n_in, "input"),
            counted(self.n_out, "output"),
            counted(neurons, "neuron"),
            f"profile {profile}",
            *([] if self.task is None else [f"task {self.task}"]),
        ]

    @property
    def steps_per_presentation(self) -> int:
        """Number of chip steps per step of the task."""
        return round(self.presentation_ms / self.dt_ms)


class Layered(Hosted):
    """Base class of networks whose layers stand one behind the other."""

    host: LMUNetwork

    def place(self, number: int, part: str) -> Place:
        """Return the place of a part of a layer, such as the memory."""
        return Place(self.host.node_names[number], part)


def check_type(value: object, expected: type) -> None:
    """Raise InputError unless a part of a network is an instance of `expected`."""
    if not isinstance(value, expected):
        raise InputError(
            f"a spiking network needs a {expected.__name__}, not {type(value).__name__}."
        )


def check_memories(memories: Any, host: LMUNetwork, kind: type) -> tuple[Any, ...]:
    """Return memories as a tuple if they match the layers of the host.

    Parameters
    ----------
    memories : sequence
        For each layer a memory with `scales` of shape (channels, order), or None.
    host : LMUNetwork
    kind : type
        Class of the memories.

    Raises
    ------
    InputError
        When their number, class or size does not match.
    """
    found = tuple(memories)
    if len(found) != len(host.layers):
        raise InputError(
            f"{len(found)} memories for {len(host.layers)} layers; give one for each, None for a "
            "layer without a memory."
        )
    for number, (memory, layer) in enumerate(zip(found, host.layers, strict=True)):
        if not isinstance(layer, LMULayer):
            if memory is not None:
                raise InputError(f"layer {number} has no memory to run on neurons; give None.")
            continue
        if not isinstance(memory, kind):
            raise InputError(
                f"layer {number} has a memory and needs a {kind.__name__}, not "
                f"{type(memory).__name__}."
            )
        wanted, given = (layer.memory.channels, layer.memory.order), memory.scales.shape  # type: ignore[attr-defined]
        if given != wanted:
            raise InputError(
                f"layer {number} has {wanted[0]} channels of order {wanted[1]} and its memory on "
                f"neurons {given[0]} of order {given[1]}; the two must be equal."
            )
    return found


def check_noise(neuron: NeuronModel, device: Device) -> None:
    """Raise InputError when a chip has noise that is not defined for its neuron model."""
    for name in ("membrane_noise", "threshold_noise"):
        if (size := getattr(device, name)) and neuron.kind not in NOISY_KINDS:
            raise InputError(
                f"{name} is {size:g}, and it is defined for the neuron models "
                f"{' and '.join(NOISY_KINDS)}, not {neuron.kind}; give 0."
            )


@dataclass(frozen=True, eq=False)
class NeuronGroup:
    """Sizes of equal populations, for pre-flight rules and tables.

    Attributes
    ----------
    place : str
    neurons : int
        Neurons of a population; 0 where the host reads the synapses.
    fan_in : ndarray, shape (populations,)
        Number of synapses onto each neuron of a population, or onto what the host reads.
    weights : tuple of ndarray
        What the chip stores for them, once for each population; of a memory, W first.
    memory : bool
        Whether they are the states of a memory.
    """

    place: str
    neurons: int
    fan_in: np.ndarray
    weights: tuple[np.ndarray, ...]
    memory: bool = False

    @property
    def senders(self) -> tuple[str, ...]:
        """Names, in a run, of what sends events."""
        return (self.place,) if self.neurons else ()

    @property
    def copies(self) -> int:
        """Number of receivers of each stored weight."""
        return max(self.neurons, 1)

    @property
    def factored(self) -> int:
        """Number of weights of a memory that decodes each population once, before A'."""
        blocks, rows, columns = self.weights[0].shape
        return int(blocks * (columns + rows**2))


class Synapses(Part):
    """Base class of connections, whose weights are diagonal blocks (blocks, rows, columns)."""

    weights: np.ndarray

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
        return np.asarray((self.weights != 0).sum(axis=2).reshape(-1), np.int64)

    @property
    def fan_out(self) -> np.ndarray:
        """Number of values that each neuron reaches, shape (senders,)."""
        return np.asarray((self.weights != 0).sum(axis=1).reshape(-1), np.int64)


class Values(Part):
    """Base class of ensembles: values with their synapses, and the populations for them.

    Attributes
    ----------
    name : str
    scales : ndarray, shape (size,)
    connections, currents : tuple
    populations : any with numbers of `states` and `neurons`, or None
    hidden : bool
        Whether they are the hidden units of an LMU.
    """

    name: str
    scales: np.ndarray
    connections: tuple[Any, ...]
    currents: tuple[Any, ...]
    populations: Any
    hidden: bool

    def check(self, connection: type, current: type, populations: type) -> None:
        """Raise InputError unless all parts have these types and fit each other."""
        name = check_text("ensemble name", self.name, 200)
        scales = check_array(f"{name}, scales", self.scales, (None,))
        if not len(scales) or not np.all(scales > 0.0):
            raise InputError(f"{name}: the scales of its drive must be positive throughout.")
        set_fields(
            self, scales=scales, connections=tuple(self.connections), currents=tuple(self.currents)
        )
        for parts, kind in ((self.connections, connection), (self.currents, current)):
            for each in parts:
                check_type(each, kind)
        check_flag(f"{name}, hidden", self.hidden)
        sizes = [each.size for each in self.connections]
        sizes += [len(each.weights) for each in self.currents]
        if self.populations is not None:
            check_type(self.populations, populations)
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
        return 0 if self.populations is None else self.size * int(self.populations.neurons)

    @property
    def sources(self) -> Iterator[str]:
        """Names of the ensembles whose spikes it receives."""
        return (each.source for each in self.connections)

    @property
    def fan_in(self) -> np.ndarray:
        """Number of synapses from neurons onto each value of the drive, shape (size,)."""
        none = np.zeros(self.size, np.int64)
        return np.asarray(sum((each.fan_in for each in self.connections), none))


class NeuronGraph(Hosted, Representation):
    """Base class of networks whose ensembles feed each other by spikes; the host does the rest.

    Attributes
    ----------
    ensembles, probes : tuple of Values
        With neurons, and without; see :class:`SpikingGraph`.
    host : Network
    """

    ensembles: tuple[Any, ...]
    probes: tuple[Any, ...]
    host: Network

    def check_graph(self, kind: type) -> None:
        """Raise InputError unless all ensembles are of a type and fit each other and the host."""
        set_fields(
            self,
            ensembles=tuple(self.ensembles),
            probes=tuple(self.probes),
            provenance=check_provenance(self.provenance),  # type: ignore[attr-defined]
        )
        if not self.ensembles or not self.probes:
            raise InputError("a spiking graph needs an ensemble of neurons, and one to read.")
        for each in self.parts:
            check_type(each, kind)
        object.__setattr__(self, "_stages", _Stages(self))

    def __getitem__(self, name: str) -> Any:
        """Return the ensemble of neurons of that name."""
        return next(each for each in self.ensembles if each.name == name)

    @property
    def parts(self) -> tuple[Any, ...]:
        """All ensembles, those without neurons last."""
        return (*self.ensembles, *self.probes)

    @property
    def neurons(self) -> int:
        """Number of neurons of all ensembles."""
        return sum(each.neurons for each in self.ensembles)

    @property
    def stages(self) -> Sequence[tuple[tuple[Any, ...], tuple[Any, ...]]]:
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
        needed = {each.source for one in self.parts for each in one.currents} | {self.host.output}
        probed = {each.name for each in self.probes}
        found = []
        for node in reversed(self.host.nodes):
            if node.name in needed and node.name not in probed:
                found.append(node.name)
                needed.update(node.inputs)
        return tuple(reversed(found))

    def kind(self, ensemble: Values) -> str:
        """Return what an ensemble of neurons represents: "memory" or "units"."""
        is_memory = isinstance(self.host[ensemble.name].operator, LinearMemory)
        return "memory" if is_memory else "units"

    def neurons_per(self, kind: str) -> int:
        """Return the number of neurons of a value of "memory" or "units"; 0 if there is none."""
        found = [each for each in self.ensembles if self.kind(each) == kind]
        return found[0].neurons // found[0].size if found else 0

    def senders(self) -> dict[str, np.ndarray]:
        """Return what sends events, with the number of synapses that each sender reaches."""
        raise NotImplementedError

    def senders_of(self, parts: Sequence[Any]) -> set[str]:
        """Return the names of those that send in the stage of some ensembles and probes."""
        raise NotImplementedError

    def described(self, neurons: str, profile: str) -> Summary:
        """Return ensembles and nodes with their values and neurons, as a table."""
        rows = [("input", "", f"{self.n_in:,}", "0")]
        of_neurons = {each.name: each for each in self.ensembles}
        probed, host = {each.name: each for each in self.probes}, set(self.on_host)
        for node in self.host.nodes:
            if (found := of_neurons.get(node.name)) is not None:
                kind = f"{node.operator.describe()}, {neurons} neurons"
                rows.append((node.name, kind, f"{found.size:,}", f"{found.neurons:,}"))
            elif (found := probed.get(node.name)) is not None:
                kind = f"{node.operator.describe()}, synapses on the chip"
                rows.append((node.name, kind, f"{found.size:,}", "0"))
            elif node.name in host:
                size = self.host.shapes[node.name].size
                kind = f"{node.operator.describe()}, on the host"
                rows.append((node.name, kind, f"{size:,}", "0"))
        facts = self.facts(self.neurons, profile)
        return Summary(facts, ("node", "kind", "values", "neurons"), rows)


class _Stages:
    """In which stage each ensemble and each probe runs; it checks all names and shapes."""

    def __init__(self, graph: NeuronGraph) -> None:
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

    def _stage(self, ensemble: Values) -> int:
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
                f"{ensemble.name} needs the host and spikes of an earlier stage; these must come "
                "through the host."
            )
        return stage


def _check_ensemble(ensemble: Values, operator: object) -> None:
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
