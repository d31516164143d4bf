"""All trials as one table: a row for each, with what it had of its own, and its figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmu_deploy.atomic import written_whole
from lmu_deploy.errors import MissingDependencyError
from lmu_deploy.sweeping.records import Record
from lmu_deploy.sweeping.spec import Trial

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
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
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
    with written_whole(path) as temporary:
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
