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

The hidden activations: as functions, in place, and their derivatives from the result alone.

Each derivative is a function of the activation's output, so the recurrences keep only outputs.

A matrix product that autograd can go through, by the fastest library at hand.

Which one that is, `lmu_deploy.nn.products` chooses, for the product and for both of its gradients.

The hidden units' own recurrence on a GPU: torch's fused RNN kernel (cuDNN).

On a CPU `nn.recurrent` takes half the time of torch's RNN (measured, training, batch 100,
784 steps, 212 units: 0.31 s against 0.59 s on one core), whose weight gradient is a product and a
sum for every step; on a GPU a kernel for the whole sequence is what counts.

What is computed from tensors, kept until they change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

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


_KERNELS = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}


def has_fused(drive: Tensor, activation: str) -> bool:
    """Whether a fused kernel serves here."""
    return drive.is_cuda and activation in _KERNELS


def fused_recurrence(drive: Tensor, start: Tensor, weight: Tensor, activation: str) -> Tensor:
    """Run ``h_t = f(h_{t-1} W + d_t)``.

    Parameters
    ----------
    drive : Tensor, shape (batch, steps, units)
    start : Tensor, shape (batch, units)
    weight : Tensor, shape (units, units)
    activation : {"tanh", "relu"}

    Returns
    -------
    states : Tensor, shape (batch, steps, units)
    """
    # the kernel multiplies its input by a matrix of its own, which the drive has behind it already
    unchanged = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    weights = unchanged, weight.t().contiguous()
    states, _ = _KERNELS[activation](
        drive, start.unsqueeze(0), weights, False, 1, 0.0, True, False, True
    )
    return states


class Kept:
    """A place for what is computed from tensors, emptied when they hold something else."""

    def __init__(self) -> None:
        self._sources: tuple[Tensor, ...] = ()
        self._found: dict[Any, Any] = {}

    def of(self, *sources: Tensor) -> dict[Any, Any]:
        """Give the place for what is computed from `sources`, of which there is at least one."""
        same = len(sources) == len(self._sources) and all(map(_same, sources, self._sources))
        if not same:
            self._sources = tuple(source.detach().clone() for source in sources)
            self._found = {}
        return self._found

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        """Begin copies of a layer, and layers from files, with an empty place."""
        return Kept, ()


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same; versions would miss a change through ``.data``."""
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
