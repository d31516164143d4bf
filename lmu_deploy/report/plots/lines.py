"""Lines of several targets over one axis: what the memory's plots share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from lmu_deploy.report.series import Series
from lmu_deploy.report.wording import superscript

MOST_POINTS = 240


@dataclass(frozen=True)
class Line:
    """One target's values; `x` and `y` have the same length, y may hold NaN."""

    series: Series
    x: np.ndarray
    y: np.ndarray


def thinned(
    values: Sequence[float], squares: bool = False, most: int = MOST_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Take means (or roots of mean squares) of neighbors until few enough points are left.

    Returns
    -------
    x, y : ndarray, shape (at most `most`,)
        Middles of the neighborhoods, counted from 0, and their means.
    """
    y = np.asarray(values, dtype=np.float64)
    edges = np.linspace(0, len(y), min(len(y), most) + 1).astype(np.int64)
    widths = np.diff(edges)
    means = np.add.reduceat(y**2 if squares else y, edges[:-1]) / widths if len(y) else y
    return edges[:-1] + (widths - 1) / 2.0, np.sqrt(means) if squares else means


def draw_line(axes: Axes, line: Line) -> None:
    """Draw one line, with about a dozen marks on it."""
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
    )


def log_axis(axes: Axes, lines: Sequence[Line]) -> None:
    """Make the vertical axis logarithmic, from the least to the largest power of ten needed."""
    values = np.concatenate([line.y for line in lines])
    values = values[np.isfinite(values) & (values > 0)]
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    axes.set_yscale("log")
    axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))
    axes.yaxis.set_major_locator(LogLocator(numticks=7))
    axes.yaxis.set_major_formatter(FuncFormatter(_power))
    axes.grid(axis="y")


def whole_numbers(axes: Axes, label: str, most: int) -> None:
    """Let the horizontal axis show whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator(most, integer=True))
    axes.set_xlabel(label)


def percent_axis(axis: Axis) -> None:
    """Write an axis of shares in percent."""
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{np.round(100 * v, 6):g} %"))


def inner_ticks(axis: Axis, low: float, high: float, most: int) -> None:
    """Put ticks on round values, none so near an end that its text meets the other axis's."""
    margin = 0.04 * (high - low)
    ticks = MaxNLocator(most).tick_values(low, high)
    axis.set_ticks([float(t) for t in ticks if low + margin <= t <= high - margin])


def _power(value: float, _position: int) -> str:
    exponent = round(np.log10(value))
    return {0: "1", -1: "0.1", 1: "10"}.get(exponent, f"10{superscript(exponent)}")
