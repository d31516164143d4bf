"""What a recurrence by blocks keeps for its way back: what each step starts from.

It is laid out as (block, batch, phase, features): step t is phase t mod L of block t div L. So all
steps of all blocks are one matrix, and all that a block's start meets is another.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
