"""Where the memory goes wrong: error over time and by Legendre order, and the window it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lmu_deploy.reporting.plots.lines import Line, draw_line, log_axis, thinned, whole_numbers
from lmu_deploy.reporting.series import INK, MUTED, Series
from lmu_deploy.reporting.svg import Layout, Plot, blank, place
from lmu_deploy.reporting.wording import significant


def error_plot(
    layer: str,
    by_step: Sequence[tuple[Series, Sequence[float]]],
    by_order: Sequence[tuple[Series, Sequence[float | None]]],
) -> Plot | None:
    """Draw both errors of one layer side by side; None when no target has an error to draw."""
    steps = [Line(s, *thinned(values, squares=True)) for s, values in by_step]
    orders = [_order_line(s, values) for s, values in by_order]
    steps, orders = [line for line in steps if _drawn(line)], [o for o in orders if _drawn(o)]
    if not steps or not orders:
        return None
    told = "; ".join(
        f"{line.series.label} {significant(float(line.y[0]))} at the first step, "
        f"{significant(float(line.y[-1]))} at the last"
        for line in steps
    )
    return Plot(
        f"memory-{_safe(layer)}",
        f"Relative error of the memory of {layer}, over time and by Legendre order",
        f"{told}.",
        lambda layout: _draw_errors(layer, steps, orders, layout),
    )


def window_plot(
    delays: Sequence[float],
    truth: Sequence[float] | None,
    reference: Sequence[float],
    decoded: Sequence[tuple[Series, Sequence[float]]],
) -> Plot:
    """Draw what each target's memory still knows of one sample after its last step."""
    told = ", ".join(
        f"{series.label} {significant(float(np.sqrt(np.mean(np.subtract(v, reference) ** 2))))}"
        for series, v in decoded
    )
    return Plot(
        "window",
        "The window that each memory holds after the last step of sample 0",
        f"Root mean square distance from float's window: {told or 'no target recorded states'}.",
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
