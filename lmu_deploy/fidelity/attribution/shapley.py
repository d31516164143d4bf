r"""Shapley values of the sources of error, which do not depend on the order of enabling.

With :math:`v(S)` the squared output error of a simulation in which the sources S are enabled, the
part of source k is what it adds on average over all orders of the other sources (Shapley 1953):

.. math:: \phi_k = \frac{1}{K!} \sum_\pi \left[ v(\pi_{<k} \cup k) - v(\pi_{<k}) \right],
          \qquad \sum_k \phi_k = v(\text{all}).

Up to as many sources as the budget allows all subsets are run; otherwise some orders are drawn,
each together with its reverse. A part may be negative: the source then compensates others. The
interval is that of a ratio of means over samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np
from scipy.special import stdtrit

Subset = frozenset[str]
Value = Callable[[list[Subset]], dict[Subset, np.ndarray]]
"""Squared output errors of the samples, for several sets of sources."""

_MOST_ORDERS = 64


@dataclass(frozen=True)
class Part:
    """Part of a source in the squared output error.

    Attributes
    ----------
    source : str
    share : float
        The shares of all sources add up to 1; negative if the source compensates others.
    low, high : float
        90 % interval over samples.
    """

    source: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Parts:
    """Parts of all sources.

    Attributes
    ----------
    samples : int
    orders : int or None
        Orders of the sources that were drawn; None if all subsets were run.
    parts : tuple of Part
        The largest first.
    """

    samples: int
    orders: int | None
    parts: tuple[Part, ...]


def shapley(value: Value, names: Sequence[str], runs: int, seed: int = 0) -> Parts | None:
    """Compute the parts of all sources.

    Parameters
    ----------
    value : callable
    names : sequence of str
        The sources.
    runs : int
        Largest number of simulations; at least two orders are run.
    seed : int
        Of the orders.

    Returns
    -------
    Parts, or None
        None without sources, or if there is no error.
    """
    count = len(names)
    if not count:
        return None
    if 2**count <= max(runs, 4):
        subsets = [frozenset(s) for n in range(count + 1) for s in combinations(names, n)]
        found = value(subsets)
        gains = {name: _exact(name, names, found) for name in names}
        orders = None
    else:
        drawn = _orders(names, max(2, min(_MOST_ORDERS, runs // count)), seed)
        chains = [[frozenset(order[:n]) for n in range(count + 1)] for order in drawn]
        found = value(list(dict.fromkeys(s for chain in chains for s in chain)))
        gains = {name: np.zeros_like(found[frozenset()]) for name in names}
        for order, chain in zip(drawn, chains, strict=True):
            for name, before, after in zip(order, chain, chain[1:], strict=False):
                gains[name] = gains[name] + (found[after] - found[before]) / len(drawn)
        orders = len(drawn)
    whole = found[frozenset(names)]
    if not whole.sum() > 0:
        return None
    parts = [_part(name, gains[name], whole) for name in names]
    return Parts(len(whole), orders, tuple(sorted(parts, key=lambda part: -part.share)))


def _exact(name: str, names: Sequence[str], found: dict[Subset, np.ndarray]) -> np.ndarray:
    """Return the mean of what a source adds to every subset of the others."""
    others, count = [n for n in names if n != name], len(names)
    total = np.zeros_like(found[frozenset()])
    for size in range(count):
        weight = factorial(size) * factorial(count - size - 1) / factorial(count)
        for subset in combinations(others, size):
            before = frozenset(subset)
            total = total + weight * (found[before | {name}] - found[before])
    return total


def _orders(names: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """Draw orders in pairs of opposites; the first is the order of the names."""
    rng, found = np.random.default_rng(seed), [tuple(names), tuple(reversed(names))]
    while len(found) < count - 1:
        order = tuple(names[i] for i in rng.permutation(len(names)))
        found += [order, order[::-1]]
    return found


def _part(name: str, gains: np.ndarray, whole: np.ndarray) -> Part:
    share, samples = float(gains.sum() / whole.sum()), len(whole)
    if samples < 2:
        return Part(name, share, -np.inf, np.inf)
    residual = gains - share * whole
    error = float(np.sqrt(samples / (samples - 1) * (residual**2).sum()) / whole.sum())
    half = float(stdtrit(samples - 1, 0.95)) * error
    return Part(name, share, share - half, share + half)
