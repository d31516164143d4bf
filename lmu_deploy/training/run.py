"""Train a network on a task: evaluation, provenance and file."""

from __future__ import annotations

import json
import logging
import platform
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.files import check_output, save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.metrics import nrmse_by_output
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory
from lmu_deploy.core.validation import check_integer
from lmu_deploy.tasks.base import Task, TaskData
from lmu_deploy.tasks.dataset import UNNAMED, TaskLike, find_task
from lmu_deploy.tasks.log_mel import FRONT_END
from lmu_deploy.tasks.preflight import not_better, warn_of
from lmu_deploy.tasks.selection import CLASSES, DATA
from lmu_deploy.training.config import TrainConfig, default_model, preset, read_toml

if TYPE_CHECKING:
    from lmu_deploy.training.module import ChipNoise

    Measure = Callable[[Network, Mapping[str, Any], TaskData], ChipNoise]

_LOG = logging.getLogger(__name__)
_PACKAGES = ("lmu-deploy", "numpy", "torch", "lightning", "scikit-learn")


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run.

    Attributes
    ----------
    network : Network
        With the weights of the best validation, and its provenance.
    figures : dict of str to float
        test_METRIC, validation_METRIC, of a regression of several outputs test_nrmse_K of each
        and test_nrmse_mean, best_epoch, epochs, parameters, seconds.
    history : list of dict of str to float
        For each epoch: epoch, train_loss, validation_loss, validation_metric.
    config : TrainConfig
        All settings.
    """

    network: Network
    figures: dict[str, float]
    history: list[dict[str, float]]
    config: TrainConfig


def train(
    task: TaskLike,
    model: str | None = None,
    *,
    config: Path | str | Mapping[str, Any] | TrainConfig | None = None,
    seed: int = 0,
    epochs: int | None = None,
    progress: bool = True,
    out: Path | str | None = None,
    checkpoint: Path | str | None = None,
    device: str = "auto",
    blocks: int | None = None,
    width: int | None = None,
    stem_stride: int | None = None,
    scaling: str | None = None,
    devices: int = 1,
    precision: str = "32",
    chip: Mapping[str, Any] | None = None,
    measure: Measure | None = None,
) -> TrainResult:
    """Train a network on a task; the test part is used once, at the end.

    Parameters
    ----------
    task : str, path, Task or Dataset
        Name of a task, or one's own data as an .npz file or a Dataset.
    model : {"lmu", "parallel", "lstm", "hybrid", "stack"}, optional
        Built-in network; by default that of :func:`lmu_deploy.training.config.default_model`, or
        of the kind that `config` gives.
    config : path, mapping or TrainConfig, optional
        A TOML file that replaces some of the built-in settings, or all settings.
    seed : int
        Seed of the initial weights and of the order of the training data. On one machine the same
        seed gives the same weights, bit for bit.
    epochs : int, optional
        Maximum number of epochs, overrides the settings.
    progress : bool
        Show progress on standard error.
    out : path, optional
        File for the network.
    checkpoint : path, optional
        File for the state of the training, written after every epoch; an interrupted training
        resumes from it.
    device : {"auto", "cpu", "cuda", "mps"}
        Device; auto uses the fastest available one.
    blocks, width, stem_stride : int, optional
        Of a stack, override the settings; see :class:`lmu_deploy.nn.config.StackSettings`.
    scaling : {"standard", "robust", "min-max", "none"}, optional
        Of inputs and outputs, overrides the settings.
    devices : int
        Processes that train together, each with a share of every batch; the command is started
        once for each.
    precision : {"32", "bf16-mixed"}
        Of products outside LMU memories.
    chip : mapping, optional
        Overrides the settings; see :class:`lmu_deploy.training.config.TrainConfig`.
    measure : callable, optional
        Measures the noise of a chip, from the initial network, the setting `chip` and the data;
        needed with `chip`.

    Returns
    -------
    result : TrainResult

    Raises
    ------
    InputError
        When a task, model or setting is unknown, or a file cannot be written.
    RunError
        When training diverges.
    """
    seed = check_integer("seed", seed, 0, 2**32 - 1)
    task = find_task(task)
    task = task.framed((task.n_in,))  # layers take vectors
    sizes = {"blocks": blocks, "width": width, "stem_stride": stem_stride}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    values = _values(config)
    if model is None:
        given = "stack" if "stack" in values else "lmu" if "layers" in values else None
        model = given or default_model(task)
    settings = _settings(task, model, config, values, epochs, sizes)
    if scaling is not None:
        settings = settings.changed({"scaling": scaling}, "settings")
    if chip is not None:
        settings = settings.changed({"chip": dict(chip)}, "settings")
    if settings.chip is not None and measure is None:
        raise InputError("chip: there is nothing that measures a chip; call lmu_deploy.train.")
    for path in (out, checkpoint):
        check_output(path, None)
    start = time.perf_counter()
    warn_of(task, scales=settings.scaling == "none")
    data = task.load()
    if settings.steps is not None or settings.samples is not None:
        data = data.shortened(settings.steps, settings.samples)
    try:
        from lmu_deploy.training.fit import fit
        from lmu_deploy.training.module import predict
    except ImportError as error:
        raise MissingDependencyError(
            f"training needs torch and lightning ({error}); run: pip install 'lmu-deploy[train]'"
        ) from error
    where = Path(checkpoint) if checkpoint is not None else None

    def noise(model: Any, scaling: Any) -> ChipNoise:
        assert settings.chip is not None and measure is not None
        initial = scaling.add_to(_network(model, None))
        return measure(initial, settings.chip, data)

    fitted = fit(
        task,
        data,
        settings,
        seed,
        show=progress,
        checkpoint=where,
        device=device,
        devices=devices,
        precision=precision,
        noise=None if settings.chip is None else noise,
    )
    outputs = predict(fitted.model, data.test, settings.batch_size, fitted.scaling)
    network = _network(fitted.model, None if task.name == UNNAMED else task.name)
    network = fitted.scaling.add_to(network)
    validated = {f"validation_{task.metric}": fitted.validation_metric}
    figures = {
        f"test_{task.metric}": task.score(outputs, data.test.targets),
        **_by_output(task, outputs, data.test.targets),
        **(validated if len(data.validation) else {}),
        "best_epoch": float(fitted.best_epoch),
        "epochs": float(len(fitted.history)),
        "parameters": float(network.n_parameters),
        "seconds": round(time.perf_counter() - start, 1),
    }
    command = _command(task, model, config, seed, epochs, out, sizes)
    if scaling is not None:
        command += ["--scaling", scaling]
    if devices > 1:
        command += ["--devices", str(devices)]
    if precision != "32":
        command += ["--precision", precision]
    for name, value in (chip or {}).items():
        command += ["--chip" if name == "profile" else f"--{name.replace('_', '-')}", str(value)]
    provenance = describe(command, seed, settings, figures, fitted.device)
    if task.is_own:
        provenance[DATA] = task.identity
        if task.labels:
            provenance[CLASSES] = json.dumps([str(label) for label in task.labels])
    if task.front_end is not None:
        provenance[FRONT_END] = task.front_end.to_json()
    network = replace(network, provenance=provenance)
    if task.is_own:
        _LOG.info("training %s ended: %s", task.name, fitted.reason)
        value, judged = figures[f"test_{task.metric}"], int(np.prod(data.test.targets.shape[:2]))
        if sentence := not_better(task, value, judged if task.every_step else len(data.test)):
            _LOG.warning("%s: test %s", task.name, sentence)
    if out is not None:
        save(network, out)
    return TrainResult(network, figures, fitted.history, settings)


def _by_output(task: Task, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Return the NRMSE of every output and their mean, where a regression has several."""
    if task.kind != "regression" or task.n_out == 1:
        return {}
    found = nrmse_by_output(outputs, targets, task.washout)
    return {
        **{f"test_nrmse_{k}": value for k, value in enumerate(found)},
        "test_nrmse_mean": float(np.nanmean(found)),
    }


def describe(
    command: list[str], seed: int, config: TrainConfig, figures: Mapping[str, float], device: str
) -> dict[str, str]:
    """Return the provenance of a training run.

    Parameters
    ----------
    command : list of str
        Command line that repeats the training.
    seed : int
    config : TrainConfig
    figures : mapping of str to float
    device : str
        Device of the training, such as "cpu".

    Returns
    -------
    provenance : dict of str to str
        command, seed, date (UTC), settings and figures (JSON), versions (JSON), hardware.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": shlex.join(command),
        "seed": str(seed),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "settings": config.model_dump_json(exclude_none=True),
        "figures": json.dumps(dict(figures)),
        "versions": json.dumps(versions),
        "hardware": f"{device}, {platform.machine()}",
    }


def _values(config: Path | str | Mapping[str, Any] | TrainConfig | None) -> dict[str, Any]:
    """Return the settings that are given, by name."""
    if config is None:
        return {}
    if isinstance(config, TrainConfig):
        return config.model_dump(exclude_defaults=True)
    return dict(config) if isinstance(config, Mapping) else read_toml(config)


def _settings(
    task: Task,
    model: str,
    config: Path | str | Mapping[str, Any] | TrainConfig | None,
    values: Mapping[str, Any],
    epochs: int | None,
    sizes: Mapping[str, int | None],
) -> TrainConfig:
    if isinstance(config, TrainConfig):
        settings = config
    else:
        where = "config" if isinstance(config, Mapping) else str(config)
        settings = preset(task, model)
        settings = settings.changed(values, where) if values else settings
    if sizes:
        if settings.stack is None:
            raise InputError(
                f"{', '.join(sizes)}: only a stack has such a size, and the network is of another "
                "kind; choose the model stack."
            )
        settings = settings.changed({"stack": {**settings.stack.model_dump(), **sizes}}, "sizes")
    if settings.stack is not None:
        settings.stack_for(task)
    return settings if epochs is None else settings.changed({"epochs": epochs}, "epochs")


def _network(model: Any, task: str | None) -> Network:
    """Return a trained model as a network."""
    from lmu_deploy.nn.convert import from_torch
    from lmu_deploy.nn.graph.module import GraphModule

    if isinstance(model, GraphModule):
        return replace(model.to_network(), task=task)
    return Network.from_layers(_with_exact_memory(from_torch(model, task)))


def _with_exact_memory(network: LMUNetwork) -> LMUNetwork:
    """Recompute every memory that was not trained from its theta, in float64."""
    layers = []
    for layer in network.layers:
        if isinstance(layer, LMULayer) and layer.memory.discretizer != "trained":
            old = layer.memory
            memory = Memory.legendre(old.order, old.theta, old.channels, old.discretizer)
            layer = replace(layer, memory=memory)
        layers.append(layer)
    return replace(network, layers=tuple(layers))


def _command(
    task: Task,
    model: str,
    config: Path | str | Mapping[str, Any] | TrainConfig | None,
    seed: int,
    epochs: int | None,
    out: Path | str | None,
    sizes: Mapping[str, int | None],
) -> list[str]:
    """Return the command line that repeats a training, with file names without folders."""
    command = ["lmu-deploy", "train", task.name, "--model", model, "--seed", str(seed)]
    if isinstance(config, TrainConfig | Mapping):
        command += ["--config", "settings.toml"]
    elif config is not None:
        command += ["--config", Path(config).name]
    if epochs is not None:
        command += ["--epochs", str(epochs)]
    for name, size in sizes.items():
        command += [f"--{name.replace('_', '-')}", str(size)]
    return [*command, "--out", Path(out).name if out is not None else "network.safetensors"]
