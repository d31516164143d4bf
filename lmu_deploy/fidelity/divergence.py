r"""When a target and the float reference part: first step and variable, growth, map of errors.

A variable parts at the first step at which its error exceeds a bound, which is stated as a share of
the root mean square of all variables of its kind (one layer's memory, one layer's hidden units, the
outputs) over all recorded steps of the reference. The growth of a layer's error is the exponent g
in :math:`\epsilon(t) \sim t^g`, by least squares of logarithms over the second half of the steps: 0
is an error that stays, 1/2 one that adds up at random, 1 one that adds up in one direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.network import LMULayer, LMUNetwork
from lmu_deploy.reference import has_hidden
from targets.base import States

BOUND = 0.05
CHOSEN_SAMPLES = 4
MOST_ORDERS, MOST_TIMES = 32, 96
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
class ErrorMap:
    """One layer's relative error by Legendre order and time.

    Attributes
    ----------
    layer : str
    orders : ndarray, shape (rows + 1,), int64
        Where the rows' groups of orders begin and end.
    times : ndarray, shape (columns + 1,), int64
        The same of steps.
    values : ndarray, shape (rows, columns)
        Root mean square error over samples and channels, relative to that of the layer's memory.
    growth : float or None
        Exponent of the error over time; None with too few steps, or where there is no error.
    growth_by_order : list of float or None
        The same of each row.
    """

    layer: str
    orders: np.ndarray
    times: np.ndarray
    values: np.ndarray
    growth: float | None
    growth_by_order: Sequence[float | None]


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


@dataclass(frozen=True)
class _Kind:
    """Variables that one rms is taken over: where they stand in the reference's arrays."""

    name: str
    array: str
    columns: slice


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
    kinds = list(_kinds(source, states, reference))
    sizes = {k.name: _rms(getattr(reference, k.array)[:both, :, k.columns]) for k in kinds}
    worst = int(np.argmax(_output_errors(states, reference, both)))
    chosen = list(dict.fromkeys([*range(min(samples, both)), worst]))
    partings = [_parting(number, states, reference, kinds, sizes, bound) for number in chosen]
    maps, start = [], 0
    for number, layer in enumerate(source.layers):
        if isinstance(layer, LMULayer) and reference.m.size:
            columns = slice(start, start + layer.memory.size)
            maps.append(_map(f"layer{number}", layer, columns, states, reference, both))
            start = columns.stop
    return Divergence(both, bound, partings, maps)


def _kinds(source: LMUNetwork, states: States, reference: States) -> Iterator[_Kind]:
    """All kinds of variables that both recorded, in the order in which a step computes them."""
    m = h = 0
    hidden = states.h.shape == (len(states.h), *reference.h.shape[1:])
    for number, layer in enumerate(source.layers):
        if isinstance(layer, LMULayer):
            yield _Kind(f"layer{number}/memory", "m", slice(m, m + layer.memory.size))
            m += layer.memory.size
        if has_hidden(layer):
            if hidden:
                yield _Kind(f"layer{number}/hidden", "h", slice(h, h + layer.n_out))
            h += layer.n_out
    yield _Kind("output", "y", slice(None))


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


def _output_errors(states: States, reference: States, both: int) -> np.ndarray:
    """Sum of squared errors of each sample's outputs."""
    wrong = _real(states, "y", slice(both)) - reference.y[:both]
    return np.asarray(np.einsum("sto,sto->s", wrong, wrong))


def _parting(
    sample: int,
    states: States,
    reference: States,
    kinds: Sequence[_Kind],
    sizes: dict[str, float],
    bound: float,
) -> Parting:
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


def _map(
    name: str,
    layer: LMULayer,
    columns: slice,
    states: States,
    reference: States,
    both: int,
) -> ErrorMap:
    steps, memory = reference.m.shape[1], layer.memory
    squares, power = np.zeros((steps, memory.order)), 0.0
    for begin in range(0, both, _SAMPLES_AT_ONCE):
        part = slice(begin, min(begin + _SAMPLES_AT_ONCE, both))
        truth = reference.m[part, :, columns].astype(np.float64)
        wrong = (states.real_m(part)[:, :, columns] - truth) ** 2
        squares += wrong.reshape(-1, steps, memory.channels, memory.order).sum(axis=(0, 2))
        power += float((truth**2).sum())
    squares /= both * memory.channels
    mean = power / (both * steps * memory.size)
    orders = np.linspace(0, memory.order, min(memory.order, MOST_ORDERS) + 1).astype(np.int64)
    times = np.linspace(0, steps, min(steps, MOST_TIMES) + 1).astype(np.int64)
    if mean > 0:
        squares /= mean
    by_row = np.add.reduceat(squares, orders[:-1], axis=1) / np.diff(orders)
    cells = np.add.reduceat(by_row, times[:-1], axis=0) / np.diff(times)[:, None]
    growths = [growth(row) for row in by_row.T]
    return ErrorMap(name, orders, times, np.sqrt(cells.T), growth(squares.mean(axis=1)), growths)


def growth(squares: np.ndarray) -> float | None:
    """Exponent of an error over time from its squares at each step, (steps,).

    Returns
    -------
    float, or None
        None with fewer than 8 steps, or no error in some step of the second half.
    """
    steps = len(squares)
    later = squares[steps // 2 :]
    if steps < 8 or not (later > 0).all():
        return None
    time = np.log(np.arange(steps // 2, steps) + 1.0)
    error = 0.5 * np.log(later)
    time = time - time.mean()
    return float(time @ error / (time @ time))
