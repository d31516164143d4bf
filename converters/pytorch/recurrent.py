"""Readers of recurrent layers: whole sequences, and cells that a module calls step by step.

A cell in a loop is recognized by its states: the first call starts from zeros, and each later one
from the states that the call before returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from converters.pytorch.registry import Call, constant, numbers, reads
from converters.pytorch.signals import (
    BATCH,
    ONE,
    STEPS,
    Draft,
    LayoutError,
    Loop,
    Signal,
    Sketch,
    UnreadableError,
)
from lmu_deploy.core.graph.operator import Recurrent, Shape
from lmu_deploy.core.graph.pointwise import Activation, Concat
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Reduce, Reverse

CLOSE = 1e-6
"""Largest difference of states that are the same, relative to the largest state."""


@reads(
    "lstm", "gru", "rnn_tanh", "rnn_relu", modules="LSTM GRU RNN",
    makes=(LSTM, GRU, SimpleRNN, Reverse, Concat, Reduce),
)  # fmt: skip
def _layers(
    call: Call,
    x: Signal,
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool = False,
) -> tuple[Any, ...]:
    if not isinstance(num_layers, int) or isinstance(hx, bool):
        raise UnreadableError("it takes packed sequences; give it padded ones")
    sketch, signal = call.sketch, sequence_of(call.sketch, x, batch_first)
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    initial = [_initial(each) for each in states]
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    if each in (3, 5):
        raise UnreadableError("it projects its outputs (proj_size)")
    single = num_layers * directions == 1
    draft, lasts = signal.draft, []
    for layer in range(num_layers):
        found = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = [numbers(constant(w, "a weight")) for w in params[number * each :][:each]]
            starts = [None if rows is None else rows[number] for rows in initial]
            operator = cell_of(call.name, weights, starts)
            name = "" if single else f"l{layer}{'_reverse' if direction else ''}"
            given = sketch.add(Reverse(), draft, suffix=f"{name}.in") if direction else draft
            made = sketch.add(operator, given, suffix=name)
            lasts.append((made, f"{name}.last".strip(".")))
            found.append(sketch.add(Reverse(), made, suffix=f"{name}.out") if direction else made)
        joint = f"l{layer}"
        draft = sketch.add(Concat(), *found, suffix=joint) if bidirectional else found[0]
    axes = (BATCH, STEPS, 0) if batch_first else (STEPS, BATCH, 0)
    last = _stacked(call, lasts)
    return (Signal(draft, axes), last) if call.name != "lstm" else (Signal(draft, axes), last, None)


def sequence_of(sketch: Sketch, signal: Any, batch_first: bool) -> Signal:
    """Return a sequence of vectors whose axes are in the order that a layer takes.

    Raises
    ------
    UnreadableError
        When they are in another order, or it is no sequence.
    """
    if not isinstance(signal, Signal):
        raise UnreadableError("its input does not depend on that of the module")
    axes = (BATCH, STEPS) if batch_first else (STEPS, BATCH)
    if len(signal.axes) != 3 or signal.axes[:2] != axes:
        order = "(batch, steps, features)" if batch_first else "(steps, batch, features)"
        raise LayoutError(f"it takes sequences {order} and is given other axes")
    return sketch.features_last(signal, 2)


def _initial(state: Any) -> np.ndarray | None:
    """Return the initial states (layers, units) of all samples; None where they are zero."""
    if state is None:
        return None
    rows = numbers(constant(state, "its initial state"))
    if not rows.any():
        return None
    if (rows != rows[:, :1]).any():
        raise UnreadableError("its samples start from different states")
    return np.asarray(rows[:, 0])


def cell_of(name: str, weights: list[np.ndarray], initial: list[np.ndarray | None]) -> Recurrent:
    """Return the operator of weights (w_ih, w_hh, b_ih, b_hh) as torch stores them."""
    kernel, recurrent = (np.ascontiguousarray(w.T) for w in weights[:2])
    biases = [bias for bias in weights[2:4] if bias is not None]
    both = sum(biases[1:], biases[0]) if biases else None
    if name.startswith("lstm"):
        h, c = (*initial, None, None)[:2]
        return LSTM(kernel, recurrent, both, initial_h=h, initial_c=c)
    if name.startswith("gru"):
        first, second = (*biases, None, None)[:2]
        return GRU(kernel, recurrent, first, second, initial=(*initial, None)[0])
    activation = Activation("relu" if "relu" in name else "tanh")
    return SimpleRNN(kernel, recurrent, both, activation, (*initial, None)[0])


def _stacked(call: Call, lasts: list[tuple[Draft, str]]) -> Signal:
    """Return the last states of all layers and directions, (layers, batch, units)."""
    sketch = call.sketch
    signals = []
    for draft, suffix in lasts:
        last = sketch.add(Reduce("last"), draft, suffix=suffix)
        signals.append(Signal(last, (BATCH, 0)))
    if len(signals) == 1:
        return signals[0].with_axes((ONE, BATCH, 0))
    from converters.pytorch.shapes import joined, unsqueezed

    return joined(replace(call, name="h_n"), [unsqueezed(each, 0) for each in signals], 0)


# Cells in loops


@reads(
    "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    modules="LSTMCell GRUCell RNNCell", makes=(LSTM, GRU, SimpleRNN),
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
        loop = Loop(-1, operator.start(sketch.batch), _states_of(sketch, draft, results))
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
    sketch.loops[draft] = Loop(x.step, state, loop.hidden)
    found = []
    for result, hidden in zip(results, loop.hidden, strict=True):
        array = numbers(result, narrow=False)
        same = array.shape == output.shape and bool(
            np.abs(array - output).max() <= CLOSE * (np.abs(output).max() + 1e-30)
        )
        found.append(Signal(draft if same else hidden, (BATCH, 0), step=x.step))
    if not any(signal.draft is draft for signal in found):
        raise UnreadableError(f"its outputs are not those of {operator.describe()}")
    return found


def _states_of(sketch: Sketch, draft: Draft, results: Sequence[Tensor]) -> tuple[Draft, ...]:
    """Return the placeholder for the states of a cell that no node outputs."""
    problem = f"{draft.name!r}: a state of the cell is used that is not its output"
    made = [
        Draft(f"{draft.name}.state", None, (draft,), Shape((r.shape[-1],)), draft.steps, problem)
        for r in results
    ]
    sketch.drafts += made
    return tuple(made)
