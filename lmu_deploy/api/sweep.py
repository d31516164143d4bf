"""`sweep`: many trials, each kept as it ends, then a table and a Pareto plot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.studies.plot import write_plot
from lmu_deploy.studies.records import (
    CSV,
    DONE,
    PARQUET,
    TRIALS,
    Point,
    Row,
    import_pyarrow,
    make_sweep_folder,
    pareto,
    summarize,
    to_columns,
    write_csv,
    write_parquet,
    write_summary,
)
from lmu_deploy.studies.run import Sweep, Workers
from lmu_deploy.studies.spec import METRIC, METRIC_NAME, read_spec
from lmu_deploy.studies.trial import NETWORKS
from lmu_deploy.studies.workers import LOCK, locked

PLOT = "pareto.svg"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep gave.

    Attributes
    ----------
    rows : list of Row
        A trial and its record each.
    front : list of Point
        The trials that no other beats in both objectives.
    found : int
        Trials that an earlier run had finished.
    files : list of path
        Tables, a summary for reports, and the plot if there is one.
    """

    rows: list[Row]
    front: list[Point]
    found: int
    files: list[Path]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The table, column by column."""
        return to_columns(self.rows)

    @property
    def done(self) -> int:
        """How many trials have figures."""
        return sum(row.record.status == DONE for row in self.rows)


def sweep(
    spec: Path | str | Mapping[str, Any],
    *,
    out: Path | str,
    scheduler: str | None = None,
    workers: int | None = None,
) -> SweepResult:
    """Run every trial of a sweep that is not finished yet, then write the tables and the plot.

    Each result is kept in ``out/trials`` under the hash of its inputs the moment it ends. A sweep
    that was killed, or whose spec has grown, goes on where it was. In a script of your own, call it
    under ``if __name__ == "__main__":``, for workers are fresh processes that import the script.

    Parameters
    ----------
    spec : path or mapping
        A TOML file, or what it would hold; see docs/how-to/sweeps.md.
    out : path
        Folder of the results; made if it is not there.
    scheduler : str, optional
        Address of a dask scheduler; by default a cluster of processes is made on this machine.
    workers : int, optional
        How many processes; by default one for each core.

    Returns
    -------
    SweepResult

    Raises
    ------
    InputError
        When a setting is unknown or out of range, no trial can begin, no scheduler answers, or
        another sweep runs in the folder. A trial that cannot be done is a row with its sentence.
    RunError
        When the scheduler is lost.
    MissingDependencyError
        When dask.distributed, pyarrow or (for a search) optuna is absent.
    """
    import_pyarrow()  # better before the trials than after them
    read, folder = read_spec(spec), Path(out)
    with _nothing_left(folder):
        make_sweep_folder(folder, NETWORKS)
        with (
            locked(folder),
            Workers(folder, scheduler, workers) as pool,
            progress_bar("sweep", "trials") as progress,
        ):
            running = Sweep(read, folder, pool, progress)
            rows = running.run()
    columns = to_columns(rows)
    write_csv(columns, folder / CSV)
    write_parquet(columns, folder / PARQUET)
    points = pareto(rows, read.objectives)
    summary = write_summary(summarize(rows, columns, points, read.objectives), folder)
    files = [folder / CSV, folder / PARQUET, summary]
    if points:
        hints = {i: describe(point, read.objectives) for i, point in enumerate(points)}
        write_plot(points, _labels(points[0], read.objectives), hints, folder / PLOT)
        files.append(folder / PLOT)
    front = [point for point in points if point.on_front]
    return SweepResult(rows, front, running.found, files)


@contextmanager
def _nothing_left(folder: Path) -> Iterator[None]:
    """Remove the folders that a refused sweep has created, where they hold no record."""
    absent = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        yield
    except InputError:
        if absent:
            with suppress(OSError):
                (folder / LOCK).unlink()
            for path in (folder / TRIALS, folder / NETWORKS, *absent):
                with suppress(OSError):  # one that holds a record, or was not created
                    path.rmdir()
        raise


def describe(point: Point, objectives: tuple[str, str]) -> str:
    """Return a trial in one line: its objectives, and its varied settings."""
    varied = ", ".join(
        f"{name} = {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in point.row.trial.varied.items()
    )
    vertical, horizontal = _labels(point, objectives)
    return f"{vertical} {point.vertical:.4g}, {horizontal} {point.horizontal:,.6g}: {varied}"


def _labels(point: Point, objectives: tuple[str, str]) -> tuple[str, str]:
    """Return names of the axes: the metric by its own name, the others without underscores."""
    metric = str(point.row.record.figures[METRIC_NAME])
    vertical, horizontal = (metric if n == METRIC else n.replace("_", " ") for n in objectives)
    return vertical, horizontal
