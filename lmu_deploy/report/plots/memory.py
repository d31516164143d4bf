"""Plots of the memory: error over time and by Legendre order, error map, decoded window.

An error map has a few shades. Adjacent cells of one shade are drawn as one dash, which keeps the
drawing small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmu_deploy.fidelity.schema import ErrorMap
from lmu_deploy.report.plots.lines import Line, draw_line, log_axis, thinned, whole_numbers
from lmu_deploy.report.series import INK, MUTED, Series
from lmu_deploy.report.svg import Layout, Plot, blank, place, set_cells
from lmu_deploy.report.wording import significant


def error_plot(
    layer: str,
    by_step: Sequence[tuple[Series, Sequence[float]]],
    by_order: Sequence[tuple[Series, Sequence[float | None]]],
) -> Plot | None:
    """Build the plot of both errors of one layer; return None when no target has an error."""
    steps = [Line(s, *thinned(values, squares=True)) for s, values in by_step]
    orders = [_order_line(s, values) for s, values in by_order]
    steps, orders = [line for line in steps if _drawn(line)], [o for o in orders if _drawn(o)]
    if not steps or not orders:
        return None
    description = "; ".join(
        f"{line.series.label} {significant(float(line.y[0]))} at the first step, "
        f"{significant(float(line.y[-1]))} at the last"
        for line in steps
    )
    return Plot(
        f"memory-{_safe(layer)}",
        f"Relative error of the memory of {layer}, over time and by Legendre order",
        f"{description}.",
        lambda layout: _draw_errors(layer, steps, orders, layout),
    )


def window_plot(
    delays: Sequence[float],
    truth: Sequence[float] | None,
    reference: Sequence[float],
    decoded: Sequence[tuple[Series, Sequence[float]]],
) -> Plot:
    """Build the plot of the window decoded from each memory after the last step of one sample."""
    distances = ", ".join(
        f"{series.label} {significant(float(np.sqrt(np.mean(np.subtract(v, reference) ** 2))))}"
        for series, v in decoded
    )
    return Plot(
        "window",
        "Window decoded from each memory after the last step of sample 0",
        "Root mean square distance from the window of float: "
        f"{distances or 'no target recorded states'}.",
        lambda layout: _draw_window(np.asarray(delays), truth, reference, decoded, layout),
    )


def _order_line(series: Series, values: Sequence[float | None]) -> Line:
    y = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return Line(series, np.arange(len(y), dtype=np.float64), y)


def _drawn(line: Line) -> bool:
    return bool((line.y > 0).any())


def _draw_errors(
    layer: str, steps: Sequence[Line], orders: Sequence[Line], layout: Layout
) -> Figure:
    height, left, under, over = 250, 46, 44, 26
    if layout.narrow:
        figure = blank(layout, 2 * height)
        first = place(figure, left, over, 20, height + under)
        second = place(figure, left, height + over, 20, under)
    else:
        figure = blank(layout, height + 30)
        half = layout.width / 2
        first = place(figure, left, over, half + 22, under)
        second = place(figure, half + left, over, 22, under)
    for axes, lines, title, label in (
        (first, steps, f"{layer} over time", "step"),
        (second, orders, f"{layer} by Legendre order", "order (0 is the mean of the window)"),
    ):
        log_axis(axes, [*steps, *orders])
        for line in lines:
            draw_line(axes, line)
        axes.set_title(title, loc="left")
        whole_numbers(axes, label, 6)
        axes.margins(x=0.04)
    return figure


def _draw_window(
    delays: np.ndarray,
    truth: Sequence[float] | None,
    reference: Sequence[float],
    decoded: Sequence[tuple[Series, Sequence[float]]],
    layout: Layout,
) -> Figure:
    figure = blank(layout, 250 if layout.narrow else 270)
    axes = place(figure, 46, 26, 20, 44)
    axes.plot(delays, reference, color=MUTED, linewidth=7, alpha=0.35, solid_capstyle="round")
    if truth is not None:
        axes.plot(delays, truth, color=INK, linewidth=1.4, drawstyle="steps-post")
    for series, values in decoded:
        draw_line(axes, Line(series, delays, np.asarray(values)))
    axes.set_xlabel("steps ago")
    axes.set_xlim(delays[-1], 0)
    axes.grid(axis="y")
    axes.set_title("input to the memory", loc="left", color=MUTED)
    return figure


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in text)


SHADES = 6
_PER_SHADE = 10.0**0.5
_HEIGHT = 190


def error_map_plot(number: int, series: Series, maps: Sequence[ErrorMap]) -> Plot | None:
    """Build the error maps of one target; return None when there is no error."""
    shown = [found for found in maps if largest(found) > 0]
    if not shown:
        return None
    description = "; ".join(
        f"{found.layer}: at most {significant(largest(found))}, {_worst(found)}" for found in shown
    )
    return Plot(
        f"map-{number}",
        f"Relative error of the memory of {series.label} by Legendre order and step",
        f"{description}.",
        lambda layout: _draw(series, shown, layout),
    )


def limits(values: np.ndarray) -> tuple[float, float]:
    """Return the errors between which shades differ: the 5th and the 95th percentile.

    They are at least a factor of two apart, and at most that of :data:`SHADES` times sqrt(10).
    """
    drawn = values[values > 0]
    if not len(drawn):
        return 0.0, 0.0
    low, high = (float(each) for each in np.percentile(drawn, [5.0, 95.0]))
    return min(max(low, high / _PER_SHADE**SHADES), high / 2.0), high


def shades(values: np.ndarray) -> np.ndarray:
    """Return the shade of each cell, 0 (no error) to SHADES, in equal ratios between limits."""
    found = np.zeros(values.shape, dtype=np.int64)
    drawn = values > 0
    if drawn.any():
        low, high = limits(values)
        share = np.log(values[drawn] / low) / np.log(high / low)
        found[drawn] = np.clip(1 + np.floor(SHADES * share + 1e-9), 1, SHADES).astype(np.int64)
    return found


def largest(found: ErrorMap) -> float:
    """Return the largest cell of a map."""
    return max((value for row in found.values for value in row), default=0.0)


def _worst(found: ErrorMap) -> str:
    values = np.asarray(found.values)
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return f"in order {found.orders[row]} at step {found.times[column]}"


def _draw(series: Series, maps: Sequence[ErrorMap], layout: Layout) -> Figure:
    panels = [34 + _height(found) + 58 for found in maps]
    figure = blank(layout, sum(panels))
    for number, (found, panel) in enumerate(zip(maps, panels, strict=True)):
        above, below = sum(panels[:number]), sum(panels[number + 1 :])
        axes = place(figure, 46, above + 34, 20, below + 58)
        _panel(axes, series, found)
        wide = 186
        key = place(figure, layout.width - 20 - wide, above + 10, 20, below + panel - 22)
        _key(key, series, limits(np.asarray(found.values)))
    return figure


def _height(found: ErrorMap) -> int:
    """Return a height with an integer number of pixels per row, which avoids visible seams."""
    rows = len(found.values)
    return rows * max(1, round(_HEIGHT / rows))


def _panel(axes: Axes, series: Series, found: ErrorMap) -> None:
    axes.set_title(found.layer, loc="left")
    values = np.asarray(found.values)
    orders, times = np.asarray(found.orders), np.asarray(found.times)
    axes.set_xlim(times[0], times[-1])
    axes.set_ylim(-0.5, len(values) - 0.5)
    axes.invert_yaxis()
    shade = shades(values)
    for level in range(1, SHADES + 1):
        mask = shade == level
        change = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
        row, begin = np.nonzero(change == 1)
        end = np.nonzero(change == -1)[1]
        nothing = np.full(len(row), np.nan)
        axes.plot(
            np.stack([times[begin], times[end], nothing], axis=1).ravel(),
            np.stack([row, row, nothing], axis=1).ravel(),
            color=series.color,
            alpha=level / SHADES,
            linewidth=_height(found) / len(values),
            solid_capstyle="butt",
        )
    set_cells(axes, times, orders, values)
    ticks = np.unique(np.linspace(0, len(values) - 1, min(len(values), 6)).astype(np.int64))
    axes.set_yticks(ticks)
    axes.set_yticklabels([str(orders[tick]) for tick in ticks])
    axes.set_ylabel("order")
    whole_numbers(axes, "step", 6)


def _key(axes: Axes, series: Series, ends: tuple[float, float]) -> None:
    """Draw the color key: all shades, with the errors at both ends and beyond."""
    axes.set_xlim(-5, SHADES + 5)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    for level in range(1, SHADES + 1):
        axes.barh([0.5], [1], left=[level - 1], height=1, color=series.color, alpha=level / SHADES)
    low, high = (significant(end, 2) for end in ends)
    axes.text(-0.3, 0.5, f"\u2264 {low}", ha="right", va="center", color=MUTED)
    axes.text(SHADES + 0.3, 0.5, f"\u2265 {high}", ha="left", va="center", color=MUTED)
