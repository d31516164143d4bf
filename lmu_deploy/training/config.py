"""Settings of a training run as validated data, and the built-in settings of the tasks.

The same fields are used in the built-in settings, in TOML files of users and in Python. This module
does not import torch.

A file ``settings/NAME.toml`` has the tables ``lmu``, ``parallel``, ``lstm`` and ``hybrid``, and the
settings common to all of them in ``common``. The window of the memory follows that of the task
where the name of the task sets it (`capacity-5000`). For other data, the network is derived from
the shape of the data.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_choice
from lmu_deploy.nn.config import LayerConfig, ModelConfig
from lmu_deploy.tasks.base import Task, get_task

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class TrainConfig(BaseModel):
    """Settings of a training run.

    Attributes
    ----------
    layers : tuple of LMUConfig or LSTMConfig
        The network, input side first; see :mod:`lmu_deploy.nn.config`.
    readout_bias : bool
    epochs : int
        Maximum number of passes over the training data.
    batch_size : int
        Number of sequences per step of the optimizer.
    learning_rate, weight_decay : float
        Parameters of AdamW, which without weight decay is Adam.
    schedule : {"constant", "cosine", "one-cycle"}
        Learning rate over the steps: constant; half a cosine to zero; or a rise from 1/25 during
        the first 30 % of the steps followed by a decay to zero.
    clip_norm : float, optional
        Maximum norm of the gradient.
    dropout : float
        Dropout probability of the outputs of the last layer.
    adversary : float
        Adversarial training: Euclidean norm of the perturbation of each sequence in the direction
        that increases the loss most; the loss is averaged over original and perturbed batch.
        Doubles the training time.
    patience : int, optional
        Number of epochs without improvement of the validation after which training stops.
    choose_by : {"loss", "metric"}
        Quantity by which validations are compared.
    steps, samples : int, optional
        Maximum number of steps of a sequence and of samples of each part, for quick runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    layers: tuple[LayerConfig, ...] = Field(min_length=1)
    readout_bias: bool = True
    epochs: int = Field(default=100, ge=1, le=1_000_000)
    batch_size: int = Field(default=100, ge=1, le=1_000_000)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    weight_decay: float = Field(default=0.0, ge=0, le=100)
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    clip_norm: float | None = Field(default=None, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    adversary: float = Field(default=0.0, ge=0, le=1e6)
    patience: int | None = Field(default=None, ge=1)
    choose_by: Literal["loss", "metric"] = "loss"
    steps: int | None = Field(default=None, ge=1)
    samples: int | None = Field(default=None, ge=1)

    def network_for(self, task: Task) -> ModelConfig:
        """Return the configuration of the network with the inputs and outputs of a task."""
        return ModelConfig(
            n_in=task.n_in,
            n_out=task.n_out,
            layers=self.layers,
            return_sequences=task.every_step,
            readout_bias=self.readout_bias,
        )

    def changed(self, values: Mapping[str, Any], where: str) -> TrainConfig:
        """Return a copy with some settings replaced; `where` names them in error messages.

        Raises
        ------
        InputError
            When a setting is unknown or out of range; the message names the first one.
        """
        return read_settings({**self.model_dump(), **values}, where)


def read_settings(values: Mapping[str, Any], where: str) -> TrainConfig:
    """Return a TrainConfig from a mapping; raise InputError if it is invalid."""
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        if first["type"] == "extra_forbidden":
            known = ", ".join(TrainConfig.model_fields)
            hint = f"; known are {known}" if len(first["loc"]) == 1 else ""
            raise InputError(f"{where}: {place} is not a setting{hint}.") from error
        raise InputError(f"{where}: {place}: {first['msg']}.") from error


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file of settings; raise InputError if it is missing or not TOML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a TOML file of settings.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file; give a TOML file of settings.") from error
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return the settings in a TOML text; raise InputError if it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {error}.") from error


MODELS = ("lmu", "parallel", "lstm", "hybrid")

_FILES = {
    "capacity": "capacity",
    "copy": "copy",
    "delay": "delay",
    "digits": "digits",
    "mackey-glass": "mackey-glass",
    "psdigits": "psdigits",
    "psmnist": "psmnist",
    "psmnist-nru": "psmnist",
    "smnist": "smnist",
}
_MOST_CHANNELS, _MOST_ORDER = 8, 64


def preset(task: Task, model: str) -> TrainConfig:
    """Return the built-in settings of a kind of network for a task.

    Raises
    ------
    InputError
        When there is no such kind (the message lists the valid ones).
    """
    check_choice("model", model, MODELS)
    base = task.name if task.name in _FILES else task.name.rpartition("-")[0]
    if base not in _FILES:
        return read_settings(_for_own_data(task, model), f"settings for {task.name}")
    item = files("lmu_deploy.training") / "settings" / f"{_FILES[base]}.toml"
    tables = parse_toml(item.read_text(encoding="utf-8"), item.name)
    values = {**tables.get("common", {}), **tables[model]}
    if base != task.name:
        values["layers"] = _stretched(values["layers"], task.steps / get_task(base).steps)
    return read_settings(values, f"built-in settings {_FILES[base]}.{model}")


def _stretched(layers: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """Return layers with windows scaled by a factor."""
    return [
        {**layer, "theta": max(1.0, layer["theta"] * factor)} if "theta" in layer else layer
        for layer in layers
    ]


def _for_own_data(task: Task, model: str) -> dict[str, Any]:
    """Return layers whose window is the sequence, with one channel per input, at most eight."""
    lmu = {
        "kind": "lmu",
        "units": 100,
        "channels": min(task.n_in, _MOST_CHANNELS),
        "order": max(1, min(_MOST_ORDER, task.steps)),
        "theta": task.steps,
    }
    feedforward = {**lmu, "hidden": "feedforward"}
    lstm = {"kind": "lstm", "units": 50}
    layers = {"lmu": [lmu], "parallel": [feedforward], "lstm": [lstm], "hybrid": [lmu, lstm]}
    return {"layers": layers[model], "schedule": "one-cycle", "patience": 20}
