r"""The form for hidden units that feed back into a large memory: blocks, each step by step.

Only the few channels of v_t carry the feedback, so within a block of L steps
(`lmu_deploy.nn.blocks`) the memory's own matrix is not needed: with K_i = B T^i W_m and
P_k = T^(k+1) W_m,

.. math:: [z_k, v_k] = d_k + [m P_k, 0] + h_{k-1} [W_h + E_h K_0,\; E_h]
          + \Big[\sum_{j<k} v_j K_{k-j}, 0\Big], \qquad h_k = f(z_k)

with d_k = x_k [W_x + E_x K_0, E_x] + [b + b_u K_0, b_u] computed for all time before. That is
order * units + units^2 products a step, where the plain step needs order^2 more. Backward mirrors
it, and every weight's gradient is one product over all time.

Steps are kept as (phase, block, batch): step t is phase t mod L of block t div L, so that all steps
of a phase, and of all phases, are one matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad

from lmu_deploy.nn.activations import ACTIVATIONS
from lmu_deploy.nn.blocks import Blocks, best_length
from lmu_deploy.nn.weights import LMUWeights


def run_coupled(
    weights: LMUWeights,
    x: Tensor,
    m: Tensor,
    h: Tensor,
    lengths: Tensor | None,
    last_only: bool,
    length: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through sequences; see :func:`lmu_deploy.nn.recurrent.run_recurrent`.

    The layer must have hidden encoders. `length` is that of blocks, else the best is taken.
    """
    kernel, feedback = weights.memory_kernel, weights.hidden_encoders
    assert kernel is not None
    assert feedback is not None
    batch, steps, _ = x.shape
    dynamics = weights.dynamics()
    length = length or best_length(dynamics, weights.units, batch, steps, 0.5)
    blocks = Blocks.of(dynamics, length)
    kernels = blocks.kernels(kernel)
    encoders, bias = _fold_input(weights, kernels[0])
    own = feedback @ kernels[0]
    if weights.recurrent_kernel is not None:
        own = own + weights.recurrent_kernel
    results, starts = coupled_scan(
        linear(_to_phases(x, length), encoders.t(), bias),  # a tensor of its own, not a view
        m,
        h,
        torch.cat([own, feedback], 1),
        blocks.reach(kernel),
        kernels[1:].flip(0).reshape(-1, weights.units),
        blocks.carry,
        blocks.enter,
        steps,
        weights.activation,
    )
    ends = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
    results = results.view(length, -1, batch, encoders.shape[1])
    inputs = results[..., weights.units :].permute(2, 1, 0, 3).flatten(2)
    m = blocks.state_at(inputs, starts.transpose(0, 1), ends)
    h = results[(ends - 1) % length, (ends - 1) // length, torch.arange(batch), : weights.units]
    if last_only:
        return h, m, h
    hiddens = results[..., : weights.units].permute(2, 1, 0, 3).flatten(1, 2)
    return hiddens[:, :steps], m, h


def _fold_input(weights: LMUWeights, first: Tensor) -> tuple[Tensor, Tensor | None]:
    """Give the weights (n_in, units + channels) and bias of what the input alone drives."""
    direct = weights.input_encoders @ first
    if weights.input_kernel is not None:
        direct = direct + weights.input_kernel
    encoders = torch.cat([direct, weights.input_encoders], 1)
    if weights.bias is None and weights.memory_bias is None:
        return encoders, None
    zero = first.new_zeros
    bias = zero(weights.units) if weights.bias is None else weights.bias
    enters = zero(weights.channels) if weights.memory_bias is None else weights.memory_bias
    return encoders, torch.cat([bias + enters @ first, enters])


def _to_phases(x: Tensor, length: int) -> Tensor:
    """Arrange (batch, steps, n) as (phases * blocks * batch, n), with zeros after the end."""
    padded = pad(x, (0, 0, 0, -x.shape[1] % length))
    arranged = padded.view(len(x), -1, length, x.shape[2]).permute(2, 1, 0, 3)
    return arranged.reshape(-1, x.shape[2])


def coupled_scan(
    drive: Tensor,
    m: Tensor,
    h: Tensor,
    own: Tensor,
    reach: Tensor,
    kernels: Tensor,
    carry: Tensor,
    enter: Tensor,
    steps: int,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence of this module.

    Parameters
    ----------
    drive : Tensor, shape (phases * blocks * batch, units + channels)
        d; overwritten with the result, and no view of anything.
    m, h : Tensor, shape (batch, states) and (batch, units)
        State before the first step.
    own : Tensor, shape (units, units + channels)
        [W_h + E_h K_0, E_h].
    reach : Tensor, shape (phases, states, units)
        P.
    kernels : Tensor, shape ((phases - 1) * channels, units)
        K_(L-1) to K_1, in this order.
    carry : Tensor, shape (size, size)
        T^L of each group of `size` states.
    enter : Tensor, shape (phases * channels, states)
    steps : int
    activation : str

    Returns
    -------
    results : Tensor, shape (phases * blocks * batch, units + channels)
        h and v of every step; zero after the last.
    starts : Tensor, shape (blocks, batch, states)
        The memory before each block.
    """
    results: tuple[Tensor, Tensor] = _Coupled.apply(  # type: ignore[no-untyped-call]
        drive, m, h, own, reach, kernels, carry, enter, steps, activation
    )
    return results


class _Coupled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        drive: Tensor,
        m: Tensor,
        h: Tensor,
        own: Tensor,
        reach: Tensor,
        kernels: Tensor,
        carry: Tensor,
        enter: Tensor,
        steps: int,
        activation: str,
    ) -> tuple[Tensor, Tensor]:
        length, batch, (units, width) = len(reach), len(h), own.shape
        channels = width - units
        flat, drive = drive, drive.view(length, -1, batch, width)
        count = drive.shape[1]
        apply = ACTIVATIONS[activation].apply_in_place
        starts = m.new_empty(count, batch, m.shape[1])
        entered = m.new_zeros(count, batch, length * channels)
        drive[(steps - 1) % length + 1 :, -1] = 0.0
        before = h
        for block in range(count):
            start, inputs = starts[block], entered[block]
            start.copy_(m)
            phases = min(length, steps - block * length)
            active = drive[:phases, block]
            active[..., :units].baddbmm_(start.expand(phases, -1, -1), reach[:phases])
            rows, heads = active.unbind(0), active[..., :units].unbind(0)
            for k in range(phases):
                rows[k].addmm_(before, own)
                before = heads[k]
                if k:
                    before.addmm_(inputs[:, : k * channels], kernels[-k * channels :])
                inputs[:, k * channels : (k + 1) * channels] = rows[k][:, units:]
                apply(before)
            if block < count - 1:
                moved = start.view(-1, len(carry)) @ carry
                m = torch.addmm(moved.view_as(start), inputs, enter)
        ctx.mark_dirty(flat)
        ctx.save_for_backward(flat, starts, entered, h, own, reach, kernels, carry, enter)
        ctx.steps, ctx.activation = steps, activation
        return flat, starts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_results: Tensor, d_starts: Tensor) -> tuple[Tensor | None, ...]:
        results, starts, _, h, own, reach, kernels, carry, enter = ctx.saved_tensors
        length, batch, (units, width) = len(reach), len(h), own.shape
        channels = width - units
        results = results.view(length, -1, batch, width)
        count = results.shape[1]
        pull_back = ACTIVATIONS[ctx.activation].pull_back
        d_drive = d_results.clone(memory_format=torch.contiguous_format).view_as(results)
        d_drive[(ctx.steps - 1) % length + 1 :, -1] = 0.0
        d_later = torch.zeros_like(starts)  # for the memory after each block
        d_start, d_h = torch.zeros_like(starts[0]), torch.zeros_like(h)
        own_back, carry_back, enter_back = own.t(), carry.t(), enter.t()
        kernels_back, reach_back = kernels.t(), reach.transpose(1, 2)
        for block in range(count - 1, -1, -1):
            phases = min(length, ctx.steps - block * length)
            d_active = d_drive[:phases, block]
            rows, heads = d_active.unbind(0), d_active[..., :units].unbind(0)
            hiddens = results[:phases, block, :, :units].unbind(0)
            # gathers what each v gives later in the block and, by d_later, after it
            d_inputs = d_active[..., units:].transpose(0, 1).flatten(1)
            d_inputs = torch.nn.functional.pad(d_inputs, (0, (length - phases) * channels))
            if block < count - 1:
                d_later[block] = d_start
                d_inputs = torch.addmm(d_inputs, d_start, enter_back)
                d_start = (d_start.view(-1, len(carry)) @ carry_back).view_as(d_start)
            for k in range(phases - 1, -1, -1):
                pull_back(heads[k], hiddens[k])
                if k:
                    d_inputs[:, : k * channels].addmm_(heads[k], kernels_back[:, -k * channels :])
                rows[k][:, units:] = d_inputs[:, k * channels : (k + 1) * channels]
                before = heads[k - 1] if k else d_drive[-1, block - 1, :, :units] if block else d_h
                before.addmm_(rows[k], own_back)
            d_start = d_start + d_starts[block]
            d_start += torch.bmm(d_active[..., :units], reach_back[:phases]).sum(0)
        d_weights = _weight_gradients(ctx, d_drive, d_later)
        return d_drive.view(-1, width), d_start, d_h, *d_weights, None, None


def _weight_gradients(ctx: Any, d_drive: Tensor, d_later: Tensor) -> list[Tensor | None]:
    """Give the gradients of own, reach, kernels, carry and enter, those that are needed."""
    results, starts, entered, h, own, reach, kernels, carry, _ = ctx.saved_tensors
    units, width = own.shape
    channels = width - units
    results = results.view_as(d_drive)
    needed = ctx.needs_input_grad[3:8]
    by_phase = d_drive.view(len(d_drive), -1, width)
    inputs = entered.flatten(0, 1)
    d_own = d_reach = d_kernels = d_carry = d_enter = None
    if needed[0]:
        d_own = h.t() @ d_drive[0, 0]
        d_own.addmm_(results[-1, :-1].flatten(0, 1)[:, :units].t(), d_drive[0, 1:].flatten(0, 1))
        d_own.addmm_(results[:-1].flatten(0, 2)[:, :units].t(), by_phase[1:].flatten(0, 1))
    if needed[1]:
        d_reach = torch.empty_like(reach)
        for k, gradient in enumerate(by_phase[..., :units]):
            torch.mm(starts.flatten(0, 1).t(), gradient, out=d_reach[k])
    if needed[2]:
        d_kernels = torch.zeros_like(kernels)
        for k, gradient in enumerate(by_phase[1:, :, :units], start=1):
            d_kernels[-k * channels :].addmm_(inputs[:, : k * channels].t(), gradient)
    if needed[3]:
        size = len(carry)
        d_carry = starts[:-1].reshape(-1, size).t() @ d_later[:-1].reshape(-1, size)
    if needed[4]:
        d_enter = entered[:-1].flatten(0, 1).t() @ d_later[:-1].flatten(0, 1)
    return [d_own, d_reach, d_kernels, d_carry, d_enter]
