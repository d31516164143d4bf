"""The parallel form: where nothing but the input enters the memory, all of time at once.

The memory goes by blocks (`lmu_deploy.nn.blocks`): one short recurrence over the starts of blocks,
then one matrix product for all that the hidden units get from the memory, the memory kernel folded
in, so that the memory's states are never made. Only the last state is one product with the
memory's response. Hidden units that feed back to themselves alone are a recurrence of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from lmu_deploy.nn.activations import ACTIVATIONS
from lmu_deploy.nn.blocks import Blocks, best_length
from lmu_deploy.nn.fused import fused_recurrence, has_fused
from lmu_deploy.nn.scan import scan
from lmu_deploy.nn.sequences import at_end
from lmu_deploy.nn.weights import Dynamics, LMUWeights


def run_parallel(
    weights: LMUWeights,
    x: Tensor,
    m: Tensor,
    h: Tensor,
    lengths: Tensor | None,
    last_only: bool,
    length: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through sequences; see :func:`lmu_deploy.nn.recurrent.run_recurrent`.

    The layer must have no hidden encoders. `length` is that of blocks, else the best is taken.
    """
    ends = torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths
    dynamics = weights.dynamics()
    kernel = weights.memory_kernel
    only_end = last_only and weights.recurrent_kernel is None
    inputs = linear(x, weights.input_encoders.t(), weights.memory_bias)
    if kernel is None or only_end:
        outputs, m = _memory(dynamics, inputs, m, ends, only_end, length)
        if kernel is None:
            return outputs, m, h
        z = linear(m, kernel.t(), weights.bias)
        if weights.input_kernel is not None:
            z = z + at_end(x, lengths) @ weights.input_kernel
        h = ACTIVATIONS[weights.activation].apply(z)
        return h, m, h
    z, m = _drive(weights, dynamics, x, inputs, m, ends, length)
    if weights.recurrent_kernel is None:
        hiddens = ACTIVATIONS[weights.activation].apply(z)
    elif has_fused(z, weights.activation):
        hiddens = fused_recurrence(z, h, weights.recurrent_kernel, weights.activation)
    else:
        by_time = z.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        hiddens = scan(by_time, h, weights.recurrent_kernel, weights.units, weights.activation)
        hiddens = hiddens.transpose(0, 1)
    h = at_end(hiddens, lengths)
    return (h if last_only else hiddens), m, h


def _in_blocks(x: Tensor, length: int) -> Tensor:
    """Arrange (batch, steps, n) as (batch, blocks, length * n), with zeros after the end."""
    missing = -x.shape[1] % length
    return (pad(x, (0, 0, 0, missing)) if missing else x).reshape(len(x), -1, length * x.shape[2])


def _memory(
    dynamics: Dynamics,
    inputs: Tensor,
    m: Tensor,
    ends: Tensor,
    only_end: bool,
    length: int | None,
) -> tuple[Tensor, Tensor]:
    """Give the memory's states at every step, or at the end alone, and those at the end."""
    batch, steps, _ = inputs.shape
    size, groups = len(dynamics.transition), dynamics.groups
    # channels that do not meet are so many sequences of one channel
    alone = Dynamics(1, dynamics.transition, dynamics.entry, dynamics.kept)
    inputs = inputs.view(batch, steps, groups, -1).transpose(1, 2).flatten(0, 1)
    m = m.reshape(-1, size)
    if only_end:
        if dynamics.kept is None:
            length = length or best_length(alone, 0, len(m), steps, 0.0)
        blocks = Blocks.of(alone, length or min(steps, _LONGEST_RESPONSE))
        arranged = _in_blocks(inputs, blocks.length)
        starts = blocks.starts(arranged, m)
        m = blocks.state_at(arranged, starts, ends.repeat_interleave(groups)).view(batch, -1)
        return m, m
    blocks = Blocks.of(alone, length or best_length(alone, size, len(m), steps, 1.0))
    identity = torch.eye(size, dtype=m.dtype, device=m.device)
    arranged = _in_blocks(inputs, blocks.length)
    starts = blocks.starts(arranged, m)
    states = _from_blocks(blocks, identity, starts, arranged, blocks.kernels(identity), None)
    states = states[:, :steps].view(batch, groups, steps, size).transpose(1, 2).flatten(2)
    return states, at_end(states, ends)


def _drive(
    weights: LMUWeights,
    dynamics: Dynamics,
    x: Tensor,
    inputs: Tensor,
    m: Tensor,
    ends: Tensor,
    length: int | None,
) -> tuple[Tensor, Tensor]:
    """Give z without the hidden units' own feedback, (batch, steps, units), and the last m."""
    kernel = weights.memory_kernel
    assert kernel is not None
    batch, steps, channels = inputs.shape
    length = length or best_length(dynamics, weights.units, batch, steps, 1.0)
    blocks = Blocks.of(dynamics, length)
    arranged = _in_blocks(inputs, length)
    starts = blocks.starts(arranged, m)
    m = blocks.state_at(arranged, starts, ends)
    kernels = blocks.kernels(kernel)
    bias = weights.bias
    if weights.input_kernel is None:
        z = _from_blocks(blocks, kernel, starts, arranged, kernels, bias)
        return z[:, :steps], m
    if x.shape[2] > channels:
        z = _from_blocks(blocks, kernel, starts, arranged, kernels, None)[:, :steps]
        return z + linear(x, weights.input_kernel.t(), bias), m
    # the input encoders fold into the kernels, and so does what goes straight to the units
    folded = weights.input_encoders @ kernels
    folded = torch.cat([folded[:1] + weights.input_kernel, folded[1:]])
    constant = None
    if weights.memory_bias is not None:
        constant = (weights.memory_bias @ kernels).cumsum(0)
    if bias is not None:
        constant = bias.expand(length, -1) if constant is None else constant + bias
    arranged = _in_blocks(x, length)
    return _from_blocks(blocks, kernel, starts, arranged, folded, constant)[:, :steps], m


def _from_blocks(
    blocks: Blocks,
    kernel: Tensor,
    starts: Tensor,
    inputs: Tensor,
    kernels: Tensor,
    constant: Tensor | None,
) -> Tensor:
    """Evaluate m_k W in all blocks with one product.

    Parameters
    ----------
    blocks : Blocks
    kernel : Tensor, shape (states, n)
        W.
    starts : Tensor, shape (batch, blocks, states)
    inputs : Tensor, shape (batch, blocks, L * n_in)
    kernels : Tensor, shape (L, n_in, n)
        What an input gives k steps later.
    constant : Tensor, shape (L, n) or (n,), or None
        Added to each step of a block.

    Returns
    -------
    z : Tensor, shape (batch, blocks * L, n)
    """
    n = kernel.shape[1]
    reach = blocks.reach(kernel).transpose(0, 1).reshape(len(kernel), -1)
    weight = torch.cat([reach, _toeplitz(kernels)])
    features = torch.cat([starts, inputs], 2)
    if constant is not None:
        constant = constant.expand(blocks.length, n).reshape(-1)
    return linear(features, weight.t(), constant).view(len(starts), -1, n)


def _toeplitz(kernels: Tensor) -> Tensor:
    """Lay kernels (L, n_in, n) out as (L * n_in, L * n): step j reaches step k >= j by k - j."""
    length, n_in, n = kernels.shape
    lag = torch.arange(length, device=kernels.device)
    lag = lag.unsqueeze(0) - lag.unsqueeze(1)
    laid = kernels[lag.clamp(min=0)] * (lag >= 0).to(kernels.dtype)[:, :, None, None]
    return laid.permute(0, 2, 1, 3).reshape(length * n_in, length * n)


_LONGEST_RESPONSE = 4096
"""Steps of the memory's response that are kept for all later calls: order * 16 KiB."""
