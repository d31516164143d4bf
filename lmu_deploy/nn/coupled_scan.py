"""The recurrence of `lmu_deploy.nn.coupled` as one function of autograd.

Steps are kept as (phase, block, batch): step t is phase t mod L of block t div L, so that all
steps of a phase, and of all phases, are one matrix. Forward and backward go step by step, each with
one large product; each weight's gradient is one product over all time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmu_deploy.nn.activations import ACTIVATIONS


@dataclass(frozen=True)
class _Layout:
    """Sizes that forward and backward share."""

    length: int
    count: int
    batch: int
    units: int
    channels: int
    steps: int

    def phases(self, block: int) -> int:
        """Give the number of steps in a block; the last one may be short."""
        return min(self.length, self.steps - block * self.length)


def coupled_scan(
    drive: Tensor,
    m: Tensor,
    h: Tensor,
    own: Tensor,
    reach: Tensor,
    kernels: Tensor,
    carry: Tensor,
    enter: Tensor,
    *,
    ends: Tensor,
    steps: int,
    activation: str,
    last_only: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run the recurrence.

    Parameters
    ----------
    drive : Tensor, shape (phases * blocks * batch, units + channels)
        d; overwritten, and no view of anything.
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
    ends : Tensor of int64, shape (batch,)
        Number of steps of each sequence.
    steps : int
        The largest of them, or more.
    activation : str
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
    entered : Tensor, shape (blocks, batch, phases * channels)
        v.
    """
    results: tuple[Tensor, Tensor, Tensor, Tensor] = _CoupledScan.apply(  # type: ignore[no-untyped-call]
        drive, m, h, own, reach, kernels, carry, enter, ends, steps, activation, last_only
    )
    return results


class _CoupledScan(torch.autograd.Function):
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
        ends: Tensor,
        steps: int,
        activation: str,
        last_only: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        length, batch, (units, width) = len(reach), len(h), own.shape
        layout = _Layout(length, -(-steps // length), batch, units, width - units, steps)
        results = drive.detach().view(length, layout.count, batch, width)
        starts = m.new_empty(layout.count, batch, m.shape[1])
        entered = m.new_zeros(layout.count, batch, length * layout.channels)
        matrices = own, reach, kernels, carry, enter
        _go_forward(layout, activation, results, starts, entered, m, h, *matrices)
        places = (ends - 1) % length, (ends - 1) // length, torch.arange(batch, device=h.device)
        h_end = results[..., :units][places]
        hiddens = h.new_empty(0)
        if not last_only:
            by_time = results[..., :units].permute(2, 1, 0, 3).flatten(1, 2)
            hiddens = by_time[:, :steps].contiguous()
        ctx.save_for_backward(results, starts, entered, h, *matrices)
        ctx.layout, ctx.activation = layout, activation
        ctx.places, ctx.last_only = places, last_only
        return hiddens, h_end, starts, entered

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_hiddens: Tensor, d_h: Tensor, d_starts: Tensor, d_entered: Tensor
    ) -> tuple[Tensor | None, ...]:
        results, starts = ctx.saved_tensors[:2]
        units, length = ctx.layout.units, ctx.layout.length
        d_drive = torch.zeros_like(results)
        if not ctx.last_only:
            by_time = d_drive[..., :units].permute(2, 1, 0, 3)
            for block in range(ctx.layout.count):
                d_block = d_hiddens[:, block * length : (block + 1) * length]
                by_time[:, block, : d_block.shape[1]] = d_block
        d_drive[..., :units][ctx.places] += d_h
        d_later = torch.zeros_like(starts)
        d_m, d_first = _go_back(ctx, d_drive, d_later, d_starts, d_entered)
        d_weights = _weight_gradients(ctx, d_drive, d_later)
        return d_drive.view(-1, d_drive.shape[3]), d_m, d_first, *d_weights, *[None] * 4


def _go_forward(
    layout: _Layout,
    activation: str,
    results: Tensor,
    starts: Tensor,
    entered: Tensor,
    m: Tensor,
    before: Tensor,
    own: Tensor,
    reach: Tensor,
    kernels: Tensor,
    carry: Tensor,
    enter: Tensor,
) -> None:
    """Turn the drive in `results` into h and v; fill `starts` and `entered`."""
    apply = ACTIVATIONS[activation].apply_in_place
    units, channels = layout.units, layout.channels
    for block in range(layout.count):
        phases = layout.phases(block)
        start, inputs = starts[block].copy_(m), entered[block]
        hiddens = results[:phases, block, :, :units]
        hiddens.baddbmm_(start.expand(phases, -1, -1), reach[:phases])
        rows, heads = results[:phases, block].unbind(0), hiddens.unbind(0)
        for k in range(phases):
            rows[k].addmm_(before, own)
            before = heads[k]
            if k:
                before.addmm_(inputs[:, : k * channels], kernels[-k * channels :])
            inputs[:, k * channels : (k + 1) * channels] = rows[k][:, units:]
            apply(before)
        if block < layout.count - 1:
            moved = start.view(-1, len(carry)) @ carry
            m = torch.addmm(moved.view_as(start), inputs, enter)


def _go_back(
    ctx: Any, d_drive: Tensor, d_later: Tensor, d_starts: Tensor, d_entered: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn the gradient of h in `d_drive` into that of the drive; give those of m and h.

    `d_later` is filled with the gradient of the memory after each block.
    """
    results, starts, _, h, own, reach, kernels, carry, enter = ctx.saved_tensors
    layout: _Layout = ctx.layout
    units, channels = layout.units, layout.channels
    pull_back = ACTIVATIONS[ctx.activation].pull_back
    d_m, d_first = torch.zeros_like(starts[0]), torch.zeros_like(h)
    own_back, carry_back, enter_back = own.t(), carry.t(), enter.t()
    kernels_back, reach_back = kernels.t(), reach.transpose(1, 2)
    for block in range(layout.count - 1, -1, -1):
        phases = layout.phases(block)
        rows = d_drive[:phases, block].unbind(0)
        d_hiddens = d_drive[:phases, block, :, :units]
        heads, hiddens = d_hiddens.unbind(0), results[:phases, block, :, :units].unbind(0)
        # what each v gives after the block, and then what it gives later in it
        d_inputs = d_entered[block].clone()
        if block < layout.count - 1:
            d_later[block] = d_m
            d_inputs.addmm_(d_m, enter_back)
            d_m = (d_m.view(-1, len(carry)) @ carry_back).view_as(d_m)
        for k in range(phases - 1, -1, -1):
            pull_back(heads[k], hiddens[k])
            if k:
                d_inputs[:, : k * channels].addmm_(heads[k], kernels_back[:, -k * channels :])
            rows[k][:, units:] = d_inputs[:, k * channels : (k + 1) * channels]
            before = heads[k - 1] if k else d_drive[-1, block - 1, :, :units] if block else d_first
            before.addmm_(rows[k], own_back)
        d_m = d_m + d_starts[block]
        d_m += torch.bmm(d_hiddens, reach_back[:phases]).sum(0)
    return d_m, d_first


def _weight_gradients(ctx: Any, d_drive: Tensor, d_later: Tensor) -> list[Tensor | None]:
    """Give the gradients of own, reach, kernels, carry and enter, those that are needed."""
    results, starts, entered, h, own, reach, kernels, carry, _ = ctx.saved_tensors
    units, width = own.shape
    channels = width - units
    needed = ctx.needs_input_grad[3:8]
    by_phase = d_drive.view(len(d_drive), -1, width)
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
        inputs = entered.flatten(0, 1)
        for k, gradient in enumerate(by_phase[1:, :, :units], start=1):
            d_kernels[-k * channels :].addmm_(inputs[:, : k * channels].t(), gradient)
    if needed[3]:
        size = len(carry)
        d_carry = starts[:-1].reshape(-1, size).t() @ d_later[:-1].reshape(-1, size)
    if needed[4]:
        d_enter = entered[:-1].flatten(0, 1).t() @ d_later[:-1].flatten(0, 1)
    return [d_own, d_reach, d_kernels, d_carry, d_enter]
