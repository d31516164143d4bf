"""What a training is told: the network's layers and how they are trained, as checked plain data.

The same fields stand in the built-in settings, in a user's TOML file and in Python. Nothing here
imports torch.

The built-in settings: one TOML file for each task, one table in it for each kind of network.

A file ``settings/NAME.toml`` holds tables ``lmu``, ``parallel``, ``lstm`` and ``hybrid``, and what
is common to all of them in ``common``. Windows of the memory follow the task's where a name sets it
(`capacity-5000`). For a task of a user's own data, a network is made up from
the data's shape.
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
    """Settings of a training.

    Attributes
    ----------
    layers : tuple of LMUConfig or LSTMConfig
        The network, input side first; see :mod:`lmu_deploy.nn.config`.
    readout_bias : bool
    epochs : int
        At most this many passes over the training data.
    batch_size : int
        Sequences in a step of the optimizer.
    learning_rate, weight_decay : float
        Of AdamW, which without weight decay is Adam.
    schedule : {"constant", "cosine", "one-cycle"}
        How the learning rate changes from step to step: not at all; along half a cosine to zero;
        or up from a 25th over the first 30 % of the steps and then down to zero.
    clip_norm : float, optional
        Gradients are scaled down to this norm.
    dropout : float
        Share of the last layer's outputs that is left out at each step of the optimizer.
    adversary : float
        Train on each batch as it is and, as much, on it with every sequence moved so far (in
        Euclidean distance) to where the loss is largest; costs about twice the time.
    patience : int, optional
        Stop after so many epochs without a better validation.
    choose_by : {"loss", "metric"}
        What makes a validation better.
    steps, samples : int, optional
        Cut every sequence, or every part of the data, to so many; for quick runs.
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
        """Complete the layers with the numbers of inputs and outputs that a task has."""
        return ModelConfig(
            n_in=task.n_in,
            n_out=task.n_out,
            layers=self.layers,
            return_sequences=task.every_step,
            readout_bias=self.readout_bias,
        )

    def changed(self, values: Mapping[str, Any], where: str) -> TrainConfig:
        """Give a copy with some settings replaced, `where` being what an error calls them.

        Raises
        ------
        InputError
            When a setting is unknown or out of range; the sentence names the first one.
        """
        return read_settings({**self.model_dump(), **values}, where)


def read_settings(values: Mapping[str, Any], where: str) -> TrainConfig:
    """Check a mapping and make a TrainConfig of it; InputError when it does not fit."""
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        if first["type"] == "extra_forbidden":
            known = ", ".join(TrainConfig.model_fields)
            hint = f"; known are {known}" if len(first["loc"]) == 1 else ""
            raise InputError(f"{where}: {place} is no setting{hint}.") from error
        raise InputError(f"{where}: {place}: {first['msg']}.") from error


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file of settings; InputError when there is no such file or it is no TOML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a TOML file of settings.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text; give a TOML file of settings.") from error
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Read settings from TOML; InputError when it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is no TOML: {error}.") from error


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
    """Give the built-in settings of a kind of network for a task.

    Raises
    ------
    InputError
        When there is no such kind (the valid ones are listed).
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
    """Give layers whose windows fit a task with a window of another length."""
    return [
        {**layer, "theta": max(1.0, layer["theta"] * factor)} if "theta" in layer else layer
        for layer in layers
    ]


def _for_own_data(task: Task, model: str) -> dict[str, Any]:
    """Make a network whose window is the sequence, with one channel for each input up to eight."""
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
