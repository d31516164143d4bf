r"""The recurrence of `lmu_deploy.nn.coupled` as one function of autograd.

Forward, a step is one product, of everything that z_k depends on with its weights in one matrix,

.. math:: h_k = f([h_{k-1}, x_k, 1, m, v_0, \dots, v_{k-1}]\; S_k)

and backward it is one product with the transposed matrix. The weights' gradients are then products
over many blocks at a time (`lmu_deploy.nn.block_sums`): of what each step starts from, [h, x, 1],
and of what each block holds, [m, v]. For these, they are kept as in `lmu_deploy.nn.history`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmu_deploy.nn.activations import ACTIVATIONS
from lmu_deploy.nn.block_sums import BlockSums
from lmu_deploy.nn.history import Arrivals, new_history, result_at, results
from lmu_deploy.nn.matmul import matmul
from lmu_deploy.nn.products import Product, summed_outer
from lmu_deploy.nn.step_weights import StepWeights


def coupled_scan(
    x: Tensor,
    m: Tensor,
    h: Tensor,
    weights: StepWeights,
    activation: str,
    ends: Tensor | None,
    last_only: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence.

    Parameters
    ----------
    x : Tensor, shape (batch, steps, n_in)
    m, h : Tensor, shape (batch, states) and (batch, units)
        State before the first step.
    weights : StepWeights
    activation : str
    ends : Tensor of int64, shape (batch,), or None
        Number of steps of each sequence; None when all go to the end of x.
    last_only : bool
        Give no sequence of h.

    Returns
    -------
    hiddens : Tensor, shape (batch, steps, units), or (0,) with `last_only`
        h.
    h : Tensor, shape (batch, units)
        h at the end of each sequence.
    held : Tensor, shape (blocks, batch, states + L * channels)
        The memory before each block, and the v of its steps.
    """
    tensors = weights.tensors()
    pulled = torch.is_grad_enabled() and any(t.requires_grad for t in (x, m, h, *tensors))
    if last_only and ends is None and not pulled:
        # nobody asks for h on the way, so what a step works on stays in the processor's caches
        h, held = _go_forward(weights, activation, x, m, h, None)
        return h.new_empty(0), h, held
    if ends is None:
        ends = torch.full((len(x),), x.shape[1], device=x.device)
    found: tuple[Tensor, Tensor, Tensor] = _CoupledScan.apply(  # type: ignore[no-untyped-call]
        x, m, h, activation, ends, last_only, *tensors
    )
    return found


class _CoupledScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        m: Tensor,
        h: Tensor,
        activation: str,
        ends: Tensor,
        last_only: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights, steps = StepWeights(*tensors), x.shape[1]
        before = new_history(x, steps, weights.length, weights.memory.start)
        last, held = _go_forward(weights, activation, x, m, h, before)
        ctx.save_for_backward(before, last, held, ends, *tensors)
        ctx.activation, ctx.steps, ctx.last_only = activation, steps, last_only
        own = before[..., : weights.units]
        hiddens = h.new_empty(0) if last_only else results(own, last, steps)
        return hiddens, result_at(own, last, steps, ends), held

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_hiddens: Tensor, d_h: Tensor, d_held: Tensor
    ) -> tuple[Tensor | None, ...]:
        before, after, held, ends, *tensors = ctx.saved_tensors
        weights, steps = StepWeights(*tensors), ctx.steps
        length, units, states = weights.length, weights.units, len(weights.enter[0])
        width = units + weights.channels
        # takes the gradients of z and v at every step
        sums = BlockSums(before, held, width, steps)
        n_in = weights.memory.start - units - 1
        d_x = new_history(after, steps, length, n_in) if ctx.needs_input_grad[0] else None
        to_x = weights.begin[units:-1].t()
        pull_back = ACTIVATIONS[ctx.activation].pull_back
        times = Product(after, len(after) * weights.columns * width)
        stack = times.lay(weights.stack().transpose(1, 2)).unbind(0)
        carried = weights.carry.t().contiguous()
        arrivals = Arrivals(None if ctx.last_only else d_hiddens, d_h, ends)
        gradient, d_row = torch.zeros_like(after), after.new_empty(len(after), width)
        d_z, d_v = d_row[:, :units], d_row[:, units:]
        d_later = torch.zeros_like(held[..., :states])
        d_block = held.new_zeros(held.shape[1:])
        for t in range(steps - 1, -1, -1):
            block, k = divmod(t, length)
            if k == length - 1 or t == steps - 1:
                d_next, d_block = d_block[:, :states], d_held[block].clone()
                d_m, d_values = d_block[:, :states], d_block[:, states:]
                d_later[block] = d_next
                d_m += matmul(d_next.reshape(-1, len(carried)), carried).view_as(d_m)
                d_values.addmm_(d_next, weights.enter.t())
                v = torch.split(d_values, weights.channels, 1)
            arrivals.add(gradient, t)
            pull_back(gradient, after, d_z)
            d_v.copy_(v[k])
            if (complete := sums.put(d_row, t)) is not None and d_x is not None:
                blocks, back = complete
                d_x[blocks] = matmul(back, to_x)
            d_starts = times(d_row, stack[k])
            gradient = d_starts[:, :units]
            # what comes later has no part in this step, so its weights and gradients are zero
            d_block += d_starts[:, weights.memory.start : weights.memory.start + d_block.shape[1]]
            after = before[block, :, k, :units]
        d_x = None if d_x is None else d_x.transpose(0, 1).flatten(1, 2)[:, :steps]
        d_weights = _weight_gradients(ctx, sums, d_later)
        return d_x, d_block[:, :states], gradient, None, None, None, *d_weights


def _go_forward(
    weights: StepWeights, activation: str, x: Tensor, m: Tensor, h: Tensor, history: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Fill `history`, where given, with [h, x, 1] of each step; give the last h, and [m, v]."""
    (batch, steps, n_in), length = x.shape, weights.length
    units, states, begin = weights.units, m.shape[1], weights.memory.start
    advance = Product(x, batch * weights.columns * units, activation)
    to_z, to_v = weights.laid(advance)
    row = x.new_zeros(batch, weights.columns)
    row[:, begin - 1] = 1.0
    own, inputs, beginning = row[:, :units], row[:, units : units + n_in], row[:, :begin]
    holds, values = row[:, begin:], row[:, begin + states :]
    v = torch.split(values, weights.channels, 1)
    held = x.new_empty(-(-steps // length), *holds.shape)
    row[:, weights.memory] = m
    for t, now in enumerate(x.transpose(0, 1).contiguous().unbind(0)):
        block, k = divmod(t, length)
        if k == 0 and block:
            held[block - 1] = holds
            moved = matmul(m.reshape(-1, len(weights.carry)), weights.carry).view_as(m)
            m = torch.addmm(moved, values, weights.enter)
            row[:, weights.memory] = m
            values.zero_()
        own.copy_(h)
        inputs.copy_(now)
        if history is not None:
            history[block, :, k] = beginning
        h = advance(row, to_z[k])[:, :units]
        v[k].copy_(row @ to_v[k])
    held[-1] = holds
    return h.contiguous(), held


def _weight_gradients(ctx: Any, sums: BlockSums, d_later: Tensor) -> list[Tensor | None]:
    """Give the gradients of the step's weights.

    `d_later` is that of the memory after each block.
    """
    _, _, held, _, *tensors = ctx.saved_tensors
    weights = StepWeights(*tensors)
    channels, states = weights.channels, len(weights.enter[0])
    _, _, _, carry, enter = ctx.needs_input_grad[6:]
    from_held = sums.by_block
    d_kernels = torch.zeros_like(weights.kernels)
    for k in range(1, weights.length):
        d_kernels[-k * channels :] += from_held[k, states : states + k * channels]
    d_carry = d_enter = None
    if carry:
        later = d_later.view(-1, len(weights.carry))
        outer = summed_outer(held, later.numel() * len(weights.carry))
        d_carry = outer(held[..., :states].reshape(later.shape), later)
    if enter:
        d_enter = held[..., states:].flatten(0, 1).t() @ d_later.flatten(0, 1)
    return [sums.by_step, from_held[:, :states], d_kernels, d_carry, d_enter]
