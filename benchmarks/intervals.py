"""Bootstrap intervals over seeds, the chips of each seed, and the images that each chip answers.

Seeds are drawn with replacement, and for each drawn seed its chips, because chips of one seed share
a training or tuning and are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

DRAWS = 2000

Drawn = tuple[np.ndarray, np.ndarray]
"""Seeds, shape (seeds, 1), and chips of each, shape (seeds, chips): an index of the first axes."""


def drawn(seeds: int, chips: int) -> Iterator[tuple[Drawn, np.random.Generator]]:
    """Yield the draws of seeds and chips, and the generator for what lies below them."""
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        rows, columns = (
            rng.integers(seeds, size=(seeds, 1)),
            rng.integers(chips, size=(seeds, chips)),
        )
        yield (rows, columns), rng


def interval(
    seeds: int, chips: int, statistic: Callable[[Drawn, np.random.Generator], float]
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic of drawn seeds and chips.

    Parameters
    ----------
    seeds, chips : int
        Number of seeds, and of chips of each.
    statistic : callable
        Called with the index of a draw and a generator.
    """
    found = [statistic(index, rng) for index, rng in drawn(seeds, chips)]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def of_mean(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values, shape (seeds, chips, ...).

    Parameters
    ----------
    values : ndarray
        With a third axis, for example of images, that is drawn too: the same images on all chips.
    """
    seeds, chips = values.shape[:2]

    def statistic(index: Drawn, rng: np.random.Generator) -> float:
        some = values[index]
        if values.ndim > 2:
            some = some[:, :, rng.integers(values.shape[2], size=values.shape[2])]
        return float(some.mean())

    return interval(seeds, chips, statistic)


def of_ratio(values: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the ratio of two means over the same seeds and chips."""
    return interval(
        *values.shape, lambda index, _: float(values[index].mean() / reference[index].mean())
    )


def shown(bounds: tuple[float, float], digits: int, factor: float = 1.0) -> str:
    """Return an interval as a cell of a table."""
    return " to ".join(f"{factor * bound:.{digits}f}" for bound in bounds)
