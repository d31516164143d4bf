"""Strategies of hypothesis that draw networks: every operator, branches, frames of any shape.

`networks()` draws a network, `runs()` a network with inputs that fit it. A sequence may become
shorter on its way (strides, convolutions without padding); `steps_of` says how long each signal is,
and only signals of one clock, which are equally long for inputs of any length, are combined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from lmu_deploy.core.graph.frames import FramePool, LayerNorm, Permute, Reshape, RMSNorm, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator, Shape
from lmu_deploy.core.graph.pointwise import NAMES, Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import REDUCTIONS, Delay, Mask, Pool, Reduce, Reverse, RunningMean
from lmu_deploy.core.network import Memory

CELLS = (SimpleRNN, LSTM, GRU)
TOKENS = 7
FRAMES = ("vectors", "images", "tokens")
"""Kinds of frames of the input."""


@dataclass(frozen=True)
class Signal:
    """The output of a node while a network is drawn; `clock` tells of what changed its length."""

    name: str
    shape: Shape
    clock: tuple[tuple[int, ...], ...] = ()

    @property
    def vectors(self) -> bool:
        """Whether it is a sequence of vectors."""
        return self.shape.sequence and len(self.shape.frame) == 1


@st.composite
def networks(
    draw, most_nodes: int = 8, recurrent: bool = True, first: type[Operator] | None = None
):
    """Draw a network of any operators, with branches that meet again.

    Parameters
    ----------
    most_nodes : int
        Operators that are drawn; sums and products of branches come on top.
    recurrent : bool
        Whether LMU, LSTM, GRU and SimpleRNN may occur.
    first : type of Operator, optional
        The operator that takes the input, which is a sequence of vectors then.
    """
    builder = _Builder(draw, recurrent, FRAMES if first is None else ("vectors",))
    if first is not None:
        builder.begin(first)
    for _ in range(draw(st.integers(1, most_nodes))):
        builder.extend()
    return builder.finish()


@st.composite
def runs(
    draw,
    most_nodes: int = 8,
    recurrent: bool = True,
    samples: int = 3,
    first: type[Operator] | None = None,
):
    """Draw a network and inputs of shape (samples, steps, *frame), of as few steps as it takes."""
    network = draw(networks(most_nodes, recurrent, first))
    steps = fewest_steps(network) + draw(st.integers(0, 40))
    return network, inputs_for(network, samples, steps, draw(st.integers(0, 2**32 - 1)))


def inputs_for(network: Network, samples: int, steps: int, seed: int = 0) -> np.ndarray:
    """Return random inputs: tokens where an embedding takes the input, numbers otherwise."""
    rng = np.random.default_rng(seed)
    shape = (samples, steps, *network.frame)
    tables = [
        len(node.operator.table)
        for node in network.nodes
        if isinstance(node.operator, Embedding) and INPUT in node.inputs
    ]
    if tables:
        return rng.integers(0, min(tables), size=shape).astype(np.float64)
    return rng.normal(size=shape)


def masked_run(network: Network, seed: int) -> tuple[Network, np.ndarray, np.ndarray]:
    """Return a network behind a mask, inputs with frames of padding, and which frames count."""
    rng, least = np.random.default_rng(seed), fewest_steps(network)
    inputs = inputs_for(network, 3, least + 12, seed)
    counts = rng.random(inputs.shape[:2]) < 0.7
    counts[:, :least] = True
    counts = rng.permuted(counts, axis=1)
    inputs[~counts] = 2.5
    behind = [
        replace(node, inputs=tuple("mask" if name == INPUT else name for name in node.inputs))
        for node in network.nodes
    ]
    mask = Node("mask", Mask(2.5), (INPUT,))
    return replace(network, nodes=(mask, *behind)), inputs, counts


def steps_of(network: Network, steps: int) -> dict[str, int]:
    """Return how many steps each signal has, for an input of so many."""
    found = {INPUT: steps}
    for node in network.nodes:
        before = found[node.inputs[0]]
        sequence = network.shapes[node.inputs[0]].sequence
        found[node.name] = int(node.operator.lengths(np.array(before))) if sequence else before
    return found


def fewest_steps(network: Network) -> int:
    """Return with how many steps of the input every signal has at least one."""
    steps = 1
    while min(steps_of(network, steps).values()) < 1:
        steps += 1
    return steps


class _Builder:
    """Appends drawn nodes to a network."""

    def __init__(self, draw: Callable, recurrent: bool, frames: tuple[str, ...]) -> None:
        self.draw = draw
        self.recurrent = recurrent
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.dtype = draw(st.sampled_from([np.float32, np.float64]))
        self.nodes: list[Node] = []
        kind = draw(st.sampled_from(frames))
        if kind == "images":
            frame = (draw(st.integers(2, 5)), draw(st.integers(2, 5)), draw(st.integers(1, 3)))
        else:
            frame = (1 if kind == "tokens" else draw(st.integers(1, 4)),)
        self.frame = frame
        self.signals = [Signal(INPUT, Shape(frame))]
        if kind == "tokens":
            self.add(Embedding(self.weights(TOKENS, draw(st.integers(1, 4)))), self.signals.pop())

    # Parts that are drawn

    def weights(self, *shape: int, scale: float = 0.5) -> np.ndarray:
        return self.rng.normal(scale=scale / np.sqrt(shape[0]), size=shape).astype(self.dtype)

    def maybe(self, *shape: int, scale: float = 0.5) -> np.ndarray | None:
        return self.weights(*shape, scale=scale) if self.draw(st.booleans()) else None

    def one(self, *choices: object) -> object:
        return self.draw(st.sampled_from(choices))

    def size(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def activation(self, *names: str) -> Activation:
        slope = self.draw(st.floats(0.1, 1.0))
        smooth = [name for name in NAMES if name != "step"]  # a step shows every rounding
        return Activation(self.one(*(names or smooth)), slope)

    def memory(self, most_channels: int = 3) -> Memory:
        order = self.size(1, 7)
        theta = self.draw(st.floats(2.0 * order, 40.0))
        discretizer = self.one("zoh", "bilinear")
        return Memory.legendre(order, theta, self.size(1, most_channels), discretizer)

    def cell(self, n_in: int, kind: type[Operator]) -> SimpleRNN | LSTM | GRU:
        units = self.size(1, 5)
        if kind is SimpleRNN:
            kernels = self.weights(n_in, units), self.maybe(units, units)
            return SimpleRNN(*kernels, self.maybe(units), self.activation(), self.maybe(units))
        gates = (
            self.activation("tanh", "relu", "hard-tanh"),
            self.activation("sigmoid", "hard-sigmoid", "hard-sigmoid-keras2"),
        )
        width = units * (4 if kind is LSTM else 3)
        kernels = self.weights(n_in, width), self.weights(units, width)
        if kind is LSTM:
            return LSTM(*kernels, self.maybe(width), *gates, self.maybe(units), self.maybe(units))
        biases = self.maybe(width), self.maybe(width)
        return GRU(*kernels, *biases, self.draw(st.booleans()), *gates, self.maybe(units))

    def lmu(self, n_in: int) -> LMU:
        memory = self.memory()
        encoders = self.weights(n_in, memory.channels)
        feedback = self.maybe(memory.size, memory.channels, scale=0.1)
        bias = self.maybe(memory.channels)
        if self.size(0, 4) == 0:
            return LMU(memory, encoders, memory_encoders=feedback, memory_bias=bias)
        takes_input = self.draw(st.booleans())
        cell = self.cell(memory.size + (n_in if takes_input else 0), self.one(*CELLS))
        from_hidden = self.maybe(cell.n_out, memory.channels, scale=0.1)
        return LMU(memory, encoders, cell, takes_input, from_hidden, feedback, bias)

    def linear_memory(self, n_in: int) -> LinearMemory:
        memory = self.memory()
        encoders, bias = self.weights(n_in, memory.channels), self.maybe(memory.channels)
        activation = self.activation() if self.draw(st.booleans()) else None
        return LinearMemory(memory, encoders, bias, activation)

    def groups(self, n_in: int) -> int:
        return self.one(*(g for g in (1, 2, 3) if n_in % g == 0))

    def conv1d(self, n_in: int) -> Conv1d:
        groups, width, dilation = self.groups(n_in), self.size(1, 4), self.size(1, 3)
        n_out, reach = groups * self.size(1, 3), dilation * (width - 1)
        left, right = self.one((reach, 0), (reach // 2, reach - reach // 2), (0, 0), (1, 2))
        kernel, bias = self.weights(width, n_in // groups, n_out), self.maybe(n_out)
        return Conv1d(kernel, bias, self.one(1, 1, 2, 3), dilation, groups, left, right)

    def conv2d(self, height: int, width: int, n_in: int) -> Conv2d:
        groups = self.groups(n_in)
        n_out, sides = groups * self.size(1, 2), (self.size(1, height), self.size(1, width))
        kernel, bias = self.weights(*sides, n_in // groups, n_out), self.maybe(n_out)
        padding = tuple(self.size(0, 2) for _ in range(4))
        dilations = tuple(self.one(1, 2 if side < 2 else 1) for side in sides)
        strides = self.size(1, 2), self.size(1, 2)
        return Conv2d(kernel, bias, strides, dilations, padding, groups)

    def pool(self) -> Pool:
        width = self.size(1, 3)
        sides = self.size(0, width - 1), self.size(0, width - 1)
        kind, divides_by_all = self.one("average", "max"), self.draw(st.booleans())
        return Pool(kind, width, self.size(1, 3), *sides, divides_by_all)

    def frame_pool(self, frame: tuple[int, ...]) -> FramePool:
        widths = tuple(self.size(1, side) for side in frame[:-1])
        return FramePool(self.one("average", "max"), widths, tuple(self.size(1, 2) for _ in widths))

    def reshape(self, frame: tuple[int, ...]) -> Reshape:
        values = Shape(frame).size
        shapes = [(values,), (1, values), (values, 1), (*frame, 1)]
        even = [(2, values // 2), (values // 2, 1, 2)] if values % 2 == 0 else []
        return Reshape(frame, self.one(*shapes, *even))

    def operator(self, kind: type[Operator], signal: Signal) -> Operator:
        """Draw an operator of a class for a signal."""
        frame, n = signal.shape.frame, signal.shape.features
        if kind in (Delay, Reduce, Activation):
            return {
                Delay: lambda: Delay(self.one(0, 1, 2, 30)),
                Reduce: lambda: Reduce(self.one(*REDUCTIONS)),
                Activation: self.activation,
            }[kind]()
        if kind is Dense:
            n_out = self.size(1, 4)
            return Dense(self.weights(n, n_out), self.maybe(n_out))
        if kind in (Affine, LayerNorm, RMSNorm):
            vectors = [self.weights(n, scale=1.0) for _ in range(1 if kind is RMSNorm else 2)]
            return kind(*vectors, *([] if kind is Affine else [0.1]))
        if kind is Slice:
            start = self.size(0, n - 1)
            return Slice(start, self.size(start + 1, n))
        if kind is Permute:
            return Permute(tuple(self.draw(st.permutations(range(len(frame))))))
        if kind in (RunningMean, Reverse):
            return kind()
        if kind in CELLS:
            return self.cell(n, kind)
        drawn = {
            Conv1d: lambda: self.conv1d(n),
            Conv2d: lambda: self.conv2d(*frame),
            LMU: lambda: self.lmu(n),
            LinearMemory: lambda: self.linear_memory(n),
            Pool: self.pool,
            FramePool: lambda: self.frame_pool(frame),
            Reshape: lambda: self.reshape(frame),
        }
        return drawn[kind]()

    def kinds(self, signal: Signal) -> list[type[Operator]]:
        """Return the classes of operators that take the signal."""
        found: list[type[Operator]] = [Dense, Affine, LayerNorm, RMSNorm, Activation, Activation]
        found.append(Slice)
        axes = len(signal.shape.frame)
        if signal.shape.sequence:
            found += [RunningMean, Reverse, Delay, Pool]
        if axes > 1 or not signal.shape.sequence:
            found.append(Reshape)
        if axes > 1:
            found += [Permute, FramePool]
        if axes == 3:
            found += [Conv2d, Conv2d]
        if signal.vectors:
            found += [Conv1d, Conv1d, LinearMemory, LinearMemory, Reshape]
            found += [LMU, LMU, LSTM, GRU, SimpleRNN] if self.recurrent else []
        return found

    # The network as it grows

    def add(self, operator: Operator, *inputs: Signal) -> Signal:
        first = inputs[0]
        name = self.one(f"{type(operator).__name__.lower()}_{len(self.nodes)}",
                        f"block.{len(self.nodes)}.op")  # fmt: skip
        self.nodes.append(Node(name, operator, tuple(signal.name for signal in inputs)))
        clock = first.clock
        if first.shape.sequence and not isinstance(operator, Reduce):
            change = tuple(int(operator.lengths(np.array(n))) - n for n in range(64, 72))
            clock = (*clock, change) if any(change) else clock
        signal = Signal(name, operator.shape(*(each.shape for each in inputs)), clock)
        self.signals.append(signal)
        return signal

    def begin(self, kind: type[Operator]) -> None:
        """Add an operator of a class to the input; one of two inputs takes it twice."""
        signal = self.signals[0]
        if kind.fewest > 1:
            self.add(kind(), signal, signal)
        else:
            self.add(self.operator(kind, signal), signal)

    def extend(self) -> None:
        """Add an operator to a drawn signal, and perhaps combine the result with another."""
        signal = self.one(*self.signals)
        made = self.add(self.operator(self.one(*self.kinds(signal)), signal), signal)
        others = [
            other
            for other in self.signals[:-1]
            if other.shape == made.shape and (other.clock == made.clock or not made.shape.sequence)
        ]
        if others and self.draw(st.booleans()):
            self.add(self.one(Add, Multiply, Concat)(), self.one(*others), made)

    def finish(self) -> Network:
        """Bring all loose ends together and end in a dense operator, at every step or once."""
        used = {name for node in self.nodes for name in node.inputs}
        loose = [s for s in self.signals if s.name not in used and s.name != INPUT]
        groups: dict[tuple, list[Signal]] = {}
        for signal in loose:
            if len(signal.shape.frame) > 1:
                flat = Reshape(signal.shape.frame, (signal.shape.size,))
                signal = self.add(flat, signal)
            groups.setdefault((signal.shape.sequence, signal.clock), []).append(signal)
        ends = [each[0] if len(each) == 1 else self.add(Concat(), *each)
                for each in groups.values()]  # fmt: skip
        if len(ends) > 1:
            reduced = [
                self.add(Reduce(self.one(*REDUCTIONS)), end) if end.shape.sequence else end
                for end in ends
            ]
            ends = [self.add(Concat(), *reduced)]
        (end,) = ends
        if end.shape.sequence and self.draw(st.booleans()):
            end = self.add(Reduce(self.one(*REDUCTIONS)), end)
        self.add(Dense(self.weights(end.shape.features, 2), self.maybe(2)), end)
        return Network(
            tuple(self.nodes),
            self.frame,
            self.nodes[-1].name,
            self.one(None, "psmnist"),
            {"command": "drawn"},
        )
