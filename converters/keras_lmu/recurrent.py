"""Readers of recurrent layers, of their cells, and of what wraps a layer.

Keras orders the gates of an LSTM as i, f, c, o, and those of a GRU as z, r, h, where a network has
r, z, n (:class:`~lmu_deploy.core.graph.recurrent.GRU`). A cell may be simple units, an LSTM, a GRU
or an LMU, and a list of cells is a stack of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converters.importers import LEFT_OUT
from converters.keras_lmu.architecture import KerasLayer, layer_keys
from converters.keras_lmu.build import (
    FRAME,
    SEQUENCE,
    Call,
    Graph,
    Reader,
    Signal,
    as_sequence,
)
from converters.keras_lmu.configuration import Configuration, inner_layer, read_activation
from converters.keras_lmu.file import Arrays
from converters.keras_lmu.lmu import read_lmu_cell
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Affine
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.operator import Operator, Recurrent
from lmu_deploy.core.graph.pointwise import Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Reduce, Reverse
from lmu_deploy.core.validation import check_array

CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell", "LMUCell")
_LAYERS = {"SimpleRNN": "SimpleRNNCell", "LSTM": "LSTMCell", "GRU": "GRUCell"}


def read_cell(cell: KerasLayer, name: str, arrays: Arrays, graph: Graph) -> Recurrent:
    """Return the operator of a recurrent cell.

    Parameters
    ----------
    cell : KerasLayer
    name : str
        Of the layer around it, by which a file of matrices names a memory.
    arrays : Arrays
    graph : Graph

    Raises
    ------
    InputError
        When the cell is of another kind, or something of it has no counterpart.
    """
    if cell.kind == "LMUCell":
        return read_lmu_cell(cell, name, arrays, graph, read_cell)
    options = Configuration(cell.config)
    if cell.kind not in CELLS and cell.kind != "Dense":
        raise InputError(
            f"the cell {cell.kind} has no counterpart; the cells that have are {', '.join(CELLS)}"
        )
    has_state = ("recurrent_kernel",) if cell.kind != "Dense" else ()
    bias = ("bias",) if options.flag("use_bias", True) else ()
    weights = arrays.take("kernel", *has_state, *bias)
    default = "linear" if cell.kind == "Dense" else "tanh"
    activation = read_activation(options.get("activation", default), graph.keras)
    if cell.kind in ("Dense", "SimpleRNNCell"):
        return SimpleRNN(
            weights["kernel"], weights.get("recurrent_kernel"), weights.get("bias"), activation
        )
    gate = read_activation(options.get("recurrent_activation", "sigmoid"), graph.keras)
    kernels = weights["kernel"], weights["recurrent_kernel"]
    if cell.kind == "LSTMCell":
        return LSTM(*kernels, weights.get("bias"), activation, gate)
    after = options.flag("reset_after", graph.keras >= 3)
    given, own = _gru_biases(weights.get("bias"), after)
    kernel, recurrent_kernel = map(_reordered, kernels)
    given, own = (None if array is None else _reordered(array) for array in (given, own))
    return GRU(kernel, recurrent_kernel, given, own, after, activation, gate)


def _gru_biases(
    bias: np.ndarray | None, reset_after: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the biases of input and state; with reset_after Keras stores them as two rows."""
    if bias is None or not reset_after:
        return bias, None
    bias = check_array("GRU bias", bias, (2, None))
    return bias[0], bias[1]


def _reordered(array: np.ndarray) -> np.ndarray:
    """Return gates z, r, h as r, z, n."""
    if not array.ndim or array.shape[-1] % 3:
        raise InputError(f"a weight of a GRU has shape {array.shape}, not three gates")
    z, r, n = np.split(array, 3, axis=-1)
    return np.concatenate([r, z, n], axis=-1)


def read_cells(layer: KerasLayer, name: str, arrays: Arrays, graph: Graph) -> list[Recurrent]:
    """Return the operators of a recurrent layer: one for each cell, the lowest first."""
    options = Configuration(layer.config)
    if layer.kind in _LAYERS:
        cell = KerasLayer(_LAYERS[layer.kind], layer.name, "", layer.config)
        return [read_cell(cell, name, arrays, graph)]
    cell = options.inner("cell")
    if cell.kind != "StackedRNNCells":
        return [read_cell(cell, name, arrays, graph)]
    if cell.config.get("reverse_state_order"):
        graph.note(LEFT_OUT, "reverse_state_order, which orders states alone")
    nodes = cell.config.get("cells")
    cells = [
        inner_layer(node, "a stacked cell") for node in (nodes if isinstance(nodes, list) else [])
    ]
    if not cells:
        raise InputError("StackedRNNCells holds no cells")
    parts = _cells_apart(cells, arrays)
    return [
        read_cell(each, f"{name}.{number}", part, graph)
        for number, (each, part) in enumerate(zip(cells, parts, strict=True))
    ]


def _cells_apart(cells: Sequence[KerasLayer], arrays: Arrays) -> list[Arrays]:
    """Return the arrays of each of several cells: by name, or else in their order."""
    named = [arrays.group(cell.name) for cell in cells]
    if len(inside := arrays.below("cells")):
        named = [inside.group(key) for key in layer_keys(cell.kind for cell in cells)]
    if sum(map(len, named)) == len(arrays):
        return named
    counts = [3 if cell.config.get("use_bias", True) else 2 for cell in cells]
    return arrays.split(counts)


def run_cells(
    call: Call, layer: KerasLayer, cells: Sequence[Operator], backwards: bool, part: str = ""
) -> Signal:
    """Return the sequence that a recurrent layer gives, its last step behind its first.

    Parameters
    ----------
    call : Call
    layer : KerasLayer
        The recurrent layer, which may be inside that of the call.
    cells : sequence of Operator
    backwards : bool
        Whether the layer takes the sequence from its end.
    part : str
        Name of the layer inside that of the call.
    """
    options = Configuration(layer.config)
    options.refuse("save the model with time behind the samples", "time_major")
    signal = call.honors_mask(as_sequence(call.input))
    if options.flag("stateful"):
        call.graph.note(
            "stateful", f"{call.name} carried its state on in Keras; here sequences begin at zero"
        )
    if backwards:
        signal = call.add(Reverse(), signal, part=_joined(part, "backwards"))
    for number, operator in enumerate(cells):
        which = part if number == len(cells) - 1 else _joined(part, f"cell{number}")
        signal = call.add(operator, signal, part=which)
    return signal


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _recurrent(call: Call) -> Signal | list[Signal]:
    if len(call.inputs) > 1:
        raise InputError(
            "it takes its initial state from another layer, which a network has no place for; "
            "start it from zero"
        )
    backwards = call.options.flag("go_backwards")
    cells = read_cells(call.layer, call.name, call.arrays, call.graph)
    found = run_cells(call, call.layer, cells, backwards)
    output = call.last(found, call.options.flag("return_sequences"))
    if not call.options.flag("return_state"):
        return output
    state = call.add(Reduce("last"), found, part="state")
    return [output, state] if len(cells) == 1 else [output]


def _lmu(call: Call) -> Signal:
    """Read a layer of keras-lmu, which has the options of its cell and takes no mask."""
    signal = call.ignores_mask(as_sequence(call.input))
    operator = read_lmu_cell(call.layer, call.name, call.arrays, call.graph, read_cell)
    return call.last(call.add(operator, signal), call.options.flag("return_sequences"))


_MERGES = ("concat", "sum", "mul", "ave")


def _bidirectional(call: Call) -> Signal | list[Signal]:
    forward = call.options.inner("layer")
    backward = call.options.inner("backward_layer") if _has_backward(call) else forward
    mode = call.options.get("merge_mode", "concat")
    if mode is not None and mode not in _MERGES:
        raise InputError(f"merge_mode is {str(mode)[:80]!r}; choose one of {', '.join(_MERGES)}")
    if len(call.inputs) > 1:
        raise InputError("it takes its initial state from another layer; start it from zero")
    sequences = Configuration(forward.config).flag("return_sequences")
    halves = []
    for layer, side in ((forward, "forward"), (backward, "backward")):
        if layer.kind not in (*_LAYERS, "RNN"):
            raise InputError(f"{layer.kind} inside it has no counterpart; use an RNN layer")
        arrays = call.arrays.group(f"{side}_", start=True)
        cells = read_cells(layer, f"{call.name}.{side}", arrays, call.graph)
        found = run_cells(call, layer, cells, side == "backward", side)
        if not sequences:
            found = call.add(Reduce("last"), found, part=f"{side}.last")
        elif side == "backward":
            found = call.add(Reverse(), found, part=f"{side}.turned")
        halves.append(found)
    if mode is None:
        return halves
    return _merged(call, mode, halves)


def _has_backward(call: Call) -> bool:
    return isinstance(call.options.get("backward_layer"), dict)


def _merged(call: Call, mode: str, halves: list[Signal]) -> Signal:
    if mode == "concat":
        return call.add(Concat(), *halves)
    if mode == "mul":
        return call.add(Multiply(), *halves)
    if mode == "sum":
        return call.add(Add(), *halves)
    total = call.add(Add(), *halves, part="sum")
    features = (total.frame or (0,))[-1]
    return call.add(Affine(np.full(features, 0.5), np.zeros(features)), total)


def _time_distributed(call: Call) -> list[Signal]:
    """Read a layer that takes every frame by itself, as a signal without time."""
    layer = call.options.inner("layer")
    signal = as_sequence(call.input)
    hidden = replace(signal, time=FRAME, mask=None, inside=True)
    arrays = call.arrays.below("layer")
    arrays = arrays if len(arrays) else call.arrays
    outputs = call.read(layer, call.name, arrays, [hidden])
    return [
        replace(each, time=SEQUENCE, steps=signal.steps, mask=signal.mask, inside=signal.inside)
        for each in outputs
    ]


_CELL_OPERATORS = (LMU, LinearMemory, SimpleRNN, LSTM, GRU)
_LMU = Reader(_lmu, (LMU, LinearMemory, Reduce), weights=True)

READERS: dict[str, Reader] = {
    "LMU": _LMU,
    "LMUFeedforward": _LMU,
    "LMUFFT": _LMU,
    "SimpleRNN": Reader(_recurrent, (SimpleRNN, Reduce), weights=True),
    "LSTM": Reader(_recurrent, (LSTM, Reduce), weights=True),
    "GRU": Reader(_recurrent, (GRU, Reduce), weights=True),
    "RNN": Reader(_recurrent, (*_CELL_OPERATORS, Reduce), weights=True),
    "Bidirectional": Reader(
        _bidirectional, (Reverse, *_CELL_OPERATORS, Concat, Add, Multiply, Affine), weights=True
    ),
    "TimeDistributed": Reader(
        _time_distributed, (), weights=True, limits="around layers that take single frames"
    ),
}
"""Reader of each class of recurrent layer, and of layers around another."""
