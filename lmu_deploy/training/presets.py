"""The built-in settings: one TOML file for each task, one table in it for each kind of network.

A file ``settings/NAME.toml`` holds tables ``lmu``, ``parallel``, ``lstm`` and ``hybrid``, and what
is common to all of them in ``common``. Windows of the memory follow the task's where a name sets it
(`capacity-5000`). For a task of a user's own data, a network is made up from
the data's shape.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from lmu_deploy.checks import check_choice
from lmu_deploy.tasks.base import Task, get_task
from lmu_deploy.training.config import TrainConfig, parse_toml, read_settings

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
