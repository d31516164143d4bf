r"""The form for hidden units that feed back into a large memory: blocks, each step by step.

Only the few channels of v_t carry the feedback, so within a block of L steps
(`lmu_deploy.nn.blocks`) the memory's own matrix is not needed: with K_i = B T^i W_m and
P_k = T^(k+1) W_m,

.. math:: [z_k, v_k] = d_k + [m P_k, 0] + h_{k-1} [W_h + E_h K_0,\; E_h]
          + \Big[\sum_{j<k} v_j K_{k-j}, 0\Big], \qquad h_k = f(z_k)

with d_k = x_k [W_x + E_x K_0, E_x] + [b + b_u K_0, b_u] computed for all time before. That is
order * units + units^2 products a step, where the plain step needs order^2 more. The recurrence
itself is `lmu_deploy.nn.coupled_scan`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from lmu_deploy.nn.blocks import Blocks, best_length
from lmu_deploy.nn.coupled_scan import coupled_scan
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

    The layer must have hidden encoders. `length` is that of blocks, else the best is taken.
    """
    kernel, feedback = weights.memory_kernel, weights.hidden_encoders
    assert kernel is not None
    assert feedback is not None
    batch, steps, _ = x.shape
    dynamics = weights.dynamics()
    length = length or best_length(dynamics, weights.units, batch, steps, 0.5)
    blocks = Blocks.of(dynamics, length)
    kernels = blocks.kernels(kernel)
    encoders, bias = _fold_input(weights, kernels[0])
    own = feedback @ kernels[0]
    if weights.recurrent_kernel is not None:
        own = own + weights.recurrent_kernel
    ends = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
    hiddens, h, starts, entered = coupled_scan(
        linear(_to_phases(x, length), encoders.t(), bias),  # a tensor of its own, not a view
        m,
        h,
        torch.cat([own, feedback], 1),
        blocks.reach(kernel),
        kernels[1:].flip(0).reshape(-1, weights.units),
        blocks.carry,
        blocks.enter,
        ends=ends,
        steps=steps,
        activation=weights.activation,
        last_only=last_only,
    )
    m = blocks.state_at(entered.transpose(0, 1), starts.transpose(0, 1), ends)
    return (h if last_only else hiddens), m, h


def _fold_input(weights: LMUWeights, first: Tensor) -> tuple[Tensor, Tensor | None]:
    """Give the weights (n_in, units + channels) and bias of what the input alone drives."""
    direct = weights.input_encoders @ first
    if weights.input_kernel is not None:
        direct = direct + weights.input_kernel
    encoders = torch.cat([direct, weights.input_encoders], 1)
    if weights.bias is None and weights.memory_bias is None:
        return encoders, None
    zero = first.new_zeros
    bias = zero(weights.units) if weights.bias is None else weights.bias
    enters = zero(weights.channels) if weights.memory_bias is None else weights.memory_bias
    return encoders, torch.cat([bias + enters @ first, enters])


def _to_phases(x: Tensor, length: int) -> Tensor:
    """Arrange (batch, steps, n) as (phases * blocks * batch, n), with zeros after the end."""
    padded = pad(x, (0, 0, 0, -x.shape[1] % length))
    arranged = padded.view(len(x), -1, length, x.shape[2]).permute(2, 1, 0, 3)
    return arranged.reshape(-1, x.shape[2])
