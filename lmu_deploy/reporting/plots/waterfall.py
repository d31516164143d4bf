"""Sources of error as a waterfall: what each adds to the squared output error, and alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from lmu_deploy.reporting.plots.lines import percent_axis
from lmu_deploy.reporting.series import GRID, INK, MUTED, Series
from lmu_deploy.reporting.svg import Layout, Plot, blank, place
from lmu_deploy.reporting.wording import share

_BAR = 0.52


@dataclass(frozen=True)
class Bar:
    """One source: its share in turn, and alone."""

    name: str
    in_turn: float
    alone: float


def waterfall_plot(number: int, series: Series, bars: Sequence[Bar]) -> Plot:
    """Make one target's plot; `number` tells targets apart."""
    told = "; ".join(f"{b.name} {share(b.in_turn)} in turn, {share(b.alone)} alone" for b in bars)
    return Plot(
        f"losses-{number}",
        f"What each source adds to the squared output error of {series.label}",
        f"{told}.",
        lambda layout: _draw(series, bars, layout),
    )


def _draw(series: Series, bars: Sequence[Bar], layout: Layout) -> Figure:
    row = 42 if layout.narrow else 30
    figure = blank(layout, row * len(bars) + 52)
    axes = place(figure, 12 if layout.narrow else 170, 6, 62 if layout.narrow else 90, 46)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    ends = np.cumsum([bar.in_turn for bar in bars])
    starts = np.concatenate([[0.0], ends[:-1]])
    reach = np.concatenate([[0.0], ends, starts + [bar.alone for bar in bars]])
    low, high = float(reach.min()), float(reach.max())
    margin = 0.03 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.axvline(0.0, color=MUTED, linewidth=1)
    for number, (bar, start, end) in enumerate(zip(bars, starts, ends, strict=True)):
        y = number + (0.16 if layout.narrow else 0.0)
        _bar(axes, series, bar, y, (float(start), float(end)))
        if number + 1 < len(bars):
            axes.plot([end, end], [y, y + 1.0], color=GRID, linewidth=1, zorder=1)
        _label(axes, bar, number, y, layout)
    axes.xaxis.set_major_locator(MaxNLocator(4 if layout.narrow else 8, steps=[1, 2, 2.5, 5, 10]))
    percent_axis(axes.xaxis)
    axes.set_xlabel("of the squared output error")
    axes.grid(axis="x")
    return figure


def _bar(axes: Axes, series: Series, bar: Bar, y: float, reach: tuple[float, float]) -> None:
    """Draw a bar from where the one before ended, hollow where it takes away."""
    start, end = reach
    axes.barh(
        [y], [end - start], left=[start], height=_BAR, zorder=2, linewidth=1.4,
        color=series.color if end >= start else "none", edgecolor=series.color,
    )  # fmt: skip
    axes.plot(
        [start + bar.alone], [y], marker="D", markersize=6.5, color=INK,
        markerfacecolor="none", markeredgewidth=1.5, zorder=3,
    )  # fmt: skip


def _label(axes: Axes, bar: Bar, number: int, y: float, layout: Layout) -> None:
    across = blended_transform_factory(axes.transAxes, axes.transData)
    if layout.narrow:
        axes.text(0, number - 0.3, bar.name, transform=across, va="center")
    else:
        axes.annotate(
            bar.name, (0, y), xycoords=across, xytext=(-12, 0), textcoords="offset points",
            ha="right", va="center",
        )  # fmt: skip
    axes.annotate(
        share(bar.in_turn), (1, y), xycoords=across, xytext=(56 if layout.narrow else 70, 0),
        textcoords="offset points", ha="right", va="center", color=MUTED,
    )  # fmt: skip
