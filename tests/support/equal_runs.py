"""Compare runs of two targets that are both exact."""

from __future__ import annotations

import numpy as np

from targets.base import Run


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
