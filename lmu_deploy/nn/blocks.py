r"""The memory in blocks of L steps: what a block needs to know is the state at its start.

Within a block that starts from m, with T and B of `lmu_deploy.nn.weights` and k = 0 to L - 1,

.. math:: m_k W = m\,T^{k+1} W + \sum_{j \le k} v_j\, B T^{k-j} W, \qquad
          m_{next} = m\,T^L + \sum_j v_j\, B T^{L-1-j}

so the product of every memory state with the kernel W takes the block's start and its inputs only,
and the memory's own states need never be made. Here are the matrices of these two equations, the
starts of all blocks, and the state at any step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmu_deploy.nn.matmul import matmul
from lmu_deploy.nn.scan import scan
from lmu_deploy.nn.weights import Dynamics, orbit, squares


@dataclass(frozen=True)
class Blocks:
    """The matrices of blocks of `length` steps; `states` is groups * size.

    Attributes
    ----------
    dynamics : Dynamics
    length : int
        L.
    carry : Tensor, shape (size, size)
        T^L, for each group.
    enter : Tensor, shape (L * channels, states)
        From a block's inputs to the start of the next block.
    response : Tensor, shape (L, ports, size)
        B T^k.
    powers : tuple of Tensor, shape (size, size)
        T^1, T^2, T^4, ..., as far as L needs them.
    """

    dynamics: Dynamics
    length: int
    carry: Tensor
    enter: Tensor
    response: Tensor
    powers: tuple[Tensor, ...]

    @classmethod
    def of(cls, dynamics: Dynamics, length: int) -> Blocks:
        """Make the matrices, or take those that were kept.

        What is kept is made in double precision.
        """
        if dynamics.kept is None:
            return cls._make(dynamics, length)
        key = dynamics.groups, length
        if key not in dynamics.kept:
            if len(dynamics.kept) >= _MOST_KEPT:
                dynamics.kept.clear()
            with torch.inference_mode(False), torch.no_grad():
                dynamics.kept[key] = cls._make_in_double(dynamics, length)
        kept: Blocks = dynamics.kept[key]
        return kept

    @classmethod
    def _make_in_double(cls, dynamics: Dynamics, length: int) -> Blocks:
        groups, transition, entry = dynamics.groups, dynamics.transition, dynamics.entry
        made = cls._make(Dynamics(groups, transition.double(), entry.double()), length)
        carry, enter, response, *powers = (
            part.to(entry.dtype).contiguous()
            for part in (made.carry, made.enter, made.response, *made.powers)
        )
        given = Dynamics(groups, transition, entry)
        return cls(given, length, carry, enter, response, tuple(powers))

    @classmethod
    def _make(cls, dynamics: Dynamics, length: int) -> Blocks:
        carry = torch.linalg.matrix_power(dynamics.transition, length)
        powers = squares(dynamics.transition, length)
        response = orbit(dynamics.entry, powers, length)
        groups = torch.eye(dynamics.groups, dtype=carry.dtype, device=carry.device)
        enter = torch.einsum("gh,lps->lgphs", groups, response.flip(0))
        channels = dynamics.groups * response.shape[1]
        enter = enter.reshape(length * channels, -1)
        return cls(dynamics, length, carry, enter, response, powers)

    def reach(self, kernel: Tensor) -> Tensor:
        """T^(k+1) W: kernel (states, n) to (L, states, n)."""
        groups, size = self.dynamics.groups, len(self.carry)
        powers = [power.t() for power in self.powers]
        rows = kernel.view(groups, size, -1).transpose(1, 2).reshape(-1, size)
        reached = orbit(matmul(rows, powers[0]), powers, self.length)
        reached = reached.view(self.length, groups, -1, size).transpose(2, 3)
        return reached.reshape(self.length, groups * size, -1)

    def kernels(self, kernel: Tensor) -> Tensor:
        """B T^k W: kernel (states, n) to (L, channels, n)."""
        groups, size = self.dynamics.groups, len(self.carry)
        kernels = self.response.unsqueeze(1) @ kernel.view(groups, size, -1)
        return kernels.reshape(self.length, -1, kernel.shape[1])

    def starts(self, inputs: Tensor, start: Tensor) -> Tensor:
        """Give the memory before each block.

        Parameters
        ----------
        inputs : Tensor, shape (batch, blocks, L * channels)
        start : Tensor, shape (batch, states)

        Returns
        -------
        starts : Tensor, shape (batch, blocks, states)
        """
        batch, count, _ = inputs.shape
        if count == 1:
            return start.unsqueeze(1)
        groups, size = self.dynamics.groups, len(self.carry)
        drive = matmul(inputs[:, :-1], self.enter).view(batch, count - 1, groups, size)
        drive = drive.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        later = scan(drive, start.reshape(-1, size), self.carry, 0, "linear")
        later = later.view(count - 1, batch, groups * size).transpose(0, 1)
        return torch.cat([start.unsqueeze(1), later], 1)

    def state_at(self, inputs: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """Give the memory after step `ends` - 1 of each sequence.

        Parameters
        ----------
        inputs : Tensor, shape (batch, blocks, L * channels)
        starts : Tensor, shape (batch, blocks, states)
        ends : Tensor of int64, shape (batch,)

        Returns
        -------
        m : Tensor, shape (batch, states)
        """
        block = (ends - 1) // self.length
        steps = ends - block * self.length
        found, places = [], []
        for count in sorted(set(steps.tolist())):
            place = (steps == count).nonzero().squeeze(1)
            chosen = place, block[place]
            found.append(self._after(starts[chosen], inputs[chosen], count))
            places.append(place)
        return torch.cat(found)[torch.cat(places).argsort()]

    def _after(self, m: Tensor, inputs: Tensor, steps: int) -> Tensor:
        channels = inputs.shape[1] // self.length
        transition = self.carry
        if steps < self.length:
            transition = torch.linalg.matrix_power(self.dynamics.transition, steps)
        moved = matmul(m.reshape(-1, len(transition)), transition).view_as(m)
        recent = self.enter[(self.length - steps) * channels :]
        return moved + matmul(inputs[:, : steps * channels], recent)


def best_length(
    dynamics: Dynamics, width: int, batch: int, steps: int, toeplitz_share: float
) -> int:
    """Choose L so that the least is computed.

    Counted in products: the carry to the next block and a block's overhead shrink as 1 / L; the
    inputs within a block and the making of the matrices grow as L.

    Parameters
    ----------
    dynamics : Dynamics
    width : int
        Columns of the kernel W.
    batch, steps : int
    toeplitz_share : float
        Part of a block's L x L products of inputs that is computed: 1 or 1/2.
    """
    size = len(dynamics.transition)
    channels = dynamics.groups * len(dynamics.entry)
    shrinking = dynamics.groups * size * size + _PRODUCTS_PER_BLOCK / batch
    making = size * size * (dynamics.groups * width + len(dynamics.entry))
    growing = toeplitz_share * channels * width + making / (batch * steps)
    return max(1, min(steps, round((shrinking / growing) ** 0.5)))


_MOST_KEPT = 4
_PRODUCTS_PER_BLOCK = 1e6
"""Multiplications that one core does in the 20 to 30 us that a block's calls take."""
