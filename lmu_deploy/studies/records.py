"""Results of a sweep: a record per trial, the table, the Pareto front and ``sweep.json``.

A record is written atomically to ``trials/HASH.json`` when its trial ends, so that an interrupted
sweep leaves records of finished trials only.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lmu_deploy.core.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.core.files import atomic_write, write_text
from lmu_deploy.studies.spec import METRIC_NAME, TASK_NAME, Trial, more_is_better

TRIALS = "trials"
DONE, REFUSED, FAILED = "done", "refused", "failed"


@dataclass(frozen=True)
class Record:
    """The result of a trial.

    Attributes
    ----------
    key : str
        Hash of `inputs`.
    status : {"done", "refused", "failed"}
        A refused trial is impossible and would be refused again. A failed trial met an error that
        may not occur again; its record is not written, and the next sweep runs it again.
    figures : dict
        Empty unless the trial is done.
    error : str
        One sentence; empty if the trial is done.
    seconds : float
    inputs : dict
        Everything that determines the result.
    versions : dict of str to str
        Versions of the libraries.
    """

    key: str
    status: str
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    inputs: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def record_path(folder: Path, key: str) -> Path:
    """Return the path of the record with this hash."""
    return folder / TRIALS / f"{key}.json"


def write_record(folder: Path, record: Record) -> None:
    """Write a record, unless its trial failed or the folder of the sweep does not exist here.

    A worker on another machine may not have the folder. Its record is returned to the process
    that runs the sweep, which writes it.
    """
    if record.status != FAILED and (folder / TRIALS).is_dir():
        text = json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(record_path(folder, record.key), text + "\n")


def read_record(folder: Path, key: str) -> Record | None:
    """Return the record with this hash, or None.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    path = record_path(folder, key)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove it to run it again.") from error
    if not isinstance(values, dict) or set(values) != {f.name for f in fields(Record)}:
        raise RunError(f"{path} is no record of a trial; remove it to run the trial again.")
    return Record(**values)


def read_fields(path: Path | str, record: type, wrong: str) -> dict[str, Any]:
    """Return the fields of a dataclass from a JSON file; those with a default may be missing.

    Parameters
    ----------
    path : path
    record : type
        The dataclass.
    wrong : str
        Sentence for a file of other contents.

    Raises
    ------
    InputError
        If the file cannot be read, or has other contents.
    """
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(wrong) from error
    known = {f.name for f in fields(record)}
    optional = {f.name for f in fields(record) if f.default is not MISSING}
    if not isinstance(read, dict) or {*read, *optional} != known:
        raise InputError(wrong)
    return read


def make_sweep_folder(folder: Path, *others: str) -> None:
    """Create the folder of a sweep, with subfolders for its records and those named.

    Raises
    ------
    InputError
        If they cannot be created.
    """
    try:
        for name in (TRIALS, *others):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create the folder {folder}: {error.strerror}; choose another name."
        ) from error


CSV, PARQUET = "results.csv", "results.parquet"


@dataclass(frozen=True)
class Row:
    """A trial and its record."""

    trial: Trial
    record: Record


def to_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the table by column: varied settings, status, figures, error, seconds, hash.

    The values of a column have one type: int, float, bool or str. A missing value is None.
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
    return {name: _uniform(values) for name, values in columns.items()}


def write_csv(columns: dict[str, list[Any]], path: Path) -> None:
    """Write the table as CSV, atomically; None becomes an empty field."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def write_parquet(columns: dict[str, list[Any]], path: Path) -> None:
    """Write the table as Parquet, atomically.

    Raises
    ------
    MissingDependencyError
        If pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow()
    with atomic_write(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and pyarrow.parquet; raise MissingDependencyError if not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"the table of a sweep needs pyarrow ({error}); run: pip install 'lmu-deploy[sweep]'"
        ) from error
    return pyarrow, parquet


def _uniform(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and kinds <= {bool, int, float, str}:
        return values
    return [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]


@dataclass(frozen=True)
class Point:
    """A trial on the plot; on the front if no other trial dominates it."""

    row: Row
    vertical: float
    horizontal: float
    on_front: bool


def pareto(rows: Sequence[Row], objectives: tuple[str, str]) -> list[Point]:
    """Return a point for each trial that is done and has both figures.

    Parameters
    ----------
    rows : sequence of Row
    objectives : (str, str)
        Figures of the vertical and the horizontal axis.

    Returns
    -------
    list of Point
        In the order of `rows`. Empty if the trials have different metrics, because an accuracy
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
    signs = [1.0 if more_is_better(name, metric) else -1.0 for name in objectives]
    gains = [(signs[0] * y, signs[1] * x) for _, y, x in found]
    front = _front(gains)
    return [
        Point(row, float(y), float(x), gain in front)
        for (row, y, x), gain in zip(found, gains, strict=True)
    ]


def _front(gains: Sequence[tuple[float, float]]) -> set[tuple[float, float]]:
    """Return the nondominated pairs; more of each entry is better."""
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
    """Return the content of ``sweep.json``.

    Returns
    -------
    dict
        tasks : names of the tasks of the trials (records of early versions have none);
        objectives : the figures of the vertical and the horizontal axis; more_is_better : for
        each; varied : names of the settings that differ between trials; front : indices of the
        rows on the Pareto front; columns : the table, a list for each column.
    """
    done = [row.record.figures for row in rows if row.record.status == DONE]
    metrics = sorted({str(figures[METRIC_NAME]) for figures in done})
    on_front = {id(point.row) for point in points if point.on_front}
    return {
        "schema": "lmu_deploy/sweep",
        "version": 1,
        "tasks": sorted({str(figures[TASK_NAME]) for figures in done if TASK_NAME in figures}),
        "objectives": list(objectives),
        "more_is_better": [
            more_is_better(name, metric) for name in objectives for metric in metrics[:1]
        ],
        "varied": list(dict.fromkeys(name for row in rows for name in row.trial.varied)),
        "front": [number for number, row in enumerate(rows) if id(row) in on_front],
        "columns": dict(columns),
    }


def write_summary(summary: Mapping[str, Any], folder: Path) -> Path:
    """Write ``sweep.json`` into the folder of a sweep, and return its path."""
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / SUMMARY, text + "\n")
    return folder / SUMMARY
