r"""The memory in blocks of L steps: what a block needs to know is the state at its start.

Within a block that starts from m, with T and B of `lmu_deploy.nn.weights` and k = 0 to L - 1,

.. math:: m_k W = m\,T^{k+1} W + \sum_{j \le k} v_j\, B T^{k-j} W, \qquad
          m_{next} = m\,T^L + \sum_j v_j\, B T^{L-1-j}

so the product of every memory state with the kernel W takes the block's start and its inputs only,
and the memory's own states need never be made. Here are the matrices of these two equations, the
starts of all blocks, and the state at any step.

The gradients of a recurrence's weights: sums over all time, taken some blocks at a time.

What comes back to each step is needed for a few blocks only, so it stands in one small place that
stays in the processor's caches. Kept for all time it is as large as the history itself, and new
memory of that size costs more than the products: the kernel clears every page of it.

What a recurrence by blocks keeps for its way back: what each step starts from.

It is laid out as (block, batch, phase, features): step t is phase t mod L of block t div L. So all
steps of all blocks are one matrix, and all that a block's start meets is another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmu_deploy.nn.products import matmul, summed_outer
from lmu_deploy.nn.recurrent import scan
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


_ROWS = 1024
"""Sequences times blocks at a time."""


class BlockSums:
    """Sums of the outer products of what steps and blocks hold with what comes back to the steps.

    Parameters
    ----------
    before : Tensor, shape (blocks, batch, L, n)
        What each step starts from, as in `lmu_deploy.nn.blocks`.
    held : Tensor, shape (blocks, batch, K)
        What each block holds.
    width : int
        Features of what comes back.
    steps : int
        Number of steps.
    """

    def __init__(self, before: Tensor, held: Tensor, width: int, steps: int) -> None:
        count, batch, self._length, n = before.shape
        self._before, self._held, self._last = before, held, steps - 1
        self._at_once = max(1, min(count, _ROWS // batch))
        shape = self._at_once, batch, self._length, width
        self._place = before.new_empty(shape)
        size = self._place.numel()
        self._outer_steps = summed_outer(before, size * n)
        self._outer_blocks = summed_outer(before, size * held.shape[2])
        self._by_step = before.new_zeros(n, width)
        self._by_block = before.new_zeros(held.shape[2], self._length * width)

    def put(self, row: Tensor, t: int) -> tuple[slice, Tensor] | None:
        """Take what comes back to step t, (batch, width); t goes from the last step to 0.

        Returns
        -------
        blocks : slice
            The blocks that are complete now, if any.
        back : Tensor, shape (so many blocks, batch, L, width)
            All that came back to them, zero at steps that do not exist; valid until the next call.
        """
        block, k = divmod(t, self._length)
        slot = block % self._at_once
        if t == self._last:
            self._place[slot, :, k + 1 :] = 0.0
        self._place[slot, :, k] = row
        if k or slot:
            return None
        blocks = slice(block, min(block + self._at_once, len(self._held)))
        back = self._place[: blocks.stop - block]
        self._add(self._before[blocks], self._held[blocks], back)
        return blocks, back

    def _add(self, before: Tensor, held: Tensor, back: Tensor) -> None:
        width = back.shape[3]
        self._by_step += self._outer_steps(before.view(-1, before.shape[3]), back.view(-1, width))
        rows = held.flatten(0, 1)
        self._by_block += self._outer_blocks(rows, back.view(len(rows), -1))

    @property
    def by_step(self) -> Tensor:
        """Of what steps start from, shape (n, width)."""
        return self._by_step

    @property
    def by_block(self) -> Tensor:
        """Of what blocks hold, shape (L, K, width)."""
        return self._by_block.view(len(self._by_block), self._length, -1).transpose(0, 1)


def new_history(like: Tensor, steps: int, length: int, features: int) -> Tensor:
    """Make room for what each step starts from; steps that do not exist hold zeros.

    Parameters
    ----------
    like : Tensor, shape (batch, ...)
    steps : int
        Number of steps.
    length : int
        L.
    features : int

    Returns
    -------
    history : Tensor, shape (blocks, batch, L, features)
    """
    history = like.new_empty(-(-steps // length), len(like), length, features)
    history[-1, :, (steps - 1) % length + 1 :] = 0.0
    return history


def results(before: Tensor, last: Tensor, steps: int) -> Tensor:
    """Give the state after each step, (batch, steps, n), from those before and the last one."""
    by_time = before.transpose(0, 1).flatten(1, 2)
    return torch.cat([by_time[:, 1:steps], last.unsqueeze(1)], 1)


def result_at(before: Tensor, last: Tensor, steps: int, ends: Tensor) -> Tensor:
    """Give the state after step `ends` - 1 of each sequence, (batch, n)."""
    place, length = ends % steps, before.shape[2]
    sequence = torch.arange(len(ends), device=ends.device)
    found = before[place // length, sequence, place % length]
    return torch.where((ends == steps).unsqueeze(1), last, found)


class Arrivals:
    """The gradients that come from outside to the states after each step.

    Parameters
    ----------
    everywhere : Tensor, shape (batch, steps, n), or None
        Those of the states after each step.
    at_end : Tensor, shape (batch, n)
        That of the state at each sequence's end.
    ends : Tensor of int64, shape (batch,)
    """

    def __init__(self, everywhere: Tensor | None, at_end: Tensor, ends: Tensor) -> None:
        self._everywhere, self._at_end = everywhere, at_end
        self._ending = {end: (ends == end).unsqueeze(1) for end in set(ends.tolist())}

    def add(self, gradient: Tensor, t: int) -> None:
        """Add to `gradient`, (batch, n), what comes to the state after step t."""
        if self._everywhere is not None:
            gradient.add_(self._everywhere[:, t])
        if t + 1 in self._ending:
            gradient.add_(self._at_end * self._ending[t + 1])
