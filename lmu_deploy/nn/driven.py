r"""Evaluation of layers with a large memory driven by the input only and recurrent hidden units.

The memory is evaluated in blocks (:mod:`lmu_deploy.nn.parallel`), the hidden units step by step.
With F and S of :mod:`lmu_deploy.nn.parallel`, a step forward is the single product

.. math:: h_k = f([h_{k-1}, F]\; [W_h; S_k])

so the drive is never stored and the activation is fused with the product. A step backward is one
product with the transposed W_h; the gradients of W_h, S and F are products over many blocks at a
time (:mod:`lmu_deploy.nn.blocks`), for which the forward pass stores the history of h.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmu_deploy.nn.blocks import BlockSums, OutputGradients, new_history, result_at, results
from lmu_deploy.nn.parallel import drive_by_blocks
from lmu_deploy.nn.products import ACTIVATIONS, Product, matmul
from lmu_deploy.nn.weights import LMUWeights


def driven_scan(
    features: Tensor,
    weights: Tensor,
    own: Tensor,
    h: Tensor,
    activation: str,
    ends: Tensor,
    steps: int,
    last_only: bool,
) -> tuple[Tensor, Tensor]:
    """Compute the recurrence of the hidden units under a given drive, with gradients.

    Parameters
    ----------
    features : Tensor, shape (blocks, batch, K)
        F, contiguous.
    weights : Tensor, shape (L, K, units)
        S.
    own : Tensor, shape (units, units)
        W_h.
    h : Tensor, shape (batch, units)
        h before the first step.
    activation : str
    ends : Tensor of int64, shape (batch,)
        Length of each sequence.
    steps : int
        Length of the longest sequence.
    last_only : bool
        Do not return the sequence of h.

    Returns
    -------
    hiddens : Tensor, shape (batch, steps, units), or (0,) with `last_only`
        h.
    h : Tensor, shape (batch, units)
        h at the end of each sequence.
    """
    tensors = features, weights, own, h
    pulled = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if last_only and not pulled and bool((ends == steps).all()):
        # Without a history the operands of a step stay in the caches of the processor.
        return h.new_empty(0), _go_forward(*tensors, activation, steps, None)
    found: tuple[Tensor, Tensor] = _DrivenScan.apply(  # type: ignore[no-untyped-call]
        *tensors, activation, ends, steps, last_only
    )
    return found


class _DrivenScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weights: Tensor,
        own: Tensor,
        h: Tensor,
        activation: str,
        ends: Tensor,
        steps: int,
        last_only: bool,
    ) -> tuple[Tensor, Tensor]:
        before = new_history(h, steps, len(weights), len(own))
        last = _go_forward(features, weights, own, h, activation, steps, before)
        ctx.save_for_backward(features, weights, own, h, before, last, ends)
        ctx.activation, ctx.steps, ctx.last_only = activation, steps, last_only
        hiddens = h.new_empty(0) if last_only else results(before, last, steps)
        return hiddens, result_at(before, last, steps, ends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hiddens: Tensor, d_h: Tensor) -> tuple[Tensor | None, ...]:
        features, weights, own, h, before, after, ends = ctx.saved_tensors
        length, columns, units = weights.shape
        sums = BlockSums(before, features, units, ctx.steps)
        d_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        to_features = weights.transpose(1, 2).reshape(-1, columns)
        pull_back = ACTIVATIONS[ctx.activation].pull_back
        times = Product(h, h.numel() * units)
        transposed = times.pack(own.t())
        output_gradients = OutputGradients(None if ctx.last_only else d_hiddens, d_h, ends)
        gradient, d_z = torch.zeros_like(h), torch.empty_like(h)
        for t in range(ctx.steps - 1, -1, -1):
            block, k = divmod(t, length)
            output_gradients.add(gradient, t)
            pull_back(gradient, after, d_z)
            if (complete := sums.put(d_z, t)) is not None and d_features is not None:
                blocks, back = complete
                d_features[blocks] = matmul(back.flatten(2), to_features)
            gradient = times(d_z, transposed)[:, :units]
            after = before[block, :, k]
        d_start = gradient.contiguous()
        return d_features, sums.by_block, sums.by_step, d_start, None, None, None, None


def _go_forward(
    features: Tensor,
    weights: Tensor,
    own: Tensor,
    h: Tensor,
    activation: str,
    steps: int,
    history: Tensor | None,
) -> Tensor:
    """Return the last h; store the h before each step in `history`, if given."""
    length, units = len(weights), len(own)
    advance = Product(h, h.numel() * (units + weights.shape[1]), activation)
    stack = advance.pack(torch.cat([own.expand(length, -1, -1), weights], 1)).unbind(0)
    row = h.new_empty(len(h), len(stack[0]))
    own_part, outside = row[:, :units], row[:, units:]
    for t in range(steps):
        block, k = divmod(t, length)
        if k == 0:
            outside.copy_(features[block])
        own_part.copy_(h)
        if history is not None:
            history[block, :, k] = h
        h = advance(row, stack[k])[:, :units]
    return h.contiguous()


def run_driven(
    weights: LMUWeights,
    x: Tensor,
    m: Tensor,
    h: Tensor,
    lengths: Tensor | None,
    last_only: bool,
    length: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate sequences; see :func:`lmu_deploy.nn.recurrent.run_recurrent`.

    The layer must have recurrent hidden units, no hidden encoders, and no more inputs than
    channels. `length` is the block length, by default the fastest.
    """
    own = weights.recurrent_kernel
    assert own is not None
    batch, steps, _ = x.shape
    ends = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
    drive, m = drive_by_blocks(weights, x, m, ends, length)
    features = drive.features.transpose(0, 1).contiguous()
    hiddens, h = driven_scan(
        features, drive.weights, own, h, weights.activation, ends, steps, last_only
    )
    return (h if last_only else hiddens), m, h
