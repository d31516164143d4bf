r"""The weights of an LMU layer as plain tensors, and the memory as a linear map of row vectors.

Feedback from the memory into itself is linear and can be included in the transition of the memory:

.. math:: m_t = m_{t-1} T + v_t B, \qquad T = \bar A^T + E_m B, \qquad
          v_t = x_t E_x + h_{t-1} E_h + b_u

Without E_m, T and B are the same for each channel and stored once. :class:`StepWeights` has the
weights of one step of :mod:`lmu_deploy.nn.scans`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from lmu_deploy.nn.products import Product, TensorCache, matmul


@dataclass(frozen=True)
class LMUWeights:
    """Weights of one LMU layer; shapes as in `core.network`, None where absent."""

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
    memory_cache: dict[Any, Any] | None = None
    """Cache of values computed from a_bar and b_bar; None while these are trained."""
    cache: TensorCache | None = None
    """Cache behind :meth:`weight_cache`."""
    products: torch.dtype | None = None
    """Type of the operands of large products of a step; None means that of the weights."""

    def weight_cache(self) -> dict[Any, Any] | None:
        """Return a cache for values computed from all weights; None while they are trained."""
        if self.cache is None or torch.is_grad_enabled():
            return None
        present = [part for part in vars(self).values() if isinstance(part, Tensor)]
        if any(part.is_inference() for part in present):
            return None
        return self.cache.of(*present)

    @property
    def states(self) -> int:
        """Number of memory states, channels times order."""
        return self.channels * len(self.b_bar)

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return 0 if self.memory_kernel is None else self.memory_kernel.shape[1]

    def dynamics(self) -> Dynamics:
        """Return the map of the memory including its feedback into itself."""
        if self.memory_encoders is None:
            return self.bare_dynamics()
        own = self.bare_dynamics().together()
        return Dynamics(1, torch.addmm(own.transition, self.memory_encoders, own.entry), own.entry)

    def bare_dynamics(self) -> Dynamics:
        """Return the map of the memory without feedback into itself."""
        return Dynamics(self.channels, self.a_bar.t(), self.b_bar.unsqueeze(0), self.memory_cache)


@dataclass(frozen=True)
class Dynamics:
    """The map ``m <- m T + v B`` of row vectors, for each of `groups` equal groups.

    Attributes
    ----------
    groups : int
        Number of channels, or 1 when memory encoders couple the channels.
    transition : Tensor, shape (size, size)
        T.
    entry : Tensor, shape (ports, size)
        B; there are groups * ports channels and groups * size states.
    cache : dict or None
        Cache of values computed from the matrices; None while these are trained.
    """

    groups: int
    transition: Tensor
    entry: Tensor
    cache: dict[Any, Any] | None = None

    def together(self) -> Dynamics:
        """Return the same map as a single group."""
        if self.groups == 1:
            return self
        return Dynamics(1, spread(self.transition, self.groups), spread(self.entry, self.groups))


def spread(matrix: Tensor, groups: int) -> Tensor:
    """Return a block-diagonal matrix with `groups` copies of a matrix."""
    identity = torch.eye(groups, dtype=matrix.dtype, device=matrix.device)
    return torch.kron(identity, matrix.contiguous())


def squares(matrix: Tensor, steps: int) -> tuple[Tensor, ...]:
    """Return matrix^1, ^2, ^4, ..., as far as :func:`orbit` needs them for `steps` steps."""
    found = [matrix]
    while 2 ** len(found) < steps:
        found.append(matmul(found[-1], found[-1]))
    return tuple(found)


def orbit(start: Tensor, powers: Sequence[Tensor], steps: int) -> Tensor:
    """Return ``start @ matrix^t`` for t = 0 to steps - 1.

    Each product doubles the length of the result, so that log2(steps) products suffice.

    Parameters
    ----------
    start : Tensor, shape (rows, size)
    powers : sequence of Tensor, shape (size, size)
        As returned by :func:`squares`.
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
    """Weights of one step for z, the drive of the hidden units, and v, the input of the memory.

    L is the block length; the columns are those of z, then those of v.

    Attributes
    ----------
    begin : Tensor, shape (units + n_in + 1, units + channels)
        From the inputs of a step, [h, x, 1].
    state_kernels : Tensor, shape (L, states, units + channels)
        From the memory before the block.
    kernels : Tensor, shape ((L - 1) * channels, units + channels)
        From v of L - 1 steps before to v of the previous step.
    carry : Tensor, shape (size, size)
        T^L of each group of `size` states.
    enter : Tensor, shape (L * channels, states)
        From v of a block to the memory after it.
    """

    begin: Tensor
    state_kernels: Tensor
    kernels: Tensor
    carry: Tensor
    enter: Tensor
    _packed: dict[tuple[bool, torch.dtype], tuple[Phases, Phases]] = field(
        default_factory=dict, init=False
    )

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all weights, in order."""
        return tuple(getattr(self, part.name) for part in fields(self) if part.init)

    @property
    def length(self) -> int:
        """Block length L."""
        return len(self.state_kernels)

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
        """Columns of m in the row [h, x, 1, m, v] of a step."""
        return slice(len(self.begin), len(self.begin) + self.state_kernels.shape[1])

    @property
    def columns(self) -> int:
        """Number of columns of the row of a step."""
        return self.memory.stop + len(self.enter)

    def packed(self, product: Product) -> tuple[Phases, Phases]:
        """Return the matrices from the row to z, packed for `product`, and to v, by phase."""
        key = product.is_onednn, product.dtype
        if key not in self._packed:
            stack = self.stack()
            to_z, to_v = stack[..., : self.units], stack[..., self.units :].contiguous()
            self._packed[key] = product.pack_all(to_z), to_v.unbind(0)
        return self._packed[key]

    def stack(self) -> Tensor:
        """Return the matrix from the row [h, x, 1, m, v_0 ... v_(L-1)] to [z, v], by phase.

        Returns
        -------
        stack : Tensor, shape (L, columns, units + channels)
            The rows of v_k and later are zero at phase k.
        """
        stack = self.begin.new_zeros(self.length, self.columns, self.begin.shape[1])
        stack[:, : self.memory.start] = self.begin
        stack[:, self.memory] = self.state_kernels
        for k in range(1, self.length):
            known = k * self.channels
            stack[k, self.memory.stop : self.memory.stop + known] = self.kernels[-known:]
        return stack
