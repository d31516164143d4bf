"""One trial: take the network, convert it, run it, judge it. This is what workers run."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import lmu_deploy
from lmu_deploy.checks import check_inputs
from lmu_deploy.commands.task_data import CALIBRATION_SAMPLES, limited, task_for
from lmu_deploy.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.fidelity.judge import judge
from lmu_deploy.fidelity.provenance import versions
from lmu_deploy.network import LMUNetwork
from lmu_deploy.representations import Network
from lmu_deploy.sweeping.figures import TASK_NAME, Figures, figures_of
from lmu_deploy.sweeping.networks import Untrained, network_of
from lmu_deploy.sweeping.options import COMMAND, converter
from lmu_deploy.sweeping.plan import Job
from lmu_deploy.sweeping.recent import recent
from lmu_deploy.sweeping.records import DONE, FAILED, REFUSED, Record
from lmu_deploy.tasks.base import Split
from targets.base import check_supported, get_target

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
    conversion = job.conversion
    if conversion.form == "float":
        return source
    if conversion.by_command:
        return _by_command(job, source)
    calibration: Any = limited(train, conversion.samples).inputs
    if conversion.form == "integer":
        from converters.quantise import calibrate

        data = job.inputs["task"]["data"]["train_inputs"]
        calibration = recent(
            ("calibration", job.network_key, data, conversion.samples),
            partial(calibrate, source, calibration),
            KEPT,
        )
    convert = converter(conversion.form)
    network: Network = convert(source, calibration, conversion.profile, **conversion.given)
    return network


def _by_command(job: Job, source: LMUNetwork) -> Network:
    """Quantise as the command does, which trains, thins messages or meets a budget besides."""
    from lmu_deploy.commands.quantise import quantise

    conversion = job.conversion
    if conversion.samples != CALIBRATION_SAMPLES:
        raise InputError(
            f"calibration.samples is {conversion.samples}, and quantise.{'/'.join(COMMAND)} always "
            f"calibrate with {CALIBRATION_SAMPLES}; leave it out."
        )
    profile: Any = conversion.profile
    return quantise(
        source, profile=profile, task=job.task, seed=job.seed, device="cpu", **conversion.given
    )
