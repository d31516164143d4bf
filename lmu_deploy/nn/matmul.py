"""A matrix product that autograd can go through, by the fastest library at hand.

Which one that is, `lmu_deploy.nn.products` chooses, for the product and for both of its gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lmu_deploy.nn.products import Product, has_onednn, summed_outer


def matmul(x: Tensor, w: Tensor) -> Tensor:
    """Give ``x @ w`` for x of shape (..., k) and a matrix w (k, n)."""
    if not has_onednn(x, x.numel() * w.shape[1]):
        return x @ w
    product: Tensor = _Matmul.apply(x.reshape(-1, len(w)), w)  # type: ignore[no-untyped-call]
    return product.view(*x.shape[:-1], w.shape[1])


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return Product(x, x.numel() * w.shape[1])(x, w.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, w = ctx.saved_tensors
        gradient, size = gradient.contiguous(), x.numel() * w.shape[1]
        d_x = d_w = None
        if ctx.needs_input_grad[0]:
            d_x = Product(x, size)(gradient, w.t().contiguous())
        if ctx.needs_input_grad[1]:
            d_w = summed_outer(x, size)(x, gradient)
        return d_x, d_w
