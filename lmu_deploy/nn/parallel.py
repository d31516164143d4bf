r"""The parallel form: where nothing but the input enters the memory, all of time at once.

The memory goes by blocks (`nn.blocks`): one short recurrence over the starts of blocks,
then one matrix product for all that the hidden units get from the memory, the memory kernel folded
in, so that the memory's states are never made. Only the last state is one product with the
memory's response. Hidden units that feed back to themselves alone are a recurrence of their own.

What reaches the hidden units from outside themselves, block by block, without memory states.

In a block of L steps that starts from the memory m, step k gets

.. math:: d_k = F S_k, \qquad F = [m, x_0, \dots, x_{L-1}, 1]

where S_k holds :math:`T^{k+1} W_m`, the kernels of the block's inputs, and the bias
(`lmu_deploy.nn.blocks`). F is the same for the whole block.

From rest, with equal channels and no more inputs than those, the memory is one of the inputs
themselves: :math:`m_t = E_x^T m^x_t` for each state, so the input encoders fold into W_m. Then
nothing that is trained comes before F, and its gradient, a third of the work, is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from lmu_deploy.nn.blocks import Blocks, best_length
from lmu_deploy.nn.products import ACTIVATIONS, fused_recurrence, has_fused, matmul
from lmu_deploy.nn.recurrent import scan
from lmu_deploy.nn.sequences import at_end
from lmu_deploy.nn.weights import Dynamics, LMUWeights


@dataclass(frozen=True)
class Drive:
    """The drive of the hidden units.

    Attributes
    ----------
    features : Tensor, shape (batch, blocks, K)
        F of every block; inputs after the end are zero.
    weights : Tensor, shape (L, K, units)
        S.
    """

    features: Tensor
    weights: Tensor

    def everywhere(self, steps: int) -> Tensor:
        """Give d at every step, (batch, steps, units), by one product."""
        _, columns, units = self.weights.shape
        weights = self.weights.transpose(0, 1).reshape(columns, -1)
        return matmul(self.features, weights).view(len(self.features), -1, units)[:, :steps]


def drive_by_blocks(
    weights: LMUWeights, x: Tensor, m: Tensor, ends: Tensor, length: int | None
) -> tuple[Drive, Tensor]:
    """Make the drive, and the memory at the end of each sequence.

    Parameters
    ----------
    weights : LMUWeights
        With no more inputs than channels, or without input kernel.
    x : Tensor, shape (batch, steps, n_in)
    m : Tensor, shape (batch, states)
        Memory before the first step.
    ends : Tensor of int64, shape (batch,)
    length : int, optional
        L; the best is taken when absent.

    Returns
    -------
    drive : Drive
    m : Tensor, shape (batch, states)
    """
    batch, steps, n_in = x.shape
    folds = _folds(weights, m)
    own = weights.dynamics()
    dynamics = Dynamics(n_in, own.transition, own.entry, own.kept) if folds else own
    length = length or best_length(dynamics, weights.units, batch, steps, 1.0)
    blocks = Blocks.of(dynamics, length)
    matrices = _prepared(weights, blocks, folds)
    entering = x if folds else linear(x, weights.input_encoders.t(), weights.memory_bias)
    arranged = in_blocks(entering, length)
    start = m.new_zeros(batch, n_in * len(own.transition)) if folds else m
    starts = blocks.starts(arranged, start)
    end = blocks.state_at(arranged, starts, ends)
    if folds:
        end = torch.einsum("bis,ic->bcs", end.view(batch, n_in, -1), weights.input_encoders)
        end = end.flatten(1)
    if not takes_channels(weights):
        arranged = in_blocks(x, length)
    one = x.new_ones(()).expand(*starts.shape[:2], 1)
    return Drive(torch.cat([starts, arranged, one], 2), matrices), end


def takes_channels(weights: LMUWeights) -> bool:
    """Whether F holds the memory's inputs because they are fewer than the layer's."""
    n_in, channels = weights.input_encoders.shape
    return n_in > channels


def in_blocks(x: Tensor, length: int) -> Tensor:
    """Arrange (batch, steps, n) as (batch, blocks, length * n), with zeros after the end."""
    missing = -x.shape[1] % length
    return (pad(x, (0, 0, 0, missing)) if missing else x).reshape(len(x), -1, length * x.shape[2])


def _folds(weights: LMUWeights, m: Tensor) -> bool:
    """Whether the memory may be that of the inputs themselves: of equal channels, and at rest."""
    plain = weights.memory_encoders is None and weights.memory_bias is None
    if not plain or takes_channels(weights):
        return False
    if weights.dynamics().groups != weights.channels:
        return False
    return not m.requires_grad and not bool(m.any().item())


def _prepared(weights: LMUWeights, blocks: Blocks, folds: bool) -> Tensor:
    """Make S, or take the one that was kept."""
    if (kept := weights.lasting()) is None:
        return _matrices(weights, blocks, folds)
    key = "drive", blocks.length, folds
    if key not in kept:
        kept.clear()
        with torch.inference_mode(False), torch.no_grad():
            kept[key] = _matrices(weights, blocks, folds)
    found: Tensor = kept[key]
    return found


def _matrices(weights: LMUWeights, blocks: Blocks, folds: bool) -> Tensor:
    """Make S."""
    kernel, encoders = weights.memory_kernel, weights.input_encoders
    assert kernel is not None
    length, units = blocks.length, weights.units
    if folds:
        by_channel = kernel.view(weights.channels, -1)
        kernel = (encoders @ by_channel).view(-1, units)
    kernels = blocks.kernels(kernel)
    constant = kernels.new_zeros(length, units)
    if weights.bias is not None:
        constant = constant + weights.bias
    if not takes_channels(weights):
        if weights.memory_bias is not None:
            constant = constant + (weights.memory_bias @ kernels).cumsum(0)
        if not folds:
            kernels = encoders @ kernels
        if weights.input_kernel is not None:
            kernels = torch.cat([kernels[:1] + weights.input_kernel, kernels[1:]])
    return torch.cat([blocks.reach(kernel), toeplitz(kernels), constant.unsqueeze(1)], 1)


def toeplitz(kernels: Tensor) -> Tensor:
    """Lay kernels (L, n_in, n) out as (L, L * n_in, n): step j reaches step k >= j by k - j."""
    length, n_in, n = kernels.shape
    step = torch.arange(length, device=kernels.device)
    lag = step.unsqueeze(1) - step.unsqueeze(0)
    laid = kernels[lag.clamp(min=0)] * (lag >= 0).to(kernels.dtype)[:, :, None, None]
    return laid.reshape(length, length * n_in, n)


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
