"""Lower memories and the cells that read them: LinearMemory, LMU, and recurrent units alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from converters.quantize.connections import Source, round_to_format
from converters.quantize.delay_line import delay_line
from converters.quantize.formats import hidden_format
from converters.quantize.integrators import integrators
from converters.quantize.lowering import gated
from converters.quantize.lowering.forms import Form, Term
from converters.quantize.sign_taylor import series_memory
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import Node
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.integer.layered import IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Pointwise
from lmu_deploy.core.network import Hidden, LMULayer

if TYPE_CHECKING:
    from converters.quantize.lowering.lower import Lowering

_CONCAVE = ("linear", "relu", "tanh", "hard-tanh")


def realize(
    lowering: Lowering, node: str, layer: LMULayer, x: Source, h: Source | None
) -> tuple[IntegerMemory | SeriesMemory, Source]:
    """Quantize a linear memory in the realization of the settings; return it and its messages."""
    connector, signal = lowering.connector, lowering.signal(node, "memory")
    if lowering.settings.realization == "fir":
        return delay_line(node, layer, x, connector)
    if lowering.settings.realization == "sign-taylor":
        return series_memory(node, layer, x, signal, h, connector)
    return integrators(node, layer, x, signal, h, connector)


def linear_memory(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    """Lower a memory, and units for its encoders where these have an activation."""
    operator = node.operator
    assert isinstance(operator, LinearMemory)
    encoders, bias = operator.encoders.astype(np.float64), operator.bias
    if operator.activation is not None:
        form = lowering.folded(node, 0, encoders.T).through(encoders.T, bias)
        bits = lowering.settings.hidden_bits, "--hidden-bits"
        place, signal = Place(node.name, "encoder"), lowering.signal(node.name, "encoder")
        x = lowering.pointwise(place, [("input", form)], operator.activation, signal, bits)
        layer = LMULayer(np.eye(x.features), None, None, None, operator.memory, None)
        return Form.of(lowering.memory(node.name, layer, x, None))
    encoders, bias, x = _encoded(lowering, node, encoders, bias)
    layer = LMULayer(encoders, None, None, bias, operator.memory, None)
    return Form.of(lowering.memory(node.name, layer, x, None))


def _encoded(
    lowering: Lowering, node: Node, encoders: np.ndarray, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, Source]:
    """Return encoders and bias for the messages of one population, and that population."""
    form = lowering.folded(node, 0, encoders.T)
    if len(form.terms) != 1 or not form.plain:
        return encoders, bias, lowering.alone(node)
    (term,) = form.terms
    if form.bias is not None:
        own = form.bias @ encoders
        bias = own if bias is None else bias + own
    return encoders if term.matrix is None else term.matrix.T @ encoders, bias, term.source


def lmu(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    """Lower an LMU to its memory and the population of its cell."""
    operator = node.operator
    assert isinstance(operator, LMU)
    form = lowering.forms[node.inputs[0]]
    if form.single is None and len(form.terms) == 1 and form.plain:
        (term,) = form.terms
        bias = np.zeros(form.size) if form.bias is None else form.bias
        x, operator = term.source, operator.absorb(term.dense.T, bias)
    else:
        x = lowering.alone(node)
    name, cell = node.name, operator.hidden
    layer = LMULayer(
        operator.input_encoders,
        operator.hidden_encoders,
        operator.memory_encoders,
        operator.memory_bias,
        operator.memory,
        None if cell is None else _hidden(operator, cell.n_out),
    )
    if cell is None:
        return Form.of(lowering.memory(name, layer, x, None))
    kernel = cell.kernel.astype(np.float64)
    memory_kernel, own = np.split(kernel, [operator.memory.size])
    input_kernel = own if operator.hidden_takes_input else None
    inflow = 0.0 if input_kernel is None else x.inflow(input_kernel.T)
    h = _unit_messages(lowering, node, cell, inflow, memory_kernel)
    m = lowering.memory(name, layer, x, h)
    inputs = [("memory", Form.of(m).through(memory_kernel.T, cell.bias))]
    if input_kernel is not None:
        inputs.append(("input", Form.of(x).through(input_kernel.T)))
    return _cell(lowering, Place(name, "hidden"), cell, inputs, h)


def _hidden(operator: LMU, units: int) -> Hidden:
    """Return placeholders for the units of a layer whose encoders alone are read."""
    return Hidden(np.zeros((operator.memory.size, units)), None, None, None, "linear")


def _unit_messages(
    lowering: Lowering,
    node: Node,
    cell: SimpleRNN | LSTM | GRU,
    inflow: float,
    m: np.ndarray | None,
) -> Source:
    """Return the messages of the units of a cell, before the cell is lowered.

    Parameters
    ----------
    lowering : Lowering
    node : Node
    cell : SimpleRNN, LSTM or GRU
    inflow : float
        Largest product of a weight of the input kernel and the input messages.
    m : ndarray, shape (states, units), or None
        The kernel of the memory that the units read, if there is one.
    """
    settings, bits = lowering.settings, lowering.settings.hidden_bits
    signal = lowering.signal(node.name, "hidden")
    if not isinstance(cell, SimpleRNN):
        signal, message = gated.messages(lowering, node.name, cell)
        return Source(signal, message, "--hidden-bits", None, Place(node.name, "hidden"))
    if cell.activation.name in _CONCAVE:
        carried = [(cell.recurrent_kernel, signal)]
        if m is not None:
            carried.insert(0, (m, lowering.signal(node.name, "memory")))
        name = cell.activation.name
        message = hidden_format(name, inflow, carried, cell.bias, signal, settings)
    else:
        bias = 0.0 if cell.bias is None else float(np.abs(cell.bias).max(initial=0.0))
        message = lowering.message_format(cell.activation, signal, bits, inflow, bias)
    signal = signal.covering(cell.initial)
    if cell.initial is not None:
        widest = float(np.abs(cell.initial).max(initial=0.0))
        message = replace(message, scale=max(message.scale, widest / message.limit))
    return Source(signal, message, "--hidden-bits", None, Place(node.name, "hidden"))


def _cell(
    lowering: Lowering,
    place: Place,
    cell: SimpleRNN | LSTM | GRU,
    inputs: list[tuple[str, Form]],
    h: Source,
) -> Form:
    """Add the units of a cell, whose kernel the inputs already include."""
    if isinstance(cell, LSTM):
        gated.lstm(lowering, place, cell, inputs, h)
        return Form.of(h)
    if isinstance(cell, GRU):
        gated.gru(lowering, place, cell, inputs, h)
        return Form.of(h)
    if cell.recurrent_kernel is not None:
        own = Term(h, cell.recurrent_kernel.T.astype(np.float64), (-1,))
        inputs = [*inputs, ("recurrent", Form(cell.n_out, (own,)))]
    bits = lowering.settings.hidden_bits, "--hidden-bits"
    lowering.pointwise(place, inputs, cell.activation, h.signal, bits, h.format)
    if cell.initial is not None:
        units = lowering.assembly.populations[-1]
        assert isinstance(units, Pointwise)
        initial = round_to_format(cell.initial, h.format)
        lowering.assembly.populations[-1] = replace(units, initial=initial)
    return Form.of(h)


def recurrent(lowering: Lowering, node: Node, forms: list[Form]) -> Form:
    """Lower recurrent units that stand alone."""
    cell = node.operator
    assert isinstance(cell, SimpleRNN | LSTM | GRU)
    kernel = cell.kernel.T.astype(np.float64)
    form = lowering.folded(node, 0, kernel).through(kernel, cell.bias)
    inflow = max(term.reading().inflow(term.dense) for term in form.terms)
    h = _unit_messages(lowering, node, cell, inflow, None)
    return _cell(lowering, Place(node.name, "hidden"), cell, [("input", form)], h)
