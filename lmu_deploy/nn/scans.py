r"""Evaluation of layers with a large memory and recurrent hidden units, in blocks of L steps.

Where the memory is driven by the input only (:func:`run_driven`), it is evaluated in blocks
(:mod:`lmu_deploy.nn.parallel`) and the hidden units step by step. With F and S of
:mod:`lmu_deploy.nn.parallel`, a step forward is the single product

.. math:: h_k = f([h_{k-1}, F]\; [W_h; S_k])

so the drive is never stored and the activation is fused with the product. A step backward is one
product with the transposed W_h; the gradients of W_h, S and F are products over many blocks at a
time (:mod:`lmu_deploy.nn.blocks`), for which the forward pass stores the history of h.

Where hidden units feed back into the memory (:func:`run_coupled`), feedback enters only through the
channels of v_t, so within a block the matrix of the memory is not needed. With K_i = B T^i W_m,
P_k = T^(k+1) W_m, and for the memory encoders q_i = B T^i E_m and Q_k = T^k E_m,

.. math:: v_k &= h_{k-1} E_h + x_k E_x + b_u + m Q_k + \sum_{j<k} v_j q_{k-1-j} \\
          z_k &= h_{k-1} W_h + x_k W_x + b + m P_k + \sum_{j \le k} v_j K_{k-j}, \qquad h_k = f(z_k)

This takes order * units + units^2 multiplications per step; the direct evaluation takes order^2
more. T excludes the memory encoders, which are part of v, so that it is usually constant. The
recurrence is one autograd function. A step forward is one product of all the values on which z_k
depends with their weights in one matrix,

.. math:: h_k = f([h_{k-1}, x_k, 1, m, v_0, \dots, v_{k-1}]\; S_k)

and a step backward is one product with the transposed matrix. The gradients of the weights are
products over many blocks at a time, of the inputs of each step, [h, x, 1], and of each block,
[m, v], which the forward pass stores.

Both forms take a type for the operands of these products (:attr:`LMUWeights.products`), which
autocast makes bfloat16. The products then read h, m, v and the weights in 8 bits, which are rounded
once a pass, and their results, h and the gradients of a step, have 8 bits. The memory itself does
not: v and m are computed from the unrounded values, in the type of the weights, as are sums over
steps. With order 256, 212 units and 784 steps, outputs and gradients of all weights differed from
those of float64 by 0.2 to 0.5 % of their norm, the memory at the end by 0.09 % with feedback.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmu_deploy.nn.blocks import (
    Blocks,
    BlockSums,
    OutputGradients,
    best_length,
    new_history,
    result_at,
    results,
)
from lmu_deploy.nn.parallel import drive_by_blocks
from lmu_deploy.nn.products import ACTIVATIONS, Product, is_large, matmul, summed_outer
from lmu_deploy.nn.weights import LMUWeights, StepWeights


def driven_scan(
    features: Tensor,
    weights: Tensor,
    own: Tensor,
    h: Tensor,
    activation: str,
    ends: Tensor,
    steps: int,
    last_only: bool,
    products: torch.dtype | None = None,
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
    products : torch.dtype, optional
        Type of the operands of products; by default that of the tensors.

    Returns
    -------
    hiddens : Tensor, shape (batch, steps, units), or (0,) with `last_only`
        h.
    h : Tensor, shape (batch, units)
        h at the end of each sequence.
    """
    products = products or h.dtype
    tensors = features, weights, own, h
    pulled = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if last_only and not pulled and bool((ends == steps).all()):
        # Without a history the operands of a step stay in the caches of the processor.
        last = _driven_forward(*tensors, activation, steps, products, None)
        return h.new_empty(0), last.to(h.dtype)
    found: tuple[Tensor, Tensor] = _DrivenScan.apply(  # type: ignore[no-untyped-call]
        *tensors, activation, ends, steps, last_only, products
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
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        before = new_history(h.to(products), steps, len(weights), len(own))
        last = _driven_forward(features, weights, own, h, activation, steps, products, before)
        ctx.save_for_backward(features, weights, own, h, before, last, ends)
        ctx.activation, ctx.steps, ctx.last_only = activation, steps, last_only
        hiddens = h.new_empty(0) if last_only else results(before, last, steps).to(h.dtype)
        return hiddens, result_at(before, last, steps, ends).to(h.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hiddens: Tensor, d_h: Tensor) -> tuple[Tensor | None, ...]:
        features, weights, own, h, before, after, ends = ctx.saved_tensors
        length, columns, units = weights.shape
        sums = BlockSums(before, features, units, ctx.steps)
        d_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        to_features = weights.transpose(1, 2).reshape(-1, columns).to(before.dtype)
        pull_back = ACTIVATIONS[ctx.activation].pull_back
        times = Product(before, h.numel() * units)
        (transposed,) = times.pack_all(own.t().unsqueeze(0))
        output_gradients = OutputGradients(None if ctx.last_only else d_hiddens, d_h, ends)
        gradient, d_z = torch.zeros_like(after), torch.empty_like(after)
        for t in range(ctx.steps - 1, -1, -1):
            block, k = divmod(t, length)
            output_gradients.add(gradient, t)
            pull_back(gradient, after, d_z)
            if (complete := sums.put(d_z, t)) is not None and d_features is not None:
                blocks, back = complete
                d_features[blocks] = matmul(back.flatten(2), to_features)
            gradient = times(d_z, transposed)[:, :units]
            after = before[block, :, k]
        d_start = gradient.to(h.dtype).contiguous()
        return d_features, sums.by_block, sums.by_step, d_start, None, None, None, None, None


def _driven_forward(
    features: Tensor,
    weights: Tensor,
    own: Tensor,
    h: Tensor,
    activation: str,
    steps: int,
    products: torch.dtype,
    history: Tensor | None,
) -> Tensor:
    """Return the last h in the type of products; store that before each step in `history`."""
    length, units = len(weights), len(own)
    h = h.to(products)
    advance = Product(h, h.numel() * (units + weights.shape[1]), activation)
    stack = advance.pack_all(torch.cat([own.expand(length, -1, -1), weights], 1))
    row = h.new_empty(len(h), units + weights.shape[1])
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
    activation, products = weights.activation, weights.products
    hiddens, h = driven_scan(
        features, drive.weights, own, h, activation, ends, steps, last_only, products
    )
    return (h if last_only else hiddens), m, h


def coupled_scan(
    x: Tensor,
    m: Tensor,
    h: Tensor,
    weights: StepWeights,
    activation: str,
    ends: Tensor | None,
    last_only: bool,
    products: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the recurrence of a layer with feedback from hidden units, with gradients.

    Parameters
    ----------
    x : Tensor, shape (batch, steps, n_in)
    m, h : Tensor, shape (batch, states) and (batch, units)
        State before the first step.
    weights : StepWeights
    activation : str
    ends : Tensor of int64, shape (batch,), or None
        Length of each sequence; None means that all have the length of x.
    last_only : bool
        Do not return the sequence of h.
    products : torch.dtype, optional
        Type of the operands of products of a step; by default that of the tensors. The memory
        keeps the type of the tensors.

    Returns
    -------
    hiddens : Tensor, shape (batch, steps, units), or (0,) with `last_only`
        h.
    h : Tensor, shape (batch, units)
        h at the end of each sequence.
    block_inputs : Tensor, shape (blocks, batch, states + L * channels)
        Memory before each block and v of its steps.
    """
    products = products or h.dtype
    tensors = weights.tensors()
    pulled = torch.is_grad_enabled() and any(t.requires_grad for t in (x, m, h, *tensors))
    if last_only and ends is None and not pulled:
        # Without a history the operands of a step stay in the caches of the processor.
        last, block_inputs = _coupled_forward(weights, activation, x, m, h, products, None)
        return h.new_empty(0), last.to(h.dtype), block_inputs
    if ends is None:
        ends = torch.full((len(x),), x.shape[1], device=x.device)
    found: tuple[Tensor, Tensor, Tensor] = _CoupledScan.apply(  # type: ignore[no-untyped-call]
        x, m, h, activation, ends, last_only, products, *tensors
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
        products: torch.dtype,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights, steps = StepWeights(*tensors), x.shape[1]
        before = new_history(h.to(products), steps, weights.length, weights.memory.start)
        last, block_inputs = _coupled_forward(weights, activation, x, m, h, products, before)
        ctx.save_for_backward(before, last, block_inputs, ends, *tensors)
        ctx.activation, ctx.steps, ctx.last_only = activation, steps, last_only
        own = before[..., : weights.units]
        hiddens = h.new_empty(0) if last_only else results(own, last, steps).to(h.dtype)
        return hiddens, result_at(own, last, steps, ends).to(h.dtype), block_inputs

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_hiddens: Tensor, d_h: Tensor, d_block_inputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        before, after, block_inputs, ends, *tensors = ctx.saved_tensors
        weights, steps = StepWeights(*tensors), ctx.steps
        length, units, states = weights.length, weights.units, len(weights.enter[0])
        width = units + weights.channels
        # Accumulates the gradients of z and v of every step.
        sums = BlockSums(before, block_inputs, width, steps)
        n_in = weights.memory.start - units - 1
        d_x = new_history(d_h, steps, length, n_in) if ctx.needs_input_grad[0] else None
        to_x = weights.begin[units:-1].t().to(before.dtype)
        pull_back = ACTIVATIONS[ctx.activation].pull_back
        times = Product(after, len(after) * weights.columns * width)
        stack = times.pack_all(weights.stack().transpose(1, 2))
        carried = weights.carry.t().contiguous()
        output_gradients = OutputGradients(None if ctx.last_only else d_hiddens, d_h, ends)
        gradient, d_row = torch.zeros_like(after), after.new_empty(len(after), width)
        d_z, d_v = d_row[:, :units], d_row[:, units:]
        d_later = torch.zeros_like(block_inputs[..., :states])
        d_block = block_inputs.new_zeros(block_inputs.shape[1:])
        for t in range(steps - 1, -1, -1):
            block, k = divmod(t, length)
            if k == length - 1 or t == steps - 1:
                d_next, d_block = d_block[:, :states], d_block_inputs[block].clone()
                d_m, d_values = d_block[:, :states], d_block[:, states:]
                d_later[block] = d_next
                d_m += matmul(d_next.reshape(-1, len(carried)), carried).view_as(d_m)
                d_values.addmm_(d_next, weights.enter.t())
                v = torch.split(d_values, weights.channels, 1)
            output_gradients.add(gradient, t)
            pull_back(gradient, after, d_z)
            d_v.copy_(v[k])
            if (complete := sums.put(d_row, t)) is not None and d_x is not None:
                blocks, back = complete
                d_x[blocks] = matmul(back, to_x)
            d_inputs = times(d_row, stack[k])
            gradient = d_inputs[:, :units]
            # Later steps do not contribute to this one, so their weights and gradients are zero.
            d_block += d_inputs[:, weights.memory.start : weights.memory.start + d_block.shape[1]]
            after = before[block, :, k, :units]
        d_x = None if d_x is None else d_x.transpose(0, 1).flatten(1, 2)[:, :steps]
        d_weights = _weight_gradients(ctx, sums, d_later)
        d_start = gradient.to(d_h.dtype)
        return d_x, d_block[:, :states], d_start, None, None, None, None, *d_weights


def _coupled_forward(
    weights: StepWeights,
    activation: str,
    x: Tensor,
    m: Tensor,
    h: Tensor,
    products: torch.dtype,
    history: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the last h, and [m, v] of each block; store [h, x, 1] of each step in `history`.

    h and the history are of the type of products. v, which drives the memory, is computed from the
    row in the type of the tensors.
    """
    (batch, steps, n_in), length = x.shape, weights.length
    units, states, begin = weights.units, m.shape[1], weights.memory.start
    h = h.to(products)
    advance = Product(h, batch * weights.columns * units, activation)
    to_z, to_v = weights.packed(advance)
    row = x.new_zeros(batch, weights.columns)
    row[:, begin - 1] = 1.0
    operand = row if products == row.dtype else row.to(products)
    own, inputs, beginning = row[:, :units], row[:, units : units + n_in], operand[:, :begin]
    block_row, values = row[:, begin:], row[:, begin + states :]
    v = torch.split(values, weights.channels, 1)
    block_inputs = x.new_empty(-(-steps // length), *block_row.shape)
    row[:, weights.memory] = m
    for t, now in enumerate(x.transpose(0, 1).contiguous().unbind(0)):
        block, k = divmod(t, length)
        if k == 0 and block:
            block_inputs[block - 1] = block_row
            moved = matmul(m.reshape(-1, len(weights.carry)), weights.carry).view_as(m)
            m = torch.addmm(moved, values, weights.enter)
            row[:, weights.memory] = m
            values.zero_()
        own.copy_(h)
        inputs.copy_(now)
        if operand is not row:
            operand.copy_(row)
        if history is not None:
            history[block, :, k] = beginning
        h = advance(operand, to_z[k])[:, :units]
        v[k].copy_(row @ to_v[k])
    block_inputs[-1] = block_row
    return h.contiguous(), block_inputs


def _weight_gradients(ctx: Any, sums: BlockSums, d_later: Tensor) -> list[Tensor | None]:
    """Return the gradients of the weights of a step.

    `d_later` is the gradient of the memory after each block.
    """
    _, _, block_inputs, _, *tensors = ctx.saved_tensors
    weights = StepWeights(*tensors)
    channels, states = weights.channels, len(weights.enter[0])
    _, _, _, carry, enter = ctx.needs_input_grad[7:]
    from_blocks = sums.by_block
    d_kernels = torch.zeros_like(weights.kernels)
    for k in range(1, weights.length):
        d_kernels[-k * channels :] += from_blocks[k, states : states + k * channels]
    d_carry = d_enter = None
    if carry:
        later = d_later.view(-1, len(weights.carry))
        outer = summed_outer(block_inputs, later.numel() * len(weights.carry))
        d_carry = outer(block_inputs[..., :states].reshape(later.shape), later)
    if enter:
        d_enter = block_inputs[..., states:].flatten(0, 1).t() @ d_later.flatten(0, 1)
    return [sums.by_step, from_blocks[:, :states], d_kernels, d_carry, d_enter]


def run_coupled(
    weights: LMUWeights,
    x: Tensor,
    m: Tensor,
    h: Tensor,
    lengths: Tensor | None,
    last_only: bool,
    length: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate sequences; see :func:`lmu_deploy.nn.recurrent.run_recurrent`.

    The layer must have hidden units. `length` is the block length, by default the fastest.
    """
    batch, steps, _ = x.shape
    width = weights.units + weights.channels
    length = length or best_length(weights.bare_dynamics(), width, batch, steps, 1.0)
    blocks, step_weights = _prepare(weights, length)
    large = is_large(batch * weights.units * (weights.units + weights.states))
    products = weights.products if large else None
    hiddens, h, block_inputs = coupled_scan(
        x, m, h, step_weights, weights.activation, lengths, last_only, products
    )
    ends = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
    initial_states, entered = torch.split(
        block_inputs.transpose(0, 1), [m.shape[1], len(blocks.enter)], 2
    )
    m = blocks.state_at(entered, initial_states, ends)
    return (h if last_only else hiddens), m, h


def _prepare(weights: LMUWeights, length: int) -> tuple[Blocks, StepWeights]:
    """Return the matrices for blocks of `length` steps, from the cache if it has them."""
    if (cache := weights.weight_cache()) is None:
        blocks = Blocks.of(weights.bare_dynamics(), length)
        return blocks, _step_weights(weights, blocks)
    if length not in cache:
        cache.clear()
        with torch.inference_mode(False), torch.no_grad():
            blocks = Blocks.of(weights.bare_dynamics(), length)
            cache[length] = blocks, _step_weights(weights, blocks)
    found: tuple[Blocks, StepWeights] = cache[length]
    return found


def _step_weights(weights: LMUWeights, blocks: Blocks) -> StepWeights:
    """Return the weights of a step, with the direct contribution K_0 of v_k substituted."""
    units, channels, kernel = weights.units, weights.channels, weights.memory_kernel
    assert kernel is not None
    recall, zero = weights.memory_encoders, kernel.new_zeros
    recall = zero(weights.states, channels) if recall is None else recall
    both = torch.cat([kernel, recall], 1)
    state_kernels, kernels = blocks.state_kernels(both), blocks.kernels(both)
    at_once = kernels[0, :, :units]
    # v_k depends on the memory before it, z_k on the memory that includes v_k.
    to_v = torch.cat([recall.unsqueeze(0), state_kernels[:-1, :, units:]])
    to_z = state_kernels[..., :units] + to_v @ at_once
    later_v = kernels[:-1, :, units:]
    later_z = kernels[1:, :, :units] + later_v @ at_once
    kernels = torch.cat([later_z, later_v], 2).flip(0).reshape(-1, units + channels)
    return StepWeights(
        begin=_begin(weights, at_once),
        state_kernels=torch.cat([to_z, to_v], 2),
        kernels=kernels,
        carry=blocks.carry,
        enter=blocks.enter,
    )


def _begin(weights: LMUWeights, at_once: Tensor) -> Tensor:
    """Return the matrix from [h, x, 1] to [z, v]; `at_once` is K_0."""
    units, channels, zero = weights.units, weights.channels, at_once.new_zeros
    feedback, enters = weights.hidden_encoders, weights.memory_bias
    encoders = torch.cat(
        [
            zero(units, channels) if feedback is None else feedback,
            weights.input_encoders,
            zero(1, channels) if enters is None else enters.unsqueeze(0),
        ]
    )
    own, direct, bias = weights.recurrent_kernel, weights.input_kernel, weights.bias
    straight = torch.cat(
        [
            zero(units, units) if own is None else own,
            zero(len(weights.input_encoders), units) if direct is None else direct,
            zero(1, units) if bias is None else bias.unsqueeze(0),
        ]
    )
    return torch.cat([straight + encoders @ at_once, encoders], 1)
