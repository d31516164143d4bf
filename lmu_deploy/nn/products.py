"""The product of one step by the fastest library at hand.

torch's `mm` calls MKL, which on processors of other makers than Intel does without their widest
vector units. oneDNN, which torch brings along for its compiler, uses them: a product of (100, 486)
and (486, 212) with a tanh behind it took 0.14 ms instead of 0.28 ms on an AMD EPYC (Zen 5), but
each call costs some 11 us, so small products stay with `mm`. It takes weights the other way round,
and is faster on a transposed view of (k, n) than on (n, k) itself: 119 against 156 us at these
sizes, 178 against 95 GFLOP/s where outer products are summed. The tanh is its own too: torch's
takes 52 us for (100, 212), oneDNN's behind a product 12 us. Columns come in sixteens: 212 of them
take 158 us, 224 take 133 us, so weights are laid out with zeros behind them. Which library
is taken depends on the machine and the sizes alone, so that a run repeats bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lmu_deploy.nn.activations import ACTIVATIONS

_POST_OPERATIONS: dict[str, tuple[str, list[float]]] = {
    "linear": ("none", []),
    "relu": ("relu", []),
    "tanh": ("tanh", []),
    "hard-tanh": ("hardtanh", [-1.0, 1.0]),
}
_FULL_COLUMNS = 16
"""Floats in a vector of AVX-512; columns left over take longer than as many as fill it."""
_ROWS = 1536
"""Rows whose outer products are summed in one product."""
_WORTH_A_CALL = 2e6
"""Multiplications above which oneDNN's speed makes up for its calls."""


class Product:
    """How to compute ``f(x @ w)`` as a new tensor, without autograd.

    Parameters
    ----------
    like : Tensor
        Of the type and on the device of the operands.
    multiplications : int
        In one product.
    activation : {"linear", "relu", "tanh", "hard-tanh"}
        f.

    Attributes
    ----------
    is_onednn : bool
        Whether oneDNN computes it.
    """

    def __init__(self, like: Tensor, multiplications: int, activation: str = "linear") -> None:
        self._fused = _onednn(like, multiplications)
        self.is_onednn = self._fused is not None
        self._name, self._numbers = _POST_OPERATIONS[activation]
        self._apply = ACTIVATIONS[activation].apply_in_place

    def lay(self, w: Tensor) -> Tensor:
        """Give w (..., k, n) contiguous, with columns of zeros behind it where that is faster."""
        missing = -w.shape[-1] % _FULL_COLUMNS if self.is_onednn else 0
        return (pad(w, (0, missing)) if missing else w).contiguous()

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:
        """Compute it for x (rows, k) and w (k, n), both contiguous."""
        if self._fused is not None:
            result: Tensor = self._fused(x, w.t(), None, self._name, self._numbers, "")
            return result
        z = x @ w
        self._apply(z)
        return z


def accumulator(like: Tensor, multiplications: int) -> Callable[[Tensor, Tensor, Tensor], object]:
    """Choose how to compute ``z += x @ w`` in place, as ``accumulate(z, x, w)``.

    The parameters are those of :class:`Product`.
    """
    if (fused := _onednn(like, multiplications)) is not None:
        return lambda z, x, w: z.add_(fused(x, w.t(), None, "none", [], ""))
    return lambda z, x, w: z.addmm_(x, w)


def summed_outer(like: Tensor, multiplications: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Choose how to compute ``x.t() @ g``, the sum over rows of the outer products of two matrices.

    The parameters are those of :class:`Product`; x (rows, k) and g (rows, n), contiguous, give
    (k, n).
    """
    if (fused := _onednn(like, multiplications)) is None:
        return lambda x, g: x.t() @ g

    def by_parts(x: Tensor, g: Tensor) -> Tensor:
        # oneDNN wants a copy of x.t(), which is made in the caches if it is no larger than they are
        parts = zip(torch.split(x, _ROWS), torch.split(g, _ROWS), strict=True)
        total: Tensor = fused(*(part.t() for part in next(parts)), None, "none", [], "")
        for x_part, g_part in parts:
            total += fused(x_part.t(), g_part.t(), None, "none", [], "")
        return total

    return by_parts


def has_onednn(like: Tensor, multiplications: int) -> bool:
    """Whether oneDNN would do such a product; the parameters are those of :class:`Product`."""
    return _onednn(like, multiplications) is not None


def _onednn(like: Tensor, multiplications: int) -> Any:
    """Give oneDNN's linear layer with a post-operation, or None where it would be no gain."""
    if like.dtype != torch.float32 or like.device.type != "cpu" or multiplications < _WORTH_A_CALL:
        return None
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not (wide and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return None
    operation = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return getattr(operation, "default", None)
