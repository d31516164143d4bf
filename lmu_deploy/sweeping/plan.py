"""From a trial to a job: its settings with every default filled in, and the hash of its inputs.

Two trials with the same hash have the same result. The hash is over canonical JSON of the settings,
the contents of the network's file (or all settings of its training), the task's data, and the
versions of this package and of the one that brings the target. Paths are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmu_deploy import __version__
from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.provenance import hash_array, hash_file
from lmu_deploy.plugins import plugin_version
from lmu_deploy.representations import load_float
from lmu_deploy.sweeping.conversion import Conversion, conversion_of
from lmu_deploy.sweeping.fields import merged
from lmu_deploy.sweeping.settings import TrainSettings, TrialSettings
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.from_file import task_from_file
from lmu_deploy.training.config import read_settings
from lmu_deploy.training.presets import preset
from targets.base import GROUP


@dataclass(frozen=True)
class Training:
    """A network that the sweep has to train.

    Attributes
    ----------
    key : str
        Hash of all that decides its weights.
    task : str
    config : dict
        Settings in full, as plain data.
    seed : int
    """

    key: str
    task: str
    config: dict[str, Any]
    seed: int


@dataclass(frozen=True)
class Job:
    """What a worker is given.

    Attributes
    ----------
    key : str
        Hash of `inputs`.
    inputs : dict
    conversion : Conversion
    target : str
        Its name alone.
    seed : int
    task : str
        Name or path of the task.
    limit : int, optional
        How many test samples run.
    network : path or Training
    """

    key: str
    inputs: dict[str, Any]
    conversion: Conversion
    target: str
    seed: int
    task: str
    limit: int | None
    network: Path | Training

    @property
    def network_key(self) -> str:
        """Hash of the network's file or training."""
        return str(self.inputs["network"])


@dataclass
class Planner:
    """Makes jobs; files and data are hashed once.

    Attributes
    ----------
    folder : path
        Where paths in the settings start.
    """

    folder: Path
    _files: dict[Path, tuple[str, str | None]] = field(default_factory=dict)
    _data: dict[str, dict[str, str]] = field(default_factory=dict)

    def job(self, settings: TrialSettings) -> Job:
        """Complete the settings of a trial and hash its inputs.

        Raises
        ------
        InputError
            When a file, task, target or chip is not there.
        """
        conversion = conversion_of(settings)
        network: Path | Training
        if settings.network.file is not None:
            network = (self.folder / settings.network.file).absolute()
            network_key, recorded = self._file(network)
            task = self._task(settings.task.name or recorded)
        else:
            assert settings.network.train is not None  # as the settings were checked
            task = self._task(settings.task.name)
            network = self._training(task, settings.network.train)
            network_key = network.key
        target = settings.target.partition("/")[0]
        inputs = {
            "conversion": conversion.inputs(),
            "target": target,
            "seed": settings.seed,
            "task": {"data": self._data_of(task), "limit": settings.task.limit},
            "network": network_key,
            "versions": {"lmu-deploy": __version__, "target": plugin_version(GROUP, target)},
        }
        limit, seed = settings.task.limit, settings.seed
        return Job(digest(inputs), inputs, conversion, target, seed, task, limit, network)

    def _file(self, path: Path) -> tuple[str, str | None]:
        if path not in self._files:
            recorded = load_float(path, "sweep").task
            self._files[path] = hash_file(path), recorded
        return self._files[path]

    def _task(self, name: str | None) -> str:
        if name is None:
            raise InputError("the network records no task; name one as task.name.")
        return str((self.folder / name).absolute()) if name.endswith(".npz") else name

    def _training(self, task: str, train: TrainSettings) -> Training:
        chosen = find_task(task)
        builtin = preset(chosen, train.model).model_dump(mode="json")
        full = read_settings(merged(builtin, train.settings), "network.train.settings")
        config = full.model_dump(mode="json")
        parts = [config, train.seed, self._data_of(task), __version__]
        return Training(digest(parts), task, config, train.seed)

    def _data_of(self, name: str) -> dict[str, str]:
        if name not in self._data:
            data = find_task(name).load()
            self._data[name] = {
                f"{part}_{kind}": hash_array(getattr(getattr(data, part), kind))
                for part in ("train", "validation", "test")
                for kind in ("inputs", "targets")
            }
        return self._data[name]


def find_task(name: str) -> Any:
    """Give a task by its name, or of a user's own data by the path of its file."""
    return task_from_file(name) if name.endswith(".npz") else get_task(name)


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
