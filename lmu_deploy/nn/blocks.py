r"""Evaluation of a linear memory in blocks of L steps, and the gradients of such recurrences.

Within a block that starts from the state m, with T and B of :mod:`lmu_deploy.nn.weights` and
k = 0 to L - 1,

.. math:: m_k W = m\,T^{k+1} W + \sum_{j \le k} v_j\, B T^{k-j} W, \qquad
          m_{next} = m\,T^L + \sum_j v_j\, B T^{L-1-j}

so the product of every memory state with the kernel W depends only on the initial state of the
block and its inputs, and the memory states themselves need not be computed. :class:`Blocks` has the
matrices of these equations.

The gradients of the weights are sums over all steps. :class:`BlockSums` accumulates them for a few
blocks at a time in a buffer that fits into the caches of the processor: a buffer for all steps
would be as large as the history of the states, and allocating it would cost more than the products.

The history of a recurrence is stored as (block, batch, phase, features), where step t has phase
t mod L in block t div L. All steps of all blocks then form one matrix.
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
    """Matrices of blocks of `length` steps; `states` is groups * size.

    Attributes
    ----------
    dynamics : Dynamics
    length : int
        L.
    carry : Tensor, shape (size, size)
        T^L of each group.
    enter : Tensor, shape (L * channels, states)
        From the inputs of a block to the initial state of the next block.
    response : Tensor, shape (L, ports, size)
        B T^k.
    powers : tuple of Tensor, shape (size, size)
        T^1, T^2, T^4, ..., as far as needed for L.
    """

    dynamics: Dynamics
    length: int
    carry: Tensor
    enter: Tensor
    response: Tensor
    powers: tuple[Tensor, ...]

    @classmethod
    def of(cls, dynamics: Dynamics, length: int) -> Blocks:
        """Return the matrices, from the cache of `dynamics` if it has one.

        Cached matrices are computed in double precision.
        """
        if dynamics.cache is None:
            return cls._make(dynamics, length)
        key = dynamics.groups, length
        if key not in dynamics.cache:
            if len(dynamics.cache) >= _LARGEST_CACHE:
                dynamics.cache.clear()
            with torch.inference_mode(False), torch.no_grad():
                dynamics.cache[key] = cls._make_in_double(dynamics, length)
        found: Blocks = dynamics.cache[key]
        return found

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

    def state_kernels(self, kernel: Tensor) -> Tensor:
        """Return T^(k+1) W for W of shape (states, n); shape (L, states, n)."""
        groups, size = self.dynamics.groups, len(self.carry)
        powers = [power.t() for power in self.powers]
        rows = kernel.view(groups, size, -1).transpose(1, 2).reshape(-1, size)
        reached = orbit(matmul(rows, powers[0]), powers, self.length)
        reached = reached.view(self.length, groups, -1, size).transpose(2, 3)
        return reached.reshape(self.length, groups * size, -1)

    def kernels(self, kernel: Tensor) -> Tensor:
        """Return B T^k W for W of shape (states, n); shape (L, channels, n)."""
        groups, size = self.dynamics.groups, len(self.carry)
        kernels = self.response.unsqueeze(1) @ kernel.view(groups, size, -1)
        return kernels.reshape(self.length, -1, kernel.shape[1])

    def initial_states(self, inputs: Tensor, start: Tensor) -> Tensor:
        """Return the memory before each block.

        Parameters
        ----------
        inputs : Tensor, shape (batch, blocks, L * channels)
        start : Tensor, shape (batch, states)

        Returns
        -------
        initial_states : Tensor, shape (batch, blocks, states)
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

    def state_at(self, inputs: Tensor, initial_states: Tensor, ends: Tensor) -> Tensor:
        """Return the memory after step `ends` - 1 of each sequence.

        Parameters
        ----------
        inputs : Tensor, shape (batch, blocks, L * channels)
        initial_states : Tensor, shape (batch, blocks, states)
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
            found.append(self._after(initial_states[chosen], inputs[chosen], count))
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
    """Return the block length L with the smallest number of multiplications.

    The transition to the next block and the overhead per block shrink as 1 / L; the products of
    the inputs within a block and the computation of the matrices grow as L.

    Parameters
    ----------
    dynamics : Dynamics
    width : int
        Columns of the kernel W.
    batch, steps : int
    toeplitz_share : float
        Fraction of the L x L products of inputs of a block that is computed: 1 or 1/2.
    """
    size = len(dynamics.transition)
    channels = dynamics.groups * len(dynamics.entry)
    shrinking = dynamics.groups * size * size + _PRODUCTS_PER_BLOCK / batch
    making = size * size * (dynamics.groups * width + len(dynamics.entry))
    growing = toeplitz_share * channels * width + making / (batch * steps)
    return max(1, min(steps, round((shrinking / growing) ** 0.5)))


_LARGEST_CACHE = 4
_PRODUCTS_PER_BLOCK = 1e6
"""Number of multiplications of one core during the 20 to 30 us of overhead per block."""


_ROWS = 1024
"""Sequences times blocks that are accumulated at a time."""


class BlockSums:
    """Accumulate the outer products of inputs of steps and blocks with gradients of steps.

    Parameters
    ----------
    before : Tensor, shape (blocks, batch, L, n)
        Inputs of each step, in the layout of the module docstring.
    block_inputs : Tensor, shape (blocks, batch, K)
        Inputs of each block.
    width : int
        Number of features of the gradients.
    steps : int
        Number of steps.
    """

    def __init__(self, before: Tensor, block_inputs: Tensor, width: int, steps: int) -> None:
        count, batch, self._length, n = before.shape
        self._before, self._block_inputs, self._last = before, block_inputs, steps - 1
        self._at_once = max(1, min(count, _ROWS // batch))
        shape = self._at_once, batch, self._length, width
        self._place = before.new_empty(shape)
        # Steps of a block are stored by step and copied at its end: the stride of a step in
        # `_place` is that of all steps of a sequence.
        self._block = before.new_empty(self._length, batch, width)
        size = self._place.numel()
        self._outer_steps = summed_outer(before, size * n)
        self._outer_blocks = summed_outer(before, size * block_inputs.shape[2])
        self._by_step = block_inputs.new_zeros(n, width)
        self._by_block = block_inputs.new_zeros(block_inputs.shape[2], self._length * width)

    def put(self, row: Tensor, t: int) -> tuple[slice, Tensor] | None:
        """Add the gradient of step t, (batch, width); t must descend from the last step to 0.

        Returns
        -------
        blocks : slice
            Blocks that are complete now, if any.
        back : Tensor, shape (number of blocks, batch, L, width)
            Their gradients, zero beyond the last step; valid until the next call.
        """
        block, k = divmod(t, self._length)
        slot = block % self._at_once
        if t == self._last:
            self._block[k + 1 :] = 0.0
        self._block[k] = row
        if k:
            return None
        self._place[slot] = self._block.transpose(0, 1)
        if slot:
            return None
        blocks = slice(block, min(block + self._at_once, len(self._block_inputs)))
        back = self._place[: blocks.stop - block]
        self._add(self._before[blocks], self._block_inputs[blocks], back)
        return blocks, back

    def _add(self, before: Tensor, block_inputs: Tensor, back: Tensor) -> None:
        width = back.shape[3]
        self._by_step += self._outer_steps(before.view(-1, before.shape[3]), back.view(-1, width))
        rows = block_inputs.flatten(0, 1).to(back.dtype)
        self._by_block += self._outer_blocks(rows, back.view(len(rows), -1))

    @property
    def by_step(self) -> Tensor:
        """Sum over steps, shape (n, width)."""
        return self._by_step

    @property
    def by_block(self) -> Tensor:
        """Sum over blocks for each phase, shape (L, K, width)."""
        return self._by_block.view(len(self._by_block), self._length, -1).transpose(0, 1)


def new_history(like: Tensor, steps: int, length: int, features: int) -> Tensor:
    """Allocate the history of inputs of each step; it is zero beyond the last step.

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
    """Return the states after each step, (batch, steps, n), from those before and the last."""
    by_time = before.transpose(0, 1).flatten(1, 2)
    return torch.cat([by_time[:, 1:steps], last.unsqueeze(1)], 1)


def result_at(before: Tensor, last: Tensor, steps: int, ends: Tensor) -> Tensor:
    """Return the state after step `ends` - 1 of each sequence, (batch, n)."""
    place, length = ends % steps, before.shape[2]
    sequence = torch.arange(len(ends), device=ends.device)
    found = before[place // length, sequence, place % length]
    return torch.where((ends == steps).unsqueeze(1), last, found)


class OutputGradients:
    """Gradients of the loss with respect to the outputs of a recurrence.

    Parameters
    ----------
    everywhere : Tensor, shape (batch, steps, n), or None
        Gradients of the states after each step.
    at_end : Tensor, shape (batch, n)
        Gradient of the state at the end of each sequence.
    ends : Tensor of int64, shape (batch,)
    """

    def __init__(self, everywhere: Tensor | None, at_end: Tensor, ends: Tensor) -> None:
        self._everywhere, self._at_end = everywhere, at_end
        self._ending = {end: (ends == end).unsqueeze(1) for end in set(ends.tolist())}

    def add(self, gradient: Tensor, t: int) -> None:
        """Add the gradient of the output of step t to `gradient`, (batch, n), in place."""
        if self._everywhere is not None:
            gradient.add_(self._everywhere[:, t])
        if t + 1 in self._ending:
            gradient.add_(self._at_end * self._ending[t + 1])
