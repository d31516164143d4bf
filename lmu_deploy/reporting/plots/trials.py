"""The metric of every trial of a sweep against each setting that was varied, and the best at each.

A dot is a trial. The line joins the best trials: what a value of one setting allows when the others
suit it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmu_deploy.reporting.plots.lines import percent_axis
from lmu_deploy.reporting.plots.metric import shortened
from lmu_deploy.reporting.series import INK, MUTED, Series
from lmu_deploy.reporting.svg import Layout, Plot, blank, place
from lmu_deploy.reporting.wording import metric_value, setting

_HEIGHT, _OVER, _UNDER, _GAP, _LEFT = 130, 30, 34, 26, 50
_MOST_TICKS = 6


@dataclass(frozen=True)
class Varied:
    """One setting: its value in each trial (None where it was left as it is), and the metric."""

    name: str
    values: Sequence[Any]
    metric: Sequence[float]

    @property
    def numeric(self) -> bool:
        """Whether it has a scale of its own."""
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.values)

    @property
    def choices(self) -> list[Any]:
        """The values that occur, each once: in rising order, or that of the trials."""
        known = list({_text(value): value for value in self.values}.values())
        return sorted(known) if self.numeric else known

    def best(self, more: bool) -> list[float]:
        """Give the best metric at each choice."""
        best = max if more else min
        pairs = list(zip(self.values, self.metric, strict=True))
        return [best(m for v, m in pairs if _text(v) == _text(c)) for c in self.choices]


def trials_plot(
    number: int, series: Series, metric: str, varied: Sequence[Varied], reference: float | None
) -> Plot:
    """Make a plot with a panel for each setting; `number` tells sweeps apart."""
    more = metric == "accuracy"
    told = "; ".join(
        f"{found.name}: best "
        + ", ".join(
            f"{metric_value(metric, value)} at {_text(choice)}"
            for choice, value in zip(found.choices, found.best(more), strict=True)
        )
        for found in varied
    )
    return Plot(
        f"trials-{number}",
        f"{metric} of each trial against each setting that was varied",
        f"{told}.",
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
    """Put a tick at each value where there are few, at round ones else."""
    if found.numeric and len(places) > _MOST_TICKS:
        axes.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS))
        return
    axes.set_xticks(list(places.values()))
    letters = max(4, 40 // len(places))
    axes.set_xticklabels([shortened(text, letters) for text in places])


def _text(value: Any) -> str:
    """Write a value of a setting; one that was left as it is, as such."""
    if value is None:
        return "default"
    return setting(value) if isinstance(value, bool | int | float | str) else json.dumps(value)
