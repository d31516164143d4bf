"""Plots of errors: waterfall of sources, histograms of values, intervals between events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from lmu_deploy.fidelity.schema import Histogram
from lmu_deploy.report.plots.lines import percent_axis, shortened
from lmu_deploy.report.series import GRID, INK, MUTED, Series
from lmu_deploy.report.svg import Layout, Plot, blank, place
from lmu_deploy.report.wording import share, significant

_BAR = 0.52


@dataclass(frozen=True)
class Bar:
    """One source: its share in turn (after all earlier sources), and alone."""

    name: str
    in_turn: float
    alone: float


def waterfall_plot(number: int, series: Series, bars: Sequence[Bar]) -> Plot:
    """Build the waterfall plot of one target; `number` is unique on the page."""
    description = "; ".join(
        f"{b.name} {share(b.in_turn)} in turn, {share(b.alone)} alone" for b in bars
    )
    return Plot(
        f"losses-{number}",
        f"Contribution of each source to the squared output error of {series.label}",
        f"{description}.",
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
    axes.set_xlabel("share of the squared output error")
    axes.grid(axis="x")
    return figure


def _bar(axes: Axes, series: Series, bar: Bar, y: float, reach: tuple[float, float]) -> None:
    """Draw a bar from the end of the previous one; it is hollow when it reduces the error."""
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


_HEIGHT, _OVER, _UNDER, _GAP = 74, 26, 34, 28


@dataclass(frozen=True)
class Panel:
    """One histogram and its title."""

    name: str
    histogram: Histogram


def histogram_plot(name: str, title: str, series: Series, panels: Sequence[Panel]) -> Plot:
    """Build a plot of small histograms; `name` must be unique on the page."""
    description = "; ".join(
        f"{panel.name}, {significant(panel.histogram.low)} to {significant(panel.histogram.high)}"
        for panel in panels
    )
    return Plot(
        name, title, f"{description}.", lambda layout: _draw_histograms(series, panels, layout)
    )


def _draw_histograms(series: Series, panels: Sequence[Panel], layout: Layout) -> Figure:
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
    """Return a number of one digit near two thirds of `high`."""
    power = 10.0 ** np.floor(np.log10(0.7 * high))
    return float(np.floor(0.7 * high / power) * power)


def _tick(value: float) -> str:
    return "0" if value == 0 else significant(value, 1)


_INTERVALS_HEIGHT, _INTERVALS_TOP, _INTERVALS_BOTTOM, _LEFT, _INTERVALS_GAP = 84, 28, 44, 46, 16
_MOST_LABELS = {"wide": 5, "narrow": 3}


def intervals_plot(number: int, series: Series, counts: Mapping[str, Sequence[int]]) -> Plot:
    """Build the plot of intervals between events; `number` is unique on the page.

    Parameters
    ----------
    counts : mapping of population to counts
        Entry k counts intervals of 2^(k-1) + 1 to 2^k steps; entry 0 counts intervals of one step.
        No population is empty.
    """
    description = "; ".join(
        f"{name}: "
        + ", ".join(f"{steps(k)}, {share(n / sum(found))}" for k, n in enumerate(found) if n)
        for name, found in counts.items()
    )
    return Plot(
        f"intervals-{number}",
        f"Intervals between successive events of a neuron in sample 0, for {series.label}",
        f"{description}.",
        lambda layout: _draw_intervals(series, counts, layout),
    )


def steps(k: int) -> str:
    """Return the range of intervals that entry k counts, in words."""
    first, last = 2**k // 2 + 1, 2**k
    if last == 1:
        return "1 step"
    return f"{last:,} steps" if first >= last else f"{first:,} to {last:,} steps"


def _draw_intervals(series: Series, counts: Mapping[str, Sequence[int]], layout: Layout) -> Figure:
    columns = 2 if layout.narrow else 4
    rows = -(-len(counts) // columns)
    row = _INTERVALS_TOP + _INTERVALS_HEIGHT + _INTERVALS_BOTTOM
    figure = blank(layout, row * rows)
    width = (layout.width - 12 - _INTERVALS_GAP * (columns - 1)) / columns
    bins = max(len(found) for found in counts.values())
    top = max(max(found) / sum(found) for found in counts.values())
    for number, (name, found) in enumerate(counts.items()):
        down, across = divmod(number, columns)
        left = across * (width + _INTERVALS_GAP) + _LEFT
        right = layout.width - left - width + _LEFT
        axes = place(
            figure,
            left,
            down * row + _INTERVALS_TOP,
            right,
            (rows - 1 - down) * row + _INTERVALS_BOTTOM,
        )
        _intervals_panel(axes, series, found, bins, _MOST_LABELS[layout.name])
        axes.set_ylim(0, 1.1 * top)
        axes.set_title(shortened(name, 17 if layout.narrow else 28), loc="left")
    return figure


def _intervals_panel(
    axes: Axes, series: Series, counts: Sequence[int], bins: int, labels: int
) -> None:
    shares = [n / sum(counts) for n in counts]
    axes.bar(range(len(shares)), shares, width=0.8, color=series.color, alpha=0.75)
    axes.set_xlim(-0.7, bins - 0.3)
    each = -(-bins // labels)
    axes.set_xticks(range(0, bins, each))
    axes.set_xticklabels([str(2**k) for k in range(0, bins, each)])
    axes.set_xlabel("chip steps, up to")
    axes.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
    percent_axis(axes.yaxis)
    axes.grid(axis="y")
