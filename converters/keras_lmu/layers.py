r"""From a block's options and weights to our layer.

keras-lmu stores one encoder for input and hidden units together, kernel = [E_x; E_h], and feeds
its hidden cell [m; x], so that its kernel is [W_m; W_x]. Its memory is m A^T + u B^T with the same
order of states as ours. A trained theta is stored as its inverse. Without a hidden cell but with
`input_to_hidden` the output is [m; x], which is a linear hidden layer with unit kernels.

The memory's matrices are in no file. Those of a layer made here are exact; `matrices.py` puts
others in their place.
"""

from __future__ import annotations

import numpy as np

from converters.keras_lmu.blocks import HiddenOptions, LMUBlock, LSTMBlock
from converters.keras_lmu.weights import Arrays
from converters.linear_maps import identity
from lmu_deploy.checks import check_array, check_number
from lmu_deploy.errors import InputError
from lmu_deploy.network import Hidden, LMULayer, LSTMLayer, Memory, Readout


def make_lmu(block: LMUBlock, weights: Arrays) -> LMULayer:
    """Make the layer.

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
    hidden = _make_hidden(block, weights, n_in)  # first: its shape vouches for the order
    return LMULayer(
        input_encoders=kernel[:n_in],
        hidden_encoders=kernel[n_in:] if block.hidden_to_memory else None,
        memory_encoders=weights.get("recurrent_kernel"),
        memory_bias=weights.get("bias"),
        memory=_make_memory(block, weights),
        hidden=hidden,
    )


def make_lstm(block: LSTMBlock, weights: Arrays) -> LSTMLayer:
    """Make an LSTM layer, exchanging nothing but a missing bias: Keras orders gates i, f, g, o too.

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
    """Make the readout of a Dense layer.

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
    return Memory.legendre(block.order, theta, block.channels, block.discretiser)


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
    """Give an array in float32 at least, the type in which Keras computes."""
    if array.dtype.kind != "f":
        raise InputError(f"a weight has type {array.dtype}; weights must be real numbers.")
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array
