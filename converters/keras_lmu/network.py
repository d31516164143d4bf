"""Build an LMUNetwork from a file of keras-lmu.

In: a path, and the architecture where the file has none. Out: the network, in the precision of the
file; or one error that lists everything that cannot be represented.

keras-lmu stores one encoder for input and hidden units together, kernel = [E_x; E_h], and its
hidden cell takes [m; x], so that its kernel is [W_m; W_x]. Its memory is m A^T + u B^T with the
same order of states as ours. A trained theta is stored as its inverse. Without a hidden cell but
with `input_to_hidden` the output is [m; x], which is a linear hidden layer with identity kernels.

The memory's matrices are in no file; :mod:`.matrices` provides them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats import HDF5_SIGNATURE, Sniff
from converters.importers import MOST_STATES, raise_problems
from converters.keras_lmu.architecture import KerasLayer, architecture_from_options, read_chain
from converters.keras_lmu.archive import (
    CONFIG,
    WEIGHTS,
    Arrays,
    LayerWeights,
    open_keras,
    parse_json,
)
from converters.keras_lmu.blocks import (
    RECURRENT,
    STORED_MATRICES,
    Block,
    DenseBlock,
    HiddenOptions,
    LMUBlock,
    LSTMBlock,
    PaperBlock,
    SoftmaxBlock,
    read_block,
)
from converters.keras_lmu.matrices import MemoryMatrices
from converters.linear_maps import identity, join
from converters.sandbox import FileContents
from converters.sandbox.process import check_file
from converters.weight_files import PAPER_NAMES, one_channel_layer, recognize_memory
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Hidden, Layer, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.validation import check_array, check_number

REFUSED = "the model cannot be imported"


class KerasLMUImporter:
    """`.keras`, whole-model `.h5`, and weights-only `.h5` files of Keras 2 and 3."""

    name = "keras-lmu"
    reads = "keras-lmu: .keras, .h5 / .hdf5 (whole models, or weights with --architecture)"

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether the file is an HDF5 file of Keras, or an archive with its entries."""
        if sniff.head.startswith(HDF5_SIGNATURE):
            whole = sniff.holds(b"model_config")
            return (whole or not sniff.holds(b"memory_encoders")) and not sniff.is_nir
        return CONFIG in sniff.entries or WEIGHTS in sniff.entries

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network; the architecture is needed for weights-only files only.

        Option `matrices` selects the memory's matrices: exact (the default), keras, keras:KIB, or
        a file of those that Keras computed; see :mod:`.matrices`.
        """
        options = dict(options)
        matrices = options.pop("matrices", "exact")
        if architecture is not None and options:
            raise InputError("give an architecture file or options of the architecture, not both.")
        described = architecture_from_options(options) if options else None
        return read_keras(path, architecture if described is None else described, matrices)


def read_keras(
    path: Path | str,
    architecture: dict[str, Any] | Path | str | None = None,
    matrices: Path | str = "exact",
) -> LMUNetwork:
    """Read a network that keras-lmu trained.

    Parameters
    ----------
    path : path
        `.keras`, whole-model `.h5` / `.hdf5`, or weights-only `.h5` / `.hdf5`, of Keras 2 or 3.
    architecture : dict or path, optional
        Output of ``model.to_json()``, parsed or as a file; needed for weights-only files, and not
        allowed for others.
    matrices : str or path
        The memory's matrices, which no file stores: "exact" (those of the equations), "keras" (as
        keras-lmu computes them on this machine's processor), "keras:KIB", or an `.npz` of those
        that Keras computed; see :class:`.matrices.MemoryMatrices`.

    Returns
    -------
    network : LMUNetwork
        A softmax at the end is left out, which `provenance` records. Without a Dense layer at the
        end the readout is the identity.

    Raises
    ------
    InputError
        When the file is damaged, or something cannot be represented; all problems are listed.
    """
    path = check_file(path)
    config, contents = open_keras(path)
    if config is None and architecture is None:
        raise InputError(
            f"{path} has only weights; give the architecture with --architecture FILE "
            "(what model.to_json() writes) or with --option order=..., theta=..., units=...."
        )
    if config is not None and architecture is not None:
        raise InputError(f"{path} has its own architecture; leave out --architecture.")
    if isinstance(architecture, dict):
        config = architecture
    elif architecture is not None:
        config = parse_json(check_file(architecture).read_bytes(), str(architecture))
    assert config is not None
    try:
        return assemble(config, contents, MemoryMatrices(matrices))
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def assemble(
    config: dict[str, Any], contents: FileContents, matrices: MemoryMatrices
) -> LMUNetwork:
    """Build the network from its configuration and its arrays.

    Raises
    ------
    InputError
        When something cannot be represented; all problems are listed.
    """
    problems: list[str] = []
    described = [(layer, read_block(layer, problems)) for layer in read_chain(config, problems)]
    blocks = [(layer, block) for layer, block in described if block is not None]
    if not problems:
        _check_order(blocks, problems)
    raise_problems(problems, REFUSED)
    weights = LayerWeights(contents, [layer for layer, block in blocks if block.expected.own])
    found = [(layer, b, weights.of(layer, b.expected, problems)) for layer, b in blocks]
    surplus = weights.unused(layer for layer, _ in blocks)
    problems.extend(f"the file has weights of {name!r}, which no layer takes" for name in surplus)
    raise_problems(problems, REFUSED)
    layers: list[Layer] = []
    readout: Readout | None = None
    for layer, block, arrays in found:
        try:
            if isinstance(block, LMUBlock):
                layers.append(_lmu_layer(layer, block, arrays, matrices))
            elif isinstance(block, PaperBlock):
                layers.append(make_paper_layer(arrays))
            elif isinstance(block, LSTMBlock):
                layers.append(make_lstm(block, arrays))
            elif isinstance(block, DenseBlock):
                readout = join(readout, make_readout(arrays))
        except InputError as error:
            problems.append(f"{layer}: {str(error).rstrip('.')}")
    raise_problems(problems, REFUSED)
    last = [block for _, block in blocks if isinstance(block, RECURRENT)][-1]
    return LMUNetwork(
        layers=tuple(layers),
        readout=readout or Readout(identity(layers[-1].n_out), None),
        return_sequences=last.return_sequences,
        provenance=_provenance([block for _, block in blocks], matrices),
    )


def _check_order(blocks: list[tuple[KerasLayer, Block]], problems: list[str]) -> None:
    """Check that recurrent layers come first, then Dense, then softmax."""
    recurrent = [(layer, b) for layer, b in blocks if isinstance(b, RECURRENT)]
    if not recurrent:
        problems.append("the model has no LMU layer")
    for layer, block in recurrent[:-1]:
        if not block.return_sequences:
            problems.append(f"{layer} passes only its last output to another recurrent layer")
    early = [each for each in blocks[: len(recurrent)] if each not in recurrent]
    problems.extend(f"{layer} is before a recurrent layer" for layer, _ in early)
    inner = [layer for layer, block in blocks[:-1] if _has_softmax(block)]
    problems.extend(f"{layer} has a softmax before the end" for layer in inner)
    orders = sum(block.order for _, block in recurrent if isinstance(block, LMUBlock))
    if orders > MOST_STATES:
        problems.append(f"the orders of all memories add up to {orders}, more than {MOST_STATES}")


def _provenance(blocks: list[Block], matrices: MemoryMatrices) -> dict[str, str]:
    notes = {"imported from": "keras-lmu", "memory matrices": matrices.note}
    if any(isinstance(block, PaperBlock) for block in blocks):
        notes["memory matrices"] = "from the file"
        notes["assumed"] = "hidden units of the paper's cell are tanh; the file does not say"
    if _has_softmax(blocks[-1]):
        notes["left out"] = "the softmax at the end: outputs are logits"
    return notes


def _has_softmax(block: Block) -> bool:
    return isinstance(block, SoftmaxBlock) or (isinstance(block, DenseBlock) and block.softmax)


def _lmu_layer(
    layer: KerasLayer, block: LMUBlock, arrays: Arrays, matrices: MemoryMatrices
) -> LMULayer:
    """Build an LMU layer with the matrices of the file, or else with those that were chosen."""
    stored = {role: arrays.pop(role) for role in STORED_MATRICES if role in arrays}
    lmu = make_lmu(block, arrays)
    if not stored:
        return matrices.put_into(lmu, layer.name, block.trainable_theta)
    matrices.note = "from the file"
    return with_stored_matrices(lmu, *(stored[role] for role in STORED_MATRICES))


def with_stored_matrices(layer: LMULayer, a: np.ndarray, b: np.ndarray) -> LMULayer:
    """Return the layer with the matrices that early versions of keras-lmu stored as weights.

    The step is either ``m A + u B`` or ``m + m A + u B``; the form is chosen whose matrix is
    nearer to that of the layer's order and theta.

    Raises
    ------
    InputError
        When a matrix has the wrong shape.
    """
    memory = layer.memory
    stored = check_array("A", _float(a), (memory.order, memory.order)).T.astype(np.float64)
    b_bar = check_array("B", _float(b), (1, memory.order))[0].astype(np.float64)
    forms = stored, stored + np.eye(memory.order)
    a_bar = min(forms, key=lambda form: float(np.linalg.norm(form - memory.a_bar)))
    found = recognize_memory(a_bar, b_bar, memory.theta)
    return replace(layer, memory=replace(found, channels=memory.channels))


def make_paper_layer(weights: Arrays) -> LMULayer:
    """Build the layer of the paper's cell, with tanh units: the file does not record them.

    Raises
    ------
    InputError
        When a weight has the wrong shape, or the window length cannot be inferred.
    """
    arrays = {role: _float(array) for role, array in weights.items()}
    ordered = [(name, arrays[name]) for name in PAPER_NAMES]
    return one_channel_layer(ordered, arrays.get("bias"), None, "tanh", incremental=True)


def make_lmu(block: LMUBlock, weights: Arrays) -> LMULayer:
    """Build an LMU layer, with exact memory matrices.

    Raises
    ------
    InputError
        When a weight has the wrong shape or theta is out of range.
    """
    weights = {role: _float(array) for role, array in weights.items()}
    n_hidden = block.hidden.units if block.hidden is not None and block.hidden_to_memory else 0
    kernel = weights["kernel"] if block.has_kernel else identity(block.channels)
    kernel = check_array("memory kernel", kernel, (None, block.channels))
    n_in = len(kernel) - n_hidden
    if n_in < 1:
        raise InputError(
            f"memory kernel has {len(kernel)} rows, of which {n_hidden} belong to the hidden "
            "units; no input is left."
        )
    hidden = _make_hidden(block, weights, n_in)  # first: its shape checks the order
    return LMULayer(
        input_encoders=kernel[:n_in],
        hidden_encoders=kernel[n_in:] if block.hidden_to_memory else None,
        memory_encoders=weights.get("recurrent_kernel"),
        memory_bias=weights.get("bias"),
        memory=_make_memory(block, weights),
        hidden=hidden,
    )


def make_lstm(block: LSTMBlock, weights: Arrays) -> LSTMLayer:
    """Build an LSTM layer; the order of the gates, i, f, g, o, is that of Keras.

    Raises
    ------
    InputError
        When a weight has the wrong shape.
    """
    bias = weights.get("bias", np.zeros(4 * block.units, np.float32))
    return LSTMLayer(
        kernel=_float(weights["kernel"]),
        recurrent_kernel=_float(weights["recurrent_kernel"]),
        bias=_float(bias),
    )


def make_readout(weights: Arrays) -> Readout:
    """Build the readout from a Dense layer.

    Raises
    ------
    InputError
        When a weight has the wrong shape.
    """
    bias = weights.get("bias")
    return Readout(_float(weights["kernel"]), None if bias is None else _float(bias))


def _make_memory(block: LMUBlock, weights: Arrays) -> Memory:
    theta = block.theta
    if block.trainable_theta:
        inverse = check_array("theta_inv", weights["theta_inv"], ())
        theta = 1.0 / check_number("theta_inv", float(inverse), 1e-12, 1.0)
    return Memory.legendre(block.order, theta, block.channels, block.discretizer)


def _make_hidden(block: LMUBlock, weights: Arrays, n_in: int) -> Hidden | None:
    states = block.channels * block.order
    if block.hidden is None:
        return _pass_on(states, n_in) if block.input_to_hidden else None
    cell: HiddenOptions = block.hidden
    rows = states + (n_in if block.input_to_hidden else 0)
    kernel = check_array("hidden kernel", weights["hidden/kernel"], (rows, cell.units))
    return Hidden(
        memory_kernel=kernel[:states],
        input_kernel=kernel[states:] if block.input_to_hidden else None,
        recurrent_kernel=weights.get("hidden/recurrent_kernel"),
        bias=weights.get("hidden/bias"),
        activation=cell.activation,
    )


def _pass_on(states: int, n_in: int) -> Hidden:
    both = identity(states + n_in)
    return Hidden(both[:states], both[states:], None, None, "linear")


def _float(array: np.ndarray) -> np.ndarray:
    """Return an array in at least float32, the type in which Keras computes."""
    if array.dtype.kind != "f":
        raise InputError(f"a weight has type {array.dtype}; weights must be real numbers.")
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array
