"""Line plots of several targets over one axis, and axis formats that plots share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from lmu_deploy.report.series import Series
from lmu_deploy.report.svg import LINE
from lmu_deploy.report.wording import superscript

MOST_POINTS = 240


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


def _power(value: float, _position: int) -> str:
    exponent = round(np.log10(value))
    return {0: "1", -1: "0.1", 1: "10"}.get(exponent, f"10{superscript(exponent)}")
