"""Small histograms side by side: float values as a grey shape, those of the integers as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lmu_deploy.fidelity.schema_losses import Histogram
from lmu_deploy.reporting.plots.metric import shortened
from lmu_deploy.reporting.series import MUTED, Series
from lmu_deploy.reporting.svg import Layout, Plot, blank, place
from lmu_deploy.reporting.wording import significant

_HEIGHT, _OVER, _UNDER, _GAP = 74, 26, 34, 28


@dataclass(frozen=True)
class Panel:
    """One histogram and what it is of; `limits` are drawn as uprights if they are in sight."""

    name: str
    histogram: Histogram


def histogram_plot(name: str, title: str, series: Series, panels: Sequence[Panel]) -> Plot:
    """Make a plot of all panels; `name` must be unique on the page."""
    told = "; ".join(
        f"{panel.name}, {significant(panel.histogram.low)} to {significant(panel.histogram.high)}"
        for panel in panels
    )
    return Plot(name, title, f"{told}.", lambda layout: _draw(series, panels, layout))


def _draw(series: Series, panels: Sequence[Panel], layout: Layout) -> Figure:
    columns = 2 if layout.narrow else 4
    rows = -(-len(panels) // columns)
    row = _OVER + _HEIGHT + _UNDER
    figure = blank(layout, row * rows)
    width = (layout.width - 24 - _GAP * (columns - 1)) / columns
    for number, panel in enumerate(panels):
        down, across = divmod(number, columns)
        left = 12 + across * (width + _GAP)
        right = layout.width - left - width
        axes = place(figure, left, down * row + _OVER, right, (rows - 1 - down) * row + _UNDER)
        _panel(axes, series, panel, 21 if layout.narrow else 30)
    return figure


def _panel(axes: Axes, series: Series, panel: Panel, letters: int) -> None:
    found = panel.histogram
    before, after = np.asarray(found.before, float), np.asarray(found.after, float)
    edges = np.linspace(found.low, found.high, len(before) + 1)
    top = max(before.max(initial=1.0), after.max(initial=1.0))
    axes.set_yscale("log")
    axes.set_ylim(0.5, 2.0 * top)
    axes.stairs(np.maximum(before, 0.5), edges, baseline=0.5, fill=True, color=MUTED, alpha=0.35)
    axes.stairs(np.maximum(after, 0.5), edges, baseline=0.5, color=series.color, linewidth=1.5)
    axes.set_xlim(found.low, found.high)
    axes.set_title(shortened(panel.name, letters), loc="left")
    axes.yaxis.set_major_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.spines["left"].set_visible(False)
    reach = _round(found.high)
    axes.xaxis.set_major_locator(FixedLocator([-reach, 0.0, reach]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(float(value))))


def _round(high: float) -> float:
    """Give a short number of about two thirds of `high`."""
    power = 10.0 ** np.floor(np.log10(0.7 * high))
    return float(np.floor(0.7 * high / power) * power)


def _tick(value: float) -> str:
    return "0" if value == 0 else significant(value, 1)
