"""The settings of one trial, checked: task, network, conversion, chip, calibration, target, seed.

Which names `quantize`, `spike` and `chip` know is read off the converters and the chip profiles
themselves, so that a new option of theirs can be swept at once.

Which options the converters have, read off their signatures: a new one can be swept at once.

A chip profile with some of its figures replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lmu_deploy.core.errors import InputError
from lmu_deploy.hardware.profile import AnalogProfile, DigitalProfile, Figure, Profile, load_profile

COMMAND = ("method", "epochs", "sparsity_threshold", "sparsity_loss", "budget_kib")
"""Options of the command `quantize` beyond its converter's: training on, sparsity, a budget."""

FORMS_OF = {"quantize": ("integer",), "spike": ("spiking", "loihi")}
"""Forms that are made with the options of a table of settings."""

_NEVER = ("profile", "progress", "saved")
"""The chip has a table of its own; the others are no settings."""


def converter(form: str) -> Callable[..., Any]:
    """Import the converter to a form.

    It takes a float network, calibration inputs, a chip profile, and the options.
    """
    if form == "integer":
        from converters.quantize import quantize

        return quantize
    if form == "spiking":
        from converters.spiking import spike

        return spike
    from converters.loihi import loihi_spike

    return loihi_spike


@cache
def converter_options(form: str) -> dict[str, Any]:
    """Give every option of the converter to a form, with its default."""
    found = _defaults(converter(form))
    if form == "integer":
        from lmu_deploy.studies.quantization import quantize

        found |= {name: _defaults(quantize)[name] for name in COMMAND}
    return found


def table_options(table: str) -> list[str]:
    """Name the options that a table of settings may hold, of all forms that it is for."""
    return list(dict.fromkeys(n for form in FORMS_OF[table] for n in converter_options(form)))


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: p.default for p in parameters if p.default is not p.empty and p.name not in _NEVER
    }


_ELSEWHERE = {
    "profile": "chip.profile",
    "calibration_method": "calibration.method",
    "calibration": "calibration.method",
    "seed": "seed",
}
"""Options of a converter that a trial has under another name, and which."""


class Strict(BaseModel):
    """Refuses names that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSettings(Strict):
    """Which task, by default what the network records, and how many of its test samples."""

    name: str | None = None
    limit: int | None = Field(default=None, ge=1)


class TrainSettings(Strict):
    """A network that the sweep trains: kind, seed, and what differs from the built-in settings."""

    model: Literal["lmu", "parallel", "lstm", "hybrid"] = "lmu"
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    settings: dict[str, Any] = Field(default_factory=dict)


class NetworkSettings(Strict):
    """Either the file of a float network or how to train one."""

    file: str | None = None
    train: TrainSettings | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> NetworkSettings:
        if (self.file is None) == (self.train is None):
            raise ValueError("give either network.file or network.train")
        return self


class CalibrationSettings(Strict):
    """How many training samples calibrate, and the converter's own name of the method."""

    samples: int = Field(default=512, ge=1)
    method: str | None = None


class TrialSettings(Strict):
    """All that decides the result of a trial.

    Attributes
    ----------
    task : TaskSettings
    network : NetworkSettings
    quantize, spike : dict
        Options of the converter that the target needs.
    calibration : CalibrationSettings
    chip : dict
        ``profile`` and figures that replace the profile's.
    target : str
        A target's name, followed by the form that it runs if it runs several.
    seed : int
        Of the conversion and the run.
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
        return _known("quantize", values, table_options("quantize"))

    @field_validator("spike")
    @classmethod
    def _spike_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _known("spike", values, table_options("spike"))

    @field_validator("chip")
    @classmethod
    def _chip_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        figures = [
            name
            for model in (DigitalProfile, AnalogProfile)
            for name, field in model.model_fields.items()
            if field.annotation is Figure
        ]
        return _known("chip", values, ["profile", *dict.fromkeys(figures)])


def read_trial(values: Mapping[str, Any], where: str) -> TrialSettings:
    """Check the settings of one trial; `where` is what an error calls them.

    Raises
    ------
    InputError
        When a setting is unknown, missing or out of range; the sentence names the first one.
    """
    return checked(TrialSettings, values, where)


def checked(model: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """Make a pydantic model; what it finds wrong first becomes an InputError of one sentence."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        if first["type"] == "extra_forbidden":
            known = f"; known are {', '.join(model.model_fields)}" if len(first["loc"]) == 1 else ""
            raise InputError(f"{where}: {place} is no setting{known}.") from error
        told = str(first["msg"]).removeprefix("Value error, ")
        raise InputError(f"{where}: {place}: {told}.") from error


def _known(table: str, values: dict[str, Any], names: list[str]) -> dict[str, Any]:
    elsewhere = {} if table == "chip" else _ELSEWHERE
    known = [name for name in names if name not in elsewhere]
    for name in values:
        if name not in known:
            instead = elsewhere.get(name)
            hint = f"it is called {instead} here" if instead else f"known are {', '.join(known)}"
            raise ValueError(f"{table}.{name} is no setting; {hint}")
    return values


_SOURCE = "assumed: set by the sweep"


def chosen_profile(chip: Mapping[str, Any], kind: str, usual: str) -> Profile:
    """Load the profile that `chip` names, with the other entries of `chip` in place of its own.

    Parameters
    ----------
    chip : mapping
        ``profile``, and figures' values by name.
    kind : {"digital", "analog"}
    usual : str
        The profile where `chip` names none.

    Raises
    ------
    InputError
        When there is no such profile of that kind, or it has no such figure.
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
