"""Float counterpart of an integer network: unrounded weights and biases in units of the integers.

The float network is lowered once more, node by node, as in its quantization, but without rounding:
:class:`_Exact` records the real matrix of every edge. Scales and coordinates are those of the
integer network, so that only the weights differ. An entry of a matrix is a real number in target
units per message unit. The equations of memories are those of docs/reference/integer-semantics.md,
section "Realizations".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from converters.quantize.calibration import Signal, calibrate
from converters.quantize.connections import Source, off_rounding
from converters.quantize.lowering.forms import Form, concatenated
from converters.quantize.lowering.lower import Lowering
from converters.quantize.lowering.operators import LOWERED
from converters.quantize.memory_analysis import coordinates, in_form, increment, rounding_ranges
from converters.quantize.settings import settings_for
from converters.quantize.sign_taylor import step_matrices
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Embedding
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format, Place
from lmu_deploy.core.integer.populations import Input, Pointwise, Population
from lmu_deploy.core.integer.reductions import Reduction
from lmu_deploy.core.legendre import state_space
from lmu_deploy.core.loading import as_graph
from lmu_deploy.core.network import LMULayer

_SAMPLES = 2
_WHOLE = 1.1
"""Factor of the ranges of all states that a fit of the basis can leave."""


@dataclass(frozen=True)
class SeriesCounterpart:
    """Float counterpart of the exponential series of one memory.

    Attributes
    ----------
    gains : ndarray, shape (terms, order)
        Gains of the rows of each G_k, in integer units.
    state, drive : ndarray, shape (order, order) and (order,)
        Difference between a step of the float memory and one of the exact series, applied to the
        previous state and to the input of a channel: the discretization error, in real units.
    encoders : dict of place to ndarray, shape (n, channels)
        By edge, from the real signal that it carries to the input of the channels.
    bias : ndarray, shape (channels,), or None
    """

    gains: np.ndarray
    state: np.ndarray
    drive: np.ndarray
    encoders: Mapping[str, np.ndarray]
    bias: np.ndarray | None


@dataclass
class FloatCounterpart:
    """The float network in the units of an integer network.

    Attributes
    ----------
    source : Network
    matrices : dict of place to ndarray, shape (n_out, n_in)
        Target units per message unit, by edge.
    biases : dict of place to ndarray, shape (drive_size,)
        Target units, by ``<entrance>/bias``.
    tails : dict of place to ndarray, shape (n_out, Legendre states)
        For edges that leave a delay line: target units per real unit of the memory, with which the
        response to inputs beyond the last tap can be added.
    readings : dict of (source, host) to ndarray or None
        The same for what the host reads of a delay line, in real units; None is the identity.
    series : dict of Place to SeriesCounterpart
    layers : dict of Place to LMULayer
        The float layer of every memory.
    functions : dict of Place to Activation
        The function of pointwise units.
    cells : dict of Place to SimpleRNN, LSTM or GRU
        By every population of the cell's node.
    frames : dict of place to (offsets, stride, after)
        Frames that edges read.
    refitted : set of Place
        Memories whose coordinates at the time of rounding are not known.
    whole : set of place
        Edges of whole weights with a gain of 1, which need no rounding.
    units : (gain, offset) or None
        Of the channels of the input, where the float network has them.
    """

    source: Network
    matrices: dict[str, np.ndarray] = field(default_factory=dict)
    biases: dict[str, np.ndarray] = field(default_factory=dict)
    tails: dict[str, np.ndarray] = field(default_factory=dict)
    readings: dict[tuple[Place, Place], np.ndarray | None] = field(default_factory=dict)
    series: dict[Place, SeriesCounterpart] = field(default_factory=dict)
    layers: dict[Place, LMULayer] = field(default_factory=dict)
    functions: dict[Place, Activation] = field(default_factory=dict)
    cells: dict[Place, SimpleRNN | LSTM | GRU] = field(default_factory=dict)
    frames: dict[str, tuple[tuple[int, ...], int, int]] = field(default_factory=dict)
    refitted: set[Place] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    units: tuple[np.ndarray | None, np.ndarray | None] | None = None


def float_counterpart(network: IntegerNetwork) -> FloatCounterpart:
    """Compute the unrounded weights of each connection and bias of `network`.

    Raises
    ------
    InputError
        When the network does not contain its float network, or one of other nodes or shapes.
    """
    if network.source is None:
        raise InputError(
            "attribution: the integer network does not contain the float network from which it was "
            "converted; convert it again with lmu-deploy quantize."
        )
    exact = _Exact(network, as_graph(network.source))
    exact.lower()
    found = exact.found
    found.frames = {e.place: (e.offsets, e.stride, e.after) for e in exact.assembly.edges}
    for edge in edges(network):
        target = network[edge.target]
        if not isinstance(target, Population) or edge in target.inner_edges:
            continue
        connection = edge.connection
        if (real := exact.real.get(edge.place)) is None:
            found.whole.add(edge.place)
            found.matrices[edge.place] = exact.whole.get(edge.place, connection.dequantized)
            continue
        if real.shape != (connection.n_out, connection.n_in):
            raise _differs(edge.place)
        message = network[edge.source].message
        assert message is not None
        unit = target.drive_scales[edge.row : edge.row + connection.n_out, None]
        found.matrices[edge.place] = real * (message.scale / unit)
        if edge.place in exact.remembered:
            found.tails[edge.place] = exact.remembered[edge.place] / unit
    for population in network.on_chip:
        if population.bias is None:
            continue
        place = population.entrance
        constants = exact.constants_at.get(place, np.zeros(population.drive_size))
        found.biases[f"{place}/bias"] = constants / population.drive_scales
    return found


def rounded_counterpart(network: IntegerNetwork) -> FloatCounterpart:
    """Compute unrounded weights in the coordinates in which each memory was rounded.

    The basis of a memory of few slices is fitted after rounding. Before, it was that of the
    memory's form, with the states in units of calibrated ranges. These are not part of the file;
    ranges with which every weight is a rounded one follow from the weights, if there are any.

    Raises
    ------
    InputError
        As :func:`float_counterpart`.
    """
    found = float_counterpart(network)
    nominal = dict[Place, Integrators]()
    for m in network.memories:
        if not isinstance(m, Integrators) or m.realization == "fir":
            continue
        if not _unrounded(network, m, found):
            continue
        basis = None
        if m.realization != "dense-incremental" and m.basis is not None:
            basis = in_form(m.basis, coordinates(found.layers[m.place], m.realization).basis)
            if basis is None:
                found.refitted.add(m.place)
                continue
        nominal[m.place] = replace(m, basis=basis)
    if not nominal:
        return found
    populations = tuple(nominal.get(p.place, p) for p in network.populations)
    other = float_counterpart(replace(network, populations=populations))
    for m in nominal.values():
        if m.basis is not None:
            _scale(network, m, other)
        if _unrounded(network, m, other) < _unrounded(network, m, found):
            for edge in network.entering(m.entrance):
                found.matrices[edge.place] = other.matrices[edge.place]
            if m.bias is not None:
                bias = f"{m.entrance}/bias"
                found.biases[bias] = other.biases[bias]
    return found


def _unrounded(network: IntegerNetwork, m: Integrators, found: FloatCounterpart) -> int:
    """Return how many weights that enter a memory are not the nearest integers."""
    entering = network.entering(m.entrance)
    return sum(int(off_rounding(e.connection, found.matrices[e.place]).sum()) for e in entering)


def _scale(network: IntegerNetwork, m: Integrators, found: FloatCounterpart) -> None:
    """Scale the matrices that enter a memory by the ranges with which its states were rounded."""
    layer, entering = found.layers[m.place], network.entering(m.entrance)
    connections = [
        (edge.connection, found.matrices[edge.place], edge.source == m.place) for edge in entering
    ]
    ranges = rounding_ranges(m.size, connections)
    blocks = 1 if layer.memory_encoders is not None else layer.memory.channels
    for block in ranges.reshape(blocks, -1):
        whole = np.median(block)
        if abs(np.log(whole)) > np.log(_WHOLE):  # the basis contradicts it: the input is wrong
            block /= whole
    for edge in entering:
        columns = ranges if edge.source == m.place else 1.0
        found.matrices[edge.place] *= columns / ranges[:, None]
    if m.bias is not None:
        found.biases[f"{m.entrance}/bias"] /= ranges


def _differs(place: str) -> InputError:
    return InputError(
        f"attribution: {place} does not follow from the float network that the integer network "
        "contains; convert it again with lmu-deploy quantize."
    )


class _Exact(Lowering):
    """Lowers a network without rounding, in the realizations of its integer network.

    Formats, and with them every integer, are those of a calibration on a few random inputs, and are
    not used.

    Attributes
    ----------
    real : dict of place to ndarray, shape (n_out, neurons)
        Matrices of the edges, in real units.
    remembered : dict of place to ndarray, shape (n_out, Legendre states)
        Of edges that leave a delay line, their matrices before the basis.
    whole : dict of place to ndarray, shape (n_out, neurons)
        Of edges of a delay line that only pass values on, in integers.
    constants_at : dict of Place to ndarray, shape (drive_size,)
        Biases by entrance, in real units.
    """

    def __init__(self, integer: IntegerNetwork, source: Network) -> None:
        super().__init__(source, settings_for(source, "loihi2"), calibrate(source, _some(source)))
        self.integer, self.found = integer, FloatCounterpart(source)
        self.real: dict[str, np.ndarray] = {}
        self.remembered: dict[str, np.ndarray] = {}
        self.whole: dict[str, np.ndarray] = {}
        self.constants_at: dict[Place, np.ndarray] = {}
        self._hosts = {node.name: host for host in integer.on_host for node in host.network.nodes}

    def lower(self) -> None:
        """Lower all nodes."""
        network = self.network
        self.forms[INPUT] = Form.of(self._input())
        for node in network.nodes:
            if node is self._scaling:
                continue  # the input has its unit and zero
            if (host := self._hosts.get(node.name)) is not None:
                self.forms[node.name] = self._read(node, host)
                continue
            forms = [self.forms[name] for name in node.inputs]
            self.forms[node.name] = LOWERED[type(node.operator)](self, node, forms)
            cell = getattr(node.operator, "hidden", node.operator)
            if isinstance(cell, SimpleRNN | LSTM | GRU):
                for part in ("hidden", "reset"):
                    self.found.cells[Place(node.name, part)] = cell
        if not isinstance(self.integer[self.integer.output], HostNodes | Reduction):
            self._output(network[network.output])

    def _read(self, node: Node, host: HostNodes) -> Form:
        """Return the form of a node on the host; record what it reads of delay lines."""
        for name in node.inputs:
            if not self.forms[name].plain:
                self.materialized(name)
        for term in concatenated([self.forms[name] for name in node.inputs]).terms:
            if self._forgets(term.source):
                self.found.readings[term.source.place, host.place] = term.matrix
        form = host.message or Format(16, 1.0)
        return Form.of(Source(self.signal(node.name), form, "", None, host.place))

    def _forgets(self, source: Source) -> bool:
        population = self.integer[source.place]
        return isinstance(population, Integrators) and population.realization == "fir"

    def kernel(self, place: str, matrix: np.ndarray, source: Source, target: Format) -> Connection:
        """Record a matrix."""
        self._record(place, matrix, source)
        rows, columns = self.real[place].shape
        return self.exact(np.zeros((rows, columns), np.int8))

    def _record(self, place: str, matrix: np.ndarray, source: Source) -> None:
        matrix = matrix.astype(np.float64)
        self.real[place] = matrix if source.basis is None else matrix @ source.basis
        if self._forgets(source):
            self.remembered[place] = matrix

    def constants(self, target: Place, *parts: tuple[np.ndarray, Format]) -> np.ndarray:
        """Record the biases of a population."""
        self.constants_at[target] = np.concatenate(
            [np.asarray(values, np.float64) for values, _ in parts]
        )
        return super().constants(target, *parts)

    def pointwise(
        self,
        place: Place,
        inputs: list[tuple[str, Form]],
        activation: Activation,
        signal: Signal,
        bits: tuple[int, str],
        message: Format | None = None,
    ) -> Source:
        """Record the function of units, whose formats are those of the integer network."""
        units = self._of(place)
        assert isinstance(units, Pointwise)
        self.found.functions[place] = activation
        self.assembly.populations.append(units)
        if (constants := self.real_bias(inputs)) is not None:
            self.constants(place, (constants, units.drive))
        self.connect(place, inputs, units.drive)
        return Source(signal, units.message, bits[1], None, place)

    def _of(self, place: Place) -> Population:
        """Return a population of the integer network."""
        try:
            return cast(Population, self.integer[place])
        except KeyError:
            raise _differs(str(place)) from None

    def _channel_units(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the units of the integer network's input, which the float network may not have."""
        entry = self.integer[Place(INPUT)]
        assert isinstance(entry, Input)
        if self._scaling is not None:
            self.found.units = super()._channel_units()
        return entry.gain, entry.offset

    def memory(self, node: str, layer: LMULayer, x: Source, h: Source | None) -> Source:
        """Record the matrices of a memory, in the coordinates of the integer network."""
        place = Place(node, "memory")
        memory = self._of(place)
        self.found.layers[place] = layer
        if isinstance(memory, Series):
            self._series(memory, layer, x, h)
        else:
            assert isinstance(memory, Integrators)
            self._integrators(memory, layer, x, h)
        self.assembly.populations.append(memory)
        signal = self.signal(node, "memory")
        return Source(signal, memory.message, "", memory.basis, place)

    def _integrators(
        self, memory: Integrators, layer: LMULayer, x: Source, h: Source | None
    ) -> None:
        """Record A - I in the coordinates of a memory; of a delay line the encoders before it."""
        if memory.realization == "fir":
            encoders = layer.input_encoders.astype(np.float64)
            lines = len(encoders) if x.basis is None else x.basis.shape[1]
            width = min(lines, layer.memory.channels)
            shifted = np.eye(memory.size, k=-width) - np.eye(memory.size)
            self.whole[f"{memory.place}/recurrent"] = shifted
            self.whole[f"{memory.place}/input"] = np.eye(memory.size, lines)
            if lines > layer.memory.channels:
                matrix = np.zeros((memory.size, len(encoders)))
                matrix[: encoders.shape[1]] = encoders.T
                self._record(f"{memory.place}/input", matrix, x)
            return
        recurrent, inverse = increment(layer), None
        if memory.basis is not None:
            inverse = np.linalg.inv(memory.basis)
            recurrent = inverse @ recurrent @ memory.basis
        self.real[f"{memory.place}/recurrent"] = recurrent
        self._entering(memory.place, layer, layer.memory.b_bar.astype(np.float64), inverse, x, h)

    def _series(self, memory: Series, layer: LMULayer, x: Source, h: Source | None) -> None:
        """Record the gains of the exponential series, and its difference from the float memory."""
        truth, place, scale = layer.memory, memory.inner, memory.state.scale
        a, b = state_space(memory.order)
        step = 1.0 / (truth.theta * memory.substeps)
        encoders = self._entering(place, layer, step * b, None, x, h)
        if layer.memory_encoders is not None:
            encoders[f"{place}/feedback"] = layer.memory_encoders
            matrix = np.kron(layer.memory_encoders.T, (step * b)[:, None])
            self.real[f"{place}/feedback"] = matrix
        messages = [memory.message.scale, *(scale * np.exp2(memory.term_shift))]
        rows = 2.0 * np.arange(memory.order) + 1.0
        gains = [rows * step / k * (unit / scale) for k, unit in enumerate(messages, start=1)]
        whole, entering = step_matrices(
            [step / k * a for k in range(1, memory.terms + 1)], memory.substeps
        )
        a_bar, b_bar = truth.a_bar.astype(np.float64), truth.b_bar.astype(np.float64)
        self.found.series[memory.place] = SeriesCounterpart(
            np.array(gains),
            a_bar - whole,
            b_bar - entering @ (step * b),
            encoders,
            layer.memory_bias,
        )

    def _entering(
        self,
        place: Place,
        layer: LMULayer,
        response: np.ndarray,
        inverse: np.ndarray | None,
        x: Source,
        h: Source | None,
    ) -> dict[str, np.ndarray]:
        """Record inputs, hidden units and bias through `response`, (order,), to every channel."""

        def matrix(encoders: np.ndarray) -> np.ndarray:
            full = np.kron(encoders.T.astype(np.float64), response[:, None])
            return full if inverse is None else inverse @ full

        self._record(f"{place}/input", matrix(layer.input_encoders), x)
        encoders = {f"{place}/input": layer.input_encoders.astype(np.float64)}
        if layer.hidden_encoders is not None and h is not None:
            self._record(f"{place}/hidden", matrix(layer.hidden_encoders), h)
            encoders[f"{place}/hidden"] = layer.hidden_encoders
        if layer.memory_bias is not None:
            self.constants_at[place] = matrix(layer.memory_bias[None, :])[:, 0]
        return encoders


def _some(source: Network) -> np.ndarray:
    """Return a few random inputs that are long enough for every node."""
    steps = 8
    while source.frames(steps) < 1:
        steps *= 2
    shape = (_SAMPLES, steps, *source.frame)
    if any(isinstance(n.operator, Embedding) and INPUT in n.inputs for n in source.nodes):
        return np.zeros(shape)
    return np.random.default_rng(0).normal(size=shape)
