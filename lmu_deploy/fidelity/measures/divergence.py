"""Divergence of a target from the float reference: the first step, variable and values, and growth.

A variable diverges at the first step at which its error exceeds a bound. The bound is relative to
the root mean square of the group of the variable (the memory of one layer, the hidden units of one
layer, or the outputs) over all recorded steps of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.graph.network import Network
from lmu_deploy.fidelity.measures.memory_error import ErrorMap, error_map
from targets.base import States

_SAMPLES_AT_ONCE = 16


@dataclass(frozen=True)
class DivergencePoint:
    """First divergence of one sample from the reference.

    Attributes
    ----------
    sample : int
    step : int or None
        None when the sample never diverges; the variable is then the one with the largest error.
    variable : str
        Such as ``layer0/memory[12]``, ``layer0/hidden[3]`` or ``output[0]``.
    target, reference : float
        Values of the variable at this step.
    error : float
        Magnitude of their difference, relative to the rms of the group of the variable.
    """

    sample: int
    step: int | None
    variable: str
    target: float
    reference: float
    error: float


@dataclass(frozen=True)
class Group:
    """Variables with a common rms, and their columns in the arrays of the reference."""

    name: str
    array: str
    columns: slice


_ARRAYS = {"memory": "m", "hidden": "h"}
"""Arrays of a recording, by part of a node."""


def groups_of(source: Network, states: States, reference: States) -> Iterator[Group]:
    """Iterate over the groups of variables that both recorded, in the order of computation."""
    starts = {"memory": 0, "hidden": 0}
    both = {"memory": True, "hidden": states.h.shape == (len(states.h), *reference.h.shape[1:])}
    for node in source.nodes:
        for part, size in node.operator.states.items():
            columns = slice(starts[part], starts[part] + size)
            if both[part]:
                yield Group(f"{node.name}/{part}", _ARRAYS[part], columns)
            starts[part] = columns.stop
    yield Group("output", "y", slice(None))


def size_of(group: Group, reference: States, both: int) -> float:
    """Return the root mean square of a group over the first `both` samples of the reference."""
    return _rms(getattr(reference, group.array)[:both, :, group.columns])


def output_errors(states: States, reference: States, both: int) -> np.ndarray:
    """Return the sum of squared output errors of each sample; shape (both,)."""
    wrong = _real(states, "y", slice(both)) - reference.y[:both]
    return np.asarray(np.einsum("sto,sto->s", wrong, wrong))


def first_divergence(
    sample: int,
    states: States,
    reference: States,
    groups: Sequence[Group],
    sizes: dict[str, float],
    bound: float,
) -> DivergencePoint:
    """Find the first divergence of one sample, or its largest error if it never diverges.

    Parameters
    ----------
    sample : int
    states, reference : States
    groups : sequence of Group
        In the order of computation within a step.
    sizes : dict of str to float
        Root mean square of each group, by name.
    bound : float
        Relative to the rms of a group.
    """
    here = slice(sample, sample + 1)
    first: tuple[int, int] | None = None
    largest: DivergencePoint | None = None
    found: DivergencePoint | None = None
    for place, group in enumerate(groups):
        mine = _real(states, group.array, here)[0][:, group.columns]
        truth = getattr(reference, group.array)[sample][:, group.columns]
        if not truth.size or not sizes[group.name]:
            continue
        error = np.abs(mine - truth) / sizes[group.name]
        beyond = np.flatnonzero((error > bound).any(axis=1))
        step = int(beyond[0]) if beyond.size else int(error.max(axis=1).argmax())
        index = int(error[step].argmax())
        at = DivergencePoint(
            sample,
            step if beyond.size else None,
            f"{group.name}[{index}]",
            float(mine[step, index]),
            float(truth[step, index]),
            float(error[step, index]),
        )
        if beyond.size and (first is None or (step, place) < first):
            first, found = (step, place), at
        if largest is None or at.error > largest.error:
            largest = at
    return found or largest or DivergencePoint(sample, None, "output[0]", 0.0, 0.0, 0.0)


def _real(states: States, array: str, samples: slice) -> np.ndarray:
    """Return states in real units and in the coordinates of the reference."""
    if array == "m":
        return states.real_m(samples)
    if array == "h":
        return np.asarray(states.h[samples] * states.h_scale)
    return np.asarray(states.y[samples] * states.y_scale)


def _rms(values: np.ndarray) -> float:
    parts = (values[i : i + _SAMPLES_AT_ONCE] for i in range(0, len(values), _SAMPLES_AT_ONCE))
    total = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
    return float(np.sqrt(total / values.size)) if values.size else 0.0


BOUND = 0.05
CHOSEN_SAMPLES = 4


@dataclass(frozen=True)
class Divergence:
    """Divergence of one target from the reference.

    Attributes
    ----------
    samples : int
        Number of samples that both recorded.
    bound : float
        Relative to the rms of a group.
    points : list of DivergencePoint
        Of the first samples, and of the sample whose outputs differ most.
    maps : list of ErrorMap
        One for each layer with a memory.
    """

    samples: int
    bound: float
    points: Sequence[DivergencePoint]
    maps: Sequence[ErrorMap]


def diverge(
    states: States,
    reference: States,
    source: Network,
    bound: float = BOUND,
    samples: int = CHOSEN_SAMPLES,
) -> Divergence:
    """Compare the states of a target with those of the reference.

    Parameters
    ----------
    states, reference : States
        Of the same first samples; only samples that both recorded are compared.
    source : Network
        The float network that the reference ran.
    bound : float
        Of the error, relative to the rms of the group of a variable.
    samples : int
        Number of first samples to examine, besides the sample with the largest output error.
    """
    both = min(len(states.m), len(reference.m))
    groups = list(groups_of(source, states, reference))
    sizes = {k.name: size_of(k, reference, both) for k in groups}
    worst = int(np.argmax(output_errors(states, reference, both)))
    chosen = list(dict.fromkeys([*range(min(samples, both)), worst]))
    points = [
        first_divergence(number, states, reference, groups, sizes, bound) for number in chosen
    ]
    maps, start = [], 0
    for name, memory in source.memories.items():
        columns = slice(start, start + memory.size)
        maps.append(error_map(name, memory, columns, states, reference, both))
        start = columns.stop
    return Divergence(both, bound, points, maps)
