"""How far apart the events of a neuron are: a small histogram for each population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lmu_deploy.reporting.plots.lines import percent_axis
from lmu_deploy.reporting.plots.metric import shortened
from lmu_deploy.reporting.series import Series
from lmu_deploy.reporting.svg import Layout, Plot, blank, place
from lmu_deploy.reporting.wording import share

_HEIGHT, _OVER, _UNDER, _LEFT, _GAP = 84, 28, 44, 46, 16
_MOST_LABELS = {"wide": 5, "narrow": 3}


def intervals_plot(number: int, series: Series, counts: Mapping[str, Sequence[int]]) -> Plot:
    """Make one target's plot; `number` tells targets apart.

    Parameters
    ----------
    counts : mapping of population to counts
        Entry k counts intervals of 2^(k-1) + 1 to 2^k steps, the first those of one step; none of
        them is empty.
    """
    told = "; ".join(
        f"{name}: "
        + ", ".join(f"{steps(k)}, {share(n / sum(found))}" for k, n in enumerate(found) if n)
        for name, found in counts.items()
    )
    return Plot(
        f"intervals-{number}",
        f"Chip steps from an event of a neuron to its next in sample 0, for {series.label}",
        f"{told}.",
        lambda layout: _draw(series, counts, layout),
    )


def steps(k: int) -> str:
    """Name the intervals that entry k counts."""
    first, last = 2**k // 2 + 1, 2**k
    if last == 1:
        return "1 step"
    return f"{last:,} steps" if first >= last else f"{first:,} to {last:,} steps"


def _draw(series: Series, counts: Mapping[str, Sequence[int]], layout: Layout) -> Figure:
    columns = 2 if layout.narrow else 4
    rows = -(-len(counts) // columns)
    row = _OVER + _HEIGHT + _UNDER
    figure = blank(layout, row * rows)
    width = (layout.width - 12 - _GAP * (columns - 1)) / columns
    bins = max(len(found) for found in counts.values())
    top = max(max(found) / sum(found) for found in counts.values())
    for number, (name, found) in enumerate(counts.items()):
        down, across = divmod(number, columns)
        left = across * (width + _GAP) + _LEFT
        right = layout.width - left - width + _LEFT
        axes = place(figure, left, down * row + _OVER, right, (rows - 1 - down) * row + _UNDER)
        _panel(axes, series, found, bins, _MOST_LABELS[layout.name])
        axes.set_ylim(0, 1.1 * top)
        axes.set_title(shortened(name, 17 if layout.narrow else 28), loc="left")
    return figure


def _panel(axes: Axes, series: Series, counts: Sequence[int], bins: int, labels: int) -> None:
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
