"""The weights of one step of `lmu_deploy.nn.coupled_scan`, and the matrix they make together."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from lmu_deploy.nn.products import Product


@dataclass(frozen=True)
class StepWeights:
    """What one step computes with; L is the length of blocks.

    Attributes
    ----------
    own : Tensor, shape (units, units)
        W_h + E_h K_0.
    direct : Tensor, shape (n_in + 1, units)
        W_x + E_x K_0, and the bias in the last row.
    encoders : Tensor, shape (units + n_in + 1, channels)
        E_h, E_x and b_u: from what a step begins with to v.
    reach : Tensor, shape (L, states, units)
        P.
    kernels : Tensor, shape ((L - 1) * channels, units)
        K_(L-1) to K_1, in this order.
    carry : Tensor, shape (size, size)
        T^L of each group of `size` states.
    enter : Tensor, shape (L * channels, states)
        From a block's v to the memory after it.
    """

    own: Tensor
    direct: Tensor
    encoders: Tensor
    reach: Tensor
    kernels: Tensor
    carry: Tensor
    enter: Tensor
    _laid: dict[str, tuple[Tensor, ...]] = field(default_factory=dict, init=False)

    def tensors(self) -> tuple[Tensor, ...]:
        """Give all of them, in order."""
        return tuple(getattr(self, part.name) for part in fields(self) if part.init)

    @property
    def length(self) -> int:
        """L."""
        return len(self.reach)

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return len(self.own)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.encoders.shape[1]

    @property
    def memory(self) -> slice:
        """Columns of m in a step's row; before them stand h, x and 1."""
        return slice(len(self.encoders), len(self.encoders) + self.reach.shape[1])

    def entered(self, first: int, after: int) -> slice:
        """Columns of the v of phases `first` to `after` - 1 in a step's row."""
        start = self.memory.stop
        return slice(start + first * self.channels, start + after * self.channels)

    @property
    def stack_size(self) -> int:
        """Number of entries of one phase's matrix to z."""
        return (self.memory.stop + self.length * self.channels) * self.units

    def forward(self, product: Product) -> tuple[Tensor, ...]:
        """Give the matrix from a step's row to z of each phase, laid out for `product`."""
        if "forward" not in self._laid:
            self._laid["forward"] = product.lay(self.stack()[..., : self.units]).unbind(0)
        return self._laid["forward"]

    def from_input(self) -> Tensor:
        """Give the matrix from x to [z, v], shape (n_in, units + channels)."""
        own = self.encoders[self.units : -1]
        return torch.cat([self.direct[:-1], own], 1)

    def stack(self) -> Tensor:
        """Give the matrix from a step's row [h, x, 1, m, v_0 ... v_(L-1)] to [z, v], by phase.

        Returns
        -------
        stack : Tensor, shape (L, columns, units + channels)
            Phase k has no use for v_k and later.
        """
        columns = self.memory.stop + self.length * self.channels
        stack = self.own.new_zeros(self.length, columns, self.units + self.channels)
        begin = self.memory.start
        stack[:, :begin, self.units :] = self.encoders
        drive = stack[..., : self.units]
        drive[:, : self.units] = self.own
        drive[:, self.units : begin] = self.direct
        drive[:, self.memory] = self.reach
        for k in range(1, self.length):
            drive[k, self.entered(0, k)] = self.kernels[-k * self.channels :]
        return stack
