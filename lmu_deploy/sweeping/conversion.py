"""What a target needs made of a float network: the form, the converter's options, the chip."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmu_deploy.commands.forms import FORMS
from lmu_deploy.errors import InputError
from lmu_deploy.hardware.profile import Profile
from lmu_deploy.sweeping.chip import chosen_profile
from lmu_deploy.sweeping.settings import TrialSettings
from targets.base import get_target

_METHOD = {"integer": "calibration_method", "spiking": "calibration"}
_KIND = {"integer": "digital", "spiking": "analog"}


@dataclass(frozen=True)
class Conversion:
    """How a trial's network is made.

    Attributes
    ----------
    form : {"float", "integer", "spiking"}
    options : dict
        The converter's, defaults included.
    profile : DigitalProfile or AnalogProfile, or None for the form float
    samples : int
        Of the training data, to calibrate with.
    """

    form: str
    options: dict[str, Any]
    profile: Profile | None
    samples: int

    def inputs(self) -> dict[str, Any]:
        """Give what is hashed: the settings that this form has a use for, and no others."""
        if self.profile is None:
            return {"form": self.form}
        chip = self.profile.model_dump(mode="json")
        figures = {name: f["value"] for name, f in chip.items() if isinstance(f, dict)}
        return {
            "form": self.form,
            "options": self.options,
            "chip": {"profile": self.profile.name, **figures},
            "samples": self.samples,
        }


def conversion_of(settings: TrialSettings) -> Conversion:
    """Find what the target of a trial runs, and complete the converter's options.

    Settings of the other converter are left aside, so that one sweep can hold targets of both.

    Raises
    ------
    InputError
        When there is no such target, profile or figure, or the target runs another form.
    MissingDependencyError
        When the target's library is absent.
    """
    name, _, form = settings.target.partition("/")
    form = _form(name, form)
    samples, method = settings.calibration.samples, settings.calibration.method
    if form == "float":
        return Conversion(form, {}, None, samples)
    profile = chosen_profile(settings.chip, _KIND[form])
    options = {**_defaults(form), **(settings.quantise if form == "integer" else settings.spike)}
    if form == "spiking":
        options["seed"] = settings.seed
    if method is not None:
        options[_METHOD[form]] = method
    return Conversion(form, options, profile, samples)


def converter(form: str) -> Callable[..., Any]:
    """Import the converter to a form."""
    if form == "integer":
        from converters.quantise import quantise

        return quantise
    from converters.spiking import spike

    return spike


def _form(name: str, form: str) -> str:
    """Name the representation that a target runs, by default the first of ours."""
    runner = get_target(name)
    runs = [known for known, cls in FORMS.items() if cls in runner.accepts]
    if not runs or (form and form not in runs):
        raise InputError(
            f"target {name} does not run {form or 'any of our networks'}; it runs "
            f"{', '.join(runs) or 'its own'}."
        )
    return form or runs[0]


def _defaults(form: str) -> dict[str, Any]:
    parameters = inspect.signature(converter(form)).parameters.values()
    skipped = ("profile", "progress")
    return {
        p.name: p.default for p in parameters if p.default is not p.empty and p.name not in skipped
    }
