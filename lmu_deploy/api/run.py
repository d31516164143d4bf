"""`deploy`: one network file, run on one target with its task's test data.

How much a simulation has to do, said in one line before it starts.

`targets`: what can run a network here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import MissingDependencyError
from lmu_deploy.core.files import atomic_write, write_text
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import Network, float_source, load_any
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.representation import counted
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.validation import check_inputs
from lmu_deploy.fidelity import deploy_summary
from lmu_deploy.fidelity.measures.sizes import network_sizes
from lmu_deploy.tasks.selection import limited, task_for
from targets.base import Run, Target, check_supported, get_target, target_names

_LOG = logging.getLogger(__name__)


def announce(label: str, runner: Target, network: Network, inputs: np.ndarray) -> None:
    """Log the size of a simulation of neurons before it starts.

    The running time grows with the number of neurons, synapses, samples and steps; an estimate
    follows with the progress as soon as the first samples are done. Float targets and the
    bit-exact simulator are quick, and nothing is logged for them.

    Parameters
    ----------
    label : str
        What the progress is called.
    runner : Target
    network : Network
    inputs : ndarray, shape (samples, steps, n_in)
    """
    neurons, sizes = neurons_of(network), network_sizes(network)
    simulated = not isinstance(network, IntegerNetwork) or runner.name.startswith("lava")
    if not neurons or sizes is None or not simulated:
        return
    samples, steps, _ = inputs.shape
    hold = getattr(network, "steps_per_presentation", 1)
    held = f" of {hold:,} chip steps" if hold > 1 else ""
    _LOG.info(
        "%s: %s, %s; %s of %s%s",
        label,
        counted(neurons, "neuron"),
        counted(sizes.synapses, "synapse"),
        counted(samples, "sample"),
        counted(steps, "step"),
        held,
    )


def neurons_of(network: Network) -> int:
    """Return the number of neurons that a network has on its chip; 0 for a float network."""
    if isinstance(network, SpikingNetwork | LoihiNetwork):
        return network.neurons
    if not isinstance(network, IntegerNetwork):
        return 0
    layers = [layer for _, layer in network.on_chip]
    units = sum(layer.hidden.units for layer in layers if layer.hidden is not None)
    return units + sum(layer.memory.size for layer in layers)


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
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **states)


@dataclass(frozen=True)
class TargetInfo:
    """A target's name, the representations that it runs, and what stops it here, if anything."""

    name: str
    runs: str
    missing: str


def targets() -> list[TargetInfo]:
    """List every installed target, those of plugins included."""
    found = []
    for name in target_names():
        try:
            target = get_target(name)
            runs = ", ".join(cls.__name__ for cls in target.accepts)
            found.append(TargetInfo(name, runs, ""))
        except (MissingDependencyError, ImportError) as error:
            found.append(TargetInfo(name, "", str(error)))
    return found
