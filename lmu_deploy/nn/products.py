"""Matrix products and activations of the recurrences, by the fastest library available.

`torch.mm` calls MKL, which does not use the widest vector units on processors other than Intel's.
oneDNN, which torch includes for its compiler, does: a product of (100, 486) and (486, 212) followed
by tanh took 0.14 ms instead of 0.28 ms on an AMD EPYC (Zen 5). Each call costs about 11 us, so
small products use `mm`. oneDNN takes weights transposed, and is faster on a transposed view of
(k, n) than on a contiguous (n, k): 119 against 156 us at these sizes, 178 against 95 GFLOP/s for
sums of outer products. Its fused tanh takes 12 us for (100, 212), that of torch 52 us. 212 columns
take 158 us and 224 take 133 us, so weights are padded with zeros to a multiple of 16 columns. The
choice depends only on the machine and the sizes, so that results are reproducible bit for bit.

The operator of oneDNN is private to torch. It is used only where it passes a check of its
signature and results; otherwise all products use public operators.

Under autocast large products of a step have operands and results of bfloat16 and sums of float32,
on processors with AMX (:func:`reduced_type`). A product of (100, 484) and (484, 224) with tanh took
44 us instead of 133 on an Intel processor with AMX, and 225 us there without AMX. With weights that
alternate, so that they are not in the nearest cache, a step took 102 us with weights in the layout
of oneDNN and 144 us without.

Derivatives of activations are functions of the output, so that recurrences store outputs only. On a
GPU the recurrence of the hidden units uses the fused RNN kernel of torch (cuDNN). On a CPU the
recurrence of :mod:`lmu_deploy.nn.recurrent` takes half the time of that kernel (measured for
training, batch 100, 784 steps, 212 units: 0.31 s against 0.59 s on one core), because the kernel
computes a product and a sum per step for the gradient of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_threshold_backward = torch.ops.aten.threshold_backward.grad_input
_hardtanh_backward = torch.ops.aten.hardtanh_backward.grad_input


class Activation(NamedTuple):
    """An activation and its derivative.

    Attributes
    ----------
    apply : callable
        Maps z to h, with autograd.
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
"""Floats in a vector of AVX-512; a partly filled vector is slower than a full one."""
_ROWS = 1536
"""Number of rows whose outer products are summed in one product."""
_WORTH_A_CALL = 2e6
"""Number of multiplications above which oneDNN is faster despite its overhead."""


class Product:
    """Compute ``f(x @ w)`` as a new tensor, without autograd.

    Parameters
    ----------
    like : Tensor
        Tensor with the type and device of the operands.
    multiplications : int
        Number of multiplications in one product.
    activation : {"linear", "relu", "tanh", "hard-tanh"}
        Activation f.

    Attributes
    ----------
    is_onednn : bool
        Whether oneDNN is used.
    dtype : torch.dtype
        Type of the operands and the result.
    """

    def __init__(self, like: Tensor, multiplications: int, activation: str = "linear") -> None:
        self._fused = _onednn(like, multiplications)
        self.is_onednn = self._fused is not None
        self.dtype = like.dtype
        self._name, self._numbers = _POST_OPERATIONS[activation]
        self._apply = ACTIVATIONS[activation].apply_in_place

    def pack(self, w: Tensor) -> Tensor:
        """Return w (..., k, n) contiguous, padded with columns of zeros where that is faster.

        Weights of another type are rounded to that of the operands.
        """
        missing = -w.shape[-1] % _FULL_COLUMNS if self.is_onednn else 0
        w = w.to(self.dtype)
        return (pad(w, (0, missing)) if missing else w).contiguous()

    def pack_all(self, stack: Tensor) -> tuple[Tensor, ...]:
        """Return the matrices of a stack (count, k, n), each packed for use in many products.

        Those of bfloat16 get the layout of oneDNN, which otherwise converts them in each product.
        """
        if not self.is_onednn or self.dtype != torch.bfloat16:
            return self.pack(stack).unbind(0)
        missing = -stack.shape[2] % _FULL_COLUMNS
        transposed = pad(stack.transpose(1, 2).to(self.dtype), (0, 0, 0, missing)).contiguous()
        return tuple(map(torch.ops.mkldnn._reorder_linear_weight, transposed))

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the product of x (rows, k) and w (k, n), both contiguous, w possibly packed."""
        if self._fused is not None:
            transposed = w if w.is_mkldnn else w.t()
            result: Tensor = self._fused(x, transposed, None, self._name, self._numbers, "")
            return result
        z = x @ w
        self._apply(z)
        return z


def accumulator(like: Tensor, multiplications: int) -> Callable[[Tensor, Tensor, Tensor], object]:
    """Return the fastest function ``accumulate(z, x, w)`` that adds ``x @ w`` to z in place.

    The parameters are those of :class:`Product`.
    """
    if (fused := _onednn(like, multiplications)) is not None:
        return lambda z, x, w: z.add_(fused(x, w.t(), None, "none", [], ""))
    return lambda z, x, w: z.addmm_(x, w)


def summed_outer(like: Tensor, multiplications: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the fastest function ``f(x, g)`` that computes ``x.t() @ g``.

    The parameters are those of :class:`Product`; x (rows, k) and g (rows, n) must be contiguous.
    """
    fused = _onednn(like, multiplications)
    if fused is None or like.dtype == torch.bfloat16:  # which torch multiplies by oneDNN too
        return lambda x, g: x.t() @ g

    def by_parts(x: Tensor, g: Tensor) -> Tensor:
        # oneDNN copies x.t(); parts keep the copy within the caches.
        parts = zip(torch.split(x, _ROWS), torch.split(g, _ROWS), strict=True)
        total: Tensor = fused(*(part.t() for part in next(parts)), None, "none", [], "")
        for x_part, g_part in parts:
            total += fused(x_part.t(), g_part.t(), None, "none", [], "")
        return total

    return by_parts


def is_large(multiplications: int) -> bool:
    """Return whether a product is so large that oneDNN is worth its overhead."""
    return multiplications >= _WORTH_A_CALL


def has_onednn(like: Tensor, multiplications: int) -> bool:
    """Return whether oneDNN is used; the parameters are those of :class:`Product`."""
    return _onednn(like, multiplications) is not None


def _onednn(like: Tensor, multiplications: int) -> Any:
    """Return the linear operator of oneDNN with a post-operation; None where it is not faster."""
    if like.device.type != "cpu" or multiplications < _WORTH_A_CALL:
        return None
    if like.dtype == torch.bfloat16:
        return _private_operator(like.dtype) if has_bfloat16() else None
    if like.dtype != torch.float32:
        return None
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not (wide and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return None
    return _private_operator(like.dtype)


@cache
def has_bfloat16() -> bool:
    """Return whether the processor multiplies matrices of bfloat16 faster than of float32.

    It does with AMX. With AVX-512 alone they took 1.6 times as long as in float32, and 4 times
    without its instructions for bfloat16. The instructions decide and not a trial, so that results
    do not depend on what else the machine does.
    """
    if (capabilities := getattr(torch.cpu, "get_capabilities", None)) is None:
        return False
    return bool(capabilities().get("amx_bf16", False))


def reduced_type(device: str, weights: torch.dtype) -> torch.dtype | None:
    """Return the type of the operands of large products of a recurrence under autocast.

    It is bfloat16 where autocast asks for it, the weights are float32 and :func:`has_bfloat16`;
    otherwise None, the type of the weights.
    """
    if device != "cpu" or weights != torch.float32 or not has_bfloat16():
        return None
    wanted = torch.get_autocast_dtype(device)
    return wanted if wanted == torch.bfloat16 else None


@cache
def _private_operator(dtype: torch.dtype) -> Any:
    """Return torch's private operator of oneDNN, or None where it is missing or differs.

    For bfloat16 that which gives weights the layout of oneDNN has to exist too.

    It has no documented signature, so it is tried once on a small product with each
    post-operation and compared with public operators.
    """
    packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    operator = getattr(packet, "default", None)
    if operator is None:
        return None
    reorder: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    x = torch.linspace(-1.0, 1.0, 6, device="cpu").view(2, 3).to(dtype)
    w = torch.linspace(-2.0, 2.0, 12, device="cpu").view(3, 4).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for activation, (name, numbers) in _POST_OPERATIONS.items():
        try:
            found = operator(x, w.t(), None, name, numbers, "")
            if dtype == torch.bfloat16:
                packed = operator(x, reorder(w.t().contiguous()), None, name, numbers, "")
                found = packed if torch.equal(packed, found) else found[:0]
        except (RuntimeError, TypeError, NotImplementedError):
            return None
        expected = ACTIVATIONS[activation].apply(x @ w)
        if found.shape != expected.shape or found.dtype != dtype:
            return None
        if not torch.allclose(found, expected, rtol=1e-5, atol=tolerance):
            return None
    return operator


def matmul(x: Tensor, w: Tensor) -> Tensor:
    """Return ``x @ w`` for x of shape (..., k) and a matrix w (k, n), with autograd."""
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
    """Return whether the fused RNN kernel supports the device and the activation."""
    return drive.is_cuda and activation in _KERNELS


def fused_recurrence(drive: Tensor, start: Tensor, weight: Tensor, activation: str) -> Tensor:
    """Compute ``h_t = f(h_{t-1} W + d_t)`` with the fused RNN kernel.

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
    # The kernel multiplies its input by a matrix; the drive is already the product.
    unchanged = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    weights = unchanged, weight.t().contiguous()
    states, _ = _KERNELS[activation](
        drive, start.unsqueeze(0), weights, False, 1, 0.0, True, False, True
    )
    return states


class TensorCache:
    """Cache of values computed from tensors; it is cleared when the tensors change."""

    def __init__(self) -> None:
        self._sources: tuple[Tensor, ...] = ()
        self._found: dict[Any, Any] = {}

    def of(self, *sources: Tensor) -> dict[Any, Any]:
        """Return the cached values computed from `sources`, at least one tensor."""
        same = len(sources) == len(self._sources) and all(map(_same, sources, self._sources))
        if not same:
            self._sources = tuple(source.detach().clone() for source in sources)
            self._found = {}
        return self._found

    def __reduce__(self) -> tuple[type[TensorCache], tuple[()]]:
        """Give copies of a layer and unpickled layers an empty cache."""
        return TensorCache, ()


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal; version counters miss changes of ``.data``."""
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
