"""Read the cells of LMU layers, of every version of keras-lmu and of the paper's package.

keras-lmu stores one encoder for input and hidden units together, kernel = [E_x; E_h], and its
hidden cell takes [m; x], so that its kernel is [W_m; W_x]. Its memory is m A^T + u B^T with the
same order of states as ours. A trained theta is stored as its inverse. Without a hidden cell but
with `input_to_hidden` the output is [m; x], which is a linear hidden layer with identity kernels.

What the versions differ in:

- The paper's package and `lmu` 0.1 have one cell with tanh units, encoders and kernels by source,
  and A - I and B as weights. The configuration of the former is empty.
- `lmu` 0.2 and keras-lmu 0.3 store A and B as weights, and have no options for theta, discretizer
  and bias; LMUFFT, later LMUFeedforward, holds a second cell for its impulse response.
- Since 0.4 the matrices are in no file; :mod:`.matrices` provides them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from converters.importers import ASSUMED, LEFT_OUT, MOST_ORDER, MOST_STATES
from converters.keras_lmu.architecture import KerasLayer
from converters.keras_lmu.build import Graph
from converters.keras_lmu.configuration import Configuration, read_activation
from converters.keras_lmu.file import Arrays
from converters.weight_files import PAPER_NAMES, recognize_memory
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.lmu import HIDDEN_CELLS, LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.operator import Recurrent
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.network import Layer, LSTMLayer, Memory, Readout
from lmu_deploy.core.validation import check_array, check_number

_LARGEST_IDENTITY = 4096


def identity(size: int) -> np.ndarray:
    """Return an identity matrix, for a model that has no linear map at this place.

    Raises
    ------
    InputError
        When it would be far larger than the file that needs it.
    """
    if size > _LARGEST_IDENTITY:
        raise InputError(
            f"{size} signals are passed on unchanged, more than {_LARGEST_IDENTITY}; "
            "give the model a linear layer (in Keras a kernel or a Dense layer) there."
        )
    return np.eye(size, dtype=np.float32)


def join(first: Readout | None, second: Readout) -> Readout:
    """Return the composition of two maps, the first of which may be missing.

    Raises
    ------
    InputError
        When the output size of the first is not the input size of the second.
    """
    if first is None:
        return second
    return Readout(_compose(first, second.kernel), _shift(first, second.kernel, second.bias))


def feed(linear: Readout | None, layer: Layer) -> Layer:
    """Return the layer that does to x what `layer` does to ``x kernel + bias``.

    Raises
    ------
    InputError
        When the output size of the map is not the input size of the layer.
    """
    if linear is None:
        return layer
    if isinstance(layer, LSTMLayer):
        kernel, bias = _compose(linear, layer.kernel), _shift(linear, layer.kernel, layer.bias)
        return replace(layer, kernel=kernel, bias=layer.bias if bias is None else bias)
    hidden = layer.hidden
    if hidden is not None and hidden.input_kernel is not None:
        hidden = replace(
            hidden,
            input_kernel=_compose(linear, hidden.input_kernel),
            bias=_shift(linear, hidden.input_kernel, hidden.bias),
        )
    return replace(
        layer,
        input_encoders=_compose(linear, layer.input_encoders),
        memory_bias=_shift(linear, layer.input_encoders, layer.memory_bias),
        hidden=hidden,
    )


def _compose(linear: Readout, kernel: np.ndarray) -> np.ndarray:
    if linear.kernel.shape[1] != kernel.shape[0]:
        raise InputError(
            f"it takes {kernel.shape[0]} features and the linear layer before it gives "
            f"{linear.kernel.shape[1]}"
        )
    return (linear.kernel.astype(np.float64) @ kernel).astype(kernel.dtype)


def _shift(linear: Readout, kernel: np.ndarray, bias: np.ndarray | None) -> np.ndarray | None:
    if linear.bias is None:
        return bias
    moved = linear.bias.astype(np.float64) @ kernel + (0.0 if bias is None else bias)
    return moved.astype(kernel.dtype)


STORED_MATRICES = ("A", "B")
"""Memory matrices, which keras-lmu stored as weights before version 0.4."""

ReadCell = Callable[[KerasLayer, str, Arrays, Graph], Recurrent]


def read_lmu_cell(
    cell: KerasLayer, name: str, arrays: Arrays, graph: Graph, read_cell: ReadCell
) -> Recurrent:
    """Return the operator of an LMUCell, or of an LMU layer, whose options are the same.

    Parameters
    ----------
    cell : KerasLayer
    name : str
        Of the layer, by which a file of matrices names its memory.
    arrays : Arrays
    graph : Graph
    read_cell : callable
        Reads the hidden cell.

    Raises
    ------
    InputError
        When a weight has the wrong shape, theta is out of range, or the hidden cell has no
        counterpart.
    """
    if "memory_d" not in cell.config and _is_paper_cell(arrays):
        return _paper_cell(cell, arrays, graph)
    options = Configuration(cell.config)
    order = options.integer("order", MOST_ORDER)
    channels = options.integer("memory_d")
    graph.count_states(order, MOST_STATES)
    hidden, hidden_arrays = _hidden_of(options, arrays)
    feeds_back = options.flag("hidden_to_memory")
    takes_input = options.flag("input_to_hidden")
    states = channels * order
    read = None if hidden is None else _read_hidden(hidden, name, hidden_arrays, graph, read_cell)
    own = _own_weights(options, arrays.without(hidden_arrays))
    if feeds_back and read is None:
        raise InputError("hidden_to_memory needs a hidden cell")
    n_hidden = read.n_out if read is not None and feeds_back else 0
    kernel = own.get("kernel")
    kernel = identity(channels) if kernel is None else kernel
    kernel = check_array("memory kernel", kernel, (None, channels))
    n_in = len(kernel) - n_hidden
    if n_in < 1:
        raise InputError(
            f"memory kernel has {len(kernel)} rows, of which {n_hidden} belong to the hidden "
            "units; no input is left"
        )
    if read is not None:  # its shape checks the order before the matrices are computed
        check_array("hidden kernel", read.kernel, (states + n_in * takes_input, None))
    elif takes_input:
        read = SimpleRNN(identity(states + n_in), None, None, Activation("linear"))
    recurrent = own.get("recurrent_kernel")
    if recurrent is not None:
        check_array("recurrent kernel", recurrent, (states, channels))
    if options.get("conv_mode") == "raw" and options.get("truncate_ir"):
        graph.note(
            LEFT_OUT,
            f"truncate_ir of {name}: Keras cuts off the end of the impulse response, here it is "
            "whole",
        )
    memory = _memory(options, order, channels, own, name, graph)
    encoders, feedback = kernel[:n_in], kernel[n_in:] if feeds_back else None
    if read is None and recurrent is None:
        return LinearMemory(memory, encoders, own.get("bias"))
    return LMU(memory, encoders, read, takes_input, feedback, recurrent, own.get("bias"))


def _is_paper_cell(arrays: Arrays) -> bool:
    """Return whether arrays are those of the paper's cell, by their names or else their number."""
    most = len(PAPER_NAMES) + 1
    return bool({"AT", "BT"} & arrays.names()) or (
        arrays.numbered() and most - 1 <= len(arrays) <= most
    )


def _hidden_of(options: Configuration, arrays: Arrays) -> tuple[KerasLayer | None, Arrays]:
    """Return the hidden cell of an LMU, if it has one, and its arrays."""
    if options.get("hidden_cell") is None:
        return None, arrays.group()
    hidden = options.inner("hidden_cell")
    found = arrays.group("hidden_cell", hidden.name)
    if not len(found) or len(found) == len(arrays):
        deeper = arrays.deepest()
        has_own = options.get("kernel_initializer", "") is not None
        found = deeper if len(deeper) or has_own else arrays
    return hidden, found


def _read_hidden(
    hidden: KerasLayer, name: str, arrays: Arrays, graph: Graph, read_cell: ReadCell
) -> SimpleRNN | LSTM | GRU:
    known = ("Dense", "SimpleRNNCell", "LSTMCell", "GRUCell")
    if hidden.kind not in known:
        raise InputError(
            f"hidden cell {hidden.kind} has no counterpart; the cells that have are "
            f"{', '.join(known)}"
        )
    try:
        found = read_cell(hidden, name, arrays, graph)
    except InputError as error:
        raise InputError(f"hidden cell {hidden.kind}: {str(error).rstrip('.')}") from error
    assert isinstance(found, HIDDEN_CELLS)
    return found


def _own_weights(options: Configuration, arrays: Arrays) -> dict[str, np.ndarray]:
    """Return the weights of the layer itself by role."""
    wanted = (
        ("kernel", options.get("kernel_initializer", "") is not None),
        ("bias", options.flag("use_bias")),
        ("theta_inv", options.flag("trainable_theta")),
        ("recurrent_kernel", options.flag("memory_to_memory")),
    )
    names = arrays.names()
    roles = [role for role, there in wanted if there or (role == "kernel" and role in names)]
    order = options.integer("order", MOST_ORDER)
    if arrays.numbered() and arrays.shapes()[-2:] == [(order, order), (1, order)]:
        early = len(arrays) == len(roles) + 3  # had a kernel whatever its initializer
        roles = ["kernel", *roles] if early else roles
        return arrays.take(*roles, *STORED_MATRICES)
    cell = arrays.deepest()  # the cell of an early LMUFFT, whose kernel is one
    if set(STORED_MATRICES) <= cell.names():
        inner = ("kernel",) if "kernel" in cell.names() else ()
        stored = cell.take(*inner, *STORED_MATRICES)
        own = arrays.without(cell).take(*roles)
        return own | {role: stored[role] for role in STORED_MATRICES}
    return arrays.take(*roles, optional=STORED_MATRICES)


def _memory(
    options: Configuration,
    order: int,
    channels: int,
    own: dict[str, np.ndarray],
    name: str,
    graph: Graph,
) -> Memory:
    """Return the memory, with the matrices of the file or else with those that were chosen."""
    theta = options.number("theta", 1.0, 1e12)
    trained = options.flag("trainable_theta")
    if trained:
        inverse = check_array("theta_inv", own["theta_inv"], ())
        theta = 1.0 / check_number("theta_inv", float(inverse), 1e-12, 1.0)
    discretizer = options.choice("discretizer", ("zoh", "euler"), "zoh")
    memory = Memory.legendre(order, theta, channels, discretizer)
    if "A" not in own or trained:  # those stored beside a trained theta are of its first value
        return graph.matrices.put_into(memory, name, trained)
    graph.note("memory matrices", "from the file")
    return stored_memory(memory, own["A"], own["B"])


def stored_memory(memory: Memory, a: np.ndarray, b: np.ndarray) -> Memory:
    """Return a memory with the matrices that early versions of keras-lmu stored as weights.

    The step is either ``m A + u B`` or ``m + m A + u B``; the form is chosen whose matrix is
    nearer to that of the layer's order and theta.

    Raises
    ------
    InputError
        When a matrix has the wrong shape.
    """
    stored = check_array("A", a, (memory.order, memory.order)).T.astype(np.float64)
    b_bar = check_array("B", b, (1, memory.order))[0].astype(np.float64)
    forms = stored, stored + np.eye(memory.order)
    a_bar = min(forms, key=lambda form: float(np.linalg.norm(form - memory.a_bar)))
    found = recognize_memory(a_bar, b_bar, memory.theta)
    return replace(found, channels=memory.channels)


def _paper_cell(cell: KerasLayer, arrays: Arrays, graph: Graph) -> LMU:
    """Return the operator of the paper's cell; what its configuration lacks is recorded."""
    with_bias = ("bias",) if len(arrays) > len(PAPER_NAMES) else ()
    weights = arrays.take(*PAPER_NAMES[:-2], *with_bias, *PAPER_NAMES[-2:])
    options = Configuration(cell.config)
    graph.note("memory matrices", "from the file")
    order = len(check_array("AT", weights["AT"], (None, None)))
    graph.count_states(order, MOST_STATES)
    if isinstance(options.get("hidden_activation"), str | dict):
        activation = read_activation(options.get("hidden_activation"), graph.keras)
    else:
        activation = read_activation(graph.options.get("activation", "tanh"), graph.keras)
        graph.note(
            ASSUMED,
            f"hidden units of the paper's cell are {activation.name}; the file does not say, and "
            "option activation changes it",
        )
    theta = options.get("theta", graph.options.get("theta"))
    a_bar = check_array("AT", weights["AT"], (order, order)).T.astype(np.float64)
    b_bar = check_array("BT", weights["BT"], (1, order))[0].astype(np.float64)
    memory = recognize_memory(
        a_bar + np.eye(order), b_bar, None if theta is None else _theta(theta)
    )
    bias = weights.get("bias")
    encoders = check_array("input_encoders", weights["input_encoders"], (None, 1))
    units = len(check_array("hidden_encoders", weights["hidden_encoders"], (None, 1)))
    rows = {"memory_kernel": order, "input_kernel": len(encoders)}
    kernels = [check_array(name, weights[name], (n, units)) for name, n in rows.items()]
    kernel = np.concatenate(kernels)
    hidden = SimpleRNN(
        kernel,
        weights["hidden_kernel"],
        None if bias is None else bias.reshape(-1),
        activation,
    )
    return LMU(
        memory,
        encoders,
        hidden,
        True,
        weights["hidden_encoders"],
        weights["memory_encoders"],
    )


def _theta(value: object) -> float:
    try:
        return float(str(value))
    except ValueError as error:
        raise InputError(f"theta is {str(value)[:80]!r}; give a number") from error
