"""sweep.json: the whole of a sweep for those who draw it, such as a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmu_deploy.atomic import write_text
from lmu_deploy.sweeping.figures import METRIC_NAME, TASK_NAME, grows
from lmu_deploy.sweeping.pareto import Point
from lmu_deploy.sweeping.records import DONE
from lmu_deploy.sweeping.table import Row

SUMMARY = "sweep.json"


def summarise(
    rows: Sequence[Row],
    columns: Mapping[str, list[Any]],
    points: Sequence[Point],
    objectives: tuple[str, str],
) -> dict[str, Any]:
    """Give what sweep.json holds.

    Returns
    -------
    dict
        tasks : names of the tasks of all trials that say it (those of earlier versions do not);
        objectives : the figures of the vertical and the horizontal axis; more_is_better : of each;
        varied : names of the settings that differ between trials; front : rows that no other
        beats in both objectives; columns : the table, a list for each column.
    """
    done = [row.record.figures for row in rows if row.record.status == DONE]
    metrics = sorted({str(figures[METRIC_NAME]) for figures in done})
    on_front = {id(point.row) for point in points if point.on_front}
    return {
        "schema": "lmu_deploy/sweep",
        "version": 1,
        "tasks": sorted({str(figures[TASK_NAME]) for figures in done if TASK_NAME in figures}),
        "objectives": list(objectives),
        "more_is_better": [grows(name, metric) for name in objectives for metric in metrics[:1]],
        "varied": list(dict.fromkeys(name for row in rows for name in row.trial.varied)),
        "front": [number for number, row in enumerate(rows) if id(row) in on_front],
        "columns": dict(columns),
    }


def write_summary(summary: Mapping[str, Any], folder: Path) -> Path:
    """Write sweep.json into a sweep's folder; give its path."""
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / SUMMARY, text + "\n")
    return folder / SUMMARY
