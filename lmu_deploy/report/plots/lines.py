"""Plots of all targets over one axis, as lines and as metrics with intervals, and axis formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from matplotlib.transforms import blended_transform_factory

from lmu_deploy.fidelity.schema import Metric
from lmu_deploy.report.series import FLOAT, INK, MUTED, Series
from lmu_deploy.report.svg import LINE, Layout, Plot, blank, place
from lmu_deploy.report.wording import metric_interval, metric_value, plural, superscript

MOST_POINTS = 240
_LETTER = 6.6


@dataclass(frozen=True)
class Line:
    """Values of one target; `x` and `y` have the same length, `y` may contain NaN."""

    series: Series
    x: np.ndarray
    y: np.ndarray


def thinned(
    values: Sequence[float], squares: bool = False, most: int = MOST_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Average neighboring values, or their squares, until at most `most` points are left.

    Returns
    -------
    x, y : ndarray, shape (at most `most`,)
        Centers of the groups of neighbors, counted from 0, and their means.
    """
    y = np.asarray(values, dtype=np.float64)
    edges = np.linspace(0, len(y), min(len(y), most) + 1).astype(np.int64)
    widths = np.diff(edges)
    means = np.add.reduceat(y**2 if squares else y, edges[:-1]) / widths if len(y) else y
    return edges[:-1] + (widths - 1) / 2.0, np.sqrt(means) if squares else means


def draw_line(axes: Axes, line: Line) -> None:
    """Draw one line with about a dozen markers."""
    series = line.series
    axes.plot(
        line.x,
        line.y,
        color=series.color,
        linestyle=series.dash,
        linewidth=1.8,
        marker=series.marker,
        markersize=6,
        markevery=max(1, len(line.x) // 12),
        markerfacecolor="none" if series.hollow else series.color,
        markeredgecolor=series.color,
        dash_capstyle="butt",
        gid=LINE + series.label.replace('"', "'"),
    )


def log_axis(axes: Axes, lines: Sequence[Line]) -> None:
    """Make the vertical axis logarithmic, over the powers of ten that contain the values."""
    values = np.concatenate([line.y for line in lines])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    axes.set_yscale("log")
    axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_major_formatter(FuncFormatter(_power))
    axes.grid(axis="y")


def whole_numbers(axes: Axes, label: str, most: int) -> None:
    """Restrict the ticks of the horizontal axis to integers."""
    axes.xaxis.set_major_locator(MaxNLocator(most, integer=True))
    axes.set_xlabel(label)


def percent_axis(axis: Axis) -> None:
    """Format an axis of shares in percent."""
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{np.round(100 * v, 6):g} %"))


def inner_ticks(axis: Axis, low: float, high: float, most: int) -> None:
    """Place ticks at round values, but none near an end, where labels of both axes overlap."""
    margin = 0.04 * (high - low)
    ticks = MaxNLocator(most).tick_values(low, high)
    axis.set_ticks([float(t) for t in ticks if low + margin <= t <= high - margin])


def shortened(text: str, letters: int) -> str:
    """Replace the middle of a text of more than `letters` letters with an ellipsis."""
    if len(text) <= letters:
        return text
    half = (letters - 1) // 2
    return f"{text[:half]}…{text[-(letters - 1 - half) :]}"


def _power(value: float, _position: int) -> str:
    exponent = round(np.log10(value))
    return {0: "1", -1: "0.1", 1: "10"}.get(exponent, f"10{superscript(exponent)}")


@dataclass(frozen=True)
class Dot:
    """One row of the plot; `reference` is the metric of float on the same samples."""

    series: Series
    metric: Metric
    reference: float | None
    samples: int


def metric_plot(dots: Sequence[Dot]) -> Plot:
    """Build the plot; the first row is float."""
    name = dots[0].metric.name
    description = "; ".join(
        f"{dot.series.label} {metric_value(name, dot.metric.value)}, interval "
        f"{metric_interval(dot.metric)}, {plural(dot.samples, 'sample')}"
        for dot in dots
    )
    return Plot(
        "metric",
        f"{name} of every target with its 95 % interval",
        f"{description}.",
        lambda layout: _draw(dots, layout),
    )


def _draw(dots: Sequence[Dot], layout: Layout) -> Figure:
    row = 46 if layout.narrow else 36
    figure = blank(layout, row * len(dots) + 52)
    letters = min(34, max(len(dot.series.label) for dot in dots))
    left = 14 if layout.narrow else 22 + letters * _LETTER
    axes = place(figure, left, 6, 18 if layout.narrow else 190, 46)
    axes.set_ylim(len(dots) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _scale(axes, dots, layout)
    for number, dot in enumerate(dots):
        _row(axes, dot, number, layout)
    return figure


def _row(axes: Axes, dot: Dot, number: int, layout: Layout) -> None:
    y = number + (0.2 if layout.narrow else 0.0)
    color = INK if dot.series is FLOAT else dot.series.color
    if dot.metric.ci95 is not None:
        axes.plot(dot.metric.ci95, (y, y), color=color, linewidth=2, solid_capstyle="butt")
    face = "none" if dot.series.hollow else color
    marker = "o" if dot.series is FLOAT else dot.series.marker
    axes.plot(
        [dot.metric.value], [y], marker=marker, markersize=9, color=color,
        markerfacecolor=face, markeredgewidth=1.8,
    )  # fmt: skip
    if dot.reference is not None:
        axes.plot([dot.reference], [y], marker="|", markersize=18, color=INK, markeredgewidth=1.6)
    value = f"{metric_value(dot.metric.name, dot.metric.value)}\u2003n = {dot.samples:,}"
    across = blended_transform_factory(axes.transAxes, axes.transData)
    if layout.narrow:
        axes.text(0, number - 0.3, shortened(dot.series.label, 26), transform=across, va="center")
        axes.text(1, number - 0.3, value, transform=across, va="center", ha="right", color=MUTED)
        return
    axes.annotate(
        shortened(dot.series.label, 34), (0, y), xycoords=across, xytext=(-14, 0),
        textcoords="offset points", ha="right", va="center",
    )  # fmt: skip
    axes.annotate(
        value, (1, y), xycoords=across, xytext=(20, 0), textcoords="offset points",
        ha="left", va="center", color=MUTED,
    )  # fmt: skip


def _scale(axes: Axes, dots: Sequence[Dot], layout: Layout) -> None:
    """Set the range of the axis to all values plus a margin; accuracies end at 100 %."""
    values = [dot.metric.value for dot in dots]
    values += [value for dot in dots for value in dot.metric.ci95 or ()]
    values += [dot.reference for dot in dots if dot.reference is not None]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    accuracy = dots[0].metric.name == "accuracy"
    low, high = max(0.0, low - margin), high + margin
    axes.set_xlim(low, min(high, 1.0 + 0.02 * (1.0 - low)) if accuracy else high)
    locator = MaxNLocator(4 if layout.narrow else 8, steps=[1, 2, 2.5, 5, 10])
    last = min(high, 1.0) if accuracy else high
    axes.set_xticks([t for t in locator.tick_values(low, last) if low <= t <= last])
    if accuracy:
        percent_axis(axes.xaxis)
    axes.set_xlabel("accuracy" if accuracy else "NRMSE (0 is perfect)")
    axes.grid(axis="x")
