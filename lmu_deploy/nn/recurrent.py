r"""Recurrent evaluation of a layer: hidden units and memory as one state, one product per step.

With T and B of :mod:`lmu_deploy.nn.weights` and m_t substituted into the equation of h_t,

.. math:: [h_t, m_t] = f\!\left([h_{t-1}, m_{t-1}]
          \begin{pmatrix} W_h + E_h B W_m & E_h B \\ T W_m & T \end{pmatrix}
          + x_t\, [W_x + E_x B W_m,\; E_x B] + [b + b_u B W_m,\; b_u B]\right)

where f does not act on the columns of the memory. This form serves every layer. It is an instance
of the recurrence

.. math:: s_t = f(s_{t-1} W + d_t)

(:func:`scan`) where f acts on the first `active` columns: a plain RNN if all are active, a linear
recurrence if none is. The drive d is computed for all steps in advance. Forward and backward, a
step is one matrix product; the gradient of W is a single product over all steps.

:func:`run_stepwise` evaluates the equations of the layer as written, step by step. The other forms
are tested against it, and streaming uses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmu_deploy.nn.products import ACTIVATIONS, accumulator, summed_outer
from lmu_deploy.nn.sequences import at_end
from lmu_deploy.nn.weights import LMUWeights


def scan(drive: Tensor, start: Tensor, weight: Tensor, active: int, activation: str) -> Tensor:
    """Compute the recurrence ``s_t = f(s_{t-1} W + d_t)``, with autograd.

    Parameters
    ----------
    drive : Tensor, shape (steps, batch, n) or (steps * batch, n)
        Drive d, contiguous. It is overwritten with the result and must not be a view of another
        tensor.
    start : Tensor, shape (batch, n)
        State before the first step.
    weight : Tensor, shape (n, n)
    active : int
        Number of leading columns to which the activation is applied.
    activation : str
        A name in ACTIVATIONS.

    Returns
    -------
    states : Tensor, shape (steps, batch, n)
        States s of every step.
    """
    states: Tensor = _Scan.apply(drive, start, weight, active, activation)  # type: ignore[no-untyped-call]
    return states.view(-1, *start.shape)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, start: Tensor, weight: Tensor, active: int, activation: str
    ) -> Tensor:
        apply = ACTIVATIONS[activation].apply_in_place
        accumulate = accumulator(drive, start.numel() * len(weight))
        contiguous = weight.contiguous()
        before = start
        states = drive.view(-1, *start.shape)
        for state, head in zip(states.unbind(0), states[..., :active].unbind(0), strict=True):
            accumulate(state, before, contiguous)
            apply(head)
            before = state
        ctx.mark_dirty(drive)
        ctx.save_for_backward(drive, start, weight)
        ctx.active, ctx.activation = active, activation
        return drive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, start, weight = ctx.saved_tensors
        states = flat.view(-1, *start.shape)
        pull_back = ACTIVATIONS[ctx.activation].pull_back
        d_drive = gradient.clone(memory_format=torch.contiguous_format).view_as(states)
        rows = d_drive.unbind(0)
        heads = d_drive[..., : ctx.active].unbind(0)
        results = states[..., : ctx.active].unbind(0)
        accumulate = accumulator(d_drive, start.numel() * len(weight))
        transposed = weight.t().contiguous()
        for t in range(len(rows) - 1, 0, -1):
            pull_back(heads[t], results[t], heads[t])
            accumulate(rows[t - 1], rows[t], transposed)
        pull_back(heads[0], results[0], heads[0])
        d_weight = None
        if ctx.needs_input_grad[2]:
            n = weight.shape[0]
            d_weight = start.t() @ rows[0]
            outer = summed_outer(d_drive, d_drive.numel() * n)
            d_weight += outer(states[:-1].view(-1, n), d_drive[1:].view(-1, n))
        return d_drive.view_as(flat), rows[0] @ weight.t(), d_weight, None, None


def run_recurrent(
    weights: LMUWeights, x: Tensor, m: Tensor, h: Tensor, lengths: Tensor | None, last_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate sequences; arguments and results are those of every form.

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
        Values after the end of a sequence are undefined.
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
    """Return the step matrix (n, n), input weights (n_in, n) and bias (n,), n = units + states."""
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


def advance(weights: LMUWeights, x: Tensor, m: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return m and h after one step, from x (batch, n_in), m (batch, states), h (batch, units)."""
    u = x @ weights.input_encoders
    if weights.hidden_encoders is not None:
        u = u + h @ weights.hidden_encoders
    if weights.memory_encoders is not None:
        u = u + m @ weights.memory_encoders
    if weights.memory_bias is not None:
        u = u + weights.memory_bias
    separate = m.reshape(m.shape[0], weights.channels, weights.a_bar.shape[0])
    m = (separate @ weights.a_bar.t() + u.unsqueeze(2) * weights.b_bar).flatten(1)
    if weights.memory_kernel is None:
        return m, h
    z = m @ weights.memory_kernel
    if weights.input_kernel is not None:
        z = z + x @ weights.input_kernel
    if weights.recurrent_kernel is not None:
        z = z + h @ weights.recurrent_kernel
    if weights.bias is not None:
        z = z + weights.bias
    return m, ACTIVATIONS[weights.activation].apply(z)


def run_stepwise(
    weights: LMUWeights, x: Tensor, m: Tensor, h: Tensor, lengths: Tensor | None, last_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate sequences; see :func:`lmu_deploy.nn.recurrent.run_recurrent`."""
    memories, hiddens = [], []
    for x_t in x.unbind(1):
        m, h = advance(weights, x_t, m, h)
        memories.append(m)
        hiddens.append(h)
    if lengths is not None:
        m, h = at_end(torch.stack(memories, 1), lengths), at_end(torch.stack(hiddens, 1), lengths)
    if last_only:
        return (m if weights.memory_kernel is None else h), m, h
    return torch.stack(memories if weights.memory_kernel is None else hiddens, 1), m, h
