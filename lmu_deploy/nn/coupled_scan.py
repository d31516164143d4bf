r"""The recurrence of `lmu_deploy.nn.coupled` as one function of autograd.

Forward, a step is one product, of everything that z_k depends on with its weights in one matrix,

.. math:: h_k = f([h_{k-1}, x_k, 1, m, v_0, \dots, v_{k-1}]\; S_k)

and backward it is one product with the transposed matrix. Each weight's gradient is then one
product over all time. For these, steps are kept as (phase, block, batch): step t is phase t mod L
of block t div L, so that all steps of a phase, and of all phases, are one matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmu_deploy.nn.activations import ACTIVATIONS
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
    starts : Tensor, shape (blocks, batch, states)
        The memory before each block.
    entered : Tensor, shape (blocks, batch, L * channels)
        v.
    """
    tensors = weights.tensors()
    pulled = torch.is_grad_enabled() and any(t.requires_grad for t in (x, m, h, *tensors))
    if last_only and ends is None and not pulled:
        # nobody asks for h on the way, so what a step works on stays in the processor's caches
        h, starts, entered = _go_forward(weights, activation, x, m, h, None)
        return h.new_empty(0), h, starts, entered
    if ends is None:
        ends = torch.full((len(x),), x.shape[1], device=x.device)
    results: tuple[Tensor, Tensor, Tensor, Tensor] = _CoupledScan.apply(  # type: ignore[no-untyped-call]
        x, m, h, activation, ends, last_only, *tensors
    )
    return results


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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weights = StepWeights(*tensors)
        length, batch, steps = weights.length, len(x), x.shape[1]
        phases = h.new_empty(length, -(-steps // length), batch, weights.units)
        phases[(steps - 1) % length + 1 :, -1] = 0.0
        _, starts, entered = _go_forward(weights, activation, x, m, h, phases)
        places = (ends - 1) % length, (ends - 1) // length, torch.arange(batch, device=x.device)
        hiddens = h.new_empty(0)
        if not last_only:
            hiddens = phases.permute(2, 1, 0, 3).flatten(1, 2)[:, :steps].contiguous()
        ctx.save_for_backward(x, h, phases, starts, entered, *tensors)
        ctx.activation, ctx.places, ctx.last_only = activation, places, last_only
        return hiddens, phases[places], starts, entered

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_hiddens: Tensor, d_h: Tensor, d_starts: Tensor, d_entered: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, h, phases, starts, _, *tensors = ctx.saved_tensors
        weights = StepWeights(*tensors)
        length, units = weights.length, weights.units
        # of z and v at every step; at first it holds what comes to h from outside
        d_drive = h.new_zeros(*phases.shape[:3], units + weights.channels)
        d_phases = d_drive[..., :units]
        if not ctx.last_only:
            by_time = d_phases.permute(2, 1, 0, 3)
            for block in range(phases.shape[1]):
                d_block = d_hiddens[:, block * length : (block + 1) * length]
                by_time[:, block, : d_block.shape[1]] = d_block
        d_phases[ctx.places] += d_h
        d_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        d_m, d_first, d_later = d_starts[-1], torch.zeros_like(h), torch.zeros_like(starts)
        pull_back = ACTIVATIONS[ctx.activation].pull_back
        stack = weights.stack().transpose(1, 2).contiguous().unbind(0)
        times = Product(h, d_drive[0, 0].numel() * stack[0].shape[1])
        parts = [units, x.shape[2], 1, starts.shape[2], length * weights.channels]
        for block in range(phases.shape[1] - 1, -1, -1):
            rows, tails = d_drive[:, block].unbind(0), d_drive[:, block, :, units:].unbind(0)
            heads, hiddens = d_phases[:, block].unbind(0), phases[:, block].unbind(0)
            d_values = d_entered[block].clone()
            if block < phases.shape[1] - 1:
                d_later[block] = d_m
                d_values.addmm_(d_m, weights.enter.t())
                d_m = (d_m.reshape(-1, len(weights.carry)) @ weights.carry.t()).view_as(d_m)
                d_m += d_starts[block]
            else:
                d_m = d_m.clone()
            own_values = torch.split(d_values, weights.channels, 1)
            before = d_phases[-1, block - 1] if block else d_first
            for k in range(min(length, x.shape[1] - block * length) - 1, -1, -1):
                pull_back(heads[k], hiddens[k])
                tails[k].copy_(own_values[k])
                d_row = times(rows[k], stack[k])
                d_h, d_input, _, d_memory, d_past = torch.split(d_row, parts, 1)
                (heads[k - 1] if k else before).add_(d_h)
                d_m.add_(d_memory)
                # what comes later has no part in this step, so its weights and gradients are zero
                d_values.add_(d_past)
                if d_x is not None:
                    d_x[:, block * length + k] = d_input
        d_weights = _weight_gradients(ctx, d_drive, d_later)
        return d_x, d_m, d_first, None, None, None, *d_weights


def _go_forward(
    weights: StepWeights, activation: str, x: Tensor, m: Tensor, h: Tensor, phases: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill `phases` with h, where given; give the last h, the memory before each block, and v."""
    (batch, steps, n_in), length = x.shape, weights.length
    units, channels, begin = weights.units, weights.channels, weights.memory.start
    count = -(-steps // length)
    starts = m.new_empty(count, batch, m.shape[1])
    entered = m.new_empty(count, batch, length * channels)
    forward = weights.forward
    advance = Product(x, batch * forward[0].numel(), activation)
    row = x.new_zeros(batch, len(forward[0]))
    row[:, begin - 1] = 1.0
    own, inputs, beginning = row[:, :units], row[:, units : units + n_in], row[:, :begin]
    values = row[:, weights.entered(0, length)]
    v = torch.split(values, channels, 1)
    by_time = x.transpose(0, 1).contiguous().unbind(0)
    for block in range(count):
        starts[block] = m
        row[:, weights.memory] = m
        values.zero_()
        for k, now in enumerate(by_time[block * length : (block + 1) * length]):
            own.copy_(h)
            inputs.copy_(now)
            h = advance(row, forward[k])
            torch.mm(beginning, weights.encoders, out=v[k])
            if phases is not None:
                phases[k, block] = h
        entered[block] = values
        if block < count - 1:
            moved = (m.reshape(-1, len(weights.carry)) @ weights.carry).view_as(m)
            m = torch.addmm(moved, values, weights.enter)
    return h, starts, entered


def _weight_gradients(ctx: Any, d_drive: Tensor, d_later: Tensor) -> list[Tensor | None]:
    """Give the gradients of the step's weights, those that are needed."""
    x, h, phases, starts, entered, *tensors = ctx.saved_tensors
    weights = StepWeights(*tensors)
    units, channels = weights.units, weights.channels
    own, direct, encoders, reach, kernels, carry, enter = ctx.needs_input_grad[6:]
    by_phase = d_drive.flatten(1, 2)
    outer = summed_outer(h, by_phase[0].numel() * units)
    found: list[Tensor | None] = [None] * 7
    if own or direct or encoders:
        before = torch.cat([h.unsqueeze(0), phases[-1, :-1]]).flatten(0, 1)
        from_h = outer(before, by_phase[0])
        for k in range(1, weights.length):
            from_h = from_h + outer(phases[k - 1].flatten(0, 1), by_phase[k])
        from_x = _inputs_by_phase(x, weights.length).t() @ by_phase.flatten(0, 1)
        found[0], found[1] = from_h[:, :units], from_x[:, :units]
        found[2] = torch.cat([from_h[:, units:], from_x[:, units:]])
    if reach:
        memories = starts.flatten(0, 1)
        found[3] = torch.stack([outer(memories, gradient)[:, :units] for gradient in by_phase])
    if kernels:
        found[4] = d_kernels = torch.zeros_like(weights.kernels)
        inputs = entered.flatten(0, 1)
        for k, gradient in enumerate(by_phase[1:, :, :units], start=1):
            d_kernels[-k * channels :].addmm_(inputs[:, : k * channels].t(), gradient)
    if carry:
        size = len(weights.carry)
        found[5] = starts[:-1].reshape(-1, size).t() @ d_later[:-1].reshape(-1, size)
    if enter:
        found[6] = entered[:-1].flatten(0, 1).t() @ d_later[:-1].flatten(0, 1)
    return found


def _inputs_by_phase(x: Tensor, length: int) -> Tensor:
    """Arrange [x, 1], (batch, steps, n_in), as (phases * blocks * batch, n_in + 1)."""
    padded = torch.nn.functional.pad(x, (0, 1), value=1.0)
    padded = torch.nn.functional.pad(padded, (0, 0, 0, -x.shape[1] % length))
    arranged = padded.view(len(x), -1, length, padded.shape[2]).permute(2, 1, 0, 3)
    return arranged.reshape(-1, padded.shape[2])
