"""One trial: take the network, convert it, run it, judge it. This is what workers run.

The float network of a trial: from its file, or trained once for all that share it.

What a worker computed for its last trials and the next ones may need again.

What a worker does with a job: look whether it is done, do it, keep the result at once.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import lmu_deploy
from converters.loihi import loihi_spike_with
from converters.options import (
    PopulationOptions,
    QuantizeOptions,
    SpikeOptions,
    TaskQuantizeOptions,
)
from converters.quantize import calibrate, quantize_with
from converters.spiking import spike_with
from lmu_deploy.core.errors import InputError, LmuDeployError, MissingDependencyError, RunError
from lmu_deploy.core.files import save
from lmu_deploy.core.loading import Network, load_float
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.options import options_of
from lmu_deploy.core.validation import check_inputs
from lmu_deploy.fidelity.assemble import hash_file, versions
from lmu_deploy.fidelity.judge import judge
from lmu_deploy.studies.figures import TASK_NAME, Figures, figures_of
from lmu_deploy.studies.plan import Job, Training
from lmu_deploy.studies.quantization import quantize_for_task
from lmu_deploy.studies.records import DONE, FAILED, REFUSED, Record, keep, kept
from lmu_deploy.tasks.base import Split
from lmu_deploy.tasks.dataset import find_task
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for
from targets.base import check_supported, get_target

T = TypeVar("T")

_KEPT: dict[Hashable, OrderedDict[Hashable, Any]] = {}


def recent(key: tuple[Hashable, ...], make: Callable[[], T], most: int) -> T:
    """Give what was made for `key` before, or make it; the `most` last ones of a kind are kept.

    Parameters
    ----------
    key : tuple
        Its first entry is the kind; all of it decides the result.
    make : callable
    most : int
    """
    kind = _KEPT.setdefault(key[0], OrderedDict())
    if key not in kind:
        kind[key] = make()
        while len(kind) > most:
            kind.popitem(last=False)
    kind.move_to_end(key)
    made: T = kind[key]
    return made


NETWORKS = "networks"


@dataclass(frozen=True)
class Untrained:
    """A training that failed, and whether it would fail again."""

    error: str
    for_good: bool


def train_network(training: Training, folder: Path) -> LMUNetwork | Untrained:
    """Train a network, or read it where an earlier sweep left it; keep it in ``networks/``.

    Training is repeatable, so a diverged one would diverge again.
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
        return Untrained(str(error), not isinstance(error, MissingDependencyError))
    except Exception as error:
        return Untrained(f"the training broke: {error!r}.", for_good=False)


def network_of(job: Job, trained: LMUNetwork | Untrained | None) -> LMUNetwork:
    """Give a job's network.

    Raises
    ------
    InputError
        When its training failed for good, or the file holds no float network.
    RunError
        When the file has changed since the sweep began, or the training may do better next time.
    """
    if isinstance(trained, Untrained):
        raise (InputError if trained.for_good else RunError)(trained.error)
    if trained is not None:
        return trained
    assert isinstance(job.network, Path)  # a Training comes with what it gave
    return recent((NETWORKS, job.network_key), lambda: _read(job.network, job.network_key), 2)


def _read(path: Path | Training, key: str) -> LMUNetwork:
    assert isinstance(path, Path)
    network = load_float(path, "sweep")
    if hash_file(path) != key:
        raise RunError(f"{path} has changed since the sweep was started; start it again.")
    return network


_OF_TASK = [
    name
    for name, one in options_of(TaskQuantizeOptions).items()
    if one.sweep and name not in options_of(QuantizeOptions)
]
KEPT = 2
"""Calibrations and reference runs of so many networks are kept for the trials that follow."""


def run_trial(job: Job, trained: LMUNetwork | Untrained | None = None) -> Record:
    """Run a job; what goes wrong becomes the record's sentence.

    Parameters
    ----------
    job : Job
    trained : LMUNetwork or Untrained, optional
        What came of the training that the job needs.
    """
    start = time.perf_counter()
    figures: Figures = {}
    try:
        if job.inputs["versions"]["lmu-deploy"] != lmu_deploy.__version__:
            raise RunError(
                f"a worker runs lmu-deploy {lmu_deploy.__version__}, and the sweep was started by "
                f"{job.inputs['versions']['lmu-deploy']}; install one version everywhere."
            )
        figures, status, error = _figures(job, network_of(job, trained)), DONE, ""
    except MissingDependencyError as fault:  # another machine, or this one mended, may have it
        status, error = FAILED, str(fault)
    except InputError as fault:
        status, error = REFUSED, str(fault)
    except RunError as fault:
        status, error = FAILED, str(fault)
    except Exception as fault:
        status, error = FAILED, f"{type(fault).__name__}: {fault}"
    seconds = round(time.perf_counter() - start, 3)
    return Record(job.key, status, figures, error, seconds, job.inputs, versions())


def _figures(job: Job, source: LMUNetwork) -> Figures:
    task = task_for(source, job.task)
    data = task.load()
    split = limited(data.test, job.limit)
    inputs = check_inputs(split.inputs, source.n_in)
    network = _convert(job, source, data.train)
    runner = get_target(job.target)
    check_supported(runner, network)
    run = runner.run(network, inputs, seed=job.seed)
    reference = recent(
        ("reference", job.network_key, job.inputs["task"]["data"]["test_inputs"], job.limit),
        lambda: get_target("reference").run(source, inputs),
        KEPT,
    )
    found = judge(run, reference, task, split.targets, network=network, seed=job.seed)
    return {TASK_NAME: task.name, **figures_of(found, network, job.conversion.profile)}


def _convert(job: Job, source: LMUNetwork, train: Split) -> Network:
    options, samples = job.conversion.options, job.conversion.samples
    profile: Any = job.conversion.profile
    if isinstance(options, TaskQuantizeOptions):
        if options.needs_task:
            return _quantize_for_task(job, source, options)
        data = job.inputs["task"]["data"]["train_inputs"]
        signals = recent(
            ("calibration", job.network_key, data, samples),
            partial(calibrate, source, limited(train, samples).inputs),
            KEPT,
        )
        return quantize_with(source, signals, profile, options.rounding)
    inputs = limited(train, samples).inputs
    if isinstance(options, SpikeOptions):
        return spike_with(source, inputs, profile, options)
    if isinstance(options, PopulationOptions):
        return loihi_spike_with(source, inputs, profile, options)
    return source


def _quantize_for_task(job: Job, source: LMUNetwork, options: TaskQuantizeOptions) -> Network:
    """Quantize with a training, message thresholds or a memory budget."""
    if job.conversion.samples != CALIBRATION_SAMPLES:
        raise InputError(
            f"calibration.samples is {job.conversion.samples}, and quantize.{'/'.join(_OF_TASK)} "
            f"always calibrate with {CALIBRATION_SAMPLES}; leave it out."
        )
    options = options.replace(seed=job.seed, device="cpu")
    profile: Any = job.conversion.profile
    return quantize_for_task(source, options, profile=profile, task=job.task)


_LOCK = Lock()
"""Seeds of random generators are of a process; a worker with several threads takes turns."""


def run_and_keep(job: Job, folder: Path, trained: LMUNetwork | Untrained | None = None) -> Record:
    """Run a job, unless its record is there: its worker may have died between keeping and telling.

    Parameters
    ----------
    job : Job
    folder : path
        The sweep's.
    trained : LMUNetwork or Untrained, optional
        What came of the training that the job needs.
    """
    with _one_at_a_time():
        if (record := kept(folder, job.key)) is not None:
            return record
        record = run_trial(job, trained)
        keep(folder, record)
        return record


def train_and_keep(training: Training, folder: Path) -> LMUNetwork | Untrained:
    """Train a network that some jobs share."""
    with _one_at_a_time():
        return train_network(training, folder)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold this process for one job, and keep to itself what converters would print to a person."""
    with _LOCK, Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        yield
