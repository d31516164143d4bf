"""The Pareto front of two figures: trials that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmu_deploy.sweeping.figures import METRIC_NAME, grows
from lmu_deploy.sweeping.records import DONE
from lmu_deploy.sweeping.table import Row


@dataclass(frozen=True)
class Point:
    """A trial on the plot; on the front when no other is as good in both and better in one."""

    row: Row
    vertical: float
    horizontal: float
    on_front: bool


def pareto(rows: Sequence[Row], objectives: tuple[str, str]) -> list[Point]:
    """Give a point for each trial that is done and has both figures.

    Parameters
    ----------
    rows : sequence of Row
    objectives : (str, str)
        Figures of the vertical and the horizontal axis.

    Returns
    -------
    list of Point
        In the order of `rows`; empty when the trials do not share one metric, for an accuracy
        cannot be compared with an error.
    """
    done = [row for row in rows if row.record.status == DONE]
    metrics = {str(row.record.figures[METRIC_NAME]) for row in done}
    vertical, horizontal = objectives
    found = [
        (row, row.record.figures[vertical], row.record.figures[horizontal])
        for row in done
        if None not in (row.record.figures.get(name) for name in objectives)
    ]
    if len(metrics) != 1:
        return []
    (metric,) = metrics
    signs = [1.0 if grows(name, metric) else -1.0 for name in objectives]
    gains = [(signs[0] * y, signs[1] * x) for _, y, x in found]
    front = _front(gains)
    return [
        Point(row, float(y), float(x), gain in front)
        for (row, y, x), gain in zip(found, gains, strict=True)
    ]


def _front(gains: Sequence[tuple[float, float]]) -> set[tuple[float, float]]:
    """Give the pairs that no other beats: best first in one, each better in the other."""
    front, best = set(), -math.inf
    for gain in sorted(set(gains), reverse=True):
        if gain[1] > best:
            front.add(gain)
            best = gain[1]
    return front
