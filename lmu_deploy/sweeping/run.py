"""A sweep from its spec to its rows: plan every trial, run what is not there yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmu_deploy.errors import InputError
from lmu_deploy.sweeping.grid import grid_trials
from lmu_deploy.sweeping.plan import Job, Planner, digest, find_task
from lmu_deploy.sweeping.records import REFUSED, Record, keep, kept, path_of
from lmu_deploy.sweeping.search import ParetoSearch
from lmu_deploy.sweeping.spec import Range, Spec, Trial
from lmu_deploy.sweeping.table import Row
from lmu_deploy.sweeping.workers import Workers

Progress = Callable[[int, int], None]


@dataclass
class Sweep:
    """A sweep that is being run.

    Attributes
    ----------
    spec : Spec
    folder : path
        Where records are kept; its sub-folders are there.
    workers : Workers
    progress : callable, optional
        Called with (trials done, trials in all); those of an earlier run are done at once.
    found : int
        Trials whose records were there already.
    """

    spec: Spec
    folder: Path
    workers: Workers
    progress: Progress | None = None
    found: int = 0
    _records: dict[str, Record] = field(default_factory=dict)
    _rows: dict[str, Row] = field(default_factory=dict)
    _done: int = 0

    def run(self) -> list[Row]:
        """Run all trials and give a row for each, in the order of the grid or of the search.

        A search that suggests a trial twice runs it once and gives it one row.

        Raises
        ------
        InputError
            When a setting is unknown or out of range, no trial at all can begin, or no scheduler
            answers.
        RunError
            When the scheduler is lost.
        """
        planner = Planner(self.spec.folder)
        if self.spec.search is None:
            trials = grid_trials(self.spec)
            self._count(0, len(trials))
            self._run_batch(planner, trials, len(trials))
        else:
            search = ParetoSearch(self.spec, _metric_name(self.spec, planner))
            for generation in search.generations():
                search.tell(self._run_batch(planner, generation, self.spec.search.trials))
        return list(self._rows.values())

    def _run_batch(self, planner: Planner, trials: Sequence[Trial], total: int) -> list[Record]:
        """Run some trials and give their records, in the order of the trials."""
        planned = [_plan(planner, trial) for trial in trials]
        if not self._rows and all(isinstance(item, Record) for item in planned):
            raise InputError(f"{self.spec.where}: no trial can begin: {_error(planned[0])}")
        times = Counter(item.key for item in planned)
        waiting: dict[str, Job] = {}
        for key, item in {item.key: item for item in planned}.items():
            if key in self._records:
                self._count(times[key], total)
            elif isinstance(item, Record):
                self._take(item, times[key], total)
            elif (record := kept(self.folder, key)) is not None:
                self.found += 1
                self._take(record, times[key], total)
            else:
                waiting[key] = item
        for record in self.workers.run(list(waiting.values())):
            if not path_of(self.folder, record.key).exists():
                keep(self.folder, record)  # the worker could not see the folder
            self._take(record, times[record.key], total)
        records = [self._records[item.key] for item in planned]
        for trial, record in zip(trials, records, strict=True):
            self._rows.setdefault(digest([record.key, dict(trial.varied)]), Row(trial, record))
        return records

    def _take(self, record: Record, times: int, total: int) -> None:
        self._records[record.key] = record
        self._count(times, total)

    def _count(self, times: int, total: int) -> None:
        self._done += times
        if self.progress:
            self.progress(self._done, total)


def _plan(planner: Planner, trial: Trial) -> Job | Record:
    """Make a job of a trial; one that cannot begin has its record at once, and it is not kept."""
    try:
        return planner.job(trial.settings)
    except InputError as error:
        return Record(digest(trial.settings.model_dump(mode="json")), REFUSED, error=str(error))


def _error(item: Job | Record) -> str:
    return item.error if isinstance(item, Record) else ""


def _metric_name(spec: Spec, planner: Planner) -> str:
    """Name the metric of a search's first corner; trials of a task with another metric fail."""
    assert spec.search is not None
    corner = {
        name: field.low if isinstance(field, Range) else field[0]
        for name, field in spec.search.fields.items()
    }
    return str(find_task(planner.job(spec.trial(corner).settings).task).metric)
