"""The product of one step, with its activation, by the fastest library at hand.

torch's `mm` calls MKL, which on processors of other makers than Intel does without their widest
vector units. oneDNN, which torch brings along for its compiler, uses them: a product of (100, 486)
and (486, 212) with a tanh behind it took 0.14 ms instead of 0.28 ms on an AMD EPYC (Zen 5). Which
one is taken depends on the machine alone, so that a run repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmu_deploy.nn.activations import ACTIVATIONS

Product = Callable[[Tensor, Tensor], Tensor]
"""x (rows, k) and w (n, k) to f(x w^T), a new tensor (rows, n)."""

_POST_OPERATIONS: dict[str, tuple[str, list[float]]] = {
    "linear": ("none", []),
    "relu": ("relu", []),
    "tanh": ("tanh", []),
    "hard-tanh": ("hardtanh", [-1.0, 1.0]),
}


def product(like: Tensor, activation: str = "linear") -> Product:
    """Choose how to compute products of tensors that are `like` this one (no autograd).

    Parameters
    ----------
    like : Tensor
        Its type and device count.
    activation : {"linear", "relu", "tanh", "hard-tanh"}
        f.
    """
    fused = _onednn()
    if fused is not None and like.dtype == torch.float32 and like.device.type == "cpu":
        name, numbers = _POST_OPERATIONS[activation]
        return lambda x, w: fused(x, w, None, name, numbers, "")
    apply = ACTIVATIONS[activation].apply_in_place

    def plain(x: Tensor, w: Tensor) -> Tensor:
        z = x @ w.t()
        apply(z)
        return z

    return plain


def _onednn() -> Any:
    """Give oneDNN's linear layer with a post-operation; None where it is absent or no faster."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not (wide and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return None
    operation = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return getattr(operation, "default", None)
