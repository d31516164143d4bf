"""The float network of a trial: from its file, or trained once for all that share it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmu_deploy.errors import InputError, LmuDeployError, MissingDependencyError, RunError
from lmu_deploy.fidelity.provenance import hash_file
from lmu_deploy.files import save
from lmu_deploy.network import LMUNetwork
from lmu_deploy.representations import load_float
from lmu_deploy.sweeping.plan import Job, Training, find_task
from lmu_deploy.sweeping.recent import recent

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
