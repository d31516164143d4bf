"""PyTorch counterparts of the operators over time: convolution, reductions, pooling, delay."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Conv1d
from lmu_deploy.core.graph.time import Delay, Mask, Pool, Reduce, Reverse, RunningMean
from lmu_deploy.nn.graph.operator import TorchOperator, counterpart_of
from lmu_deploy.nn.products import matmul
from lmu_deploy.nn.sequences import at_end, is_inside


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
