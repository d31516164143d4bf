"""`deploy`: one network file, run on one target with its task's test data."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.atomic import write_text, written_whole
from lmu_deploy.checks import check_inputs
from lmu_deploy.commands.task_data import limited, task_for
from lmu_deploy.commands.workload import announce
from lmu_deploy.fidelity import deploy_summary
from lmu_deploy.progress import progress_bar
from lmu_deploy.representations import Network, float_source, load_any
from targets.base import Run, check_supported, get_target


def deploy(
    network: Network | Path | str,
    *,
    target: str,
    task: str | None = None,
    limit: int | None = None,
    record: Path | str | None = None,
    json: Path | str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Run a network on a target, and judge it against its own float reference.

    Parameters
    ----------
    network : LMUNetwork, IntegerNetwork, SpikingNetwork or path
    target : str
    task : str, optional
        A task's name or an .npz file; by default the task that the network records.
    limit : int, optional
        Only the first test samples.
    record : path, optional
        Where to write m, h and y of every step, and their scales (.npz).
    json : path, optional
        Where to write the result.
    seed : int

    Returns
    -------
    dict
        What `json` holds: target, task, n_samples, metric, reference, events, synops, saturations,
        steps, wall_seconds, seed, versions.

    Raises
    ------
    InputError
        When a file, name or value is wrong, or the target cannot run the network.
    RunError
        When the run failed.
    """
    runner = get_target(target)
    if isinstance(network, str | Path):
        network = load_any(network)
    check_supported(runner, network)
    chosen = task_for(network, task)
    split = limited(chosen.load().test, limit)
    inputs = check_inputs(split.inputs, network.n_in)
    announce(target, runner, network, inputs)
    with progress_bar(target) as progress:
        run = runner.run(network, inputs, record=record is not None, seed=seed, progress=progress)
    reference = None
    if (source := float_source(network)) is not None:
        with progress_bar("reference") as progress:
            reference = get_target("reference").run(source, inputs, progress=progress)
    summary = deploy_summary(run, reference, chosen, split.targets, network=network, seed=seed)
    if record is not None:
        write_states(run, record)
    if json is not None:
        write_text(json, dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def write_states(run: Run, path: Path | str) -> None:
    """Write a run's recorded states as an .npz file with m, h, y, m_scale, h_scale and y_scale.

    A run that holds its memory in other coordinates than the reference adds m_basis,
    and one with layers on the host h_on_host.

    Raises
    ------
    InputError
        When the file cannot be written, or the run recorded nothing.
    """
    assert run.states is not None  # asked for above
    recorded = vars(run.states).items()
    states: dict[str, Any] = {name: np.asarray(v) for name, v in recorded if v is not None}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **states)
