r"""The form for hidden units that feed back into a large memory: blocks, each step by step.

Only the few channels of v_t carry the feedback, so within a block of L steps
(`lmu_deploy.nn.blocks`) the memory's own matrix is not needed: with K_i = B T^i W_m and
P_k = T^(k+1) W_m,

.. math:: v_k &= x_k E_x + h_{k-1} E_h + b_u \\
          z_k &= m P_k + h_{k-1} (W_h + E_h K_0) + x_k (W_x + E_x K_0) + b + b_u K_0
                 + \sum_{j<k} v_j K_{k-j}, \qquad h_k = f(z_k)

That is order * units + units^2 products a step, where the plain step needs order^2 more. The
recurrence itself is `lmu_deploy.nn.coupled_scan`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmu_deploy.nn.blocks import Blocks, best_length
from lmu_deploy.nn.coupled_scan import coupled_scan
from lmu_deploy.nn.step_weights import StepWeights
from lmu_deploy.nn.weights import Dynamics, LMUWeights


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
    dynamics = weights.dynamics()
    length = length or best_length(dynamics, weights.units, batch, steps, 1.0)
    blocks, step_weights = _prepare(weights, dynamics, length)
    hiddens, h, held = coupled_scan(x, m, h, step_weights, weights.activation, lengths, last_only)
    ends = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
    starts, entered = held.transpose(0, 1).split([m.shape[1], len(blocks.enter)], 2)
    m = blocks.state_at(entered, starts, ends)
    return (h if last_only else hiddens), m, h


def _prepare(weights: LMUWeights, dynamics: Dynamics, length: int) -> tuple[Blocks, StepWeights]:
    """Make the matrices of blocks of `length` steps, or take those that were kept."""
    kernel = weights.memory_kernel
    assert kernel is not None
    if (kept := weights.lasting()) is None:
        blocks = Blocks.of(dynamics, length)
        return blocks, _step_weights(weights, blocks, blocks.kernels(kernel), blocks.reach(kernel))
    if length not in kept:
        kept.clear()
        with torch.inference_mode(False), torch.no_grad():
            blocks = Blocks.of(weights.dynamics(), length)
            parts = weights, blocks, blocks.kernels(kernel), blocks.reach(kernel)
            kept[length] = blocks, _step_weights(*parts)
    found: tuple[Blocks, StepWeights] = kept[length]
    return found


def _step_weights(
    weights: LMUWeights, blocks: Blocks, kernels: Tensor, reach: Tensor
) -> StepWeights:
    """Fold what v_k gives at once, by K_0, into what it is made of."""
    units, channels = weights.units, weights.channels
    zero = kernels.new_zeros
    feedback = weights.hidden_encoders
    feedback = zero(units, channels) if feedback is None else feedback
    enters = zero(channels) if weights.memory_bias is None else weights.memory_bias
    own = feedback @ kernels[0]
    direct = weights.input_encoders @ kernels[0]
    bias = enters @ kernels[0]
    if weights.recurrent_kernel is not None:
        own = own + weights.recurrent_kernel
    if weights.input_kernel is not None:
        direct = direct + weights.input_kernel
    if weights.bias is not None:
        bias = bias + weights.bias
    return StepWeights(
        own=own,
        direct=torch.cat([direct, bias.unsqueeze(0)]),
        encoders=torch.cat([feedback, weights.input_encoders, enters.unsqueeze(0)]),
        reach=reach,
        kernels=kernels[1:].flip(0).reshape(-1, units),
        carry=blocks.carry,
        enter=blocks.enter,
    )
