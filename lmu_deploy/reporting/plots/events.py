"""When each population speaks: a raster of sample 0, and mean events at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmu_deploy.fidelity.excerpts import RasterExcerpt
from lmu_deploy.reporting.plots.cells import cells
from lmu_deploy.reporting.plots.lines import thinned, whole_numbers
from lmu_deploy.reporting.plots.metric import shortened
from lmu_deploy.reporting.series import MUTED, Series
from lmu_deploy.reporting.svg import Layout, Plot, blank, place
from lmu_deploy.reporting.wording import count

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
    """Make one target's plot: a row for each population; `number` tells targets apart."""
    told = "; ".join(
        f"{a.name}: {count(float(np.sum(a.by_step)))} events of a mean sample" for a in activities
    )
    return Plot(
        f"events-{number}",
        f"Events of {series.label}: raster of sample 0 and mean events at each step",
        f"{told}.",
        lambda layout: _draw(series, activities, layout),
    )


def excerpts_told(activities: Sequence[Activity]) -> str:
    """Say what the rasters leave out, one sentence for all populations of which it is the same."""
    alike: dict[str, list[str]] = {}
    for activity in activities:
        if words := _left_out(activity):
            alike.setdefault(words, []).append(activity.name)
    if not alike:
        return ""
    told = " ".join(f"{', '.join(names)}: {words}." for words, names in alike.items())
    return f"The rasters are excerpts. {told} Means are of all neurons and samples."


def _left_out(activity: Activity) -> str:
    found = activity.raster
    if found is None or not found.counts.any():
        return ""
    words = []
    if activity.neurons is not None and len(found.neurons) < activity.neurons:
        words.append(f"{len(found.neurons)} of {activity.neurons:,} neurons, evenly taken")
    if not found.exact:
        words.append(f"events counted in {found.counts.shape[1]} equal parts of time")
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
    """Name the population, and say how many of its neurons are shown if not all are."""
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
