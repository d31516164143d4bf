"""The forms of an IntegerNetwork in ONNX, as calls."""

from __future__ import annotations

import onnx

from converters.onnx.quantised.kinds import IntegerKind
from converters.onnx.quantised.sequence import sequence_model
from converters.onnx.quantised.step import step_model
from converters.onnx.quantised.tally import Tally
from lmu_deploy.integer_network import IntegerNetwork


def to_onnx_integer(
    network: IntegerNetwork, *, record: bool = False, stateful: bool = False, tally: bool = False
) -> onnx.ModelProto:
    """Give the network as a model of sequences in integer operators alone.

    Run by ONNX Runtime it gives the one right value of every state, bit for bit
    (docs/integer-semantics.md).

    Parameters
    ----------
    network : IntegerNetwork
    record : bool
        Add outputs ``m``, ``h`` and ``y``, (batch, time, size): states, hidden messages and
        readouts of every step, the layers one after the other. ``h`` is left out where there is
        none.
    stateful : bool
        Take the states before the first step as inputs instead of zeros, so that a long stream can
        be run in chunks.
    tally : bool
        Add the outputs of :mod:`converters.onnx.quantised.tally`.

    Returns
    -------
    model : onnx.ModelProto
        Input ``input``, (batch, time, n_in): the input *messages*, which the metadata's
        ``formats`` say how to make: ``clip(rint(real / scale))``. Outputs: ``output``,
        (batch, n_out), or (batch, time, n_out) if the network returns sequences, to be multiplied
        by the scale of ``output``; then the states after the last step, named
        ``layer0/memory/state.next`` and so on, (batch, size). All int32.
    """
    kind = IntegerKind(Tally(network) if tally else None)
    return sequence_model(network, kind, record=record, stateful=stateful)


def to_onnx_integer_step(network: IntegerNetwork) -> onnx.ModelProto:
    """Give the network as a model of one step in integer operators alone.

    Returns
    -------
    model : onnx.ModelProto
        Inputs: ``input``, (batch, n_in), messages as for :func:`to_onnx_integer`, and each state,
        (batch, size), such as ``layer0/memory/state``. Outputs: ``output``, (batch, n_out), and
        each state after the step, with ``.next`` behind its name. All int32.
    """
    return step_model(network, IntegerKind())
