"""Strategies of hypothesis that draw integer networks: every population, any graph between them.

`integer_graphs()` draws a network, `graph_runs()` a network with inputs that fit it. Widths are so
narrow that every place saturates now and then. Signals of one clock have equally many frames for
inputs of any length; only these drive a population together, as lowering guarantees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from lmu_deploy.core.graph.frames import LayerNorm
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import LSTM
from lmu_deploy.core.graph.time import Delay, Pool, Reduce
from lmu_deploy.core.integer.functions import Function, PiecewiseLinear, Segments
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Reading
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place
from lmu_deploy.core.integer.populations import Input, Output, Pointwise, Population, Product
from lmu_deploy.core.integer.reductions import REDUCTIONS, Maximum, Reduction

KINDS = (
    "integrators", "line", "series", "lmu", "pointwise", "product", "lstm", "gru", "maximum",
    "reduction", "host",
)  # fmt: skip
"""What a network is drawn from; an LMU is a memory with units that may feed back into it."""
THRESHOLDS = (0, 0, 0, 1, 2, 9)
_PROBES = range(64, 76)
"""Lengths of an input whose counts of frames tell whether two signals have one clock."""


@dataclass(frozen=True)
class Signal:
    """The messages of a population while a network is drawn.

    Attributes
    ----------
    place : Place
    size : int
    clock : tuple of int
        Its frames for inputs of the lengths `_PROBES`.
    sends : bool
        Whether the chip receives it; otherwise only the host may read it.
    """

    place: Place
    size: int
    clock: tuple[int, ...]
    sends: bool = True


@st.composite
def integer_graphs(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = KINDS,
    most: int = 5,
    thresholds: bool = True,
    time: bool = True,
    tokens: bool = True,
    units: bool = False,
) -> IntegerNetwork:
    """Draw a network.

    Parameters
    ----------
    kinds : tuple of str
        Of `KINDS`.
    most : int
        Most kinds that follow each other or branch, besides the output.
    thresholds : bool
        Whether edges may send changes.
    time : bool
        Whether edges may have several offsets, strides and frames after the sequence.
    tokens : bool
        Whether the input may be tokens.
    units : bool
        Whether the channels of the input may have units and zeros of their own.
    """
    graph = _Graph(draw, thresholds, time)
    graph.begin(tokens and draw(st.integers(0, 5)) == 0, units)
    for _ in range(draw(st.integers(1, most))):
        graph.extend(draw(st.sampled_from(kinds)))
    return graph.finish("host" in kinds)


@st.composite
def graph_runs(
    draw: st.DrawFn, samples: int = 2, most_steps: int = 12, **options: object
) -> tuple[IntegerNetwork, np.ndarray]:
    """Draw a network and inputs, of as few steps as give every population a frame, or more."""
    network = draw(integer_graphs(**options))
    steps = fewest_steps(network) + draw(st.integers(0, most_steps))
    return network, inputs_for(network, samples, steps, draw(st.integers(0, 2**32 - 1)))


def inputs_for(network: IntegerNetwork, samples: int, steps: int, seed: int = 0) -> np.ndarray:
    """Return inputs of shape (samples, steps, n_in): tokens, or values that saturate later on."""
    rng = np.random.default_rng(seed)
    shape = samples, steps, network.n_in
    if network.input.tokens:
        return rng.integers(0, network.input.size, shape).astype(np.float64)
    inputs = (
        rng.normal(size=shape) * 0.5 * network.input.message.scale * network.input.message.limit
    )
    inputs[:, steps // 2 :] *= 4.0
    inputs[0, 0] = 0.0
    return network.input.unscaled(inputs / network.input.message.scale)


def frames_of(network: IntegerNetwork, steps: int) -> dict[Place, int]:
    """Return how many frames every population has, counted one by one."""
    found = {network.input.place: steps}
    for population in network.populations[1:]:
        place = population.place
        if isinstance(population, HostNodes):
            least = min(found[r.source] for r in network.readings if r.target == place)
            found[place] = population.network.frames(least)
        else:
            into = network.entering(population.entrance)
            frames = min(_frames(e, found[e.source]) for e in into if e.source in found)
            found[place] = min(frames, 1) if isinstance(population, Reduction) else frames
    return found


def fewest_steps(network: IntegerNetwork) -> int:
    """Return with how many steps of the input every population has a frame."""
    steps = 1
    while min(frames_of(network, steps).values()) < 1:
        steps += 1
    return steps


def _frames(edge: Edge, frames: int) -> int:
    """Count the frames of the target whose last tap is at most the last frame of the source."""
    return len(range(max(edge.offsets), frames + edge.after, edge.stride))


def kinds_of(base: type) -> set[type]:
    """Return the package's classes below one that have none of the package's below them."""
    below = [kind for kind in base.__subclasses__() if kind.__module__.startswith("lmu_deploy.")]
    return {kind for each in below for kind in kinds_of(each)} if below else {base}


class _Graph:
    """Adds drawn populations and edges; hypothesis draws what there is, NumPy the integers."""

    def __init__(self, draw: Callable, thresholds: bool, time: bool) -> None:
        self.draw, self.thresholds, self.time = draw, thresholds, time
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.populations: list[Population | HostNodes] = []
        self.edges: list[Edge] = []
        self.readings: list[Reading] = []
        self.signals: list[Signal] = []

    # Numbers

    def one(self, *choices: object):
        return self.draw(st.sampled_from(choices))

    def pick(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def maybe(self) -> bool:
        return self.draw(st.booleans())

    def rarely(self) -> bool:
        return self.pick(0, 5) == 0

    def message(self) -> Format:
        return Format(self.pick(14, 24) if self.rarely() else self.pick(3, 12), 0.05)

    def wide(self) -> Format:
        return Format(self.pick(9, 24), 0.01)

    def bias(self, size: int) -> np.ndarray | None:
        return self.rng.integers(-900, 900, size) if self.maybe() else None

    def connection(self, n_out: int, n_in: int) -> Connection:
        bits, slices = self.pick(2, 8), self.pick(1, 2)
        top = 2 ** (bits - 1) - 1
        weights = self.rng.integers(-top, top, (slices, n_out, n_in), endpoint=True)
        weights[self.rng.random(weights.shape) < 0.2] = 0
        gains = self.rng.integers(1, 60 if self.maybe() else 1, (slices, n_out), endpoint=True)
        shifts = self.rng.integers(0, 8, (slices, n_out), endpoint=True)
        threshold = self.one(*THRESHOLDS) if self.thresholds else 0
        return Connection(weights, gains, shifts, bits, self.pick(8, 24), threshold)

    def lines(self) -> PiecewiseLinear:
        kind = self.one("odd", "positive", "linear")
        pieces = 1 if kind == "linear" else self.pick(1, 4)
        slope = np.sort(self.rng.integers(0, 2**13, pieces))[::-1].copy()
        intercept = np.append(0, np.sort(self.rng.integers(0, 300, pieces - 1)))
        return PiecewiseLinear(slope, intercept, self.pick(0, 14), kind)

    def function(self) -> Function:
        if self.maybe():
            return self.lines()
        pieces = self.pick(1, 5)
        points = np.sort(self.rng.choice(np.arange(-3000, 3000), pieces - 1, replace=False))
        slope = self.rng.integers(-(2**13), 2**13, pieces)
        return Segments(points, slope, self.rng.integers(-900, 900, pieces), self.pick(4, 14))

    def units(self, at: Place, size: int) -> Pointwise:
        message = self.message()
        initial = self.initial(size, message, message)
        return Pointwise(
            at, size, self.wide(), message, self.function(), self.bias(size),
            None if initial is None else initial[:size],
        )  # fmt: skip

    def initial(self, size: int, message: Format, state: Format) -> np.ndarray | None:
        if not self.maybe():
            return None
        limits = np.repeat([min(message.limit, 500), min(state.limit, 500)], size)
        return self.rng.integers(-limits, limits, endpoint=True)

    # Edges

    def taps(self, clock: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
        """Draw offsets, a stride, and frames after the sequence of a signal."""
        if not self.time or self.pick(0, 2) or clock[0] < 8:  # a single frame, behind a reduction
            return (0,), 1, 0
        width, dilation = self.pick(1, 3), self.pick(1, 2)
        first = self.one(1 - width, (1 - width) // 2, 0, -3) if width > 1 else self.one(0, -1, -3)
        offsets = tuple(first * dilation + k * dilation for k in range(width))
        strides = (1, 1, 2, 3) if clock[0] > 20 else (1,)  # so that few steps are enough
        return offsets, self.one(*strides), self.one(0, offsets[-1], 1)

    def join(
        self,
        source: Place,
        target: Place,
        rows: int,
        columns: int,
        row: int = 0,
        reading: tuple[tuple[int, ...], int, int] = ((0,), 1, 0),
        name: str = "",
    ) -> None:
        """Add an edge, whose connection is drawn."""
        offsets, stride, after = reading
        connection = self.connection(rows, columns * len(offsets))
        number = sum(edge.target == target for edge in self.edges)
        name = name or ("input", "skip", "third")[number] if number < 3 else f"edge{number}"
        self.edges.append(Edge(source, target, name, connection, offsets, stride, after, row))

    def back(self, source: Place, target: Place, rows: int, columns: int, name: str = "") -> None:
        """Add a recurrent edge."""
        name = name or ("recurrent" if source == target else "feedback")
        self.join(source, target, rows, columns, 0, ((-1,), 1, 0), name)

    def source(self, clock: tuple[int, ...] | None = None) -> Signal:
        """Choose a signal that the chip receives."""
        found = [s for s in self.signals if s.sends and clock in (None, s.clock)]
        return self.one(*found[-3:])

    def enter(self, target: Place, size: int, drives: int = 1) -> tuple[int, ...]:
        """Drive a population by one or two signals; return its clock."""
        signal = self.source()
        reading = self.taps(signal.clock)
        whole = size * drives
        rows = [(0, whole)]
        if drives > 1 and self.maybe():
            rows = [(k * size, size) for k in range(drives)]
        for row, width in rows:
            self.join(signal.place, target, width, signal.size, row, reading)
        clock = self.clock(self.edges[-len(rows)], signal.clock)
        if self.maybe():
            others = [s for s in self.signals if s.sends and s.clock == clock]
            if others:
                other = self.one(*others)
                self.join(other.place, target, whole, other.size)
        return clock

    @staticmethod
    def clock(edge: Edge, clock: Iterable[int]) -> tuple[int, ...]:
        return tuple(_frames(edge, frames) for frames in clock)

    # Populations

    def place(self, part: str = "") -> Place:
        number = len(self.populations)
        return Place(self.one(f"lmu_{number}", f"block.{number}.op"), part)

    def add(self, population: Population | HostNodes, clock: tuple[int, ...]) -> Signal:
        self.populations.append(population)
        signal = Signal(population.place, population.size, clock, population.message is not None)
        self.signals.append(signal)
        return signal

    def begin(self, tokens: bool, units: bool) -> None:
        message = (
            self.one(Format(2, 1.0), Format(9, 0.01)) if tokens else Format(self.pick(2, 12), 0.05)
        )
        size = self.pick(1, 4)
        entry = Input(Place(INPUT), size, message, tokens)
        if units and not tokens and self.maybe():
            gain, offset = 10.0 ** self.rng.integers(-3, 4, size), self.rng.normal(size=size)
            entry = replace(entry, gain=gain, offset=offset)
        self.add(entry, tuple(_PROBES))

    def extend(self, kind: str) -> None:
        """Add one of `KINDS`."""
        getattr(self, f"_{kind}")()

    def _integrators(self, at: Place | None = None) -> Signal:
        at, size = at or self.place(self.one("", "memory")), self.pick(1, 5)
        clock = self.enter(at, size)
        self.back(at, at, size, size)
        shift = self.pick(0, 10)
        basis = self.rng.normal(size=(size + 1, size)) if self.rarely() else None
        memory = Integrators(
            at, size, self.wide(), self.message(), shift, self.bias(size), basis=basis
        )
        return self.add(memory, clock)

    def _line(self) -> None:
        """Add a delay line, whose states engines move instead of multiplying."""
        at, width = self.place("memory"), self.pick(1, 2)
        size, message = width * self.pick(2, 4), self.message()
        signal, ones = self.source(), np.ones((1, size), int)
        entering = np.zeros((1, size, signal.size), int)
        entering[0, :width] = self.rng.integers(-3, 3, (width, signal.size), endpoint=True) | 1
        shift = np.eye(size, k=-width, dtype=int) - np.eye(size, dtype=int)
        # A change in one of its weights makes it an ordinary memory.
        shift[-1, 0] += self.rarely() and size > width + 1
        for source, name, weights, offset in (
            (signal.place, "input", entering, 0),
            (at, "recurrent", shift[None], -1),
        ):
            connection = Connection(weights, ones, 0 * ones, 3)
            self.edges.append(Edge(source, at, name, connection, (offset,)))
        self.add(Integrators(at, size, message, message, 0, realization="fir"), signal.clock)

    def _series(self, at: Place | None = None) -> Signal:
        at = at or self.place("memory")
        inner, channels, order, terms = (
            Place(at.node, "series"), self.pick(1, 2), self.pick(1, 3), self.pick(1, 3),
        )  # fmt: skip
        size, rows = channels * order, (terms, order)
        clock = self.enter(inner, size)
        if self.maybe():
            self.back(at, inner, size, size)
        memory = Series(
            at,
            inner,
            channels,
            order,
            self.pick(1, 3),
            self.wide(),
            self.message(),
            self.pick(0, 8),
            self.rng.integers(0, 9, terms - 1),
            self.rng.integers(1, 99, rows),
            self.rng.integers(0, 9, rows),
            self.bias(size),
            self.pick(8, 24),
        )
        return self.add(memory, clock)

    def _lmu(self) -> None:
        """Add a memory and units of the same clock, which may feed back into it."""
        node = self.place().node
        at, units = Place(node, "memory"), Place(node, "hidden")
        memory = self._series(at) if self.rarely() else self._integrators(at)
        size = self.pick(1, 4)
        self.join(at, units, size, memory.size, name="memory")
        if self.maybe():
            other = self.source(memory.clock)
            self.join(other.place, units, size, other.size)
        if self.maybe():
            self.back(units, units, size, size)
        if self.maybe():
            entrance = self.populations[-1].entrance
            self.back(units, entrance, memory.size, size, "hidden")
        self.add(self.units(units, size), memory.clock)

    def _pointwise(self) -> None:
        at, size = self.place(), self.pick(1, 4)
        clock = self.enter(at, size)
        if self.rarely():
            self.back(at, at, size, size)
        self.add(self.units(at, size), clock)

    def _product(self) -> None:
        at, size = self.place(), self.pick(1, 4)
        clock = self.enter(at, size, 2)
        functions = (self.function() if self.maybe() else None for _ in range(2))
        drives = self.wide(), Format(self.pick(6, 16), 0.01)
        self.add(
            Product(
                at, size, *drives, self.message(), self.pick(0, 14), *functions, self.bias(2 * size)
            ),
            clock,
        )

    def _lstm(self) -> None:
        at, size = self.place(), self.pick(1, 3)
        clock = self.enter(at, size, 4)
        self.back(at, at, 4 * size, size)
        state, message = self.wide(), self.message()
        self.add(
            LSTMUnits(
                at, size, self.wide(), state, message,
                self.function(), self.function(), self.function(),
                self.pick(4, 20), self.pick(6, 20), self.bias(4 * size),
                self.initial(size, message, state),
            ),
            clock,
        )  # fmt: skip

    def _gru(self) -> None:
        """Add gated units; where the gate acts first, a product of gate and state precedes them."""
        at, size = self.place(), self.pick(1, 3)
        resets = self.maybe()
        clock = self.enter(at, size, 4)
        state, message = self.wide(), self.message()
        if resets:
            self.back(at, at, 4 * size, size)
        else:
            gate = Place(at.node, "reset")
            first = next(edge for edge in self.edges if edge.target == at)
            reading = first.offsets, first.stride, first.after
            self.join(first.source, gate, size, first.n_source, size, reading)
            self.back(at, gate, 2 * size, size)
            self.back(at, at, 2 * size, size)
            self.join(gate, at, size, size, 2 * size)
            drives = self.wide(), Format(self.pick(6, 16), 0.01)
            product = Product(
                gate, size, *drives, self.message(), 8, None, self.function(), self.bias(2 * size)
            )
            self.add(product, clock)
        self.add(
            GRUUnits(
                at, size, self.wide(), state, message, self.function(), self.function(),
                self.pick(0, 6), self.pick(0, 8), resets, self.bias(4 * size),
                self.initial(size, message, state),
            ),
            clock,
        )  # fmt: skip

    def _maximum(self) -> None:
        at, size, choices = self.place(), self.pick(1, 3), self.pick(1, 3)
        clock = self.enter(at, size, choices)
        self.add(Maximum(at, size, self.message(), choices), clock)

    def _reduction(self) -> None:
        at, size = self.place(), self.pick(1, 4)
        self.enter(at, size)
        state = Format(self.pick(12, 32), 0.01)
        kind = self.one(*REDUCTIONS)
        ones = tuple(1 for _ in _PROBES)
        self.add(Reduction(at, size, state, self.message(), kind, self.bias(size)), ones)

    def _host(self) -> None:
        self.on_host(self.message())

    def on_host(self, message: Format | None) -> Signal:
        """Add nodes on the host that read one or two signals."""
        at, width = self.place("host"), self.pick(1, 3)
        first = self.one(*(s for s in self.signals[-3:]))
        read = [first]
        if self.rarely():
            read.append(self.one(*(s for s in self.signals if s.clock == first.clock)))
        for signal in dict.fromkeys(read):
            matrix = self.rng.normal(size=(width, signal.size))
            self.readings.append(Reading(signal.place, at, matrix))
        operators: list[Operator] = []
        once = set(first.clock) == {1}
        for _ in range(self.pick(1, 2)):
            operators.append(self.operator(width, self.time and not once))
            once = once or isinstance(operators[-1], Reduce)
        operators.append(Dense(self.rng.normal(size=(width, self.pick(1, 3)))))
        names = [f"{at.node}.{k}" for k in range(len(operators))]
        nodes = tuple(
            Node(name, operator, (before,))
            for name, operator, before in zip(names, operators, [INPUT, *names], strict=False)
        )
        network = Network(nodes, (width,), names[-1])
        clock = tuple(network.frames(frames) for frames in first.clock)
        return self.add(HostNodes(at, network, message), clock)

    def operator(self, width: int, sequence: bool) -> Operator:
        """Draw an operator from vectors to vectors of the same width."""
        weights = self.rng.normal(size=(width, 4 * width))
        choices = [
            Dense(weights[:, :width]),
            LayerNorm(np.ones(width), np.zeros(width)),
            Activation("tanh"),
        ]
        if sequence:
            recurrent = self.rng.normal(size=(width, 4 * width))
            choices += [LSTM(weights, recurrent, None), Delay(1), Reduce("mean")]
            choices.append(Pool("average", 2, self.pick(1, 2)))
        return self.one(*choices)

    def finish(self, host: bool) -> IntegerNetwork:
        """Add the output and return the network."""
        last = self.populations[-1]
        if host and self.rarely():
            self.on_host(None)
        elif not (isinstance(last, Reduction) and self.maybe()):
            at, size = Place("readout"), self.pick(1, 3)
            clock = self.enter(at, size)
            self.add(Output(at, size, self.wide(), self.bias(size)), clock)
        output = self.signals[-1]
        sequences = set(output.clock) != {1} and self.maybe()
        return IntegerNetwork(
            tuple(self.populations),
            tuple(self.edges),
            tuple(self.readings),
            output.place,
            sequences,
            self.one(None, "psmnist"),
            provenance={"command": "drawn"},
        )
