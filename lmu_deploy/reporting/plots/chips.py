"""The metric of many virtual chips as two histograms, before calibration above and after below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmu_deploy.reporting.plots.lines import inner_ticks, percent_axis
from lmu_deploy.reporting.series import INK, Series
from lmu_deploy.reporting.svg import Layout, Plot, blank, place
from lmu_deploy.reporting.wording import metric_value

_BINS = 24
_HEIGHT, _OVER, _UNDER = 96, 30, 46


@dataclass(frozen=True)
class Chips:
    """The metric of every chip, set up in one way."""

    name: str
    series: Series
    values: Sequence[float]


@dataclass(frozen=True)
class Marks:
    """What the chips are measured against."""

    reference: float
    ideal: float


def chips_plot(number: int, metric: str, samples: int, rows: Sequence[Chips], marks: Marks) -> Plot:
    """Make the plot; `number` tells studies apart, `samples` is how many a chip was judged on."""
    told = "; ".join(
        f"{row.name}: {len(row.values)} chips from {metric_value(metric, min(row.values))} to "
        f"{metric_value(metric, max(row.values))}, half of them up to "
        f"{metric_value(metric, float(np.median(row.values)))}"
        for row in rows
    )
    told += (
        f"; float {metric_value(metric, marks.reference)}, a perfect chip "
        f"{metric_value(metric, marks.ideal)}."
    )
    edges = bin_edges(np.concatenate([row.values for row in rows]), metric, samples)
    return Plot(
        f"chips-{number}",
        f"{metric} of virtual chips, before and after calibration",
        told,
        lambda layout: _draw(metric, rows, marks, edges, layout),
    )


def bin_edges(values: np.ndarray, metric: str, samples: int) -> np.ndarray:
    """Give edges of equal bins that hold all values.

    An accuracy is a whole number of samples, so bins end between two such numbers and are equally
    many wide: bins of any other width would hold two numbers here and three there.
    """
    low, high = float(values.min()), float(values.max())
    if metric == "accuracy":
        first, last = round(low * samples), round(high * samples)
        wide = -(-(last - first + 1) // _BINS)
        bins = -(-(last - first + 1) // wide)
        return np.asarray((first - 0.5 + wide * np.arange(bins + 1)) / samples)
    margin = 0.01 * (high - low) or 0.01 * abs(high) or 0.01
    return np.linspace(low - margin, high + margin, _BINS + 1)


def _draw(
    metric: str, rows: Sequence[Chips], marks: Marks, edges: np.ndarray, layout: Layout
) -> Figure:
    panel = _OVER + _HEIGHT
    figure = blank(layout, panel * len(rows) + _UNDER)
    counts = [np.histogram(row.values, edges)[0] for row in rows]
    low, high = min(edges[0], *_both(marks)), max(edges[-1], *_both(marks))
    margin = 0.04 * (high - low)
    for number, (row, found) in enumerate(zip(rows, counts, strict=True)):
        below = (len(rows) - 1 - number) * panel + _UNDER
        axes = place(figure, 46, number * panel + _OVER, 20, below)
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(0, 1.12 * max(int(c.max()) for c in counts))
        _panel(axes, row, found, edges, marks)
        inner_ticks(axes.xaxis, *axes.get_xlim(), 4 if layout.narrow else 8)
        if metric == "accuracy":
            percent_axis(axes.xaxis)
        if number + 1 < len(rows):
            axes.tick_params(axis="x", labelbottom=False)
        else:
            axes.set_xlabel("accuracy" if metric == "accuracy" else "NRMSE (0 is perfect)")
    return figure


def _both(marks: Marks) -> tuple[float, float]:
    return marks.reference, marks.ideal


def _panel(axes: Axes, row: Chips, counts: np.ndarray, edges: np.ndarray, marks: Marks) -> None:
    color = row.series.color
    axes.stairs(counts, edges, fill=not row.series.hollow, color=color, alpha=0.55)
    axes.stairs(counts, edges, color=color, linewidth=1.4)
    axes.axvline(marks.reference, color=INK, linewidth=1.6)
    axes.axvline(marks.ideal, color=INK, linewidth=1.6, linestyle=(0, (2, 2)))
    axes.set_title(row.name, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.set_ylabel("chips")
    axes.grid(axis="y")
