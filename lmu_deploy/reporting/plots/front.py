"""Two figures of every trial of a sweep, and its Pareto front: trials that none beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lmu_deploy.reporting.plots.lines import inner_ticks, percent_axis
from lmu_deploy.reporting.series import MUTED, Series
from lmu_deploy.reporting.svg import Layout, Plot, blank, place
from lmu_deploy.reporting.wording import count

_LOG_FROM = 20.0
"""An axis whose values differ by more than this factor is logarithmic."""


@dataclass(frozen=True)
class Trial:
    """One trial's two figures."""

    vertical: float
    horizontal: float
    on_front: bool


def front_plot(
    number: int, series: Series, labels: tuple[str, str], trials: Sequence[Trial]
) -> Plot:
    """Make the plot; `number` tells sweeps apart, `labels` name the vertical axis first."""
    front = _front(trials)
    told = ", ".join(f"{t.vertical:.4g} at {count(t.horizontal)}" for t in front)
    return Plot(
        f"front-{number}",
        f"{labels[0]} against {labels[1]}: {len(trials)} trials, {len(front)} on the Pareto front",
        f"On the front: {told}.",
        lambda layout: _draw(series, labels, trials, layout),
    )


def _front(trials: Sequence[Trial]) -> list[Trial]:
    found = {(t.horizontal, t.vertical): t for t in trials if t.on_front}
    return [found[place] for place in sorted(found)]


def _draw(
    series: Series, labels: tuple[str, str], trials: Sequence[Trial], layout: Layout
) -> Figure:
    figure = blank(layout, 300 if layout.narrow else 330)
    axes = place(figure, 62, 30, 24, 48)
    others = [t for t in trials if not t.on_front]
    axes.plot(
        [t.horizontal for t in others], [t.vertical for t in others], linestyle="none",
        marker="o", markersize=5, color=MUTED, alpha=0.6, markeredgewidth=0,
    )  # fmt: skip
    front = _front(trials)
    axes.plot(
        [t.horizontal for t in front], [t.vertical for t in front], color=series.color,
        linewidth=1.8, marker="o", markersize=7.5, markeredgewidth=0,
    )  # fmt: skip
    horizontal, vertical = [t.horizontal for t in trials], [t.vertical for t in trials]
    if _spread(horizontal):
        axes.set_xscale("log")
    if _spread(vertical):
        axes.set_yscale("log")
    axes.margins(0.06)
    _ticks(axes.xaxis, horizontal, axes.get_xlim(), 4 if layout.narrow else 8)
    _ticks(axes.yaxis, vertical, axes.get_ylim(), 6)
    if labels[0] == "accuracy":
        percent_axis(axes.yaxis)
    axes.set_xlabel(labels[1])
    axes.set_title(labels[0], loc="left", color=MUTED)
    axes.grid()
    return figure


def _spread(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > _LOG_FROM * min(values)


def _ticks(axis: Axis, values: Sequence[float], limits: tuple[float, float], most: int) -> None:
    if _spread(values):
        digits = (1.0, 2.0, 5.0) if max(values) < 300 * min(values) else (1.0,)
        axis.set_major_locator(LogLocator(subs=digits))
        axis.set_minor_formatter(NullFormatter())
    else:
        inner_ticks(axis, *limits, most)
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(float(value))))


def _short(value: float) -> str:
    if abs(value) >= 1e6:
        return count(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{np.round(value, 9):g}"
