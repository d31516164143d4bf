"""PyTorch counterparts of the operators without recurrence: of single frames, and over time."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add, mul

import torch
from torch import Tensor
from torch.nn import functional

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import FramePool, LayerNorm, Permute, Reshape, RMSNorm, Slice
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense, Embedding
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.time import Delay, Mask, Pool, Reduce, Reverse, RunningMean
from lmu_deploy.nn.graph.operator import (
    TorchFramewise,
    TorchOperator,
    counterpart_of,
    to_array,
)
from lmu_deploy.nn.products import matmul
from lmu_deploy.nn.sequences import at_end, is_inside

FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "linear": lambda z, _: z,
    "relu": lambda z, _: torch.relu(z),
    "relu6": lambda z, _: functional.relu6(z),
    "tanh": lambda z, _: torch.tanh(z),
    "hard-tanh": lambda z, _: functional.hardtanh(z),
    "sigmoid": lambda z, _: torch.sigmoid(z),
    "hard-sigmoid": lambda z, _: functional.hardsigmoid(z),
    "hard-sigmoid-keras2": lambda z, _: torch.clamp(0.2 * z + 0.5, 0.0, 1.0),
    "gelu": lambda z, _: functional.gelu(z),
    "gelu-tanh": lambda z, _: functional.gelu(z, approximate="tanh"),
    "silu": lambda z, _: functional.silu(z),
    "softsign": lambda z, _: functional.softsign(z),
    # Beyond its threshold torch returns z; here the rest is below the precision of float64.
    "softplus": lambda z, _: functional.softplus(z, threshold=40.0),
    # Its derivative is zero, wherever there is one.
    "step": lambda z, _: (z >= 0).to(z.dtype) + 0.0 * z,
    "softmax": lambda z, _: torch.softmax(z, -1),
    "leaky-relu": lambda z, slope: functional.leaky_relu(z, slope),
    "elu": lambda z, slope: functional.elu(z, slope),
}
"""The functions of :class:`lmu_deploy.core.graph.pointwise.Activation`, of z and the slope."""


def activate(activation: Activation | None, z: Tensor) -> Tensor:
    """Return f(z); z itself without an activation."""
    return z if activation is None else FUNCTIONS[activation.name](z, activation.slope)


@counterpart_of(Activation)
class TorchActivation(TorchFramewise):
    """A function of every value; nothing is trained."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute on a tensor of any shape."""
        return activate(self.operator, signals[0])


@counterpart_of(Add, Multiply, Concat)
class TorchCombination(TorchFramewise):
    """The sum, the product or the concatenation of signals."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Combine from the first to the last."""
        if isinstance(self.operator, Concat):
            return torch.cat(signals, -1)
        return reduce(add if isinstance(self.operator, Add) else mul, signals)


@counterpart_of(Dense)
class TorchDense(TorchFramewise):
    """``y = x W + b``."""

    kernel: Tensor
    bias: Tensor | None

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute on tensors of shape (..., n_in)."""
        y = matmul(signals[0], self.kernel)
        return y if self.bias is None else y + self.bias


@counterpart_of(Affine)
class TorchAffine(TorchFramewise):
    """``y = x * scale + offset``."""

    scale: Tensor
    offset: Tensor

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute on tensors of shape (..., features)."""
        return signals[0] * self.scale + self.offset


class BatchNorm(TorchOperator):
    """An Affine whose input is normalized by the statistics of each batch during training.

    (Ioffe, Szegedy 2015.) The statistics go over samples, steps that count, and all axes of a frame
    but the last. As long as nothing is trained, its answers in evaluation mode are those of the
    Affine.

    Parameters
    ----------
    operator : Affine
    dtype : torch.dtype
    momentum : float
        Share of a batch in the running statistics.
    epsilon : float
    """

    scale: Tensor
    offset: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(
        self, operator: Affine, dtype: torch.dtype, momentum: float = 0.1, epsilon: float = 1e-5
    ) -> None:
        super().__init__(operator, dtype)
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("mean", torch.zeros_like(self.scale))
        self.register_buffer("variance", torch.full_like(self.scale, 1.0 - epsilon))

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize the last axis; padding is normalized too and counts for nothing."""
        (x,) = signals
        if not self.training:
            scale = self.scale * torch.rsqrt(self.variance + self.epsilon)
            return x * scale + (self.offset - self.mean * scale)
        weights = self.mean, self.variance, self.scale, self.offset
        rest = True, self.momentum, self.epsilon
        if lengths is None or x.ndim < 3:
            return functional.batch_norm(x.reshape(-1, x.shape[-1]), *weights, *rest).view_as(x)
        inside = is_inside(lengths, x.shape[1])
        found = functional.batch_norm(x[inside].reshape(-1, x.shape[-1]), *weights, *rest)
        y = torch.zeros_like(x)
        y[inside] = found.view(-1, *x.shape[2:])
        return y

    def to_operator(self) -> Operator:
        """Return the scale and offset that the running statistics make of it."""
        mean, variance = to_array(self.mean), to_array(self.variance)
        scale, offset = to_array(self.scale), to_array(self.offset)
        found = Affine.from_batch_norm(mean, variance, scale, offset, self.epsilon)
        return Affine(found.scale.astype(scale.dtype), found.offset.astype(scale.dtype))


@counterpart_of(Embedding)
class TorchEmbedding(TorchFramewise):
    """Rows of a table."""

    table: Tensor

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Look up tokens of shape (..., 1)."""
        return functional.embedding(signals[0][..., 0].long(), self.table)


@counterpart_of(Conv2d)
class TorchConv2d(TorchFramewise):
    """A convolution over the two axes of every frame."""

    kernel: Tensor
    bias: Tensor | None

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convolve frames of shape (..., height, width, channels)."""
        (x,), own = signals, self.operator
        top, bottom, left, right = own.padding
        images = functional.pad(x.reshape(-1, *x.shape[-3:]), (0, 0, left, right, top, bottom))
        # In float64 the gradient of torch's convolution needs contiguous weights.
        weight = self.kernel.permute(3, 2, 0, 1).contiguous()
        y = functional.conv2d(
            images.permute(0, 3, 1, 2), weight, self.bias, own.strides, 0, own.dilations, own.groups
        )
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-3], *y.shape[2:], y.shape[1])


@counterpart_of(LayerNorm)
class TorchLayerNorm(TorchFramewise):
    """Layer normalization."""

    scale: Tensor
    offset: Tensor

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize the last axis."""
        return functional.layer_norm(
            signals[0], self.scale.shape, self.scale, self.offset, self.operator.epsilon
        )


@counterpart_of(RMSNorm)
class TorchRMSNorm(TorchFramewise):
    """Root mean square normalization."""

    scale: Tensor

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize the last axis."""
        (x,) = signals
        power = x.square().mean(-1, keepdim=True)
        return x * torch.rsqrt(power + self.operator.epsilon) * self.scale


@counterpart_of(Reshape, Permute, Slice)
class TorchAxes(TorchFramewise):
    """Axes of every frame in another form or order, or some of its features."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Change the trailing axes."""
        (x,), own = signals, self.operator
        if isinstance(own, Slice):
            return x[..., own.begin : own.end]
        if isinstance(own, Reshape):
            return x.reshape(*x.shape[: x.ndim - len(own.before)], *own.after)
        leading = x.ndim - len(own.order)
        return x.permute(*range(leading), *(leading + axis for axis in own.order))


@counterpart_of(FramePool)
class TorchFramePool(TorchFramewise):
    """Average or maximum over windows of every frame."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool one axis after the other."""
        (x,), own = signals, self.operator
        for number, (width, stride) in enumerate(zip(own.widths, own.strides, strict=True)):
            windows = x.unfold(x.ndim - 1 - len(own.widths) + number, width, stride)
            x = windows.amax(-1) if own.kind == "max" else windows.mean(-1)
        return x


def _beside(values: Tensor, like: Tensor) -> Tensor:
    """Return values (batch, ...) with axes of length one behind them, as many as `like` has."""
    return values.view(*values.shape, *([1] * (like.ndim - values.ndim)))


def _padded(x: Tensor, left: int, right: int, value: float = 0.0) -> Tensor:
    """Return a sequence with frames of one value before and behind it."""
    if not left and not right:
        return x
    return functional.pad(x, (*([0, 0] * (x.ndim - 2)), left, right), value=value)


@counterpart_of(Conv1d)
class TorchConv1d(TorchOperator):
    """A convolution over time."""

    kernel: Tensor
    bias: Tensor | None

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convolve; taps that do not overlap are one product."""
        own = self.operator
        x = _padded(signals[0], own.left, own.right)
        taps, n_in, n_out = self.kernel.shape
        if own.stride == taps and own.dilation == own.groups == 1:
            count = x.shape[1] // taps
            patches = x[:, : count * taps].reshape(len(x), count, taps * n_in)
            y = matmul(patches, self.kernel.reshape(-1, n_out))
            return y if self.bias is None else y + self.bias
        weight = self.kernel.permute(2, 1, 0).contiguous()
        rest = self.bias, own.stride, 0, own.dilation, own.groups
        return functional.conv1d(x.transpose(1, 2), weight, *rest).transpose(1, 2)


@counterpart_of(Reduce)
class TorchReduce(TorchOperator):
    """The last frame, or the mean, maximum or sum of all that count."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Reduce the steps that count."""
        (x,), kind = signals, self.operator.kind
        if kind == "last":
            return at_end(x, lengths)
        if lengths is not None:
            counts = _beside(is_inside(lengths, x.shape[1]), x)
            x = torch.where(counts, x, x.new_tensor(-torch.inf if kind == "max" else 0.0))
        if kind == "max":
            return x.amax(1)
        total = x.sum(1)
        if kind == "sum":
            return total
        return total / (signals[0].shape[1] if lengths is None else _beside(lengths, total))


@counterpart_of(RunningMean)
class TorchRunningMean(TorchOperator):
    """The mean of all frames so far."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Divide the sum so far by the number of steps."""
        (x,) = signals
        steps = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
        return x.cumsum(1) / _beside(steps[None], x)


@counterpart_of(Delay)
class TorchDelay(TorchOperator):
    """The frame of some steps before."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Shift the sequence."""
        (x,) = signals
        steps = min(self.operator.steps, x.shape[1])
        return _padded(x, steps, 0)[:, : x.shape[1]]


@counterpart_of(Reverse)
class TorchReverse(TorchOperator):
    """The sequence from its last step to its first."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Reverse the steps that count, and leave what follows where it is."""
        (x,) = signals
        if lengths is None:
            return x.flip(1)
        steps = torch.arange(x.shape[1], device=x.device)[None]
        ends = lengths[:, None]
        index = torch.where(steps < ends, ends - 1 - steps, steps)
        return x[torch.arange(len(x), device=x.device)[:, None], index]


@counterpart_of(Pool)
class TorchPool(TorchOperator):
    """Average or maximum over windows of steps."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute every window."""
        (x,), own = signals, self.operator
        if own.kind == "max":
            filled = _padded(x, own.left, own.right, -torch.inf)
            return filled.unfold(1, own.width, own.stride).amax(-1)
        total = _padded(x, own.left, own.right).unfold(1, own.width, own.stride).sum(-1)
        if own.count_padding:
            return total / own.width
        there = _padded(x.new_ones(1, x.shape[1], 1), own.left, own.right)
        return total / _beside(there.unfold(1, own.width, own.stride).sum(-1)[..., 0], total)


@counterpart_of(Mask)
class TorchMask(TorchOperator):
    """The frames that are not padding, in their order."""

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Put the frames that count first, and zeros behind them."""
        (x,) = signals
        counts = self._counts(x, lengths)
        order = counts.logical_not().to(torch.int8).argsort(dim=1, stable=True)
        found = x[torch.arange(len(x), device=x.device)[:, None], order]
        kept = _beside(is_inside(counts.sum(1), x.shape[1]), x)
        return torch.where(kept, found, x.new_zeros(()))

    def counted(self, lengths: Tensor | None, *signals: Tensor) -> Tensor | None:
        """Return how many frames of each sequence count."""
        return self._counts(signals[0], lengths).sum(1)

    def _counts(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        counts = (x != self.operator.value).flatten(2).any(2)
        if lengths is not None:
            counts &= is_inside(lengths, x.shape[1])
        if not bool(counts.any(1).all()):
            raise InputError(
                f"a sequence has only frames of {self.operator.value:g}, which are padding; leave "
                "it out."
            )
        return counts
