"""What a trial gave, kept as ``trials/HASH.json`` from the moment it ends.

A record appears whole or not at all, so whatever is killed leaves only records of finished trials.

All trials as one table: a row for each, with what it had of its own, and its figures.

sweep.json: the whole of a sweep for those who draw it, such as a report.

The Pareto front of two figures: trials that no other beats in both.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lmu_deploy.core.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.core.files import atomic_write, write_text
from lmu_deploy.studies.figures import METRIC_NAME, TASK_NAME, grows
from lmu_deploy.studies.spec import Trial

TRIALS = "trials"
DONE, REFUSED, FAILED = "done", "refused", "failed"


@dataclass(frozen=True)
class Record:
    """The result of a trial.

    Attributes
    ----------
    key : str
        Hash of its inputs.
    status : {"done", "refused", "failed"}
        Refused: it cannot be done, and trying again would say the same. Failed: something broke;
        such a record is not kept, and the trial runs again with the next sweep.
    figures : dict
        Empty unless it is done.
    error : str
        One sentence unless it is done.
    seconds : float
    inputs : dict
        What the hash is of.
    versions : dict of str to str
        Of the libraries that computed it.
    """

    key: str
    status: str
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    inputs: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def path_of(folder: Path, key: str) -> Path:
    """Where the record of a hash is kept."""
    return folder / TRIALS / f"{key}.json"


def keep(folder: Path, record: Record) -> None:
    """Write a record unless it failed; nothing happens where the sweep's folder cannot be seen.

    A worker on another machine may not see it: the record then goes back to where the sweep was
    started and is kept there.
    """
    if record.status != FAILED and (folder / TRIALS).is_dir():
        text = json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(path_of(folder, record.key), text + "\n")


def kept(folder: Path, key: str) -> Record | None:
    """Read the record of a hash; None when there is none.

    Raises
    ------
    RunError
        When the file is damaged.
    """
    path = path_of(folder, key)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove it to run it again.") from error
    if not isinstance(values, dict) or set(values) != {f.name for f in fields(Record)}:
        raise RunError(f"{path} is no record of a trial; remove it to run the trial again.")
    return Record(**values)


def make_folder(folder: Path, *others: str) -> None:
    """Make the folder of a sweep, and in it that of its records and those named.

    Raises
    ------
    InputError
        When they cannot be made.
    """
    try:
        for name in (TRIALS, *others):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}; choose another name."
        ) from error


CSV, PARQUET = "results.csv", "results.parquet"


@dataclass(frozen=True)
class Row:
    """A trial and its record."""

    trial: Trial
    record: Record


def to_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Give the table column by column: what varied, status, figures, error, seconds, hash.

    A column holds numbers of one kind, truth values or texts, and None where a trial has none.
    """
    varied = list(dict.fromkeys(name for row in rows for name in row.trial.varied))
    figures = list(dict.fromkeys(name for row in rows for name in row.record.figures))
    columns = {name: [row.trial.varied.get(name) for row in rows] for name in varied}
    columns["status"] = [row.record.status for row in rows]
    for name in figures:
        columns[name] = [row.record.figures.get(name) for row in rows]
    columns["error"] = [row.record.error or None for row in rows]
    columns["seconds"] = [row.record.seconds for row in rows]
    columns["trial"] = [row.record.key for row in rows]
    return {name: _of_one_kind(values) for name, values in columns.items()}


def write_csv(columns: dict[str, list[Any]], path: Path) -> None:
    """Write the table as CSV, whole or not at all; None is empty."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_parquet(columns: dict[str, list[Any]], path: Path) -> None:
    """Write the table as Parquet, whole or not at all.

    Raises
    ------
    MissingDependencyError
        When pyarrow is absent.
    """
    pyarrow, parquet = need_pyarrow()
    with atomic_write(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)


def need_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet; MissingDependencyError when they are absent."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"the table of a sweep needs pyarrow ({error}); run: pip install 'lmu-deploy[sweep]'"
        ) from error
    return pyarrow, parquet


def _of_one_kind(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and kinds <= {bool, int, float, str}:
        return values
    return [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]


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


SUMMARY = "sweep.json"


def summarize(
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
