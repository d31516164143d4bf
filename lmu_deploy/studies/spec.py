"""Read the specification of a sweep: settings of all trials, a grid or a search, and objectives.

Settings have dotted names, such as ``network.train.settings.layers.0.order``. Objectives are
figures of a trial, one number each. None is measured on a chip: events and synaptic operations are
counted exactly; energy and latency are bounds from published figures of single operations, over all
sources or of one source, such as ``energy_high.loihi``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import AnyNetwork
from lmu_deploy.fidelity.schema import Costs, TargetFidelity
from lmu_deploy.hardware.placement import place
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import DigitalProfile, Profile, cost_tables
from lmu_deploy.studies.settings import (
    StrictModel,
    TrialSettings,
    current_setting,
    validate_model,
    validate_trial,
)
from lmu_deploy.training.config import read_toml

Figures = dict[str, Any]

METRIC = "metric"
METRIC_NAME = "metric_name"
TASK_NAME = "task_name"
_MORE_IS_BETTER = ("agreement",)
_LESS_IS_BETTER = (
    "deviation",
    "memory_bytes",
    "weight_bytes",
    "state_bytes",
    "parameters",
    "synapses",
    "neurons",
    "events_per_sample",
    "synops_per_sample",
    "saturations",
    "violations",
    "cores",
    "energy_low",
    "energy_high",
    "latency_low",
    "latency_high",
)
NAMES = (METRIC, *_MORE_IS_BETTER, *_LESS_IS_BETTER)
"""Figures that can be objectives. ``energy_low.SOURCE`` and the like are allowed too."""


def check_figure(name: str, where: str) -> str:
    """Return `name` if it is a figure.

    Raises
    ------
    InputError
        If the figure or its source is unknown; the message lists the known ones.
    """
    figure, _, source = name.partition(".")
    if figure not in NAMES:
        raise InputError(
            f"{where}: {name!r} is no figure of a trial; known are {', '.join(NAMES)}."
        )
    if source and source not in (known := _sources(figure)):
        choice = f"of {', '.join(known)}" if known else "of none; write it without"
        raise InputError(f"{where}: {name!r} names no source of {figure}, which is {choice}.")
    return name


def _sources(figure: str) -> list[str]:
    """Return the names of the cost tables that have this energy or latency."""
    units = {
        "energy": ("synop_pj", "message_pj", "update_pj"),
        "latency": ("step_ns", "time_factor"),
    }
    needed = units.get(figure.partition("_")[0], ())
    return [
        name
        for name, table in cost_tables().items()
        if any(getattr(table, unit) is not None for unit in needed)
    ]


def more_is_better(name: str, metric_name: str) -> bool:
    """Return whether more of a figure is better; for the metric this depends on the task."""
    return metric_name == "accuracy" if name == METRIC else name in _MORE_IS_BETTER


def figures_of(found: TargetFidelity, network: AnyNetwork, profile: Profile | None) -> Figures:
    """Return the figures of a trial from the fidelity of its run.

    Parameters
    ----------
    found : TargetFidelity
    network : LMUNetwork, IntegerNetwork, SpikingNetwork or LoihiNetwork
        Network that the target ran.
    profile : DigitalProfile or AnalogProfile, optional
        The chip, for `violations` and `cores` of an integer network.

    Returns
    -------
    dict
        Numbers by name; None if a figure is not defined for this network.
    """
    against, sizes, metric = found.reference, found.sizes, found.metric
    on_chip = isinstance(network, IntegerNetwork) and isinstance(profile, DigitalProfile)
    return {
        METRIC_NAME: metric.name,
        METRIC: metric.value,
        "metric_low": metric.ci95 and metric.ci95[0],
        "metric_high": metric.ci95 and metric.ci95[1],
        "reference": against and against.value,
        "agreement": against and against.agreement,
        "deviation": against and against.deviation,
        "samples": found.samples,
        "memory_bytes": sizes and sizes.weight_bytes + sizes.neuron_bytes + sizes.state_bytes,
        "weight_bytes": sizes and sizes.weight_bytes,
        "state_bytes": sizes and sizes.state_bytes,
        "parameters": sizes and sizes.parameters,
        "synapses": sizes and sizes.synapses,
        "neurons": sum(found.neurons.values()),
        "events_per_sample": found.events.per_sample,
        "synops_per_sample": found.synops_per_sample,
        "saturations": sum(found.saturations.values()),
        "violations": len(check(network, profile)) if on_chip else None,  # type: ignore[arg-type]
        "cores": len(place(network, profile)) if on_chip else None,  # type: ignore[arg-type]
        **_bounds(found.costs),
    }


def _bounds(costs: Costs | None) -> Figures:
    """Return energy (joules) and latency (seconds) of one sample, over all sources and of each."""
    bounds: Figures = {}
    for what, over_all, by_source in (
        ("energy", costs and costs.energy, costs.energies if costs else {}),
        ("latency", costs and costs.latency, costs.latencies if costs else {}),
    ):
        bounds[f"{what}_low"], bounds[f"{what}_high"] = over_all or (None, None)
        for source, estimate in by_source.items():
            low, high = estimate.inference
            bounds[f"{what}_low.{source}"], bounds[f"{what}_high.{source}"] = low, high
    return bounds


ALIASES = {"task": "task.name", "network": "network.file"}
"""Settings that a text in place of a table means."""

DEFAULT = "default"
"""Value that removes a setting, so that its default applies (TOML has no null)."""


def flatten(
    tree: Mapping[str, Any], is_leaf: Callable[[Any], bool], prefix: str = ""
) -> dict[str, Any]:
    """Return every leaf of nested tables by its dotted name, in order.

    Parameters
    ----------
    tree : mapping
    is_leaf : callable
        Function that returns whether a mapping is a value and not a table.
    prefix : str
        Prefix of each name.
    """
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and not is_leaf(value):
            found.update(flatten(value, is_leaf, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def with_setting(tree: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return a copy of `tree` with the setting of a dotted name replaced.

    Raises
    ------
    InputError
        If a part of the name is a setting that has no settings of its own.
    """
    meant = ALIASES.get(name, name) if isinstance(value, str) else name
    changed = _replace_at(tree, meant.split("."), value, name)
    assert isinstance(changed, dict)  # because `tree` is a table
    return changed


def merge(base: Any, change: Any) -> Any:
    """Return `base` updated by `change`: tables by name, lists by a table of their indices."""
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        joined = {name: merge(base[name], v) for name, v in change.items() if name in base}
        return {**base, **change, **joined}
    if isinstance(base, list | tuple) and _is_indexed(change):
        items = list(base)
        for place, item in change.items():
            number = _parse_index(place, items, place)
            items[number] = merge(items[number], item)
        return items
    return change


def _replace_at(node: Any, parts: list[str], value: Any, name: str) -> Any:
    part, *rest = parts
    if isinstance(node, list | tuple):
        number = _parse_index(part, node, name)
        item = _replace_at(node[number], rest, value, name) if rest else value
        return [*node[:number], item, *node[number + 1 :]]
    if not isinstance(node, Mapping):
        raise InputError(
            f"{name} leads through {node!r}, which has no settings of its own; use another name."
        )
    if rest:
        return {**node, part: _replace_at(node.get(part, {}), rest, value, name)}
    if value == DEFAULT:
        return {key: item for key, item in node.items() if key != part}
    return {**node, part: value}


def _parse_index(part: str, items: list[Any] | tuple[Any, ...], name: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise InputError(
            f"{name}: {part!r} is no place in a list of {len(items)}; count from 0 to "
            f"{len(items) - 1}."
        )
    return int(part)


def _is_indexed(change: Any) -> bool:
    return isinstance(change, Mapping) and all(str(place).isdecimal() for place in change)


MOST_TRIALS = 100_000
OBJECTIVES = ("metric", "memory_bytes")


class Range(StrictModel):
    """Range of integers or real numbers to search, both ends included."""

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low} and high {self.high}; give low < high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step is {self.step}; give more than 0")
        return self


class Search(StrictModel):
    """A search of the Pareto front by NSGA-II.

    Attributes
    ----------
    fields : dict of name to Range or list
        Settings that vary: a range of numbers, or choices.
    trials : int
        Number of suggestions; one that occurs twice runs once.
    population : int
        Number of trials in a generation.
    seed : int
    """

    fields: dict[str, Range | list[Any]] = Field(min_length=1)
    trials: int = Field(ge=1, le=MOST_TRIALS)
    population: int = Field(default=20, ge=2)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


@dataclass(frozen=True)
class Trial:
    """One trial: the settings that vary, and all its settings."""

    varied: Mapping[str, Any]
    settings: TrialSettings


@dataclass(frozen=True)
class Spec:
    """A sweep.

    Attributes
    ----------
    where : str
        Name of the sweep in error messages.
    folder : path
        Folder that relative paths start from.
    base : dict
        Settings of all trials.
    objectives : tuple of str
        Figures of the vertical and the horizontal axis.
    grid : dict of name to list, or None
    search : Search or None
    """

    where: str
    folder: Path
    base: Mapping[str, Any]
    objectives: tuple[str, str]
    grid: Mapping[str, list[Any]] | None
    search: Search | None

    def trial(self, varied: Mapping[str, Any]) -> Trial:
        """Return the trial with some settings replaced, by their dotted names.

        Raises
        ------
        InputError
            If a name is unknown or a value is out of range.
        """
        values = dict(self.base)
        for name, value in varied.items():
            values = with_setting(values, name, value)
        return Trial(dict(varied), validate_trial(values, self.where))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the settings that vary."""
        return tuple(self.grid if self.grid is not None else self.search.fields)  # type: ignore[union-attr]


def read_spec(spec: Path | str | Mapping[str, Any]) -> Spec:
    """Read a sweep from a TOML file or from a mapping of the same shape.

    Raises
    ------
    InputError
        If the file does not exist, or a field is unknown, missing or out of range.
    """
    if isinstance(spec, Mapping):
        return _read(spec, "the sweep", Path.cwd())
    return _read(read_toml(spec), str(spec), Path(spec).absolute().parent)


def _read(values: Mapping[str, Any], where: str, folder: Path) -> Spec:
    base: dict[str, Any] = {}
    for name, value in values.items():
        if name not in ("grid", "search", "objectives"):
            table = base.get(current_setting(name))
            base = with_setting(base, current_setting(name), merge(table, value))
    if ("grid" in values) == ("search" in values):
        raise InputError(f"{where}: give either a table [grid] or a table [search] of what varies.")
    return Spec(
        where,
        folder,
        base,
        _objectives(values.get("objectives", OBJECTIVES), where),
        _grid(values["grid"], where) if "grid" in values else None,
        _search(values["search"], where) if "search" in values else None,
    )


def _objectives(names: Any, where: str) -> tuple[str, str]:
    if not isinstance(names, list | tuple) or len(names) != 2:
        raise InputError(f"{where}: objectives is {names!r}; give two figures' names.")
    where = f"{where}: objectives"
    return check_figure(str(names[0]), where), check_figure(str(names[1]), where)


def _grid(table: Any, where: str) -> dict[str, list[Any]]:
    axes = _current_names(flatten(table, lambda _: False)) if isinstance(table, Mapping) else {}
    if not axes:
        raise InputError(f"{where}: grid is empty; name a setting and a list of its values.")
    count = 1
    for name, choices in axes.items():
        if not isinstance(choices, list) or not choices:
            raise InputError(f"{where}: grid.{name} is {choices!r}; give a list of values.")
        count *= len(choices)
    if count > MOST_TRIALS:
        raise InputError(f"{where}: the grid has {count} trials; at most {MOST_TRIALS} are run.")
    return axes


def _search(table: Any, where: str) -> Search:
    if not isinstance(table, Mapping) or not isinstance(table.get("fields"), Mapping):
        raise InputError(f"{where}: search needs a table [search.fields] of what varies.")
    fields = _current_names(
        flatten(table["fields"], lambda value: "low" in value or "high" in value)
    )
    for name, choices in fields.items():
        if not isinstance(choices, Mapping) and (not isinstance(choices, list) or not choices):
            raise InputError(
                f"{where}: search.fields.{name} is {choices!r}; give a list of choices, or "
                "{ low = ..., high = ... }."
            )
    search: Search = validate_model(Search, {**table, "fields": fields}, f"{where}: search")
    return search


def _current_names(varied: Mapping[str, Any]) -> dict[str, Any]:
    return {current_setting(name): value for name, value in varied.items()}


def grid_trials(spec: Spec) -> list[Trial]:
    """Return the trials of a grid; the last setting changes fastest.

    Raises
    ------
    InputError
        If a name is unknown or a value is out of range.
    """
    axes = spec.grid or {}
    combinations = itertools.product(*axes.values())
    return [spec.trial(dict(zip(axes, values, strict=True))) for values in combinations]
