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
    compared, apart : tuple of str
        Which of m, h and y these integers are, and which are real numbers of the host and so not
        among them, with the number of columns where they are not all: "h (49 of 149 columns)".
    """

    samples: int
    steps: int
    values: int
    equal: bool
    different: int
    first: str
    compared: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


def is_integer(states: States | None) -> bool:
    """Whether a target holds its memory in integers, so that there is one right answer."""
    return states is not None and states.m.dtype.kind == "i"


def compare_states(states: States, other: States) -> Equality:
    """Compare all integers of m, h and y, of the samples that both recorded.

    A column of integers in either is compared. Real numbers in both are the host's, which one code
    computes from equal integers.

    Parameters
    ----------
    states, other : States
        Of the same first samples of the same inputs.
    """
    samples, steps = min(len(states.m), len(other.m)), states.m.shape[1]
    values = different = 0
    compared, apart = [], []
    first: tuple[int, int, str] | None = None
    for name in ("m", "h", "y"):
        mine, theirs = getattr(states, name)[:samples], getattr(other, name)[:samples]
        if mine.shape != theirs.shape:
            shapes = f"{name} has shape {mine.shape} against {theirs.shape}"
            return Equality(samples, steps, 0, False, 0, shapes)
        whole = integer_columns(states, name) | integer_columns(other, name)
        compared += _named(name, whole)
        apart += _named(name, ~whole)
        columns = np.flatnonzero(whole)
        if not len(columns):
            continue
        values += samples * steps * len(columns)
        wrong = np.argwhere(mine[..., columns] != theirs[..., columns])
        different += len(wrong)
        if len(wrong):
            sample, step, index = wrong[np.lexsort((wrong[:, 0], wrong[:, 1]))[0]]
            words = f"{name}[{columns[index]}] at step {step} of sample {sample}"
            found = (int(step), int(sample), words)
            first = found if first is None else min(first, found)
    told = first[2] if first else ""
    equal = first is None
    return Equality(samples, steps, values, equal, different, told, tuple(compared), tuple(apart))


def integer_columns(states: States, name: str) -> np.ndarray:
    """Say of each column of m, h or y whether it holds integers; shape (columns,), bool."""
    values = getattr(states, name)
    if name == "h" and states.h_on_host is not None:
        return ~np.asarray(states.h_on_host)
    return np.full(values.shape[2], values.dtype.kind == "i")


def _named(name: str, columns: np.ndarray) -> list[str]:
    found = int(columns.sum())
    if not found:
        return []
    return [name if columns.all() else f"{name} ({found} of {len(columns)} columns)"]
