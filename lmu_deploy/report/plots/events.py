"""Events of each population: a raster of sample 0, and mean events at every step.

A raster is drawn as dashes: one for each event, or shaded dashes for counts per time bin. The size
of a raster grows with the number of events, and a report must stay small enough to be sent by
mail. Therefore all rasters of a figure share a budget of dashes. Rasters above their share are
counted in time bins; if they are still too large, fewer neurons are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmu_deploy.fidelity.measures.events import RasterExcerpt, binned
from lmu_deploy.report.plots.lines import shortened, thinned, whole_numbers
from lmu_deploy.report.series import MUTED, Series
from lmu_deploy.report.svg import Layout, Plot, blank, place
from lmu_deploy.report.wording import count

_SHADES = 4
_GAPS_UNTIL = 60
_SHORTEST = 1.0 / 300.0


def cells(found: RasterExcerpt, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Compute the lines along the rows of the neurons, one set for each shade.

    A raster of few time bins has gaps between dashes. In a raster of many bins adjacent dashes are
    joined, which looks the same and is far smaller.

    Parameters
    ----------
    found : RasterExcerpt
    steps : int
        Steps of the task, to which the chip's steps are scaled.

    Yields
    ------
    x, y : ndarray
        Ends of the dashes, with NaN between dashes.
    strength : float
        Opacity in (0, 1], relative to the largest number of events of a bin.
    """
    bins = found.counts.shape[1]
    most = int(found.counts.max())
    shades = np.ceil(found.counts * (min(most, _SHADES) / most)).astype(np.int64)
    for shade in range(1, min(most, _SHADES) + 1):
        mask = shades == shade
        if not mask.any():
            continue
        row, begin, end = _apart(mask) if bins <= _GAPS_UNTIL else _joined(mask)
        row, begin, end = _merged(row, begin, np.maximum(end, begin + _SHORTEST * bins))
        nothing = np.full(len(row), np.nan)
        x = np.stack([begin, end, nothing], axis=1).ravel() * (steps / bins)
        y = np.stack([row, row, nothing], axis=1).ravel()
        yield x, y, shade / min(most, _SHADES)


def _merged(
    row: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join dashes that overlap, which looks the same."""
    joined = (row[1:] == row[:-1]) & (begin[1:] <= end[:-1])
    first, last = np.append(True, ~joined), np.append(~joined, True)
    return row[first], begin[first], end[last]


def _apart(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, cell = np.nonzero(mask)
    return row, cell + 0.06, cell + 0.94


def _joined(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the begin and end of runs of adjacent bins."""
    change = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    row, begin = np.nonzero(change == 1)
    return row, begin.astype(np.float64), np.nonzero(change == -1)[1].astype(np.float64)


_HEIGHT = 120
_BARS = 120


@dataclass(frozen=True)
class Activity:
    """One population of one target.

    Attributes
    ----------
    name : str
    neurons : int or None
    raster : RasterExcerpt or None
    by_step : sequence of float
        Mean events of a sample at each step.
    """

    name: str
    neurons: int | None
    raster: RasterExcerpt | None
    by_step: Sequence[float]


def activity_plot(number: int, series: Series, activities: Sequence[Activity]) -> Plot:
    """Build the plot of one target, a row for each population; `number` is unique on the page."""
    description = "; ".join(
        f"{a.name}: {count(float(np.sum(a.by_step)))} events of a mean sample" for a in activities
    )
    return Plot(
        f"events-{number}",
        f"Events of {series.label}: raster of sample 0 and mean events at each step",
        f"{description}.",
        lambda layout: _draw(series, activities, layout),
    )


def describe_excerpts(activities: Sequence[Activity]) -> str:
    """Describe what the rasters omit, in one sentence for all populations that omit the same."""
    alike: dict[str, list[str]] = {}
    for activity in activities:
        if words := _left_out(activity):
            alike.setdefault(words, []).append(activity.name)
    if not alike:
        return ""
    omitted = " ".join(f"{', '.join(names)}: {words}." for words, names in alike.items())
    return f"The rasters are excerpts. {omitted} The means cover all neurons and samples."


def _left_out(activity: Activity) -> str:
    found = activity.raster
    if found is None or not found.counts.any():
        return ""
    words = []
    if activity.neurons is not None and len(found.neurons) < activity.neurons:
        words.append(f"{len(found.neurons)} of {activity.neurons:,} neurons, evenly spaced")
    if not found.exact:
        words.append(f"events counted in {found.counts.shape[1]} time bins")
    return "; ".join(words)


def _draw(series: Series, activities: Sequence[Activity], layout: Layout) -> Figure:
    raster, histogram = _HEIGHT, 84
    if layout.narrow:
        row = 30 + raster + 48 + histogram + 50
        figure = blank(layout, row * len(activities))
    else:
        row = 30 + raster + 46
        figure = blank(layout, row * len(activities))
    for number, activity in enumerate(activities):
        above, below = number * row, (len(activities) - 1 - number) * row
        if layout.narrow:
            first = place(figure, 46, above + 30, 22, below + 50 + histogram + 48)
            second = place(figure, 46, above + 30 + raster + 48, 22, below + 50)
        else:
            first = place(figure, 56, above + 30, 0.40 * layout.width, below + 46)
            second = place(figure, 0.6 * layout.width + 70, above + 30, 24, below + 46)
        _raster(first, series, activity, layout)
        _histogram(second, series, activity)
    return figure


def _raster(axes: Axes, series: Series, activity: Activity, layout: Layout) -> None:
    axes.set_title(_title(activity, layout), loc="left")
    steps = len(activity.by_step)
    axes.set_xlim(0, steps)
    whole_numbers(axes, "" if layout.narrow else "step of sample 0", 6)
    found = activity.raster
    if found is None or not found.counts.any():
        words = "no raster recorded" if found is None else "no event in sample 0"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=MUTED)
        axes.set_yticks([])
        return
    rows = len(found.neurons)
    for x, y, strength in cells(found, steps):
        axes.plot(
            x,
            y,
            color=series.color,
            alpha=strength,
            linewidth=max(0.9, 0.72 * _HEIGHT / rows),
            solid_capstyle="butt",
        )
    axes.set_ylim(rows - 0.5, -0.5)
    ends = [0, rows - 1] if rows > 1 else [0]
    axes.set_yticks(ends)
    axes.set_yticklabels([str(found.neurons[i]) for i in ends])
    axes.set_ylabel("neuron", labelpad=-8 if rows > 9 else 4)


def _title(activity: Activity, layout: Layout) -> str:
    """Return the name of the population, with the number of neurons drawn if not all are."""
    drawn = 0 if activity.raster is None else len(activity.raster.neurons)
    shown = ""
    if activity.neurons is not None and 0 < drawn < activity.neurons:
        shown = f", {drawn} of {activity.neurons:,} neurons"
    return shortened(activity.name, (40 if layout.narrow else 64) - len(shown)) + shown


def _histogram(axes: Axes, series: Series, activity: Activity) -> None:
    middles, means = thinned(activity.by_step, most=_BARS)
    steps = len(activity.by_step)
    half = 0.5 * steps / max(len(middles), 1)
    edges = np.append(middles + 0.5 - half, steps) if len(middles) else np.array([0.0])
    axes.stairs(means, edges, fill=True, color=series.color, alpha=0.55)
    axes.stairs(means, edges, color=series.color, linewidth=1.4)
    axes.set_xlim(0, steps)
    top = float(means.max()) if len(means) else 0.0
    axes.set_ylim(0, 1.15 * top or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.set_title("mean events at each step", loc="left", color=MUTED)
    axes.grid(axis="y")
    whole_numbers(axes, "step", 6)


MOST_DASHES = 12_000
"""Budget of all figures of a report; a dash takes about eight bytes at each of two widths."""

Rasters = Sequence[RasterExcerpt | None]


def limit_dashes(rasters: Rasters, most: int = MOST_DASHES) -> list[RasterExcerpt | None]:
    """Reduce rasters until they need at most `most` dashes together.

    A raster that needs less than an equal share is not changed, and the remainder is available to
    the others. At least one neuron of every population is kept.

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
    """Return the largest limit per raster for which the total is at most `most`.

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
    """Count the dashes of a raster."""
    if raster is None or not raster.counts.any():
        return 0
    return sum(len(x) // 3 for x, _, _ in cells(raster, steps=1))


def _fewer_neurons(raster: RasterExcerpt, most: int) -> RasterExcerpt:
    """Select evenly spaced neurons, as many as need at most `most` dashes."""
    found = raster
    for rows in range(len(raster.neurons) - 1, 0, -1):
        chosen = np.linspace(0, len(raster.neurons) - 1, rows).astype(np.int64)
        found = RasterExcerpt(raster.chip_steps, raster.neurons[chosen], raster.counts[chosen])
        if dashes(found) <= most:
            break
    return found
