"""What is computed from tensors, kept until they change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Kept:
    """A place for what is computed from tensors, emptied when they hold something else."""

    def __init__(self) -> None:
        self._sources: tuple[Tensor, ...] = ()
        self._found: dict[Any, Any] = {}

    def of(self, *sources: Tensor) -> dict[Any, Any]:
        """Give the place for what is computed from `sources`, of which there is at least one."""
        same = len(sources) == len(self._sources) and all(map(_same, sources, self._sources))
        if not same:
            self._sources = tuple(source.detach().clone() for source in sources)
            self._found = {}
        return self._found

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        """Begin copies of a layer, and layers from files, with an empty place."""
        return Kept, ()


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same; versions would miss a change through ``.data``."""
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
