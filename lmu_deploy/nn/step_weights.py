"""The weights of one step of `lmu_deploy.nn.coupled_scan`, and the matrix they make together."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from torch import Tensor

from lmu_deploy.nn.products import Product

Phases = tuple[Tensor, ...]


@dataclass(frozen=True)
class StepWeights:
    """What one step computes z, the drive of the hidden units, and v, the memory's input, with.

    L is the length of blocks; the columns are those of z, then those of v.

    Attributes
    ----------
    begin : Tensor, shape (units + n_in + 1, units + channels)
        From what a step begins with, [h, x, 1].
    reach : Tensor, shape (L, states, units + channels)
        From the memory before the block.
    kernels : Tensor, shape ((L - 1) * channels, units + channels)
        From v of L - 1 steps before, to v of one step before.
    carry : Tensor, shape (size, size)
        T^L of each group of `size` states.
    enter : Tensor, shape (L * channels, states)
        From a block's v to the memory after it.
    """

    begin: Tensor
    reach: Tensor
    kernels: Tensor
    carry: Tensor
    enter: Tensor
    _laid: dict[bool, tuple[Phases, Phases]] = field(default_factory=dict, init=False)

    def tensors(self) -> tuple[Tensor, ...]:
        """Give all of them, in order."""
        return tuple(getattr(self, part.name) for part in fields(self) if part.init)

    @property
    def length(self) -> int:
        """L."""
        return len(self.reach)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.enter) // self.length

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.begin.shape[1] - self.channels

    @property
    def memory(self) -> slice:
        """Columns of m in a step's row; before them stand h, x and 1, after them v."""
        return slice(len(self.begin), len(self.begin) + self.reach.shape[1])

    @property
    def columns(self) -> int:
        """Number of columns of a step's row."""
        return self.memory.stop + len(self.enter)

    def laid(self, product: Product) -> tuple[Phases, Phases]:
        """Give the matrices from a step's row to z, laid out for `product`, and to v, by phase."""
        if product.is_onednn not in self._laid:
            stack = self.stack()
            to_z, to_v = stack[..., : self.units], stack[..., self.units :].contiguous()
            self._laid[product.is_onednn] = product.lay(to_z).unbind(0), to_v.unbind(0)
        return self._laid[product.is_onednn]

    def stack(self) -> Tensor:
        """Give the matrix from a step's row [h, x, 1, m, v_0 ... v_(L-1)] to [z, v], by phase.

        Returns
        -------
        stack : Tensor, shape (L, columns, units + channels)
            Phase k has no use for v_k and later.
        """
        stack = self.begin.new_zeros(self.length, self.columns, self.begin.shape[1])
        stack[:, : self.memory.start] = self.begin
        stack[:, self.memory] = self.reach
        for k in range(1, self.length):
            known = k * self.channels
            stack[k, self.memory.stop : self.memory.stop + known] = self.kernels[-known:]
        return stack
