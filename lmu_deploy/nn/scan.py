r"""A recurrence over all time with one matrix product a step, forward and backward.

.. math:: s_t = f(s_{t-1} W + d_t)

where f acts on the first `active` columns and leaves the others as they are. It is a plain RNN
(all columns active), a linear recurrence (none), and a whole LMU (hidden units active, memory not).
The drive d is computed for all time before; backward, each step is again one matrix product and
the gradient of W is a single product over all time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmu_deploy.nn.activations import ACTIVATIONS
from lmu_deploy.nn.products import accumulator, summed_outer


def scan(drive: Tensor, start: Tensor, weight: Tensor, active: int, activation: str) -> Tensor:
    """Run the recurrence.

    Parameters
    ----------
    drive : Tensor, shape (steps, batch, n) or (steps * batch, n)
        d, contiguous, step after step. It is overwritten with the result: give one that nobody
        else needs and that is no view of another tensor.
    start : Tensor, shape (batch, n)
        State before the first step.
    weight : Tensor, shape (n, n)
    active : int
        Number of leading columns that the activation acts on.
    activation : str
        A name in ACTIVATIONS.

    Returns
    -------
    states : Tensor, shape (steps, batch, n)
        s of every step.
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
