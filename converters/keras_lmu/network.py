"""A file of keras-lmu as one LMUNetwork.

In: a path, and the architecture where the file has none. Out: the network, in the precision of the
file; or one error that names everything that cannot be represented.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.contained import Contents
from converters.contained.parent import check_file
from converters.keras_lmu.architecture import KerasLayer, read_chain
from converters.keras_lmu.archive import open_keras, parse_json
from converters.keras_lmu.blocks import Block, DenseBlock, LMUBlock, LSTMBlock, SoftmaxBlock
from converters.keras_lmu.layers import make_lmu, make_lstm, make_readout
from converters.keras_lmu.matrices import MemoryMatrices
from converters.keras_lmu.read_block import read_block
from converters.keras_lmu.weights import LayerWeights
from converters.linear_maps import identity, join
from lmu_deploy.errors import InputError
from lmu_deploy.network import Layer, LMUNetwork, Readout

MOST_STATES = 4096
"""Orders of all memories together: each costs its cube in time, however small the file is."""
MOST_PROBLEMS = 20


def read_keras(
    path: Path | str,
    architecture: dict[str, Any] | Path | str | None = None,
    matrices: Path | str = "keras",
) -> LMUNetwork:
    """Read a network that keras-lmu trained.

    Parameters
    ----------
    path : path
        `.keras`, whole-model `.h5` / `.hdf5`, or weights-only `.h5` / `.hdf5`, of Keras 2 or 3.
    architecture : dict or path, optional
        What ``model.to_json()`` gives, parsed or as a file; needed for weights-only files, and
        not allowed for others.
    matrices : str or path
        The memory's matrices, which are in no file: "keras" (as keras-lmu makes them on this
        machine's processor), "keras:KIB", "exact", or an `.npz` of those that Keras computed; see
        :class:`.matrices.MemoryMatrices`.

    Returns
    -------
    network : LMUNetwork
        A softmax at the end is left out, and noted in `provenance`. Without a Dense layer at the
        end the readout passes the last layer's output on.

    Raises
    ------
    InputError
        When the file is damaged, or holds something that cannot be represented: all of it is named.
    """
    path = check_file(path)
    config, contents = open_keras(path)
    if config is None and architecture is None:
        raise InputError(
            f"{path} holds weights alone; give the architecture with --architecture FILE "
            "(what model.to_json() writes) or with --option order=..., theta=..., units=...."
        )
    if config is not None and architecture is not None:
        raise InputError(f"{path} describes its own architecture; leave --architecture away.")
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


def assemble(config: dict[str, Any], contents: Contents, matrices: MemoryMatrices) -> LMUNetwork:
    """Make the network from its configuration and its arrays.

    Raises
    ------
    InputError
        Naming everything that cannot be represented.
    """
    problems: list[str] = []
    described = [(layer, read_block(layer, problems)) for layer in read_chain(config, problems)]
    blocks = [(layer, block) for layer, block in described if block is not None]
    if not problems:
        _check_order(blocks, problems)
    _raise_all(problems)
    weights = LayerWeights(contents, [layer for layer, block in blocks if block.expected.own])
    found = [(layer, b, weights.of(layer, b.expected, problems)) for layer, b in blocks]
    surplus = weights.unused(layer for layer, _ in blocks)
    problems.extend(f"the file has weights of {name!r}, which no layer takes" for name in surplus)
    _raise_all(problems)
    layers: list[Layer] = []
    readout: Readout | None = None
    for layer, block, arrays in found:
        try:
            if isinstance(block, LMUBlock):
                made = make_lmu(block, arrays)
                layers.append(matrices.put_into(made, layer.name, block.trainable_theta))
            elif isinstance(block, LSTMBlock):
                layers.append(make_lstm(block, arrays))
            elif isinstance(block, DenseBlock):
                readout = join(readout, make_readout(arrays))
        except InputError as error:
            problems.append(f"{layer}: {str(error).rstrip('.')}")
    _raise_all(problems)
    last = [block for _, block in blocks if isinstance(block, LMUBlock | LSTMBlock)][-1]
    return LMUNetwork(
        layers=tuple(layers),
        readout=readout or Readout(identity(layers[-1].n_out), None),
        return_sequences=last.return_sequences,
        provenance=_provenance([block for _, block in blocks], matrices),
    )


def _check_order(blocks: list[tuple[KerasLayer, Block]], problems: list[str]) -> None:
    """Hold the layers to: recurrent ones, then Dense, then softmax."""
    recurrent = [(layer, b) for layer, b in blocks if isinstance(b, LMUBlock | LSTMBlock)]
    if not recurrent:
        problems.append("the model has no LMU layer")
    for layer, block in recurrent[:-1]:
        if not block.return_sequences:
            problems.append(f"{layer} gives its last output alone to another recurrent layer")
    early = [each for each in blocks[: len(recurrent)] if each not in recurrent]
    problems.extend(f"{layer} stands before a recurrent layer" for layer, _ in early)
    inner = [layer for layer, block in blocks[:-1] if _has_softmax(block)]
    problems.extend(f"{layer} has a softmax before the end" for layer in inner)
    orders = sum(block.order for _, block in recurrent if isinstance(block, LMUBlock))
    if orders > MOST_STATES:
        problems.append(f"the orders of all memories add up to {orders}, more than {MOST_STATES}")


def _provenance(blocks: list[Block], matrices: MemoryMatrices) -> dict[str, str]:
    notes = {"imported from": "keras-lmu", "memory matrices": matrices.note}
    if _has_softmax(blocks[-1]):
        notes["left out"] = "the softmax at the end: outputs are logits"
    return notes


def _has_softmax(block: Block) -> bool:
    return isinstance(block, SoftmaxBlock) or (isinstance(block, DenseBlock) and block.softmax)


def _raise_all(problems: list[str]) -> None:
    if problems:
        shown = "; ".join(problems[:MOST_PROBLEMS])
        more = f"; and {len(problems) - MOST_PROBLEMS} more" if problems[MOST_PROBLEMS:] else ""
        raise InputError(f"the model cannot be imported: {shown}{more}.")
