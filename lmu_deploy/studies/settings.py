"""Settings of one trial of a sweep: task, network, conversion, chip, calibration, target, seed.

The options of ``quantize`` and ``spike`` are those of the conversions, and the figures of ``chip``
those of the profiles, so that a new one can be varied without a change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from converters.options import SpikeOptions, TaskQuantizeOptions
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.options import Options, current_name, options_of
from lmu_deploy.hardware.profile import AnalogProfile, DigitalProfile, Figure, Profile, load_profile

TABLES: Mapping[str, type[Options]] = {"quantize": TaskQuantizeOptions, "spike": SpikeOptions}
"""Tables of settings, and the options that they hold."""

_EARLIER_TABLES = {"quantise": "quantize"}

_ELSEWHERE = {
    "profile": "chip.profile",
    "calibration_method": "calibration.method",
    "calibration": "calibration.method",
    "seed": "seed",
}
"""Options of a conversion that a trial has under another name, and which."""


def current_setting(name: str) -> str:
    """Return the current name of a setting that may have an earlier one.

    Parameters
    ----------
    name : str
        Dotted name, such as ``quantise.realisation``.
    """
    table, dot, rest = name.partition(".")
    table = _EARLIER_TABLES.get(table, table)
    if table in TABLES:
        rest = current_name(TABLES[table], rest)
    return f"{table}{dot}{rest}"


class StrictModel(BaseModel):
    """Base class of settings; unknown names are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSettings(StrictModel):
    """Task, by default the one that the network file records, and the number of test samples."""

    name: str | None = None
    limit: int | None = Field(default=None, ge=1)


class TrainSettings(StrictModel):
    """Network that the sweep trains: kind, seed, and changes of the built-in settings."""

    model: Literal["lmu", "parallel", "lstm", "hybrid"] = "lmu"
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    settings: dict[str, Any] = Field(default_factory=dict)


class NetworkSettings(StrictModel):
    """Float network: a file, or the settings of its training."""

    file: str | None = None
    train: TrainSettings | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> NetworkSettings:
        if (self.file is None) == (self.train is None):
            raise ValueError("give either network.file or network.train")
        return self


class CalibrationSettings(StrictModel):
    """Calibration: number of training samples, and the converter's name of the method."""

    samples: int = Field(default=512, ge=1)
    method: str | None = None


class TrialSettings(StrictModel):
    """All settings that determine the result of a trial.

    Attributes
    ----------
    task : TaskSettings
    network : NetworkSettings
    quantize, spike : dict
        Options of the converters.
    calibration : CalibrationSettings
    chip : dict
        ``profile``, and figures that replace those of the profile.
    target : str
        Name of a target, with the form if it runs several, as in ``onnxruntime/integer``.
    seed : int
        Seed of the conversion and the run.
    """

    task: TaskSettings = TaskSettings()
    network: NetworkSettings
    quantize: dict[str, Any] = Field(default_factory=dict)
    spike: dict[str, Any] = Field(default_factory=dict)
    calibration: CalibrationSettings = CalibrationSettings()
    chip: dict[str, str | float] = Field(default_factory=dict)
    target: str = "integer"
    seed: int = Field(default=0, ge=0, le=2**32 - 1)

    @field_validator("quantize")
    @classmethod
    def _quantize_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _check_options("quantize", values)

    @field_validator("spike")
    @classmethod
    def _spike_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _check_options("spike", values)

    @field_validator("chip")
    @classmethod
    def _chip_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        figures = [
            name
            for model in (DigitalProfile, AnalogProfile)
            for name, field in model.model_fields.items()
            if field.annotation is Figure
        ]
        known = ["profile", *dict.fromkeys(figures)]
        if unknown := [name for name in values if name not in known]:
            raise ValueError(f"chip.{unknown[0]} is no setting; known are {', '.join(known)}")
        return values


def validate_trial(values: Mapping[str, Any], where: str) -> TrialSettings:
    """Return the settings of one trial; error messages begin with `where`.

    Raises
    ------
    InputError
        If a setting is unknown, missing or out of range; the message names the first one.
    """
    return validate_model(TrialSettings, values, where)


def validate_model(model: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """Return a pydantic model; raise InputError with its first error in one sentence."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        if first["type"] == "extra_forbidden":
            known = f"; known are {', '.join(model.model_fields)}" if len(first["loc"]) == 1 else ""
            raise InputError(f"{where}: {place} is no setting{known}.") from error
        message = str(first["msg"]).removeprefix("Value error, ")
        raise InputError(f"{where}: {place}: {message}.") from error


def _check_options(table: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a table under their current names.

    Raises
    ------
    ValueError
        If a name is unknown, or a trial has that option under another name.
    """
    known = [
        name
        for name, one in options_of(TABLES[table]).items()
        if one.sweep and name not in _ELSEWHERE
    ]
    named = {current_name(TABLES[table], name): value for name, value in values.items()}
    for name in named:
        if name not in known:
            instead = _ELSEWHERE.get(name)
            hint = f"it is called {instead} here" if instead else f"known are {', '.join(known)}"
            raise ValueError(f"{table}.{name} is no setting; {hint}")
    return named


_SOURCE = "assumed: set by the sweep"


def profile_with_figures(chip: Mapping[str, Any], kind: str, usual: str) -> Profile:
    """Load the profile that `chip` names, and replace figures by the other entries of `chip`.

    Parameters
    ----------
    chip : mapping
        ``profile``, and values of figures by name.
    kind : {"digital", "analog"}
    usual : str
        Profile if `chip` names none.

    Raises
    ------
    InputError
        If there is no such profile of that kind, or it has no such figure.
    """
    profile = load_profile(str(chip.get("profile", usual)), kind)
    figures = {}
    for name, value in chip.items():
        if name == "profile":
            continue
        if not isinstance(getattr(profile, name, None), Figure):
            raise InputError(f"chip.{name} is no figure of profile {profile.name}, a {kind} chip.")
        if isinstance(value, bool | str):
            raise InputError(f"chip.{name} is {value!r}; give a number.")
        figures[name] = Figure(value=value, source=_SOURCE)
    return profile.model_copy(update=figures)
