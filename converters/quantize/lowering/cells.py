"""Lower memories and the cells that read them: LinearMemory, LMU, LSTM, GRU, recurrent units.

LSTM and GRU become gated populations; docs/reference/integer-semantics.md has their rules. Gates
and the functions of the cell have 15 fraction bits. Every unit of them is a power of two, so that
the products inside a neuron need shifts alone: with the cell's unit :math:`2^{-e}`, the product of
the activation (unit :math:`2^{-q}`) and a gate (:math:`2^{-15}`) is shifted by
:math:`q + 15 - e`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from converters.quantize.calibration import Signal
from converters.quantize.connections import Source, round_to_format
from converters.quantize.formats import hidden_format
from converters.quantize.lowering.fitting import RANGES, fit
from converters.quantize.lowering.forms import Form, Term
from converters.quantize.realizations import delay_line, integrators
from converters.quantize.sign_taylor import series_memory
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.layered import IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.parts import LARGEST_SHIFT, Edge, Format, Place, largest
from lmu_deploy.core.integer.populations import GATE, GATE_BITS, Pointwise, Product
from lmu_deploy.core.network import Hidden, LMULayer

if TYPE_CHECKING:
    from converters.quantize.lowering.lower import Lowering


_DRIVE_RANGE = 8
"""Binary exponent of the largest drive: gates are constant far below 256."""


def _power(largest_value: float, bits: int, least: int = -8, most: int = 30) -> int:
    """Return e such that values up to `largest_value` fit into `bits` bits of unit 2^-e."""
    exponent = math.floor(math.log2(largest(bits) / max(largest_value, 1e-9)))
    return int(np.clip(exponent, least, most))


def _exponent(form: Format) -> int:
    """Return e of a unit of 2^-e."""
    return -round(math.log2(form.scale))


@dataclass(frozen=True)
class _Functions:
    """Functions of a gated population, and the units of what they return."""

    gate: Activation
    value: Activation
    exponent: int

    @property
    def result(self) -> Format:
        """Format of the activation's values, 16 bits."""
        return Format(GATE_BITS + 1, 2.0**-self.exponent)


def _functions(operator: LSTM | GRU, name: str, largest_value: float) -> _Functions:
    gate, value = operator.gate_activation, operator.activation
    if RANGES.get(gate.name, (-1.0, 2.0)) != (0.0, 1.0):
        raise InputError(
            f"quantize: node {name} has the gate activation {gate.describe()}, and gates on the "
            "chip go from 0 to 1; train it with sigmoid or hard-sigmoid."
        )
    if value.name in RANGES and max(map(abs, RANGES[value.name])) <= 1.0:
        return _Functions(gate, value, GATE_BITS)
    return _Functions(gate, value, _power(2.0 * largest_value, GATE_BITS + 1, 0, GATE_BITS))


@dataclass(frozen=True)
class _Formats:
    """Formats of a gated population: of its sums, its state and its messages."""

    functions: _Functions
    drive: Format
    state: Format
    message: Format


def _formats(lowering: Lowering, name: str, operator: LSTM | GRU) -> tuple[_Formats, Signal]:
    """Choose the formats of gated units, and return them with the signal of the units.

    Initial states have to fit too, and candidates, of which small gates let little through.
    Messages are at most as fine as what they are rounded from: the state of a GRU, or the product
    of a gate and a value.
    """
    settings, h = lowering.settings, lowering.signal(name, "hidden")
    bits, candidate = settings.state_bits, lowering.signal(name, "candidate").largest
    if isinstance(operator, LSTM):
        h = h.covering(operator.initial_h)
        c = lowering.signal(name, "cell").covering(operator.initial_c).largest
        value = max(h.largest, c, candidate)
        functions = _functions(operator, name, value)
        own = _power(4.0 * c, bits, GATE_BITS - 4, 30)
        own = min(own, functions.exponent + GATE_BITS)
        finest = functions.exponent + GATE_BITS
    else:
        h = h.covering(operator.initial)
        value = max(h.largest, candidate)
        functions = _functions(operator, name, value)
        own = _power(2.0 * max(value, 2.0**-8), bits, 0, functions.exponent + GATE_BITS)
        finest = own = min(max(own, functions.exponent), functions.exponent + GATE_BITS)
    widest = 1.05 * h.largest
    if operator.activation.name in RANGES and max(RANGES[operator.activation.name]) <= 1.0:
        widest = max(h.largest, largest(settings.hidden_bits) * 2.0 ** (1 - settings.hidden_bits))
    message = min(_power(widest, settings.hidden_bits), finest)
    formats = _Formats(
        functions,
        _drive(bits, functions, value),
        Format(bits, 2.0**-own),
        Format(settings.hidden_bits, 2.0**-message),
    )
    return formats, h


def messages(lowering: Lowering, name: str, operator: LSTM | GRU) -> tuple[Signal, Format]:
    """Return the signal and the format of the messages of gated units, both powers of two."""
    formats, signal = _formats(lowering, name, operator)
    return signal, formats.message


def _drive(state_bits: int, functions: _Functions, largest_value: float) -> Format:
    reach = _DRIVE_RANGE
    if functions.value.name not in RANGES:
        reach = max(reach, math.ceil(math.log2(4.0 * max(largest_value, 1.0))))
    return Format(state_bits, 2.0 ** -(state_bits - 1 - reach))


def lstm(
    lowering: Lowering,
    place: Place,
    operator: LSTM,
    inputs: list[tuple[str, Form]],
    h: Source,
) -> None:
    """Add an LSTM.

    Parameters
    ----------
    lowering : Lowering
    place : Place
    operator : LSTM
        Its kernel has been applied to the inputs already.
    inputs : list of (name, Form)
        What enters the four gates, with the bias in the first form.
    h : Source
        The messages of the units.
    """
    formats, _ = _formats(lowering, place.node, operator)
    functions, drive, state = formats.functions, formats.drive, formats.state
    product = functions.exponent + GATE_BITS
    shift = product - _exponent(h.format)
    if shift > LARGEST_SHIFT:
        raise InputError(
            f"quantize: messages of {place} need a shift of {shift}, and a neuron shifts by 0 to "
            f"{LARGEST_SHIFT}; use more --hidden-bits."
        )
    lowering.assembly.populations.append(
        LSTMUnits(
            place,
            operator.n_out,
            drive,
            state,
            h.format,
            fit(functions.gate, drive, GATE),
            fit(functions.value, drive, functions.result),
            fit(functions.value, state, functions.result),
            product - _exponent(state),
            shift,
            lowering.bias(place, inputs, drive),
            _initial(operator.initial_h, operator.initial_c, h.format, state, operator.n_out),
        )
    )
    lowering.connect(place, inputs, drive)
    lowering.edge(h, place, "recurrent", operator.recurrent_kernel.T, drive, (-1,))


def gru(
    lowering: Lowering,
    place: Place,
    operator: GRU,
    inputs: list[tuple[str, Form]],
    h: Source,
) -> None:
    """Add a GRU; its inputs enter the sums of r, z and the candidate.

    Parameters
    ----------
    lowering, place, operator, inputs, h
        As for :func:`lstm`.
    """
    formats, signal = _formats(lowering, place.node, operator)
    functions, drive, state = formats.functions, formats.drive, formats.state
    units, own = operator.n_out, _exponent(state)
    gate = fit(functions.gate, drive, GATE)
    recurrent = operator.recurrent_kernel.astype(np.float64)
    two, last = slice(0, 2 * units), slice(2 * units, None)
    given = operator.recurrent_bias
    extra = np.zeros(3 * units) if given is None else given.astype(np.float64)
    bias = np.zeros(4 * units)
    entering = lowering.real_bias(inputs)
    bias[: 3 * units] += 0.0 if entering is None else entering
    bias[two] += extra[two]
    bias[3 * units if operator.reset_after else 2 * units :][:units] += extra[last]
    initial = _initial(operator.initial, operator.initial, h.format, state, units)
    reset = Place(place.node, "reset")
    if not operator.reset_after:
        _reset(lowering, reset, (operator, inputs, bias[:units], extra), functions, h)
    lowering.assembly.populations.append(
        GRUUnits(
            place,
            units,
            drive,
            state,
            h.format,
            gate,
            fit(functions.value, drive, functions.result),
            own - functions.exponent,
            own - _exponent(h.format),
            operator.reset_after,
            lowering.constants(place, (bias, drive)),
            initial,
        )
    )
    lowering.connect(place, inputs, drive)
    gates, candidate = recurrent[:, two].T, recurrent[:, last].T
    lowering.edge(h, place, "recurrent", gates, drive, (-1,))
    if operator.reset_after:
        lowering.edge(h, place, "candidate", candidate, drive, (-1,), row=3 * units)
    else:
        source = Source(signal, h.format, "--hidden-bits", None, reset)
        lowering.edge(source, place, "candidate", candidate, drive, row=2 * units)


def _reset(
    lowering: Lowering,
    place: Place,
    parts: tuple[GRU, list[tuple[str, Form]], np.ndarray, np.ndarray],
    functions: _Functions,
    h: Source,
) -> None:
    """Add the population that sends r * h, where the reset gate acts before the weights."""
    operator, inputs, bias, _ = parts
    units, bits = operator.n_out, lowering.settings.state_bits
    drive = _drive(bits, functions, 1.0)
    # z1 = h, in its own messages; g(z2) = r with 15 fraction bits.
    lowering.assembly.populations.append(
        Product(
            place,
            units,
            h.format,
            drive,
            h.format,
            GATE_BITS,
            None,
            fit(functions.gate, drive, GATE),
            lowering.constants(place, (np.zeros(units), h.format), (bias, drive)),
        )
    )
    first = [(name, form.rows(slice(0, units))) for name, form in inputs]
    lowering.connect(place, first, drive, row=units)
    one = lowering.exact(np.eye(units, dtype=np.int8))
    lowering.assembly.edges.append(Edge(h.place, place, "units", one, (-1,)))
    recurrent = operator.recurrent_kernel.astype(np.float64)[:, :units]
    lowering.edge(h, place, "recurrent", recurrent.T, drive, (-1,), row=units)


def _initial(
    message: np.ndarray | None, state: np.ndarray | None, form: Format, own: Format, units: int
) -> np.ndarray | None:
    """Return the initial message and state as integers; None where both are zero."""
    if message is None and state is None:
        return None
    parts = []
    for values, to in ((message, form), (state, own)):
        real = np.zeros(units) if values is None else values
        parts.append(np.clip(np.rint(real / to.scale), -to.limit, to.limit))
    return np.concatenate(parts).astype(np.int32)


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
        signal, message = messages(lowering, node.name, cell)
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
        lstm(lowering, place, cell, inputs, h)
        return Form.of(h)
    if isinstance(cell, GRU):
        gru(lowering, place, cell, inputs, h)
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
