"""Compare runs of two targets that are both exact, and networks with what a file kept of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmu_deploy.core.files import to_tree
from targets.base import Run


def assert_same(network: Any, other: Any) -> None:
    """Check that two networks have the same fields, and arrays of the same types and values."""
    tree, tensors = to_tree(network)
    other_tree, other_tensors = to_tree(other)
    assert tree == other_tree
    assert list(tensors) == list(other_tensors)
    for name, array in tensors.items():
        assert other_tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(other_tensors[name], array)


def differences(ours: Run, theirs: Run) -> list[str]:
    """Name all that two recorded runs of one integer network differ in: states, events, counts."""
    assert ours.states is not None
    assert theirs.states is not None
    found = _of_arrays("states", ours.states.parts, theirs.states.parts)
    found += _of_arrays("events", ours.events, theirs.events)
    for name in ("m", "h", "y"):
        if not np.array_equal(getattr(ours.states, name), getattr(theirs.states, name)):
            found.append(name)
    if not np.array_equal(ours.outputs, theirs.outputs):
        found.append("outputs")
    for name in ("synops", "carried", "saturations", "neurons"):
        if getattr(ours, name) != getattr(theirs, name):
            found.append(name)
    return found


def _of_arrays(kind: str, ours: dict, theirs: dict) -> list[str]:
    found = [f"{kind} {place}" for place in sorted(set(ours) ^ set(theirs))]
    for place in sorted(set(ours) & set(theirs)):
        mine, other = ours[place], theirs[place]
        if mine.dtype.kind != other.dtype.kind or not np.array_equal(mine, other):
            found.append(f"{kind} {place}")
    return found
