"""How much of its rasters a report draws: a budget of dashes, shared among populations.

What a raster takes grows with the number of spikes, and a report is to stay a file that can be
sent by mail. So where all of a figure's rasters together need more dashes than it has, those that
need most are counted in bins of time, and if that does not do, fewer of their neurons are shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmu_deploy.fidelity.excerpts import RasterExcerpt, binned
from lmu_deploy.reporting.plots.cells import cells

MOST_DASHES = 12_000
"""In all figures of a report together; one is drawn with some eight bytes, at two widths."""

Rasters = Sequence[RasterExcerpt | None]


def shared(rasters: Rasters, most: int = MOST_DASHES) -> list[RasterExcerpt | None]:
    """Cut rasters down until they need at most so many dashes together.

    Those that need less than an equal share stay as they are and leave the rest of it to others;
    of every population at least one neuron is left.

    Parameters
    ----------
    rasters : sequence of RasterExcerpt or None
        Of all populations of a figure.
    most : int
    """
    share = equal_share([dashes(raster) for raster in rasters], most)
    counted = [r if r is None or dashes(r) <= share else binned(r) for r in rasters]
    share = equal_share([dashes(raster) for raster in counted], most)
    return [r if r is None or dashes(r) <= share else _fewer_neurons(r, share) for r in counted]


def equal_share(needs: Sequence[int], most: int) -> int:
    """Give the largest share of which nobody gets more, so that all together get at most `most`.

    Examples
    --------
    >>> equal_share([1, 50, 60], 81)
    40
    """
    left = most
    for number, need in enumerate(sorted(needs)):
        share = left // (len(needs) - number)
        if need > share:
            return share
        left -= need
    return max(needs, default=0)


def dashes(raster: RasterExcerpt | None) -> int:
    """Count the dashes that a raster is drawn with."""
    if raster is None or not raster.counts.any():
        return 0
    return sum(len(x) // 3 for x, _, _ in cells(raster, steps=1))


def _fewer_neurons(raster: RasterExcerpt, most: int) -> RasterExcerpt:
    """Take as many neurons as are drawn with at most so many dashes, evenly."""
    found = raster
    for rows in range(len(raster.neurons) - 1, 0, -1):
        chosen = np.linspace(0, len(raster.neurons) - 1, rows).astype(np.int64)
        found = RasterExcerpt(raster.chip_steps, raster.neurons[chosen], raster.counts[chosen])
        if dashes(found) <= most:
            break
    return found
