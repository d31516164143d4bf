"""Modules that become one operator or a few without a look into their forward.

These are the layers of `lmu_deploy.nn`, modules for which the user gives a converter, and layers of
other authors that are recognized by their weights. Which of the tensors that such a module returns
is which is found by their values: a result is an output of an operator if both are equal. A cell in
a loop is recognized by its states: the first call starts from zeros, and each later one from the
states that the call before returned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from converters.pytorch.foreign import (
    Chain,
    cells_of,
    chains_of,
    is_norm,
    norm_of,
    note_theta,
    steps_alike,
)
from converters.pytorch.layers import cell_of
from converters.pytorch.registry import Call, constant, in_graph_order, numbers, reads
from converters.pytorch.signals import (
    BATCH,
    ONE,
    STEPS,
    Draft,
    Loop,
    Signal,
    Sketch,
    UnreadableError,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph import lmu as operators
from lmu_deploy.core.graph import recurrent
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node, layer_operator
from lmu_deploy.core.graph.operator import Operator, Recurrent, Shape
from lmu_deploy.core.graph.pointwise import Concat
from lmu_deploy.core.graph.time import Delay, Reduce
from lmu_deploy.core.representation import Part
from lmu_deploy.nn.convert import to_layer
from lmu_deploy.nn.graph.module import GraphModule
from lmu_deploy.nn.lmu import LMU
from lmu_deploy.nn.model import LSTM

CLOSE = 1e-4
"""Largest difference of outputs that are the same, relative to the largest output."""
_SAME = 1e-6
"""Largest difference of the states of one step that are the same."""


@dataclass(frozen=True)
class Leaf:
    """A module that is not looked into.

    Attributes
    ----------
    module : Module
    chains : callable
        Yields what the module may be, the likeliest first.
    cells : callable
        Yields the recurrent operators that it may be one step of.
    transparent : bool
        Whether to look into it after all where nothing of that fits.
    what : str
        Whose claim it is that the module is one of these, for messages.
    """

    module: nn.Module
    chains: Callable[[], Iterator[Chain]]
    cells: Callable[[], Iterator[operators.LMU]] = lambda: iter(())
    transparent: bool = False
    what: str = "its weights"

    def read(self, call: Call, forward: Callable, args: Sequence[Any], kwargs: Mapping) -> Any:
        """Return signals for what the module returned.

        Raises
        ------
        UnreadableError
            When its outputs are those of none of the operators.
        """
        rest = [*args[1:], *kwargs.values()]
        signal = args[0] if args else next(iter(kwargs.values()))
        if not isinstance(signal, Signal):
            raise UnreadableError("its first argument does not depend on the input")
        if signal.step is not None:
            return self._cell(call, forward, signal, args, kwargs)
        if any(isinstance(each, Signal) for each in _leaves_of(rest)):
            raise UnreadableError("it is given a state, or lengths, that depend on the input")
        signal = call.sketch.settled(signal)
        values = in_graph_order(call.tensors[id(args[0])], signal, call.sketch.batch)
        gap = np.inf
        if values is None:
            raise UnreadableError("its input has an axis of samples or steps that was merged")
        for chain in self.chains():
            beside = memory_chain(chain[-1][1]) if len(chain) == 1 and chain[0][0] == "" else []
            whole = [*chain, *beside]
            results, distance = _results(whole, values, signal, chain[-1][0])
            found = _matched(call.result, results, signal)
            if any(each and each.suffix == chain[-1][0] for each in _leaves_of(found)):
                return self._added(call, whole, signal, found)
            gap = min(gap, distance(call.result))
        raise UnreadableError(
            f"its outputs are not those of the operators that follow from {self.what}"
            + (f"; they differ by {gap:.2g} of the largest" if np.isfinite(gap) else "")
        )

    def _added(self, call: Call, chain: Chain, signal: Signal, found: Any) -> Any:
        """Add the nodes of a chain to the sketch; return signals of them."""
        drafts = {INPUT: _frame_last(call, signal).draft}
        call.sketch.rounded |= self.transparent and len(chain) > 1
        for suffix, operator, inputs in chain:
            self._note(call, operator)
            given = [drafts[name] for name in inputs]
            drafts[suffix] = call.sketch.add(_narrow(operator), *given, suffix=suffix)

        def signals(item: Any) -> Any:
            if isinstance(item, _Match):
                draft = drafts[item.suffix]
                if item.last:
                    draft = call.sketch.add(
                        Reduce("last"), draft, suffix=f"{item.suffix}.last".strip(".")
                    )
                return Signal(draft, item.axes)
            return tuple(map(signals, item)) if isinstance(item, tuple) else None

        return signals(found)

    def _note(self, call: Call, operator: Operator) -> None:
        """Note what was assumed of a memory that was recognized by its matrices."""
        if self.transparent and isinstance(operator, operators.LMU | LinearMemory):
            note_theta(operator.memory, self.module.modules(), call.sketch)

    def _cell(
        self, call: Call, forward: Callable, x: Signal, args: Sequence[Any], kwargs: Mapping
    ) -> Any:
        """Return the signals of one step of a cell in a loop."""
        states = [each for each in _leaves_of([*args[1:], *kwargs.values()]) if each is not None]
        given, named = _as_tensors(call, list(args[1:])), _as_tensors(call, dict(kwargs))
        results = [each for each in _leaves_of(call.result) if isinstance(each, Tensor)]
        problem: UnreadableError | None = None
        for operator in self.cells():
            if not steps_alike(operator, forward, call.tensors[id(x)], given, named):
                continue
            try:
                found = iter(looped(call, operator, x, states, results))
            except UnreadableError as error:
                problem = error
                continue
            self._note(call, operator)
            return _like(call.result, found)
        raise problem or UnreadableError(f"one step of it is not that of {self.what}")


def leaf_of(module: nn.Module, leaves: Mapping[type, Callable[[Any], Any]]) -> Leaf | None:
    """Return how to read a module without looking into it; None where it is looked into."""
    for kind, converter in leaves.items():
        if isinstance(module, kind):
            return Leaf(module, partial(_converted, module, converter), what="its converter")
    if isinstance(module, LMU | LSTM) and type(module).forward in (LMU.forward, LSTM.forward):
        return Leaf(module, lambda: iter([_own(module)]), what="its weights and a state of zero")
    if isinstance(module, GraphModule):
        return Leaf(module, lambda: iter([_graph(module.to_network())]))
    if is_norm(module):
        return Leaf(module, lambda: norm_of(module), transparent=True)
    if not type(module).__module__.startswith("torch.nn."):
        if (chains := chains_of(module)) is not None:
            return Leaf(module, chains, transparent=True)
        if (cells := cells_of(module)) is not None:
            return Leaf(module, lambda: _alone(cells), cells, transparent=True)
    return None


def _alone(cells: Callable[[], Iterator[operators.LMU]]) -> Iterator[Chain]:
    """Yield operators as chains of one."""
    for cell in cells():
        yield [("", cell, (INPUT,))]


def _own(module: nn.Module) -> Chain:
    if isinstance(module, LSTM):
        weights = [numbers(weight) for weight in module.core.all_weights[0]]
        return [("", cell_of("lstm", weights, []), (INPUT,))]
    return [("", layer_operator(to_layer(module)), (INPUT,))]


def _narrow(part: Any) -> Any:
    """Return an operator with float32 arrays where that loses nothing.

    The copy of a module that is traced has float64 weights.
    """
    if isinstance(part, np.ndarray):
        return numbers(part)
    if not isinstance(part, Part):
        return part
    assert dataclasses.is_dataclass(part)
    fields = {f.name: _narrow(getattr(part, f.name)) for f in dataclasses.fields(part)}
    return type(part)(**fields)


def _graph(network: Network) -> Chain:
    """Return the nodes of a network, the output last."""
    ordered = sorted(network.nodes, key=lambda node: node.name == network.output)
    return [(node.name, node.operator, node.inputs) for node in ordered]


def _converted(module: nn.Module, converter: Callable[[Any], Any]) -> Iterator[Chain]:
    """Yield what a user's converter makes of a module."""
    made = converter(module)
    if isinstance(made, Operator):
        made = [made]
    made = list(made)
    if made and all(isinstance(each, Operator) for each in made):
        names = [*(f"{k}" for k in range(len(made) - 1)), ""]
        yield [
            (name, operator, (before,))
            for name, operator, before in zip(names, made, [INPUT, *names], strict=False)
        ]
    elif made and all(isinstance(each, Node) for each in made):
        yield [(node.name, node.operator, node.inputs) for node in made]
    else:
        raise InputError(
            f"the converter of {type(module).__name__} returned {type(made).__name__}; it must "
            "return an operator, a list of operators, or a list of nodes."
        )


@dataclass(frozen=True)
class _Match:
    """Position of a tensor among the outputs of a chain."""

    suffix: str
    axes: tuple[Any, ...]
    last: bool


def _results(
    chain: Chain, values: np.ndarray, signal: Signal, output: str
) -> tuple[dict[str, tuple[np.ndarray, bool]], Callable[[Any], float]]:
    """Return what the nodes of a chain compute, and how far a result is from one of them.

    With each output goes whether it is a sequence.
    """
    found, shapes = {INPUT: values}, {INPUT: signal.shape}
    for suffix, operator, inputs in chain:
        shapes[suffix] = operator.shape(*(shapes[name] for name in inputs))
        found[suffix] = operator.forward(*(found[name] for name in inputs))
    final = found[output]

    def distance(result: Any) -> float:
        gaps = [
            _gap(numbers(t, narrow=False), final)
            for t in _leaves_of(result)
            if isinstance(t, Tensor) and tuple(t.shape) == final.shape
        ]
        return min(gaps, default=np.inf)

    return {suffix: (found[suffix], shapes[suffix].sequence) for suffix, _, _ in chain}, distance


def _gap(array: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(array - expected).max() / (np.abs(expected).max() + 1e-30))


def _matched(result: Any, outputs: Mapping[str, tuple[np.ndarray, bool]], signal: Signal) -> Any:
    """Return which output each tensor of a result is; None for one that is none."""
    if isinstance(result, tuple | list):
        return tuple(_matched(each, outputs, signal) for each in result)
    if not isinstance(result, Tensor) or result.is_complex():
        return None
    array = numbers(result, narrow=False)
    for suffix, (value, sequence) in reversed(list(outputs.items())):
        for axes, last in _layouts(value.ndim, sequence, signal):
            if len(axes) != array.ndim:
                continue
            expected = value[:, -1] if last else value
            shown = [axis for axis in axes if axis != ONE]
            if len(shown) != expected.ndim:
                continue
            order: list[Any] = [axis for axis in (BATCH, STEPS) if axis in shown]
            order += sorted(axis for axis in shown if isinstance(axis, int))
            shape = [expected.shape[order.index(a)] if a != ONE else 1 for a in axes]
            turned = expected.transpose([order.index(a) for a in shown])
            if list(array.shape) == shape and _gap(array, turned.reshape(shape)) < CLOSE:
                return _Match(suffix, tuple(axes), last)
    return None


def _layouts(rank: int, sequence: bool, signal: Signal) -> Iterator[tuple[list[Any], bool]]:
    """Yield the axes that a tensor of a sequence, or of its last step, may have."""
    if not sequence:
        yield [BATCH, *range(rank - 1)], False
        return
    frame: list[Any] = list(range(rank - 2))
    yield [BATCH, STEPS, *frame], False
    yield [STEPS, BATCH, *frame], False
    yield [BATCH, *frame, STEPS], False
    yield [BATCH, *frame], True
    yield [ONE, BATCH, *frame], True
    yield [BATCH, ONE, *frame], True
    yield [BATCH, *frame, ONE], True
    if len(signal.axes) == rank:
        yield list(signal.axes), False


def _frame_last(call: Call, signal: Signal) -> Signal:
    """Return the signal that an operator on vectors takes."""
    if any(isinstance(axis, int) for axis in signal.axes):
        return signal
    return call.sketch.features_last(signal.with_axes([*signal.axes, ONE]), -1)


def _as_tensors(call: Call, value: Any) -> Any:
    """Return arguments with their tensors in place of signals."""
    if isinstance(value, Signal):
        return call.tensors[id(value)]
    if isinstance(value, dict):
        return {key: _as_tensors(call, item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_as_tensors(call, item) for item in value)
    return value


def _leaves_of(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _leaves_of(item)
    else:
        yield value


def _like(result: Any, found: Iterator[Signal]) -> Any:
    """Return signals in the structure of a result."""
    if isinstance(result, tuple | list):
        return tuple(_like(each, found) for each in result)
    return next(found) if isinstance(result, Tensor) else None


# Cells in loops


@reads(
    "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    modules="LSTMCell GRUCell RNNCell", makes=(recurrent.LSTM, recurrent.GRU, recurrent.SimpleRNN),
)  # fmt: skip
def _torch_cell(
    call: Call, x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    weights = [numbers(constant(w, "a weight")) for w in (w_ih, w_hh, b_ih, b_hh)]
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    results = call.result if isinstance(call.result, tuple) else (call.result,)
    found = looped(call, cell_of(call.name, weights, []), x, states, results)
    return tuple(found) if isinstance(call.result, tuple) else found[0]


def looped(
    call: Call, operator: Recurrent, x: Any, states: Sequence[Any], results: Sequence[Tensor]
) -> list[Signal]:
    """Return what one call of a cell returns: its outputs or states at one step.

    Parameters
    ----------
    call : Call
    operator : Recurrent
    x : Signal
        One step of a sequence.
    states : sequence of Signal, Tensor or None
        Those that the cell is given.
    results : sequence of Tensor, shape (batch, size)
        The results; each is recognized by its values.

    Raises
    ------
    UnreadableError
        When the states are not those of the step before.
    """
    if not isinstance(x, Signal) or x.step is None:
        raise UnreadableError("it is a cell, and its input is not one step of a sequence in a loop")
    sketch = call.sketch
    if x.axes[0] != BATCH or len(x.axes) != 2:
        raise UnreadableError("it is a cell, and its input is not (batch, features)")
    signal = sketch.features_last(x, 1)
    draft = sketch.add(operator, signal.draft)
    loop = sketch.loops.get(draft)
    if x.step == 0:
        if any(isinstance(s, Signal) or (s is not None and numbers(s).any()) for s in states):
            raise UnreadableError("it starts from a state that is not zero")
        loop = Loop(-1, operator.start(sketch.batch), ())
    if loop is None or x.step != loop.step + 1:
        raise UnreadableError("it is not called once for every step, in the order of the steps")
    if x.step and not all(
        isinstance(s, Signal) and s.step == loop.step and s.draft in (draft, *loop.hidden)
        for s in states
        if s is not None
    ):
        raise UnreadableError("it does not continue from its own states of the step before")
    value = numbers(call.tensors[id(x)], narrow=False)
    state, output = operator.advance(loop.state, value)
    hidden = loop.hidden or _states_of(sketch, draft, operator, state, results)
    loop = sketch.loops[draft] = Loop(x.step, state, hidden)
    found = []
    for result, other in zip(results, hidden, strict=True):
        same = _close(numbers(result, narrow=False), output)
        found.append(Signal(draft if same else other, (BATCH, 0), step=x.step))
    if not any(signal.draft is draft for signal in found):
        raise UnreadableError(f"its outputs are not those of {operator.describe()}")
    return found


def _states_of(
    sketch: Sketch, draft: Draft, operator: Recurrent, state: Any, results: Sequence[Tensor]
) -> tuple[Draft, ...]:
    """Return the nodes of a cell's results: the memory of an LMU, and placeholders for others."""
    problem = f"{draft.name!r}: a state of the cell is used that is not its output"
    made = []
    for result in results:
        memory = isinstance(operator, operators.LMU) and operator.hidden is not None
        if memory and _close(numbers(result, narrow=False), state[0]):
            made.append(memory_beside(sketch, draft, operator))
            continue
        shape = Shape((result.shape[-1],))
        made.append(Draft(f"{draft.name}.state", None, (draft,), shape, draft.steps, problem))
        sketch.drafts.append(made[-1])
    return tuple(made)


def memory_beside(sketch: Sketch, draft: Draft, operator: Operator) -> Draft:
    """Return the node of the memory of an LMU, for what reads it beside the hidden units.

    Parameters
    ----------
    sketch : Sketch
    draft : Draft
        The node of the LMU.
    operator : LMU
    """
    drafts = {INPUT: draft.inputs[0], "": draft}
    for suffix, each, inputs in memory_chain(operator):
        drafts[suffix] = sketch.add(each, *(drafts[name] for name in inputs), suffix=suffix)
    return drafts["memory"]


def memory_chain(operator: Operator) -> list[tuple[str, Operator, tuple[str, ...]]]:
    """Return nodes, the last of which has the memory of an LMU with hidden units as its output.

    Those that take "" take the outputs of the LMU. No other operator has such nodes.
    """
    if not isinstance(operator, operators.LMU) or operator.hidden is None:
        return []
    memory = operator.memory_alone()
    if operator.hidden_encoders is None:
        return [("memory", memory, (INPUT,))]
    joined = ("memory.in", Concat(), (INPUT, "delay"))
    return [("delay", Delay(1), ("",)), joined, ("memory", memory, ("memory.in",))]


def _close(array: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether two arrays are equal but for rounding."""
    return array.shape == expected.shape and bool(
        np.abs(array - expected).max() <= _SAME * (np.abs(expected).max() + 1e-30)
    )
