"""Whether two integer targets did the very same: every state of every step, with ``==``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from targets.base import States


@dataclass(frozen=True)
class Equality:
    """What a comparison of recorded integers found.

    Attributes
    ----------
    samples, steps, values : int
        How much was compared.
    equal : bool
    different : int
        Values that differ.
    first : str
        Where the first difference in time is, in words; empty when there is none.
    """

    samples: int
    steps: int
    values: int
    equal: bool
    different: int
    first: str


def is_integer(states: States | None) -> bool:
    """Whether a target holds its memory in integers, so that there is one right answer."""
    return states is not None and states.m.dtype.kind == "i"


def compare_states(states: States, other: States) -> Equality:
    """Compare m, h and y, as far as they are integers, of the samples that both recorded.

    Parameters
    ----------
    states, other : States
        Of the same first samples of the same inputs.
    """
    samples = min(len(states.m), len(other.m))
    values = different = 0
    first: tuple[int, int, str] | None = None
    for name in ("m", "h", "y"):
        mine, theirs = getattr(states, name)[:samples], getattr(other, name)[:samples]
        if mine.dtype.kind != "i" and theirs.dtype.kind != "i":
            continue  # the host's part of a spiking network, made from equal integers
        if mine.shape != theirs.shape:
            shapes = f"{name} has shape {mine.shape} against {theirs.shape}"
            return Equality(samples, states.m.shape[1], 0, False, 0, shapes)
        values += mine.size
        wrong = np.argwhere(mine != theirs)
        different += len(wrong)
        if len(wrong):
            sample, step, index = wrong[np.lexsort((wrong[:, 0], wrong[:, 1]))[0]]
            found = (int(step), int(sample), f"{name}[{index}] at step {step} of sample {sample}")
            first = found if first is None else min(first, found)
    return Equality(
        samples, states.m.shape[1], values, first is None, different, first[2] if first else ""
    )
