r"""The form for hidden units that feed back into a large memory: blocks, each step by step.

Only the few channels of v_t carry what feeds back, so within a block of L steps
(`lmu_deploy.nn.blocks`) the memory's own matrix is not needed: with K_i = B T^i W_m,
P_k = T^(k+1) W_m, and the same of the memory's encoders, q_i = B T^i E_m and Q_k = T^k E_m,

.. math:: v_k &= h_{k-1} E_h + x_k E_x + b_u + m Q_k + \sum_{j<k} v_j q_{k-1-j} \\
          z_k &= h_{k-1} W_h + x_k W_x + b + m P_k + \sum_{j \le k} v_j K_{k-j}, \qquad h_k = f(z_k)

That is order * units + units^2 products a step, where the plain step needs order^2 more. T is the
memory's own map, which is not trained as a rule: feedback from the memory into itself is part of
v. The recurrence itself is `lmu_deploy.nn.coupled_scan`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmu_deploy.nn.blocks import Blocks, best_length
from lmu_deploy.nn.coupled_scan import coupled_scan
from lmu_deploy.nn.step_weights import StepWeights
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

    The layer must have hidden units. `length` is that of blocks, else the best is taken.
    """
    batch, steps, _ = x.shape
    width = weights.units + weights.channels
    length = length or best_length(weights.bare_dynamics(), width, batch, steps, 1.0)
    blocks, step_weights = _prepare(weights, length)
    hiddens, h, held = coupled_scan(x, m, h, step_weights, weights.activation, lengths, last_only)
    ends = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
    starts, entered = torch.split(held.transpose(0, 1), [m.shape[1], len(blocks.enter)], 2)
    m = blocks.state_at(entered, starts, ends)
    return (h if last_only else hiddens), m, h


def _prepare(weights: LMUWeights, length: int) -> tuple[Blocks, StepWeights]:
    """Make the matrices of blocks of `length` steps, or take those that were kept."""
    if (kept := weights.lasting()) is None:
        blocks = Blocks.of(weights.bare_dynamics(), length)
        return blocks, _step_weights(weights, blocks)
    if length not in kept:
        kept.clear()
        with torch.inference_mode(False), torch.no_grad():
            blocks = Blocks.of(weights.bare_dynamics(), length)
            kept[length] = blocks, _step_weights(weights, blocks)
    found: tuple[Blocks, StepWeights] = kept[length]
    return found


def _step_weights(weights: LMUWeights, blocks: Blocks) -> StepWeights:
    """Fold what v_k gives at once, by K_0, into what it is made of."""
    units, channels, kernel = weights.units, weights.channels, weights.memory_kernel
    assert kernel is not None
    recall, zero = weights.memory_encoders, kernel.new_zeros
    recall = zero(weights.states, channels) if recall is None else recall
    both = torch.cat([kernel, recall], 1)
    reach, kernels = blocks.reach(both), blocks.kernels(both)
    at_once = kernels[0, :, :units]
    # v_k is of the memory before it, z_k of the memory that v_k has entered
    to_v = torch.cat([recall.unsqueeze(0), reach[:-1, :, units:]])
    to_z = reach[..., :units] + to_v @ at_once
    later_v = kernels[:-1, :, units:]
    later_z = kernels[1:, :, :units] + later_v @ at_once
    kernels = torch.cat([later_z, later_v], 2).flip(0).reshape(-1, units + channels)
    return StepWeights(
        begin=_begin(weights, at_once),
        reach=torch.cat([to_z, to_v], 2),
        kernels=kernels,
        carry=blocks.carry,
        enter=blocks.enter,
    )


def _begin(weights: LMUWeights, at_once: Tensor) -> Tensor:
    """Give the matrix from [h, x, 1] to [z, v]; `at_once` is K_0."""
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
