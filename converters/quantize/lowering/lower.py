r"""Lower every operator of a float network to populations and edges.

Linear operators only change forms (:mod:`.forms`); everything else makes populations from the forms
that it reads (:mod:`.operators`, :mod:`.cells`). A form becomes a separate population, with
linear units, where something needs single frames of it (a maximum, the host, a padded convolution
behind a bias) and where that takes fewer synapses than folding.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np

from converters.quantize.calibration import Calibration, Signal, answers_at_every_step, clip_range
from converters.quantize.connections import Connector, Source, equal, round_to_format
from converters.quantize.formats import (
    FAINTEST,
    bias_limit,
    channel_gains,
    drive_format,
    guard_bits,
    input_format,
    output_format,
    piecewise,
)
from converters.quantize.lowering.cells import realize
from converters.quantize.lowering.fitting import RANGES, fit, needed_drive
from converters.quantize.lowering.forms import Form, concatenated, synapses_behind
from converters.quantize.lowering.operators import LOWERED, host_nodes
from converters.quantize.realizations import exact
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import Reshape, Slice
from lmu_deploy.core.graph.linear import Affine, Embedding
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Mask
from lmu_deploy.core.graph.transforms import input_scaling
from lmu_deploy.core.integer.functions import Function
from lmu_deploy.core.integer.layered import Assembly, IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Reading
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place, edge_place, largest
from lmu_deploy.core.integer.populations import Input, Output, Pointwise
from lmu_deploy.core.integer.reductions import Reduction
from lmu_deploy.core.network import LMULayer

CONCAVE = ("linear", "relu", "tanh", "hard-tanh")
"""Activations with a concave form, :class:`lmu_deploy.core.integer.functions.PiecewiseLinear`."""


def function_of(activation: Activation, drive: Format, message: Format) -> Function:
    """Return the integer form of an activation from a drive to a message."""
    if activation.name in CONCAVE:
        return piecewise(activation.name, message, round(math.log2(message.scale / drive.scale)))
    return fit(activation, drive, message)


@dataclass(frozen=True)
class Realized:
    """A memory in integers, and what it was made of."""

    layer: LMULayer
    x: Source
    h: Source | None
    memory: IntegerMemory | SeriesMemory
    source: Source

    def fits(self, layer: LMULayer, x: Source, h: Source | None) -> bool:
        """Return whether it would be made of these too."""
        own, other = self.layer, layer
        pairs = [(getattr(own, name), getattr(other, name)) for name in ENTERING]
        pairs += [(own.memory.a_bar, other.memory.a_bar), (own.memory.b_bar, other.memory.b_bar)]
        pairs.append((self.x.basis, x.basis))
        formats = self.x.format == x.format and (
            self.h is h is None or (self.h is not None and h and self.h.format == h.format)
        )
        return bool(formats) and all(equal(one, two) for one, two in pairs)


ENTERING = ("input_encoders", "hidden_encoders", "memory_encoders", "memory_bias")
"""Weights of a layer that enter its memory."""


class Lowering:
    """Lowers one network.

    Parameters
    ----------
    network : Network
    settings : Settings
    calibration : Calibration
    known : Lowering, optional
        Of the same network with other weights, settings and calibration being the same. Memories
        that nothing has changed are taken over, and its roundings are applied again, which leaves
        out the sums of the calibration.

    Attributes
    ----------
    connector : Connector
        Makes and records all connections.
    assembly : Assembly
        What has been made so far.
    forms : dict of str to Form
        What every node is, by its name.
    memories : dict of Place to (LMULayer, Source)
        The float layer of every memory, for the messages that enter it.
    realized : dict of str to Realized
        The memory of every node that has one.
    result : IntegerNetwork
        After :meth:`run`.
    """

    def __init__(
        self,
        network: Network,
        settings: Settings,
        calibration: Calibration,
        known: Lowering | None = None,
    ) -> None:
        self.network, self.settings, self.calibration = network, settings, calibration
        self.known = known
        self.connector, self.assembly = Connector(settings), Assembly()
        self.at_every_step = answers_at_every_step(network)
        self.forms: dict[str, Form] = {}
        self.memories: dict[Place, tuple[LMULayer, Source]] = {}
        self.realized: dict[str, Realized] = {}
        self.result: IntegerNetwork
        self._on_host = host_nodes(network)
        self._scaling = input_scaling(network)

    def run(self, provenance: dict[str, str]) -> IntegerNetwork:
        """Return the integer network; `provenance` is added to that of the float network.

        Raises
        ------
        InputError
            When an accumulator would be too narrow, or a node has no integer form.
        """
        network = self.network
        self.forms[INPUT] = Form.of(self._input())
        for node in network.nodes:
            if node is self._scaling:
                continue  # the input has its unit and zero
            forms = [self.forms[name] for name in node.inputs]
            if node.name in self._on_host:
                self.forms[node.name] = self._host(node)
            else:
                self.forms[node.name] = LOWERED[type(node.operator)](self, node, forms)
        output = self._output(network[network.output])
        self.connector.check_accumulators()
        needs = {place: str(need) for place, need in self.connector.needs.items()}
        self.result = IntegerNetwork(
            tuple(self.assembly.populations),
            tuple(self.assembly.edges),
            tuple(self.assembly.readings),
            output,
            network.return_sequences,
            network.task,
            self.settings.profile.name,
            {**network.provenance, **provenance, "accumulators": json.dumps(needs)},
            network,
        )
        return self.result

    # What operators are lowered with.

    def signal(self, *place: str) -> Signal:
        """Return what the calibration measured at a place."""
        return self.calibration[Place(*place)]

    def kernel(self, place: str, matrix: np.ndarray, source: Source, target: Format) -> Connection:
        """Quantize a matrix; see :meth:`Connector.kernel`."""
        known = None if self.known is None else self.known.connector.roundings.get(place)
        if known is not None and known.fits(source, target):
            self.connector.roundings[place] = known
            return known.connection(matrix)
        return self.connector.kernel(place, matrix, source, target)

    def exact(self, weights: np.ndarray) -> Connection:
        """Return a connection of whole weights and a gain of 1."""
        return exact(weights, self.settings.accumulator_bits)

    def edge(
        self,
        source: Source,
        target: Place,
        name: str,
        matrix: np.ndarray,
        drive: Format,
        offsets: tuple[int, ...] = (0,),
        stride: int = 1,
        after: int = 0,
        row: int = 0,
    ) -> None:
        """Quantize a matrix and add the edge that carries it; see :class:`Edge`."""
        connection = self.kernel(edge_place(target, name), matrix, source, drive)
        edge = Edge(source.place, target, name, connection, offsets, stride, after, row)
        self.assembly.edges.append(edge)

    def connect(
        self, target: Place, inputs: list[tuple[str, Form]], drive: Format, row: int = 0
    ) -> None:
        """Add the edges of all terms of forms that enter a population."""
        used: set[str] = {e.name for e in self.assembly.edges if e.target == target}
        for name, form in inputs:
            for term in form.terms:
                unique, number = name, 2
                while unique in used:
                    unique, number = f"{name or 'input'}_{number}", number + 1
                used.add(unique)
                read, frames = term.reading(), (term.offsets, term.stride, term.after)
                self.edge(read, target, unique, term.dense, drive, *frames, row)

    def real_bias(self, inputs: list[tuple[str, Form]]) -> np.ndarray | None:
        """Return the sum of the constants of forms."""
        there = [form.bias for _, form in inputs if form.bias is not None]
        return np.sum(there, axis=0) if there else None

    def bias(
        self, target: Place, inputs: list[tuple[str, Form]], drive: Format
    ) -> np.ndarray | None:
        """Return the sum of the constants of forms as integers."""
        bias = self.real_bias(inputs)
        return None if bias is None else self.constants(target, (bias, drive))

    def constants(self, target: Place, *parts: tuple[np.ndarray, Format]) -> np.ndarray:
        """Return what a population adds to its sums, each part as integers of its format."""
        return np.concatenate([round_to_format(values, form) for values, form in parts])

    def memory(self, node: str, layer: LMULayer, x: Source, h: Source | None) -> Source:
        """Add a linear memory in the realization of the settings; return its messages."""
        known = None if self.known is None else self.known.realized.get(node)
        if known is None or not known.fits(layer, x, h):
            known = Realized(layer, x, h, *realize(self, node, layer, x, h))
        self.realized[node], memory, source = known, known.memory, known.source
        units = Place(node, "hidden")
        place = self.assembly.memory(node, memory, x.place, units)
        self.memories[place] = layer, x
        return replace(source, place=place)

    def pointwise(
        self,
        place: Place,
        inputs: list[tuple[str, Form]],
        activation: Activation,
        signal: Signal,
        bits: tuple[int, str],
        message: Format | None = None,
    ) -> Source:
        """Add units that apply an activation to the sum of forms; return their messages.

        Parameters
        ----------
        place : Place
        inputs : list of (name, Form)
        activation : Activation
        signal : Signal
            The units on the calibration.
        bits : tuple
            Width of a message, and the option that sets it.
        message : Format, optional
            By default chosen from activation, signal and inflow.
        """
        bias = self.real_bias(inputs)
        widest = 0.0 if bias is None else float(np.abs(bias).max(initial=0.0))
        if message is None:
            inflow = max(form.inflow for _, form in inputs)
            message = self.message_format(activation, signal, bits[0], inflow, widest)
        bits_of_drive = self.settings.state_bits
        reach = min(needed_drive(activation, message), bias_limit(bits_of_drive) * message.scale)
        guard = guard_bits(str(place), message, bits_of_drive, max(widest, reach))
        drive = drive_format(message, bits_of_drive, guard)
        function = function_of(activation, drive, message)
        own = None if bias is None else self.constants(place, (bias, drive))
        size = inputs[0][1].size
        self.assembly.populations.append(Pointwise(place, size, drive, message, function, own))
        self.connect(place, inputs, drive)
        return Source(signal, message, bits[1], None, place)

    def message_format(
        self, activation: Activation, signal: Signal, bits: int, inflow: float, bias: float
    ) -> Format:
        """Choose the format of messages: the range of a bounded function, else as calibrated.

        The bound of relu6 is seldom reached, so its range is that of its calibrated values.
        """
        bound = max(map(abs, RANGES.get(activation.name, (math.inf,))))
        if bound <= 1.0:
            return Format(bits, bound / largest(bits))
        clip = clip_range(signal, self.settings.calibration_method, bits)
        unit = max(min(clip, bound), inflow * FAINTEST) / largest(bits)
        return Format(bits, max(unit, bias / bias_limit(self.settings.state_bits)))

    def materialized(self, name: str) -> Source:
        """Return a node's form as one population, adding linear units where it is not one."""
        form = self.forms[name]
        if (source := form.single) is not None:
            return source
        bits = self.settings.message_bits, "--message-bits"
        place, linear = Place(name), Activation("linear")
        source = self.pointwise(place, [("input", form)], linear, self.signal(name), bits)
        self.forms[name] = Form.of(source)
        return source

    def folded(self, node: Node, number: int, matrix: np.ndarray) -> Form:
        """Return the form of an input, as a population where folding a matrix would cost more."""
        name = node.inputs[number]
        form = self.forms[name]
        if form.single is None:
            behind = sum(synapses_behind(matrix, term) for term in form.terms)
            if behind > form.synapses + int(np.count_nonzero(matrix)):
                self.materialized(name)
        return self.forms[name]

    def alone(self, node: Node) -> Source:
        """Return a node's only input as one population."""
        return self.materialized(node.inputs[0])

    # The ends of the network, and the host.

    def _input(self) -> Source:
        network, place = self.network, Place(INPUT)
        readers = [node for node in network.nodes if INPUT in node.inputs]
        tables = {n.operator.table.shape[0] for n in readers if isinstance(n.operator, Embedding)}
        if tables:
            if len(tables) > 1 or not all(isinstance(n.operator, Embedding) for n in readers):
                raise InputError(
                    "quantize: the input goes to an embedding and to something else; give tokens "
                    "and real values as separate networks."
                )
            (size,) = tables
            one = Format(8, 2.0**-6)
            self.assembly.populations.append(Input(place, size, one, tokens=True))
            tokens = self.calibration.x
            return Source(_one_hot(tokens, size), one, "--message-bits", None, place)
        bits, option = self.settings.input_width
        gain, offset = self._channel_units()
        signal = self.calibration.x.scaled(gain, offset)
        form = input_format(signal, bits)
        self.assembly.populations.append(Input(place, network.n_in, form, gain=gain, offset=offset))
        basis = None if gain is None or self._scaling is not None else np.diag(1.0 / gain)
        source = Source(signal, form, option, basis, place)
        if self._scaling is not None:
            self.forms[self._scaling.name] = Form.of(source)
        return source

    def _channel_units(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return what gives every channel of the input its own unit and zero."""
        if self._scaling is None:
            return channel_gains(self.calibration.x), None
        operator, frame = self._scaling.operator, self.network.frame
        assert isinstance(operator, Affine)
        gain, offset = (
            np.broadcast_to(values.astype(np.float64), frame).ravel()
            for values in (operator.scale, operator.offset)
        )
        return gain, offset

    def _output(self, node: Node) -> Place:
        """Add what leaves the chip, and return its place."""
        form, taken = self.forms[node.name], {p.place for p in self.assembly.populations}
        place = Place(node.name)
        if place in taken:
            end = next(p for p in self.assembly.populations if p.place == place)
            if isinstance(end, HostNodes) and end.message is None:
                return place
            if isinstance(end, Reduction) and not any(
                e.source == place for e in self.assembly.edges
            ):
                return place
            place = Place(node.name, "output")
        bias = form.bias
        unit = output_format(bias, form.inflow, self.signal(node.name), self.settings)
        own = None if bias is None else self.constants(place, (bias, unit))
        self.assembly.populations.append(Output(place, form.size, unit, own))
        self.connect(place, [("", form)], unit)
        return place

    def _host(self, node: Node) -> Form:
        """Keep a node on the host, together with a node of the host that only it reads."""
        if isinstance(node.operator, Mask):
            raise InputError(
                f"quantize: node {node.name} leaves out frames of padding, and frames of a chip "
                "follow each other; give sequences without padding and a network without the mask."
            )
        assembly, network = self.assembly, self.network
        message = None if node.name == network.output else self._host_format(node)
        place = Place(node.name)
        before = self._only_host_before(node)
        if before is not None:
            assembly.populations.remove(before)
            nodes = (*before.network.nodes, replace(node, inputs=(before.network.output,)))
            inner = replace(before.network, nodes=nodes, output=node.name)
            assembly.readings = [
                replace(r, target=place) if r.target == before.place else r
                for r in assembly.readings
            ]
        else:
            for name in node.inputs:
                if not self.forms[name].plain:
                    self.materialized(name)
            form = concatenated([self.forms[name] for name in node.inputs])
            inner = self._inner(node, form.bias)
            for term in form.terms:
                matrix = term.matrix
                if (basis := term.source.basis) is not None:
                    matrix = basis if matrix is None else matrix @ basis
                assembly.readings.append(Reading(term.source.place, place, matrix))
        assembly.populations.append(HostNodes(place, inner, message))
        own = message or self._host_format(node)
        return Form.of(Source(self.signal(node.name), own, "--message-bits", None, place))

    def _only_host_before(self, node: Node) -> HostNodes | None:
        """Return the nodes of the host that this node alone reads, if it reads nothing else."""
        source = self.forms[node.inputs[0]].single
        users = [other for other in self.network.nodes if node.inputs[0] in other.inputs]
        if source is None or len(node.inputs) > 1 or len(users) > 1:
            return None
        for population in self.assembly.populations:
            if isinstance(population, HostNodes) and population.place == source.place:
                return population
        return None

    def _inner(self, node: Node, bias: np.ndarray | None) -> Network:
        """Return the network of one node on the host, whose inputs come one behind the other."""
        frames = [self.network.shapes[name].frame for name in node.inputs]
        sizes = [int(np.prod(frame)) for frame in frames]
        if len(frames) == 1 and bias is None:
            return Network((replace(node, inputs=(INPUT,)),), frames[0], node.name)
        nodes: list[Node] = []
        whole, start, ends = INPUT, 0, []
        if bias is not None:
            whole = f"{node.name}.bias"
            nodes.append(Node(whole, Affine(np.ones(sum(sizes)), bias), (INPUT,)))
        for number, (frame, size) in enumerate(zip(frames, sizes, strict=True)):
            part, shaped = f"{node.name}.part_{number}", f"{node.name}.input_{number}"
            nodes.append(Node(part, Slice(start, start + size), (whole,)))
            nodes.append(Node(shaped, Reshape((size,), frame), (part,)))
            ends.append(shaped)
            start += size
        nodes.append(replace(node, inputs=tuple(ends)))
        return Network(tuple(nodes), (sum(sizes),), node.name)

    def _host_format(self, node: Node) -> Format:
        bits = self.settings.message_bits
        clip = clip_range(self.signal(node.name), self.settings.calibration_method, bits)
        return Format(bits, clip / largest(bits))


def _one_hot(tokens: Signal, size: int) -> Signal:
    def of(values: np.ndarray) -> np.ndarray:
        return np.eye(size, dtype=np.float32)[values[..., 0].astype(np.int64)]

    return Signal(1.0, of(tokens.rows), of(tokens.sequences))
