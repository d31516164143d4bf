"""The parallel form: where nothing but the input enters the memory, all of time at once.

The memory goes by blocks (`lmu_deploy.nn.drive`): one short recurrence over the starts of blocks,
then one matrix product for all that the hidden units get from the memory, the memory kernel folded
in, so that the memory's states are never made. Only the last state is one product with the
memory's response. Hidden units that feed back to themselves alone are a recurrence of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from lmu_deploy.nn.activations import ACTIVATIONS
from lmu_deploy.nn.blocks import Blocks, best_length
from lmu_deploy.nn.drive import Drive, drive_by_blocks, in_blocks, takes_channels, toeplitz
from lmu_deploy.nn.fused import fused_recurrence, has_fused
from lmu_deploy.nn.matmul import matmul
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
    kernel = weights.memory_kernel
    only_end = last_only and weights.recurrent_kernel is None
    if kernel is None or only_end:
        inputs = linear(x, weights.input_encoders.t(), weights.memory_bias)
        outputs, m = _memory(weights.dynamics(), inputs, m, ends, only_end, length)
        if kernel is None:
            return outputs, m, h
        z = matmul(m, kernel)
        if weights.bias is not None:
            z = z + weights.bias
        if weights.input_kernel is not None:
            z = z + matmul(at_end(x, lengths), weights.input_kernel)
        h = ACTIVATIONS[weights.activation].apply(z)
        return h, m, h
    z, m = _drive(weights, x, m, ends, length)
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
        arranged = in_blocks(inputs, blocks.length)
        starts = blocks.starts(arranged, m)
        m = blocks.state_at(arranged, starts, ends.repeat_interleave(groups)).view(batch, -1)
        return m, m
    blocks = Blocks.of(alone, length or best_length(alone, size, len(m), steps, 1.0))
    identity = torch.eye(size, dtype=m.dtype, device=m.device)
    arranged = in_blocks(inputs, blocks.length)
    starts = blocks.starts(arranged, m)
    matrices = torch.cat([blocks.reach(identity), toeplitz(blocks.kernels(identity))], 1)
    states = Drive(torch.cat([starts, arranged], 2), matrices).everywhere(steps)
    states = states.view(batch, groups, steps, size).transpose(1, 2).flatten(2)
    return states, at_end(states, ends)


def _drive(
    weights: LMUWeights, x: Tensor, m: Tensor, ends: Tensor, length: int | None
) -> tuple[Tensor, Tensor]:
    """Give z without the hidden units' own feedback, (batch, steps, units), and the last m."""
    drive, m = drive_by_blocks(weights, x, m, ends, length)
    z = drive.everywhere(x.shape[1])
    if weights.input_kernel is not None and takes_channels(weights):
        z = z + matmul(x, weights.input_kernel)
    return z, m


_LONGEST_RESPONSE = 4096
"""Steps of the memory's response that are kept for all later calls: order * 16 KiB."""
