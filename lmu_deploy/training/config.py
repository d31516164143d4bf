"""Settings of a training run as validated data, and the built-in settings of the tasks.

The same fields are used in the built-in settings, in TOML files of users and in Python. This module
does not import torch.

A file ``settings/NAME.toml`` has the tables ``lmu``, ``parallel``, ``lstm`` and ``hybrid``, where
it differs from the usual one ``stack``, and the settings common to all of them in ``common``. The
window of the memory follows that of the task where the name of the task sets it (`capacity-5000`).
For other data, the network is derived from the shape of the data.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_choice
from lmu_deploy.nn.config import LayerConfig, ModelConfig, StackConfig, StackSettings
from lmu_deploy.tasks.base import Task, get_task
from lmu_deploy.tasks.preflight import SMALLEST_VALIDATION
from lmu_deploy.training.augmentation import Augmentation

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
    stack : StackSettings, optional
        The network, instead of layers; see :mod:`lmu_deploy.nn.graph.module`.
    readout_bias : bool
        Of a network of layers.
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
        Dropout probability of the outputs of the last layer; in a stack, of the inputs of the
        readout and of the hidden units of every block.
    adversary : float
        Adversarial training: Euclidean norm of the perturbation of each sequence in the direction
        that increases the loss most; the loss is averaged over original and perturbed batch.
        Doubles the training time.
    augment : Augmentation, optional
        Random changes of training sequences; see :mod:`lmu_deploy.training.augmentation`.
    patience : int, optional
        Number of epochs without improvement of the validation after which training stops.
    choose_by : {"loss", "metric", "last"}
        Quantity by which validations are compared; with last, the weights of the last epoch are
        kept.
    scaling : {"standard", "robust", "min-max", "none"}
        Scale and offset of every input channel, and of every output of a regression, fitted on
        training data; see :mod:`lmu_deploy.training.scaling`. Standard by default for the user's
        data, none for built-in tasks.
    direct : {"none", "last", "auto"}
        Direct path of a regression from the last value of the input, so that the layers learn the
        difference from it (:mod:`lmu_deploy.training.scaling`). With auto, the default for the
        user's data, there is one where training answers are closer to the last value than to their
        mean.
    level_noise : float
        Where there is a direct path, the standard deviation of a number that is added to all steps
        of each scaled sequence in training, so that the layers depend less on a level that a
        series with a trend never returns to; 1 by default for the user's data.
    chip : mapping, optional
        `profile` of an analog chip whose noise the memories and units have during training, and
        options of `spike`, such as `neurons_per_state`, for a network of layers; see
        :mod:`lmu_deploy.fidelity.measures.chip_noise`.
    steps, samples : int, optional
        Maximum number of steps of a sequence and of samples of each part, for quick runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    layers: tuple[LayerConfig, ...] = ()
    stack: StackSettings | None = None
    readout_bias: bool = True
    epochs: int = Field(default=100, ge=1, le=1_000_000)
    batch_size: int = Field(default=100, ge=1, le=1_000_000)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    weight_decay: float = Field(default=0.0, ge=0, le=100)
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    clip_norm: float | None = Field(default=None, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    adversary: float = Field(default=0.0, ge=0, le=1e6)
    augment: Augmentation | None = None
    patience: int | None = Field(default=None, ge=1)
    choose_by: Literal["loss", "metric", "last"] = "loss"
    scaling: Literal["standard", "robust", "min-max", "none"] = "none"
    direct: Literal["none", "last", "auto"] = "none"
    level_noise: float = Field(default=0.0, ge=0, le=100)
    chip: dict[str, Any] | None = None
    steps: int | None = Field(default=None, ge=1)
    samples: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _has_one_network(self) -> TrainConfig:
        if bool(self.layers) == (self.stack is not None):
            raise ValueError("give layers or stack, one of the two")
        if self.chip is not None and self.stack is not None:
            raise ValueError("chip: the noise of a chip is measured for layers, not for a stack")
        return self

    def network_for(self, task: Task) -> ModelConfig:
        """Return the configuration of the layers with the inputs and outputs of a task."""
        return ModelConfig(
            n_in=task.n_in,
            n_out=task.n_out,
            layers=self.layers,
            return_sequences=task.every_step,
            readout_bias=self.readout_bias,
        )

    def stack_for(self, task: Task) -> StackConfig:
        """Return the configuration of the stack with the inputs and outputs of a task.

        Raises
        ------
        InputError
            When the stem would skip steps at which the task needs an answer, or is longer than its
            sequences.
        """
        settings = self.stack or StackSettings()
        stride = settings.stem_stride
        if stride > 1 and task.every_step:
            raise InputError(
                f"stem_stride is {stride}, and task {task.name} needs an answer at every step; "
                "only stem_stride 1 gives one."
            )
        if stride > task.steps:
            raise InputError(
                f"stem_stride is {stride}, and the sequences of task {task.name} have "
                f"{task.steps} steps; it can be at most that."
            )
        theta = settings.theta or float(task.steps // stride)
        order = settings.order or max(1, min(_STACK_ORDER, int(theta)))
        return StackConfig(
            **settings.model_dump(exclude={"order", "theta"}),
            order=order,
            theta=theta,
            n_in=task.n_in,
            n_out=task.n_out,
            return_sequences=task.every_step,
        )

    def changed(self, values: Mapping[str, Any], where: str) -> TrainConfig:
        """Return a copy with some settings replaced; `where` names them in error messages.

        Raises
        ------
        InputError
            When a setting is unknown or out of range; the message names the first one.
        """
        return read_settings({**self.model_dump(), **values}, where)


def read_settings(
    values: Mapping[str, Any], where: str, kind: type[TrainConfig] = TrainConfig
) -> TrainConfig:
    """Return settings of a kind from a mapping; raise InputError if they are invalid."""
    try:
        return kind.model_validate(values)
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
        text = Path(path).read_text(encoding="utf-8-sig")
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


MODELS = ("lmu", "parallel", "lstm", "hybrid", "stack")

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
    "spoken-digits": "spoken-digits",
}
_MOST_CHANNELS, _MOST_ORDER = 8, 64
_BATCHES = 20
"""Batches of an epoch that the user's data are cut into, where there are enough samples."""
_UPDATES = 200
"""Updates of the weights that the user's data are trained for at least."""
_WINDOW_OF_ORDER = 4
"""Longest window in steps, relative to its order, where there is an answer at every step: a longer
one shows the last steps too coarsely."""
_STACK_ORDER = 32
_OWN_STACK = {"blocks": 2, "width": 64, "channels": 16, "order": 8}
_SHORTEST, _WINDOWS = 16, 8
"""Window of the stack for the user's data: at least 16 steps, or an eighth of a sequence."""
_STACK: dict[str, Any] = {
    "stack": {},
    "learning_rate": 0.003,
    "weight_decay": 0.01,
    "schedule": "one-cycle",
    "clip_norm": 1.0,
    "dropout": 0.1,
}
"""Settings of a stack where the file of a task has no table for it."""


def default_model(task: Task) -> str:
    """Return the kind of network that is trained where none is named.

    It is a stack for the user's data with one class for each sample, because the mean over time of
    what short windows show tells classes apart from few samples. Elsewhere it is an LMU.
    """
    by_sample = task.kind == "classification" and not task.every_step
    return "stack" if task.is_own and by_sample else "lmu"


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
    values = {**tables.get("common", {}), **tables.get(model, _STACK)}
    if base != task.name and "layers" in values:
        values["layers"] = _stretched(values["layers"], task.steps / get_task(base).steps)
    return read_settings(values, f"built-in settings {_FILES[base]}.{model}")


def _stretched(layers: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    """Return layers with windows scaled by a factor."""
    return [
        {**layer, "theta": max(1.0, layer["theta"] * factor)} if "theta" in layer else layer
        for layer in layers
    ]


def _for_own_data(task: Task, model: str) -> dict[str, Any]:
    """Return layers whose window is the sequence, with one channel per input, at most eight.

    Small sets have small batches, because 100 epochs of a few steps each teach nothing. With too
    few validation samples to judge by, all epochs are trained and the last weights kept.
    """
    common: dict[str, Any] = {"patience": 20}
    if task.is_own and len(task.load().validation) < SMALLEST_VALIDATION:
        common = {"choose_by": "last"}
    common |= {"scaling": "standard", "direct": "auto", "level_noise": 1.0}
    if model == "stack":
        theta = min(task.steps, max(_SHORTEST, task.steps // _WINDOWS))
        return {**_STACK, "stack": {**_OWN_STACK, "theta": theta}, **common}
    steps = task.steps
    if task.is_own:
        samples = len(task.load().train)
        batch = max(8, min(100, samples // _BATCHES))
        common |= {"batch_size": batch, "learning_rate": 0.005}
        common["epochs"] = max(100, -(-_UPDATES // -(-samples // batch)))
        if task.every_step:
            steps = min(steps, _WINDOW_OF_ORDER * _MOST_ORDER)
    lmu = {
        "kind": "lmu",
        "units": 100,
        "channels": min(task.n_in, _MOST_CHANNELS),
        "order": max(1, min(_MOST_ORDER, steps)),
        "theta": steps,
    }
    feedforward = {**lmu, "hidden": "feedforward"}
    lstm = {"kind": "lstm", "units": 50}
    layers = {"lmu": [lmu], "parallel": [feedforward], "lstm": [lstm], "hybrid": [lmu, lstm]}
    return {"layers": layers[model], "schedule": "one-cycle", **common}
