r"""The recurrent form: hidden units and memory as one state, one matrix product a step.

With T and B of `lmu_deploy.nn.weights` and m_t put into the equation of h_t,

.. math:: [h_t, m_t] = f\!\left([h_{t-1}, m_{t-1}]
          \begin{pmatrix} W_h + E_h B W_m & E_h B \\ T W_m & T \end{pmatrix}
          + x_t\, [W_x + E_x B W_m,\; E_x B] + [b + b_u B W_m,\; b_u B]\right)

where f leaves the memory's columns alone. It serves every layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmu_deploy.nn.scan import scan
from lmu_deploy.nn.sequences import at_end
from lmu_deploy.nn.weights import LMUWeights


def run_recurrent(
    weights: LMUWeights, x: Tensor, m: Tensor, h: Tensor, lengths: Tensor | None, last_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through sequences; the arguments and results of every form.

    Parameters
    ----------
    weights : LMUWeights
    x : Tensor, shape (batch, steps, n_in)
    m, h : Tensor, shape (batch, states) and (batch, units)
        State before the first step.
    lengths : Tensor of int, shape (batch,), or None
    last_only : bool

    Returns
    -------
    outputs : Tensor, shape (batch, steps, n_out), or (batch, n_out) with `last_only`
        What follows the end of a sequence has no meaning.
    m, h : Tensor
        State at the end of each sequence.
    """
    transition, encoders, bias = _fold(weights)
    by_time = x.transpose(0, 1).reshape(-1, x.shape[2])
    drive = torch.nn.functional.linear(by_time, encoders.t(), bias)
    units = weights.units
    start = torch.cat([h, m], 1)
    states = scan(drive, start, transition, units, weights.activation).transpose(0, 1)
    end = at_end(states, lengths)
    m, h = end[:, units:], end[:, :units]
    if last_only:
        return (h if units else m), m, h
    return (states[..., :units] if units else states), m, h


def _fold(weights: LMUWeights) -> tuple[Tensor, Tensor, Tensor | None]:
    """Give the step matrix (n, n), the input's weights (n_in, n) and bias (n,), n = units + m."""
    own = weights.dynamics().together()
    encoders = weights.input_encoders @ own.entry
    bias = None if weights.memory_bias is None else weights.memory_bias @ own.entry
    kernel = weights.memory_kernel
    if kernel is None:
        return own.transition, encoders, bias
    feedback = kernel.new_zeros(weights.units, weights.states)
    if weights.hidden_encoders is not None:
        feedback = weights.hidden_encoders @ own.entry
    hidden = torch.cat([_plus(feedback @ kernel, weights.recurrent_kernel), feedback], 1)
    memory = torch.cat([own.transition @ kernel, own.transition], 1)
    encoders = torch.cat([_plus(encoders @ kernel, weights.input_kernel), encoders], 1)
    if bias is not None:
        bias = torch.cat([_plus(bias @ kernel, weights.bias), bias])
    elif weights.bias is not None:
        bias = torch.cat([weights.bias, weights.bias.new_zeros(weights.states)])
    return torch.cat([hidden, memory]), encoders, bias


def _plus(a: Tensor, b: Tensor | None) -> Tensor:
    return a if b is None else a + b
