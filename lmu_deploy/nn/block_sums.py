"""The gradients of a recurrence's weights: sums over all time, taken some blocks at a time.

What comes back to each step is needed for a few blocks only, so it stands in one small place that
stays in the processor's caches. Kept for all time it is as large as the history itself, and new
memory of that size costs more than the products: the kernel clears every page of it.
"""

from __future__ import annotations

from torch import Tensor

from lmu_deploy.nn.products import summed_outer

_ROWS = 1024
"""Sequences times blocks at a time."""


class BlockSums:
    """Sums of the outer products of what steps and blocks hold with what comes back to the steps.

    Parameters
    ----------
    before : Tensor, shape (blocks, batch, L, n)
        What each step starts from, as in `lmu_deploy.nn.history`.
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
