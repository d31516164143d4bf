"""A split of a task as a run of tensor batches; only the batch at hand is made into floats.

The order of an epoch depends on the seed and the epoch's number alone, not on what was drawn
before, so a resumed training sees the same batches as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lmu_deploy.tasks.base import Split


class Batches:
    """Go once through a split.

    Parameters
    ----------
    split : Split
    batch_size : int
        The last batch may be smaller.
    shuffle : tuple of (seed, epoch), optional
        Draws the order; file order when absent.
    """

    def __init__(
        self, split: Split, batch_size: int, shuffle: tuple[int, int] | None = None
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __len__(self) -> int:
        """Count the batches."""
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give inputs (batch, steps, n_in) and targets, as in Split."""
        order = np.arange(len(self.split))
        if self.shuffle is not None:
            np.random.default_rng(self.shuffle).shuffle(order)
        for start in range(0, len(order), self.batch_size):
            inputs, targets = self.split.batch(order[start : start + self.batch_size])
            yield torch.from_numpy(inputs), torch.from_numpy(targets)
