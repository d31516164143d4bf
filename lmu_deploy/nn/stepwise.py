"""The cell, step by step: the equations of the layer as they are written, for one step at a time.

It is what the other forms are compared with, and what streams.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmu_deploy.nn.activations import ACTIVATIONS
from lmu_deploy.nn.sequences import at_end
from lmu_deploy.nn.weights import LMUWeights


def advance(weights: LMUWeights, x: Tensor, m: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Go one step on: x (batch, n_in), m (batch, states), h (batch, units) to the next m and h."""
    u = x @ weights.input_encoders
    if weights.hidden_encoders is not None:
        u = u + h @ weights.hidden_encoders
    if weights.memory_encoders is not None:
        u = u + m @ weights.memory_encoders
    if weights.memory_bias is not None:
        u = u + weights.memory_bias
    separate = m.reshape(len(m), weights.channels, -1)
    m = (separate @ weights.a_bar.t() + u.unsqueeze(2) * weights.b_bar).flatten(1)
    if weights.memory_kernel is None:
        return m, h
    z = m @ weights.memory_kernel
    if weights.input_kernel is not None:
        z = z + x @ weights.input_kernel
    if weights.recurrent_kernel is not None:
        z = z + h @ weights.recurrent_kernel
    if weights.bias is not None:
        z = z + weights.bias
    return m, ACTIVATIONS[weights.activation].apply(z)


def run_stepwise(
    weights: LMUWeights, x: Tensor, m: Tensor, h: Tensor, lengths: Tensor | None, last_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through sequences; see :func:`lmu_deploy.nn.recurrent.run_recurrent`."""
    memories, hiddens = [], []
    for x_t in x.unbind(1):
        m, h = advance(weights, x_t, m, h)
        memories.append(m)
        hiddens.append(h)
    if lengths is not None:
        m, h = at_end(torch.stack(memories, 1), lengths), at_end(torch.stack(hiddens, 1), lengths)
    if last_only:
        return (m if weights.memory_kernel is None else h), m, h
    return torch.stack(memories if weights.memory_kernel is None else hiddens, 1), m, h
