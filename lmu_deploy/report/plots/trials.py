"""Plots of trials: metric against settings of a sweep, its Pareto front, metric of many chips.

In the plot against settings each dot is a trial, and the line joins the best trial at each value.
The chips are two histograms, before calibration (top) and after calibration (bottom).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lmu_deploy.report.plots.lines import inner_ticks, percent_axis, shortened
from lmu_deploy.report.series import INK, MUTED, Series
from lmu_deploy.report.svg import Layout, Plot, blank, place
from lmu_deploy.report.wording import count, metric_value, setting

_HEIGHT, _OVER, _UNDER, _GAP, _LEFT = 130, 30, 34, 26, 50
_MOST_TICKS = 6


@dataclass(frozen=True)
class Varied:
    """One setting: its value in each trial (None for the default), and the metric."""

    name: str
    values: Sequence[Any]
    metric: Sequence[float]

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    @property
    def choices(self) -> list[Any]:
        """Unique values: numbers in ascending order, others in the order of the trials."""
        known = list({_text(value): value for value in self.values}.values())
        return sorted(known) if self.numeric else known

    def best(self, more: bool) -> list[float]:
        """Return the best metric at each choice."""
        best = max if more else min
        pairs = list(zip(self.values, self.metric, strict=True))
        return [best(m for v, m in pairs if _text(v) == _text(c)) for c in self.choices]


def trials_plot(
    number: int, series: Series, metric: str, varied: Sequence[Varied], reference: float | None
) -> Plot:
    """Build a plot with a panel for each setting; `number` is unique on the page."""
    more = metric == "accuracy"
    description = "; ".join(
        f"{found.name}: best "
        + ", ".join(
            f"{metric_value(metric, value)} at {_text(choice)}"
            for choice, value in zip(found.choices, found.best(more), strict=True)
        )
        for found in varied
    )
    return Plot(
        f"trials-{number}",
        f"{metric} of each trial against each varied setting",
        f"{description}.",
        lambda layout: _draw(series, metric, varied, reference, layout),
    )


def _draw(
    series: Series,
    metric: str,
    varied: Sequence[Varied],
    reference: float | None,
    layout: Layout,
) -> Figure:
    columns = 1 if layout.narrow else min(3, len(varied))
    rows = -(-len(varied) // columns)
    row = _OVER + _HEIGHT + _UNDER
    figure = blank(layout, row * rows)
    width = (layout.width - 16 - _GAP * (columns - 1)) / columns
    shown = [m for found in varied for m in found.metric]
    shown += [] if reference is None else [reference]
    margin = 0.06 * (max(shown) - min(shown)) or 0.05
    for number, found in enumerate(varied):
        down, across = divmod(number, columns)
        left = across * (width + _GAP) + _LEFT
        right = layout.width - left - width + _LEFT
        axes = place(figure, left, down * row + _OVER, right, (rows - 1 - down) * row + _UNDER)
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        _panel(axes, series, metric, found, 30)
        if reference is not None:
            axes.axhline(reference, color=INK, linewidth=1.2)
    return figure


def _panel(axes: Axes, series: Series, metric: str, found: Varied, letters: int) -> None:
    choices = found.choices
    places = {_text(c): float(c) if found.numeric else float(n) for n, c in enumerate(choices)}
    axes.plot(
        [places[_text(value)] for value in found.values], found.metric, linestyle="none",
        marker="o", markersize=4.5, color=MUTED, alpha=0.6, markeredgewidth=0,
    )  # fmt: skip
    axes.plot(
        list(places.values()), found.best(metric == "accuracy"), color=series.color,
        linewidth=1.8, marker="o", markersize=6.5, markerfacecolor="none", markeredgewidth=1.6,
    )  # fmt: skip
    _ticks(axes, found, places)
    axes.margins(x=0.08)
    axes.set_title(shortened(found.name, letters), loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if metric == "accuracy":
        percent_axis(axes.yaxis)
    axes.grid(axis="y")


def _ticks(axes: Axes, found: Varied, places: dict[str, float]) -> None:
    """Place ticks at each value if there are few, else at round values."""
    if found.numeric and len(places) > _MOST_TICKS:
        axes.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS))
        return
    axes.set_xticks(list(places.values()))
    letters = max(4, 40 // len(places))
    axes.set_xticklabels([shortened(text, letters) for text in places])


def _text(value: Any) -> str:
    """Format a value of a setting; None is the default."""
    if value is None:
        return "default"
    return setting(value) if isinstance(value, bool | int | float | str) else json.dumps(value)


_LOG_FROM = 20.0
"""An axis whose values differ by more than this factor is logarithmic."""


@dataclass(frozen=True)
class Trial:
    """Two objectives of one trial."""

    vertical: float
    horizontal: float
    on_front: bool


def front_plot(
    number: int, series: Series, labels: tuple[str, str], trials: Sequence[Trial]
) -> Plot:
    """Build the plot of the Pareto front; `labels` are those of the y and x axes."""
    front = _front(trials)
    points = ", ".join(f"{t.vertical:.4g} at {count(t.horizontal)}" for t in front)
    return Plot(
        f"front-{number}",
        f"{labels[0]} against {labels[1]}: {len(trials)} trials, {len(front)} on the Pareto front",
        f"On the front: {points}.",
        lambda layout: _draw_front(series, labels, trials, layout),
    )


def _front(trials: Sequence[Trial]) -> list[Trial]:
    found = {(t.horizontal, t.vertical): t for t in trials if t.on_front}
    return [found[place] for place in sorted(found)]


def _draw_front(
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
    _ticks_of_front(axes.xaxis, horizontal, axes.get_xlim(), 4 if layout.narrow else 8)
    _ticks_of_front(axes.yaxis, vertical, axes.get_ylim(), 6)
    if labels[0] == "accuracy":
        percent_axis(axes.yaxis)
    axes.set_xlabel(labels[1])
    axes.set_title(labels[0], loc="left", color=MUTED)
    axes.grid()
    return figure


def _spread(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > _LOG_FROM * min(values)


def _ticks_of_front(
    axis: Axis, values: Sequence[float], limits: tuple[float, float], most: int
) -> None:
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


_BINS = 24
_CHIPS_HEIGHT, _CHIPS_TOP, _CHIPS_BOTTOM = 96, 30, 46


@dataclass(frozen=True)
class Chips:
    """Metric of every chip for one calibration method."""

    name: str
    series: Series
    values: Sequence[float]


@dataclass(frozen=True)
class Marks:
    """Metric of float and of an ideal chip."""

    reference: float
    ideal: float


def chips_plot(number: int, metric: str, samples: int, rows: Sequence[Chips], marks: Marks) -> Plot:
    """Build the histograms of the chips; `samples` is the number of samples that each chip ran."""
    description = "; ".join(
        f"{row.name}: {len(row.values)} chips from {metric_value(metric, min(row.values))} to "
        f"{metric_value(metric, max(row.values))}, median "
        f"{metric_value(metric, float(np.median(row.values)))}"
        for row in rows
    )
    description += (
        f"; float {metric_value(metric, marks.reference)}, an ideal chip "
        f"{metric_value(metric, marks.ideal)}."
    )
    edges = bin_edges(np.concatenate([row.values for row in rows]), metric, samples)
    return Plot(
        f"chips-{number}",
        f"{metric} of virtual chips, before and after calibration",
        description,
        lambda layout: _draw_chips(metric, rows, marks, edges, layout),
    )


def bin_edges(values: np.ndarray, metric: str, samples: int) -> np.ndarray:
    """Return the edges of equal bins that contain all values.

    An accuracy is a multiple of 1/samples. Bin edges lie halfway between such multiples, and every
    bin contains equally many of them; other widths would make the histogram uneven.
    """
    low, high = float(values.min()), float(values.max())
    if metric == "accuracy":
        first, last = round(low * samples), round(high * samples)
        wide = -(-(last - first + 1) // _BINS)
        bins = -(-(last - first + 1) // wide)
        return np.asarray((first - 0.5 + wide * np.arange(bins + 1)) / samples)
    margin = 0.01 * (high - low) or 0.01 * abs(high) or 0.01
    return np.linspace(low - margin, high + margin, _BINS + 1)


def _draw_chips(
    metric: str, rows: Sequence[Chips], marks: Marks, edges: np.ndarray, layout: Layout
) -> Figure:
    panel = _CHIPS_TOP + _CHIPS_HEIGHT
    figure = blank(layout, panel * len(rows) + _CHIPS_BOTTOM)
    counts = [np.histogram(row.values, edges)[0] for row in rows]
    low, high = min(edges[0], *_both(marks)), max(edges[-1], *_both(marks))
    margin = 0.04 * (high - low)
    for number, (row, found) in enumerate(zip(rows, counts, strict=True)):
        below = (len(rows) - 1 - number) * panel + _CHIPS_BOTTOM
        axes = place(figure, 46, number * panel + _CHIPS_TOP, 20, below)
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(0, 1.12 * max(int(c.max()) for c in counts))
        _chips_panel(axes, row, found, edges, marks)
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


def _chips_panel(
    axes: Axes, row: Chips, counts: np.ndarray, edges: np.ndarray, marks: Marks
) -> None:
    color = row.series.color
    axes.stairs(counts, edges, fill=not row.series.hollow, color=color, alpha=0.55)
    axes.stairs(counts, edges, color=color, linewidth=1.4)
    axes.axvline(marks.reference, color=INK, linewidth=1.6)
    axes.axvline(marks.ideal, color=INK, linewidth=1.6, linestyle=(0, (2, 2)))
    axes.set_title(row.name, loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.set_ylabel("chips")
    axes.grid(axis="y")
