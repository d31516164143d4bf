r"""The weights of an LMU layer as plain tensors, and the memory as one linear map of row vectors.

Feedback from the memory into itself is linear, so it folds into the memory's own transition:

.. math:: m_t = m_{t-1} T + v_t B, \qquad T = \bar A^T + E_m B, \qquad
          v_t = x_t E_x + h_{t-1} E_h + b_u

Without E_m, T and B are the same for each channel, and are kept once.

The weights of one step of `lmu_deploy.nn.coupled`, and the matrix they make together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from lmu_deploy.nn.products import Kept, Product, matmul


@dataclass(frozen=True)
class LMUWeights:
    """What one LMU layer computes with; shapes as in `core.network`, absent parts None."""

    channels: int
    activation: str
    a_bar: Tensor
    b_bar: Tensor
    input_encoders: Tensor
    hidden_encoders: Tensor | None
    memory_encoders: Tensor | None
    memory_bias: Tensor | None
    memory_kernel: Tensor | None
    input_kernel: Tensor | None
    recurrent_kernel: Tensor | None
    bias: Tensor | None
    kept: dict[Any, Any] | None = None
    """Where what is computed from a_bar and b_bar alone may be kept; None when they change."""
    prepared: Kept | None = None
    """Keeps what :meth:`lasting` gives."""

    def lasting(self) -> dict[Any, Any] | None:
        """Give a place for what is computed from all weights; None while they are trained."""
        if self.prepared is None or torch.is_grad_enabled():
            return None
        present = [part for part in vars(self).values() if isinstance(part, Tensor)]
        if any(part.is_inference() for part in present):
            return None
        return self.prepared.of(*present)

    @property
    def states(self) -> int:
        """Number of memory states, channels times order."""
        return self.channels * len(self.b_bar)

    @property
    def units(self) -> int:
        """Number of hidden units; 0 without any."""
        return 0 if self.memory_kernel is None else self.memory_kernel.shape[1]

    def dynamics(self) -> Dynamics:
        """Give the memory's own map, feedback into itself folded in."""
        if self.memory_encoders is None:
            return self.bare_dynamics()
        own = self.bare_dynamics().together()
        return Dynamics(1, torch.addmm(own.transition, self.memory_encoders, own.entry), own.entry)

    def bare_dynamics(self) -> Dynamics:
        """Give the memory's own map without feedback into itself."""
        return Dynamics(self.channels, self.a_bar.t(), self.b_bar.unsqueeze(0), self.kept)


@dataclass(frozen=True)
class Dynamics:
    """The memory's map ``m <- m T + v B`` of row vectors, for each of `groups` equal groups.

    Attributes
    ----------
    groups : int
        One for each channel, or a single one of all channels when memory encoders couple them.
    transition : Tensor, shape (size, size)
        T.
    entry : Tensor, shape (ports, size)
        B; groups * ports is the number of channels, groups * size that of states.
    kept : dict or None
        Where what is computed from them may be kept; None when they are trained.
    """

    groups: int
    transition: Tensor
    entry: Tensor
    kept: dict[Any, Any] | None = None

    def together(self) -> Dynamics:
        """Give the same map as a single group."""
        if self.groups == 1:
            return self
        return Dynamics(1, spread(self.transition, self.groups), spread(self.entry, self.groups))


def spread(matrix: Tensor, groups: int) -> Tensor:
    """Repeat a matrix (rows, columns) down a block diagonal (groups * rows, groups * columns)."""
    identity = torch.eye(groups, dtype=matrix.dtype, device=matrix.device)
    return torch.kron(identity, matrix.contiguous())


def squares(matrix: Tensor, steps: int) -> tuple[Tensor, ...]:
    """Give matrix^1, ^2, ^4, ..., those that :func:`orbit` needs for so many steps."""
    found = [matrix]
    while 2 ** len(found) < steps:
        found.append(matmul(found[-1], found[-1]))
    return tuple(found)


def orbit(start: Tensor, powers: Sequence[Tensor], steps: int) -> Tensor:
    """Give ``start @ matrix^t`` for t = 0 to steps - 1.

    Made by doubling: each product extends what is known to twice its length, so there are
    log2(steps) of them.

    Parameters
    ----------
    start : Tensor, shape (rows, size)
    powers : sequence of Tensor, shape (size, size)
        From :func:`squares`.
    steps : int

    Returns
    -------
    orbit : Tensor, shape (steps, rows, size)
    """
    known = start.unsqueeze(0)
    for power in powers:
        known = torch.cat([known, matmul(known[: steps - len(known)], power)])
    return known[:steps]


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
