"""Run one trial of a sweep: load or train the network, convert it, run it, compute its figures.

This is what the workers of a sweep execute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import lmu_deploy
from converters.options import QuantizeOptions, TaskQuantizeOptions
from converters.quantize import calibrate, quantize_with
from lmu_deploy.core.errors import InputError, LmuDeployError, MissingDependencyError, RunError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import AnyNetwork, load_float
from lmu_deploy.core.options import options_of
from lmu_deploy.core.validation import check_inputs
from lmu_deploy.fidelity.assemble import hash_file, versions
from lmu_deploy.fidelity.judge import judge
from lmu_deploy.studies.plan import CONVERTERS, Job, Training
from lmu_deploy.studies.quantization import quantize_for_task
from lmu_deploy.studies.records import DONE, FAILED, REFUSED, Record, read_record, write_record
from lmu_deploy.studies.spec import TASK_NAME, Figures, figures_of
from lmu_deploy.studies.workers import exclusively
from lmu_deploy.tasks.base import Split
from lmu_deploy.tasks.dataset import find_task
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for
from targets.base import check_supported, get_target, taken_by

NETWORKS = "networks"
_CACHED = 2
"""Number of networks whose data, calibration and reference run are cached for later trials."""


@dataclass(frozen=True)
class _Computation:
    """A computation whose result depends on its key only."""

    key: tuple[Hashable, ...]
    compute: Callable[[], Any] = field(compare=False)

    def __call__(self) -> Any:
        return self.compute()


_cached_calibration = lru_cache(_CACHED)(_Computation.__call__)
_cached_reference = lru_cache(_CACHED)(_Computation.__call__)


@dataclass(frozen=True)
class FailedTraining:
    """Error of a training, and whether it would occur again."""

    error: str
    permanent: bool


def train_network(training: Training, folder: Path) -> Network | FailedTraining:
    """Train a network and write it to ``networks/``, or read it if an earlier sweep wrote it.

    Training is deterministic, so one that diverges would diverge again.
    """
    from lmu_deploy.training.config import TrainConfig
    from lmu_deploy.training.run import train

    path = folder / NETWORKS / f"{training.key}.safetensors"
    try:
        if path.is_file():
            return load_float(path, "sweep")
        config = TrainConfig.model_validate(training.config)
        network = train(
            find_task(training.task),
            config=config,
            seed=training.seed,
            progress=False,
            device="cpu",
        ).network
        if path.parent.is_dir():
            save(network, path)
        return network
    except LmuDeployError as error:
        return FailedTraining(str(error), not isinstance(error, MissingDependencyError))
    except Exception as error:
        return FailedTraining(f"the training failed: {error!r}.", permanent=False)


def source_network(job: Job, trained: Network | FailedTraining | None) -> Network:
    """Return the float network of a job.

    Raises
    ------
    InputError
        If its training failed permanently, or the file has no float network.
    RunError
        If the file has changed since the sweep started, or the training may succeed next time.
    """
    if isinstance(trained, FailedTraining):
        raise (InputError if trained.permanent else RunError)(trained.error)
    if trained is not None:
        return trained
    assert isinstance(job.network, Path)  # a Training comes with its result
    return _read_network(job.network, job.network_key)


@lru_cache(_CACHED)
def _read_network(path: Path, key: str) -> Network:
    network = load_float(path, "sweep")
    if hash_file(path) != key:
        raise RunError(f"{path} has changed since the sweep was started; start it again.")
    return network


def run_trial(job: Job, trained: Network | FailedTraining | None = None) -> Record:
    """Run a job; an error becomes the error message of its record.

    Parameters
    ----------
    job : Job
    trained : Network or FailedTraining, optional
        Result of the training that the job needs.
    """
    start = time.perf_counter()
    figures: Figures = {}
    try:
        if job.inputs["versions"]["lmu-deploy"] != lmu_deploy.__version__:
            raise RunError(
                f"a worker runs lmu-deploy {lmu_deploy.__version__}, and the sweep was started by "
                f"{job.inputs['versions']['lmu-deploy']}; install one version everywhere."
            )
        figures, status, error = _figures(job, source_network(job, trained)), DONE, ""
    except MissingDependencyError as fault:  # it may be installed elsewhere, or later
        status, error = FAILED, str(fault)
    except InputError as fault:
        status, error = REFUSED, str(fault)
    except RunError as fault:
        status, error = FAILED, str(fault)
    except Exception as fault:
        status, error = FAILED, f"{type(fault).__name__}: {fault}"
    seconds = round(time.perf_counter() - start, 3)
    return Record(job.key, status, figures, error, seconds, job.inputs, versions())


def _figures(job: Job, source: Network) -> Figures:
    task = task_for(source, job.task)
    data = task.load()
    split = limited(data.test, job.limit)
    inputs = check_inputs(split.inputs, source.n_in)
    network = _convert(job, source, data.train)
    runner = get_target(job.target)
    taken = taken_by(runner, network)
    check_supported(runner, taken)
    run = runner.run(taken, inputs, seed=job.seed)
    key = (job.network_key, job.inputs["task"]["data"]["test_inputs"], job.limit)
    reference = _cached_reference(
        _Computation(key, lambda: get_target("reference").run(source, inputs))
    )
    found = judge(run, reference, task, split.targets, network=network, seed=job.seed)
    return {TASK_NAME: task.name, **figures_of(found, network, job.conversion.profile)}


def _convert(job: Job, source: Network, train: Split) -> AnyNetwork:
    conversion = job.conversion
    options, samples = conversion.options, conversion.samples
    profile: Any = conversion.profile
    if options is None:
        return source
    if not isinstance(options, TaskQuantizeOptions):
        inputs = limited(train, samples).inputs
        return CONVERTERS[conversion.form].convert(source, inputs, profile, options)
    if not options.needs_task:
        key = (job.network_key, job.inputs["task"]["data"]["train_inputs"], samples)
        layers = as_layers(source, "quantize")
        signals = _cached_calibration(
            _Computation(key, partial(calibrate, layers, limited(train, samples).inputs))
        )
        return quantize_with(source, signals, profile, options.rounding)
    if samples != CALIBRATION_SAMPLES:
        raise InputError(
            f"calibration.samples is {samples}, and quantize.{'/'.join(_of_task())} "
            f"always calibrate with {CALIBRATION_SAMPLES}; leave it out."
        )
    options = options.replace(seed=job.seed, device="cpu")
    return quantize_for_task(source, options, profile=profile, task=job.task)


def _of_task() -> list[str]:
    """Return the options of a quantization that need the data of a task."""
    return [
        name
        for name, one in options_of(TaskQuantizeOptions).items()
        if one.sweep and name not in options_of(QuantizeOptions)
    ]


def run_and_record(
    job: Job, folder: Path, trained: Network | FailedTraining | None = None
) -> Record:
    """Run a job and write its record, or return the record if it exists.

    It exists if a worker died after it wrote the record.

    Parameters
    ----------
    job : Job
    folder : path
        Folder of the sweep.
    trained : Network or FailedTraining, optional
        Result of the training that the job needs.
    """
    with exclusively():
        if (record := read_record(folder, job.key)) is not None:
            return record
        record = run_trial(job, trained)
        write_record(folder, record)
        return record


def train_and_save(training: Training, folder: Path) -> Network | FailedTraining:
    """Train a network that several jobs use."""
    with exclusively():
        return train_network(training, folder)
