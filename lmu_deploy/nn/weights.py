r"""The weights of an LMU layer as plain tensors, and the memory as one linear map of row vectors.

Feedback from the memory into itself is linear, so it folds into the memory's own transition:

.. math:: m_t = m_{t-1} T + v_t B, \qquad T = \bar A^T + E_m B, \qquad
          v_t = x_t E_x + h_{t-1} E_h + b_u

Without E_m, T and B are the same for each channel, and are kept once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmu_deploy.nn.kept import Kept
from lmu_deploy.nn.matmul import matmul


@dataclass(frozen=True)
class LMUWeights:
    """What one LMU layer computes with; shapes as in `lmu_deploy.network`, absent parts None."""

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
