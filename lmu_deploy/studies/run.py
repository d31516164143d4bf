"""Run a sweep: plan the trials of its grid or search, and run those without a record.

A search uses NSGA-II (K. Deb et al., "A fast and elitist multiobjective genetic algorithm:
NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002) in Optuna's implementation. A
whole generation is suggested, and evaluated before the next. The suggestions depend on the seed
and the results only, not on the speed of workers. A search that is started again therefore
suggests the same trials and finds the records of those that have finished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.progress import Progress
from lmu_deploy.studies.plan import Job, Planner, Training, digest
from lmu_deploy.studies.records import (
    DONE,
    FAILED,
    REFUSED,
    Record,
    Row,
    read_record,
    record_path,
    write_record,
)
from lmu_deploy.studies.spec import METRIC_NAME, Range, Spec, Trial, grid_trials, more_is_better
from lmu_deploy.studies.trial import run_and_record, train_and_save
from lmu_deploy.studies.workers import Cluster, Failure
from lmu_deploy.tasks.dataset import find_task


class ParetoSearch:
    """Search of the Pareto front that suggests one generation of trials after the other.

    Parameters
    ----------
    spec : Spec
        Spec with a search.
    metric_name : str
        Metric of the task, which determines whether more is better.
    """

    def __init__(self, spec: Spec, metric_name: str) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingDependencyError(
                f"searches need optuna ({error}); run: pip install 'lmu-deploy[sweep]'"
            ) from error
        assert spec.search is not None
        self._spec, self._search = spec, spec.search
        self._metric_name = metric_name
        self._space = {
            name: _distribution(optuna.distributions, name, field)
            for name, field in self._search.fields.items()
        }
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            directions=[
                "maximize" if more_is_better(name, metric_name) else "minimize"
                for name in spec.objectives
            ],
            sampler=optuna.samplers.NSGAIISampler(
                population_size=min(self._search.population, max(2, self._search.trials)),
                seed=self._search.seed,
            ),
        )
        self._failed = optuna.trial.TrialState.FAIL
        self._asked: list[Any] = []

    def generations(self) -> Iterator[list[Trial]]:
        """Yield the generations; call :meth:`tell` for each before the next."""
        left = self._search.trials
        while left > 0:
            size = min(left, self._search.population)
            self._asked = [self._study.ask(self._space) for _ in range(size)]
            yield [self._trial(asked.params) for asked in self._asked]
            left -= size

    def tell(self, records: Sequence[Record]) -> None:
        """Record the results of the last generation, in its order."""
        for asked, record in zip(self._asked, records, strict=True):
            values: list[Any] = [record.figures.get(name) for name in self._spec.objectives]
            same = record.figures.get(METRIC_NAME) == self._metric_name
            if record.status == DONE and same and None not in values:
                self._study.tell(asked, values)
            else:
                self._study.tell(asked, state=self._failed)

    def _trial(self, suggested: dict[str, Any]) -> Trial:
        varied = {}
        for name, value in suggested.items():
            field = self._search.fields[name]
            varied[name] = value if isinstance(field, Range) else field[value]
        return self._spec.trial(varied)


def _distribution(kinds: Any, name: str, field: Range | list[Any]) -> Any:
    """Return Optuna's distribution of a field; choices are suggested by their index."""
    if isinstance(field, list):
        return kinds.CategoricalDistribution(list(range(len(field))))
    whole = isinstance(field.low, int) and isinstance(field.high, int)
    if whole and field.step is not None and not isinstance(field.step, int):
        raise InputError(f"search.fields.{name}: step is {field.step}; give a whole number.")
    if whole:
        return kinds.IntDistribution(field.low, field.high, field.log, field.step or 1)
    return kinds.FloatDistribution(field.low, field.high, field.log, field.step)


class Workers(Cluster):
    """Workers that run the trials of a sweep.

    Parameters
    ----------
    folder : path
        Folder of the sweep, into which workers that have it write.
    scheduler, workers
        As for :class:`lmu_deploy.studies.workers.Cluster`.
    """

    def __init__(self, folder: Path, scheduler: str | None, workers: int | None) -> None:
        super().__init__(scheduler, workers)
        self._folder = folder.absolute()
        self._trained: dict[str, Any] = {}

    def run(self, jobs: Sequence[Job]) -> Iterator[Record]:
        """Run jobs and yield their records as they end.

        Raises
        ------
        InputError
            If no scheduler answers.
        RunError
            If the connection to the scheduler is lost.
        """
        if not jobs:
            return
        futures = {self._submit_job(job): job.key for job in jobs}
        for key, found in self.as_completed(futures):
            failed = isinstance(found, Failure)
            yield Record(key, FAILED, error=found.sentence) if failed else found

    def _submit_job(self, job: Job) -> Any:
        trained = None
        if isinstance(training := job.network, Training):
            if training.key not in self._trained:
                self._trained[training.key] = self.submit(
                    train_and_save, training, self._folder, key=f"train-{training.key}"
                )
            trained = self._trained[training.key]
        return self.submit(run_and_record, job, self._folder, trained, key=f"trial-{job.key}")


@dataclass
class Sweep:
    """A running sweep.

    Attributes
    ----------
    spec : Spec
    folder : path
        Folder of the records, which exists with its subfolders.
    workers : Workers
    progress : callable, optional
        Called with (trials done, trials in all). Trials of an earlier run count as done.
    found : int
        Number of trials with a record of an earlier run.
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
        """Run all trials and return a row for each, in the order of the grid or of the search.

        A trial that a search suggests twice runs once and has one row.

        Raises
        ------
        InputError
            If a setting is unknown or out of range, none of the trials can start, or no scheduler
            answers.
        RunError
            If the connection to the scheduler is lost.
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
        """Run some trials and return their records, in the order of the trials."""
        planned = [_plan(planner, trial) for trial in trials]
        if not self._rows and all(isinstance(item, Record) for item in planned):
            raise InputError(f"{self.spec.where}: no trial can start: {_error(planned[0])}")
        times = Counter(item.key for item in planned)
        waiting: dict[str, Job] = {}
        for key, item in {item.key: item for item in planned}.items():
            if key in self._records:
                self._count(times[key], total)
            elif isinstance(item, Record):
                self._add(item, times[key], total)
            elif (record := read_record(self.folder, key)) is not None:
                self.found += 1
                self._add(record, times[key], total)
            else:
                waiting[key] = item
        for record in self.workers.run(list(waiting.values())):
            if not record_path(self.folder, record.key).exists():
                write_record(self.folder, record)  # the worker does not have the folder
            self._add(record, times[record.key], total)
        records = [self._records[item.key] for item in planned]
        for trial, record in zip(trials, records, strict=True):
            self._rows.setdefault(digest([record.key, dict(trial.varied)]), Row(trial, record))
        return records

    def _add(self, record: Record, times: int, total: int) -> None:
        self._records[record.key] = record
        self._count(times, total)

    def _count(self, times: int, total: int) -> None:
        self._done += times
        if self.progress:
            self.progress(self._done, total)


def _plan(planner: Planner, trial: Trial) -> Job | Record:
    """Return the job of a trial, or the record of one that cannot start, which is not written."""
    try:
        return planner.job(trial.settings)
    except InputError as error:
        return Record(digest(trial.settings.model_dump(mode="json")), REFUSED, error=str(error))


def _error(item: Job | Record) -> str:
    return item.error if isinstance(item, Record) else ""


def _metric_name(spec: Spec, planner: Planner) -> str:
    """Return the metric of the first corner of a search; trials with another metric fail."""
    assert spec.search is not None
    corner = {
        name: field.low if isinstance(field, Range) else field[0]
        for name, field in spec.search.fields.items()
    }
    return str(find_task(planner.job(spec.trial(corner).settings).task).metric)
