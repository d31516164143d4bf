"""Measure the signals of a float network on calibration inputs, with the plain loop.

In: a network and inputs (samples, steps, *frame). Out: for the input and everything that a node
computes, the largest magnitude over all steps, and rows spread over the calibration, from which
percentiles and the needs of accumulators are computed. :func:`clip_range` computes the range that
messages of a signal cover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from converters.options import CALIBRATION_METHODS
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import check_frames, check_steps
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import State
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.graph.transforms import operator_layer
from lmu_deploy.core.integer.parts import Place, largest
from lmu_deploy.core.loading import as_graph
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import LayerSteps
from lmu_deploy.core.validation import check_choice

PERCENTILE = 99.99
_MARGIN = 1.05
_ROWS = 16_384
_BATCH_BYTES = 2**26
_SEQUENCE_VALUES = 2**21


@dataclass(frozen=True)
class Signal:
    """Measurements of a signal.

    Attributes
    ----------
    largest : float
        Largest magnitude over all calibration samples and steps.
    rows : ndarray, shape (rows, n), float32
        The signal at (sample, step) pairs spread evenly over the calibration, at most 16,384; the
        pairs are the same for all signals.
    sequences : ndarray, shape (samples, steps, n), float32
        The whole sequences of the first few samples; empty when they were not recorded.
    extremes : ndarray, shape (2, n), float64
        Least and largest value of every channel; empty when they were not recorded.
    """

    largest: float
    rows: np.ndarray
    sequences: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    extremes: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))

    def scaled(self, gain: np.ndarray | None, offset: np.ndarray | None) -> Signal:
        """Return the signal ``gain * x + offset``, channel by channel."""
        if gain is None and offset is None:
            return self
        by, plus = (1.0 if gain is None else gain), (0.0 if offset is None else offset)
        rows, whole = (
            (np.asarray(x, np.float64) * by + plus).astype(np.float32)
            for x in (self.rows, self.sequences)
        )
        widest = np.abs(self.extremes * by + plus).max(initial=0.0)
        return Signal(float(widest), rows, whole, self.extremes * by + plus)

    def covering(self, values: np.ndarray | None) -> Signal:
        """Return the signal with a range that includes other values, such as an initial state."""
        if values is None:
            return self
        return replace(self, largest=max(self.largest, float(np.abs(values).max(initial=0.0))))

    def times(self, other: Signal) -> Signal:
        """Return the product with another signal of the same frames."""
        rows = self.rows * other.rows
        widest = float(np.abs(rows).max(initial=0.0))
        return Signal(widest, rows, self.sequences * other.sequences)

    def tapped(self, offsets: tuple[int, ...], stride: int) -> Signal:
        """Return the frames ``stride * n + offset`` side by side, from the whole sequences."""
        frames = self.sequences.shape[1]
        low, high = min(*offsets, 0), max(*offsets, 0)
        padded = np.pad(self.sequences, ((0, 0), (-low, high), (0, 0)))
        numbers = np.arange(0, frames, stride)
        whole = np.concatenate([padded[:, numbers + n - low] for n in offsets], axis=2)
        rows = whole.reshape(-1, whole.shape[2])
        return Signal(self.largest, rows[:: -(-len(rows) // _ROWS)], whole)


@dataclass(frozen=True)
class Calibration:
    """Signals of a float network on its calibration inputs.

    Attributes
    ----------
    signals : mapping of Place to Signal
        Those of the input, of every node (with an empty part), and of what a node computes inside:
        ``encoder``, ``memory``, ``hidden``, ``cell``, and the ``candidate`` of gated units.
    """

    signals: Mapping[Place, Signal]

    def __getitem__(self, place: Place) -> Signal:
        """Return the signal at a place."""
        return self.signals[place]

    @property
    def x(self) -> Signal:
        """The input."""
        return self.signals[Place(INPUT)]


def calibrate(
    network: Network | LMUNetwork, inputs: np.ndarray, progress: Progress | None = None
) -> Calibration:
    """Run a network on calibration inputs in batches, step by step, and measure all signals.

    Parameters
    ----------
    network : Network or LMUNetwork
    inputs : ndarray, shape (samples, steps, *frame)
    progress : callable, optional
        Called with (samples done, samples in all).

    Raises
    ------
    InputError
        When there are no inputs, they do not fit the network, or a signal becomes infinite.
    """
    graph: Network = as_graph(network)
    inputs = check_frames(inputs, graph.frame)
    samples, steps = inputs.shape[:2]
    check_steps(graph, steps, "the calibration inputs")
    width = sum(_width(node, graph) for node in graph.nodes)
    batch = max(1, min(samples, _BATCH_BYTES // (8 * steps * width)))
    measured: dict[Place, _Measured] = {}
    for start in range(0, samples, batch):
        part = inputs[start : start + batch]
        for place, signal in record(graph, part).items():
            flat = signal.reshape(len(part), signal.shape[1], -1)
            measured.setdefault(place, _Measured(place, samples * signal.shape[1])).take(flat)
        if progress:
            progress(min(start + batch, samples), samples)
    return Calibration({place: found.signal for place, found in measured.items()})


class _Measured:
    """Measurements of one signal while batches of it come in."""

    def __init__(self, place: Place, frames: int) -> None:
        self._place, self._every = place, -(-frames // _ROWS)
        self._seen, self._widest = 0, 0.0
        self._rows: list[np.ndarray] = []
        self._extremes: list[np.ndarray] = []
        self._whole: np.ndarray | None = None

    def take(self, signal: np.ndarray) -> None:
        """Measure more sequences, shape (samples, frames, n)."""
        samples, frames, n = signal.shape
        rows = signal.reshape(samples * frames, n)
        top = float(np.abs(rows).max(initial=0.0))
        if not np.isfinite(top):
            raise InputError(
                f"the network diverges in calibration: {self._place} is {top}; train it again."
            )
        self._widest = max(self._widest, top)
        self._rows.append(rows[-self._seen % self._every :: self._every].astype(np.float32))
        self._extremes += [rows.min(axis=0), rows.max(axis=0)]
        self._seen += len(rows)
        if self._whole is None:
            few = max(1, _SEQUENCE_VALUES // max(1, frames * n))
            self._whole = signal[:few].astype(np.float32)

    @property
    def signal(self) -> Signal:
        """All measurements."""
        assert self._whole is not None
        extremes = np.array([np.min(self._extremes, axis=0), np.max(self._extremes, axis=0)])
        return Signal(self._widest, np.concatenate(self._rows), self._whole, extremes)


def record(network: Network, inputs: np.ndarray) -> dict[Place, np.ndarray]:
    """Compute all signals of a float network, step by step as its equations are written.

    Where the network answers once, at the last step, all its nodes are computed at every step, as
    they are on a chip.

    Parameters
    ----------
    network : Network
    inputs : ndarray, shape (samples, steps, *frame)

    Returns
    -------
    dict of Place to ndarray, shape (samples, frames, *frame)
    """
    at_every_step = answers_at_every_step(network)
    found = {Place(INPUT): np.asarray(inputs, np.float64)}
    for node in network.nodes:
        given = [found[Place(name)] for name in node.inputs]
        found |= _signals(node, given, at_every_step)
    return found


_SOME_STEPS = np.array([211, 383])
"""Lengths of sequences at which branches are compared; primes."""


def answers_at_every_step(network: Network) -> bool:
    """Return whether the chip may compute what follows a reduction at every step.

    That is so where the only reductions are to the last step, so that the answers before are not
    used, and all of them of sequences that are equally long whatever the length of the input is.
    """
    steps = {INPUT: _SOME_STEPS}
    reduced = []
    for node in network.nodes:
        given = steps[node.inputs[0]]
        if isinstance(node.operator, Reduce):
            reduced.append((node.operator.kind, *given))
        steps[node.name] = node.operator.lengths(given)
    return len(set(reduced)) <= 1 and all(kind == "last" for kind, *_ in reduced)


def _signals(node: Node, given: list[np.ndarray], at_every_step: bool) -> dict[Place, np.ndarray]:
    operator, name = node.operator, node.name
    if isinstance(operator, LMU | LSTM | GRU):
        return _stepwise(name, operator, given[0])
    found: dict[Place, np.ndarray] = {}
    if isinstance(operator, LinearMemory) and operator.activation is not None:
        found[Place(name, "encoder")] = operator.encode(given[0])
    if isinstance(operator, Reduce):
        passes = at_every_step and operator.kind == "last"
        output = given[0] if passes else operator.forward(*given)[:, None]
    elif isinstance(operator, Dense):
        (x,) = given
        output = np.stack([operator.apply(x[:, t]) for t in range(x.shape[1])], axis=1)
    elif operator.framewise:
        output = operator.forward(*given)
    else:
        output = operator.forward(*given)
    part = {LinearMemory: "memory", SimpleRNN: "hidden"}.get(type(operator))
    if part is not None:
        found[Place(name, part)] = output
    found[Place(name)] = output
    return found


def _stepwise(name: str, operator: LMU | LSTM | GRU, x: np.ndarray) -> dict[Place, np.ndarray]:
    """Return the signals inside an LMU or gated units."""
    layer = operator_layer(operator) if isinstance(operator, LMU) else None
    found: dict[str, list[np.ndarray]] = {}
    if layer is not None:
        steps = LayerSteps(layer, len(x))
        for t in range(x.shape[1]):
            steps.advance(x[:, t])
            for part, value in steps.signals().items():
                found.setdefault(part, []).append(value)
    else:
        state = operator.start(len(x))
        for t in range(x.shape[1]):
            state, parts = _advance(operator, state, x[:, t])
            for part, array in parts.items():
                found.setdefault(part, []).append(array)
    stacked = {Place(name, part): np.stack(values, axis=1) for part, values in found.items()}
    output = Place(name, "hidden" if "hidden" in found else "memory")
    return {**stacked, Place(name): stacked[output]}


def _advance(
    operator: LMU | LSTM | GRU, state: State, x: np.ndarray
) -> tuple[State, dict[str, np.ndarray]]:
    """Advance by one step; return the new state and all signals inside."""
    if isinstance(operator, LMU):
        before, inner = state, operator.hidden
        state, h = operator.advance(state, x)
        parts = {"memory": state[0]}
        if inner is None:
            return state, parts
        if not isinstance(inner, LSTM | GRU):
            return state, {**parts, "hidden": h}
        given = np.concatenate([state[0], x], axis=1) if operator.hidden_takes_input else state[0]
        return state, {**parts, **_advance(inner, before[1], given)[1]}
    state, h, candidate = operator.update(state, x)
    parts = {"hidden": h, "candidate": candidate}
    return state, {**parts, "cell": state[1]} if isinstance(operator, LSTM) else parts


def _width(node: Node, network: Network) -> int:
    """Return how many values of a node are recorded in a step, for the size of a batch."""
    operator = node.operator
    if isinstance(operator, Reduce):
        return 0
    memory = operator.memory.size if isinstance(operator, LMU | LinearMemory) else 0
    return memory + network.shapes[node.name].size


def clip_range(signal: Signal, method: str, bits: int) -> float:
    """Return the real value of the largest message of `bits` bits; 1 for a signal that is 0.

    Parameters
    ----------
    signal : Signal
    method : {"max", "percentile", "mse"}
        The largest magnitude plus 5 %; the 99.99th percentile of magnitudes; or the range with the
        smallest squared error of rounding and clipping.
    bits : int
    """
    check_choice("calibration_method", method, CALIBRATION_METHODS)
    magnitudes = np.abs(signal.rows).ravel()
    if not magnitudes.any():
        return signal.largest or 1.0
    if method == "max":
        return signal.largest * _MARGIN
    if method == "percentile":
        return float(np.percentile(magnitudes, PERCENTILE)) or signal.largest
    magnitudes = np.sort(magnitudes)[:: max(1, magnitudes.size // 100_000)].astype(np.float64)
    candidates = signal.largest * np.exp2(-np.arange(0.0, 6.0, 0.125))
    errors = [_squared_error(magnitudes, float(c), bits) for c in candidates]
    return float(candidates[int(np.argmin(errors))])


def _squared_error(magnitudes: np.ndarray, clip: float, bits: int) -> float:
    scale = clip / largest(bits)
    rounded = np.minimum(np.rint(magnitudes / scale), largest(bits)) * scale
    return float(np.mean((rounded - magnitudes) ** 2))
