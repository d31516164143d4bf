"""The hidden activations: as functions, in place, and their derivatives from the result alone.

Each derivative is a function of the activation's output, so the recurrences keep only outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_threshold_backward = torch.ops.aten.threshold_backward.grad_input
_hardtanh_backward = torch.ops.aten.hardtanh_backward.grad_input


class Activation(NamedTuple):
    """One activation.

    Attributes
    ----------
    apply : callable
        z to h, for autograd.
    apply_in_place : callable
        Overwrites z with h.
    pull_back : callable
        ``(g, h, out)`` writes dL/dz to `out`, which may be g = dL/dh itself.
    """

    apply: Callable[[Tensor], Tensor]
    apply_in_place: Callable[[Tensor], object]
    pull_back: Callable[[Tensor, Tensor, Tensor], object]


ACTIVATIONS = {
    "linear": Activation(lambda z: z, lambda z: None, lambda g, h, out: out.copy_(g)),
    "relu": Activation(
        torch.relu,
        torch.relu_,
        lambda g, h, out: _threshold_backward(g, h, 0.0, grad_input=out),
    ),
    "tanh": Activation(
        torch.tanh, torch.tanh_, lambda g, h, out: _tanh_backward(g, h, grad_input=out)
    ),
    "hard-tanh": Activation(
        nn.functional.hardtanh,
        nn.functional.hardtanh_,
        lambda g, h, out: _hardtanh_backward(g, h, -1.0, 1.0, grad_input=out),
    ),
}
