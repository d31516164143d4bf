"""Which nodes of a float graph become ensembles of neurons, and from what each is driven.

A value of the graph is a :class:`Drive`: a linear function of what ensembles represent and of what
the host has. Dense layers, scales and offsets, sums and concatenations only change drives; memories
and activations begin an ensemble. What has no form on neurons is computed by the host, for which
probes read the values that it needs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from converters.options import SpikeOptions
from converters.spiking.recipe import (
    LARGEST_MAP,
    Recipe,
    check_map,
    check_room,
    check_window,
    make_recipe,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import Slice
from lmu_deploy.core.graph.linear import Affine, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Framewise, Operator
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat
from lmu_deploy.core.graph.recurrent import SimpleRNN
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.graph.transforms import as_layers, fold, with_logits
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import LMULayer, Memory
from lmu_deploy.core.spiking.ensembles import ONE
from lmu_deploy.hardware.profile import AnalogProfile, load_profile

SHARES = 5
"""Parts of a presentation in which calibration counts the spikes that drive a memory."""


@dataclass(frozen=True)
class Drive:
    """Values that are linear in those of ensembles and of the host.

    Attributes
    ----------
    spikes : mapping of ensemble to ndarray, shape (values of the ensemble, size)
        States m of a memory, or outputs h of units.
    host : mapping of source to ndarray, shape (features, size)
        See :class:`lmu_deploy.core.spiking.graph.InputCurrent`.
    """

    spikes: Mapping[str, np.ndarray] = field(default_factory=dict)
    host: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(next(iter({**self.spikes, **self.host}.values())).shape[1])

    def through(self, kernel: np.ndarray, bias: np.ndarray | None = None) -> Drive:
        """Return ``d K + b``."""
        spikes, host = (
            {name: own @ kernel for name, own in terms.items()}
            for terms in (self.spikes, self.host)
        )
        if bias is not None and np.any(bias):
            host[ONE] = host.get(ONE, 0.0) + np.asarray(bias, np.float64)[None]
        return Drive(spikes, host)

    @staticmethod
    def total(drives: Sequence[Drive]) -> Drive:
        """Return the sum of drives of one size."""
        spikes: dict[str, np.ndarray] = {}
        host: dict[str, np.ndarray] = {}
        for drive in drives:
            for found, terms in ((spikes, drive.spikes), (host, drive.host)):
                for name, kernel in terms.items():
                    found[name] = found[name] + kernel if name in found else kernel
        return Drive(spikes, host)

    @staticmethod
    def row(drives: Sequence[Drive]) -> Drive:
        """Return drives one behind the other."""
        ends = np.cumsum([0, *(each.size for each in drives)])
        eye = np.eye(ends[-1])
        parts = zip(drives, ends[:-1], ends[1:], strict=True)
        return Drive.total([each.through(eye[first:end]) for each, first, end in parts])


@dataclass(frozen=True)
class Spot:
    """A node with the drive that its ensemble needs.

    Attributes
    ----------
    node : Node
    drive : Drive
        Channels u of a memory, arguments of an activation, or values that the host reads.
    probe : bool
        Whether the host reads it.
    hidden : bool
        Whether it is the hidden units of an LMU.
    """

    node: Node
    drive: Drive
    probe: bool = False
    hidden: bool = False

    @property
    def memory(self) -> LinearMemory | None:
        """The memory, if it is one on neurons."""
        operator = self.node.operator
        return operator if isinstance(operator, LinearMemory) and not self.probe else None

    def values(self, recipe: Recipe) -> int:
        """Return how many numbers calibration keeps of a sample and presentation."""
        size = self.drive.size
        if self.memory is not None:
            return recipe.parts * self.memory.memory.size
        return SHARES * size * (1 if self.probe else recipe.neurons_per_unit)


@dataclass(frozen=True)
class Plan:
    """The ensembles of a graph.

    Attributes
    ----------
    host : Network
        The float graph that they are nodes of, which computes what the given one did.
    spots : tuple of Spot
        Each behind those that its drive needs.
    reasons : mapping of node to str
        Why the host computes a node behind the first ensemble.
    """

    host: Network
    spots: tuple[Spot, ...]
    reasons: Mapping[str, str]

    @property
    def memories(self) -> list[Memory]:
        """The memories on neurons."""
        return [spot.memory.memory for spot in self.spots if spot.memory is not None]

    @property
    def units(self) -> dict[str, int]:
        """Number of units of each activation on neurons."""
        found = (spot for spot in self.spots if not spot.probe and spot.memory is None)
        return {spot.node.name: spot.drive.size for spot in found}


def plan_graph(network: Network, units: bool = True) -> Plan:
    """Choose the ensembles of a float graph.

    Parameters
    ----------
    network : Network
    units : bool
        Whether activations become ensembles; else the host computes them.

    Raises
    ------
    InputError
        When no node has a form on neurons.
    """
    given = reductions_last(fold(with_logits(network)))
    host = expanded(given)
    planner = _Planner(host, units, {_hidden_units(n.name) for n in given.nodes if _is_split(n)})
    for node in host.nodes:
        planner.take(node)
    if not any(spot.memory for spot in planner.spots):
        raise InputError(
            "spike: the network has no memory that can be on neurons; put an LMU whose memory only "
            "its input feeds before the readout."
        )
    planner.value_on_host(host.output)
    order = {node.name: number for number, node in enumerate(host.nodes)}
    spots = sorted(planner.spots, key=lambda spot: (order[spot.node.name], spot.probe))
    return Plan(host, tuple(spots), planner.reasons)


def whole_plan(network: Network, options: SpikeOptions) -> Plan | None:
    """Return the plan of a network that becomes a graph of neurons; None for a chain of layers.

    With ``units="chip"``, feed-forward layers one behind the other become a graph too.

    Raises
    ------
    InputError
        When it is no chain, and no memory of it can be on neurons either.
    """
    try:
        layers = as_layers(network, "spike")
    except InputError:
        try:
            return plan_graph(network, options.units != "host")
        except InputError:
            pass
        raise  # what the layers lack tells more
    several = len(layers.layers) > 1
    forward = all(
        isinstance(layer, LMULayer)
        and not layer.feeds_back
        and (layer.hidden is None or layer.hidden.recurrent_kernel is None)
        for layer in layers.layers
    )
    return plan_graph(network) if several and forward and options.units == "chip" else None


def recipe_of_graph(plan: Plan, profile: str | AnalogProfile, options: SpikeOptions) -> Recipe:
    """Check the options of a graph against the profile and the plan."""
    chip = load_profile(profile, "analog")
    assert isinstance(chip, AnalogProfile)
    recipe = make_recipe(chip, options)
    check_graph(plan, recipe, chip)
    if not plan.units:
        recipe = replace(recipe, neurons_per_unit=0)
    return recipe


def check_graph(plan: Plan, recipe: Recipe, chip: AnalogProfile) -> None:
    """Raise InputError unless a chip can hold and calibrate the ensembles of a plan."""
    check_room(plan.memories, recipe.neurons_per_state, chip)
    check_maps(plan, recipe)
    states, units = sum(memory.size for memory in plan.memories), sum(plan.units.values())
    needed = states * recipe.neurons_per_state + units * recipe.neurons_per_unit
    if needed > (room := int(chip.neurons)):
        raise InputError(
            f"{states} states and {units} units need {needed} neurons and profile {chip.name} has "
            f"{room}; use fewer neurons per state or unit, or --units host."
        )
    if recipe.synapse is not None:
        raise InputError("a graph of neurons needs linear synapses, not pairs of DPIs.")
    if recipe.fan_in == 1:
        raise InputError(
            "a neuron of a graph needs synapses from its own ensemble and from others; give "
            "--fan-in 2 or more, or 0 for no limit."
        )


def check_maps(plan: Plan, recipe: Recipe) -> None:
    """Raise InputError unless the ensembles of a plan can be calibrated."""
    for memory in plan.memories:
        check_window(memory, recipe.presentation_ms, recipe.tau_ms)
        check_map(memory, recipe.neurons_per_state, recipe.calibration)
    largest = max(plan.units.values(), default=0) * recipe.neurons_per_unit
    if recipe.calibration == "dynamic" and largest > LARGEST_MAP:
        raise InputError(
            f"{largest} neurons of one node are decoded together, and {LARGEST_MAP} can be fitted; "
            "use fewer neurons per unit, or static calibration."
        )


class _Planner:
    """Drives and stages of the nodes so far; see :class:`SpikingGraph` for stages."""

    def __init__(self, host: Network, units: bool, hidden: Collection[str]) -> None:
        self.host, self.units, self.hidden = host, units, hidden
        self.spots: list[Spot] = []
        self.reasons: dict[str, str] = {}
        self._drives: dict[str, Drive] = {}
        self._stages: dict[str, int] = {}
        self._known = {INPUT: 0, ONE: 0}

    def take(self, node: Node) -> None:
        """Add the next node."""
        operator = node.operator
        on_chip = any(name in self._drives for name in node.inputs)
        vectors = all(self._is_vectors(name) for name in (node.name, *node.inputs))
        if vectors and isinstance(operator, LinearMemory):
            bias = operator.bias
            given = self._drive(node.inputs[0]).through(operator.encoders.astype(np.float64), bias)
            self._begin(node, given, operator.memory.size)
        elif vectors and self.units and _on_neurons(operator):
            self._begin(node, self._drive(node.inputs[0]), self.host.shapes[node.name].features)
        elif vectors and on_chip and (found := self._linear(node)) is not None:
            self._drives[node.name] = found
        else:
            for name in node.inputs:
                self.value_on_host(name)
            self._known[node.name] = max(self._known[name] for name in node.inputs)
            if on_chip and not isinstance(operator, Reduce):
                self.reasons[node.name] = operator.describe()

    def value_on_host(self, name: str) -> None:
        """Let the host read a node, if it is on the chip."""
        if name not in self._known:
            self._known[name] = self._add(self.host[name], self._drives[name], probe=True) + 1

    def _is_vectors(self, name: str) -> bool:
        shape = self.host.shapes[name]
        return shape.sequence and len(shape.frame) == 1

    def _drive(self, name: str) -> Drive:
        if name in self._drives:
            return self._drives[name]
        return Drive(host={name: np.eye(self.host.shapes[name].features)})

    def _linear(self, node: Node) -> Drive | None:
        """Return the drive of a node that is linear in its inputs; None if it is not."""
        operator, given = node.operator, [self._drive(name) for name in node.inputs]
        if isinstance(operator, Add):
            return Drive.total(given)
        if isinstance(operator, Concat):
            return Drive.row(given)
        linear = isinstance(operator, Activation) and operator.name == "linear"
        if not linear and not isinstance(operator, Dense | Affine | Slice):
            return None
        assert isinstance(operator, Framewise)
        bias = operator.apply(np.zeros(given[0].size))
        kernel = operator.apply(np.eye(given[0].size)) - bias
        return given[0].through(kernel, bias)

    def _begin(self, node: Node, drive: Drive, size: int) -> None:
        self._stages[node.name] = self._add(node, drive)
        self._drives[node.name] = Drive(spikes={node.name: np.eye(size)})

    def _add(self, node: Node, drive: Drive, probe: bool = False) -> int:
        """Add an ensemble, and return its stage; what was ready before comes through the host."""
        stages = [0, *(self._stages[name] for name in drive.spikes)]
        stage = max(*stages, *(self._known[name] for name in drive.host))
        for name in [each for each in drive.spikes if self._stages[each] < stage]:
            self.value_on_host(name)
            spikes = {each: kernel for each, kernel in drive.spikes.items() if each != name}
            drive = Drive.total([Drive(spikes, drive.host), Drive(host={name: drive.spikes[name]})])
        hidden = not probe and node.name in self.hidden
        self.spots.append(Spot(node, drive, probe, hidden))
        return stage


def _on_neurons(operator: Operator) -> bool:
    """Return whether populations can represent an operator: any function of one value."""
    return isinstance(operator, Activation) and operator.name not in ("linear", "softmax")


def reductions_last(network: Network) -> Network:
    """Return a network that takes a mean or a last step behind the dense layers that followed it.

    Both commute with linear operators, which then need no value of the host.
    """
    nodes, output = list(network.nodes), network.output
    moved = True
    while moved:
        moved = False
        for number, node in enumerate(nodes):
            reduces = isinstance(node.operator, Reduce) and node.operator.kind in ("last", "mean")
            behind = [other for other in nodes if node.name in other.inputs]
            if reduces and len(behind) == 1 and isinstance(behind[0].operator, Dense | Affine):
                (dense,) = behind
                nodes[number] = replace(dense, inputs=node.inputs)
                nodes[nodes.index(dense)] = replace(node, inputs=(dense.name,))
                nodes = [
                    other
                    if other.name in (node.name, dense.name)
                    else _renamed(other, {dense.name: node.name})
                    for other in nodes
                ]
                output = node.name if output == dense.name else output
                moved = True
                break
    return replace(network, nodes=tuple(nodes), output=output)


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def expanded(network: Network) -> Network:
    """Return a network whose memories take linear functions of nodes, and nothing else.

    An LMU whose memory only its input feeds becomes a memory, ``NAME/memory``, and its hidden
    units, ``NAME/hidden``; the activation of an encoder becomes a node, ``NAME/encoder``.
    """
    nodes: list[Node] = []
    names: dict[str, str] = {}
    for node in network.nodes:
        found = _parts(_renamed(node, names))
        nodes += found
        if found[-1].name != node.name:
            names[node.name] = found[-1].name
    return replace(network, nodes=tuple(nodes), output=names.get(network.output, network.output))


def _is_split(node: Node) -> bool:
    """Return whether a node is an LMU that becomes a memory and hidden units."""
    return isinstance(node.operator, LMU) and not node.operator.feeds_back


def _hidden_units(lmu: str) -> str:
    """Return the name of the hidden units of an LMU."""
    return str(Place(lmu, "hidden"))


def _parts(node: Node) -> list[Node]:
    operator, name = node.operator, node.name

    def part(kind: str) -> str:
        return str(Place(name, kind))

    if isinstance(operator, LinearMemory) and operator.activation is not None:
        dense, units = part("given"), part("encoder")
        plain = LinearMemory(operator.memory, np.eye(operator.memory.channels))
        return [
            Node(dense, Dense(operator.encoders, operator.bias), node.inputs),
            Node(units, operator.activation, (dense,)),
            Node(name, plain, (units,)),
        ]
    if not isinstance(operator, LMU) or not _is_split(node):
        return [node]
    own = LinearMemory(operator.memory, operator.input_encoders, operator.memory_bias)
    memory = Node(part("memory"), own, node.inputs)
    if operator.hidden is None:
        return [memory]
    nodes, before = [memory], memory.name
    if operator.hidden_takes_input:
        before = part("given")
        nodes.append(Node(before, Concat(), (memory.name, *node.inputs)))
    cell = operator.hidden
    if not isinstance(cell, SimpleRNN) or cell.recurrent_kernel is not None:
        return [*nodes, Node(_hidden_units(name), cell, (before,))]
    drive = Node(part("drive"), Dense(cell.kernel, cell.bias), (before,))
    return [*nodes, drive, Node(_hidden_units(name), cell.activation, (drive.name,))]
