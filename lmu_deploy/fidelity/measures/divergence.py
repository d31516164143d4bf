"""When a target and the float reference part, and how their difference grows, for one target.

Where a sample first leaves the float reference: the step, the variable, the values there.

A variable parts at the first step at which its error exceeds a bound, which is stated as a share of
the root mean square of all variables of its kind (one layer's memory, one layer's hidden units, the
outputs) over all recorded steps of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.core.reference import has_hidden
from lmu_deploy.fidelity.measures.memory_error import ErrorMap, error_map
from targets.base import States

_SAMPLES_AT_ONCE = 16


@dataclass(frozen=True)
class Parting:
    """Where one sample first leaves the reference.

    Attributes
    ----------
    sample : int
    step : int or None
        None when it never does, and then the variable with the largest error is named.
    variable : str
        Such as ``layer0/memory[12]``, ``layer0/hidden[3]`` or ``output[0]``.
    target, reference : float
        Values there.
    error : float
        Their difference, as a share of the rms of the variable's kind.
    """

    sample: int
    step: int | None
    variable: str
    target: float
    reference: float
    error: float


@dataclass(frozen=True)
class Kind:
    """Variables that one rms is taken over: where they stand in the reference's arrays."""

    name: str
    array: str
    columns: slice


def kinds_of(source: LMUNetwork, states: States, reference: States) -> Iterator[Kind]:
    """All kinds of variables that both recorded, in the order in which a step computes them."""
    m = h = 0
    hidden = states.h.shape == (len(states.h), *reference.h.shape[1:])
    for number, layer in enumerate(source.layers):
        if isinstance(layer, LMULayer):
            yield Kind(f"layer{number}/memory", "m", slice(m, m + layer.memory.size))
            m += layer.memory.size
        if has_hidden(layer):
            if hidden:
                yield Kind(f"layer{number}/hidden", "h", slice(h, h + layer.n_out))
            h += layer.n_out
    yield Kind("output", "y", slice(None))


def size_of(kind: Kind, reference: States, both: int) -> float:
    """Root mean square of a kind over the samples that both recorded."""
    return _rms(getattr(reference, kind.array)[:both, :, kind.columns])


def output_errors(states: States, reference: States, both: int) -> np.ndarray:
    """Sum of squared errors of each sample's outputs."""
    wrong = _real(states, "y", slice(both)) - reference.y[:both]
    return np.asarray(np.einsum("sto,sto->s", wrong, wrong))


def first_parting(
    sample: int,
    states: States,
    reference: States,
    kinds: Sequence[Kind],
    sizes: dict[str, float],
    bound: float,
) -> Parting:
    """Find where one sample parts, or else where its error is largest.

    Parameters
    ----------
    sample : int
    states, reference : States
    kinds : sequence of Kind
        In the order in which a step computes them.
    sizes : dict of str to float
        Root mean square of each kind, by name.
    bound : float
    """
    here = slice(sample, sample + 1)
    first: tuple[int, int] | None = None
    largest: Parting | None = None
    found: Parting | None = None
    for place, kind in enumerate(kinds):
        mine = _real(states, kind.array, here)[0][:, kind.columns]
        truth = getattr(reference, kind.array)[sample][:, kind.columns]
        if not truth.size or not sizes[kind.name]:
            continue
        error = np.abs(mine - truth) / sizes[kind.name]
        beyond = np.flatnonzero((error > bound).any(axis=1))
        step = int(beyond[0]) if beyond.size else int(error.max(axis=1).argmax())
        index = int(error[step].argmax())
        at = Parting(
            sample,
            step if beyond.size else None,
            f"{kind.name}[{index}]",
            float(mine[step, index]),
            float(truth[step, index]),
            float(error[step, index]),
        )
        if beyond.size and (first is None or (step, place) < first):
            first, found = (step, place), at
        if largest is None or at.error > largest.error:
            largest = at
    return found or largest or Parting(sample, None, "output[0]", 0.0, 0.0, 0.0)


def _real(states: States, array: str, samples: slice) -> np.ndarray:
    """Values in real numbers and the reference's coordinates."""
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
    """All of it for one target.

    Attributes
    ----------
    samples : int
        That were recorded by both.
    bound : float
    partings : list of Parting
        Of the first samples, and of the one whose outputs differ most.
    maps : list of ErrorMap
    """

    samples: int
    bound: float
    partings: Sequence[Parting]
    maps: Sequence[ErrorMap]


def diverge(
    states: States,
    reference: States,
    source: LMUNetwork,
    bound: float = BOUND,
    samples: int = CHOSEN_SAMPLES,
) -> Divergence:
    """Find where and how a target's states leave the reference's.

    Parameters
    ----------
    states, reference : States
        Of the same first samples; only those that both recorded are looked at.
    source : LMUNetwork
        Whose memory the reference's states are.
    bound : float
        Of the error, as a share of the rms of the variable's kind.
    samples : int
        How many of the first samples get a Parting; the one with the worst outputs comes after.
    """
    both = min(len(states.m), len(reference.m))
    kinds = list(kinds_of(source, states, reference))
    sizes = {k.name: size_of(k, reference, both) for k in kinds}
    worst = int(np.argmax(output_errors(states, reference, both)))
    chosen = list(dict.fromkeys([*range(min(samples, both)), worst]))
    partings = [first_parting(number, states, reference, kinds, sizes, bound) for number in chosen]
    maps, start = [], 0
    for number, layer in enumerate(source.layers):
        if isinstance(layer, LMULayer) and reference.m.size:
            columns = slice(start, start + layer.memory.size)
            maps.append(error_map(f"layer{number}", layer, columns, states, reference, both))
            start = columns.stop
    return Divergence(both, bound, partings, maps)
