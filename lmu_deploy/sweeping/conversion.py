"""What a target needs made of a float network: the form, the converter's options, the chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmu_deploy.errors import InputError
from lmu_deploy.hardware.profile import Profile
from lmu_deploy.representations import FORMS
from lmu_deploy.sweeping.chip import chosen_profile
from lmu_deploy.sweeping.options import COMMAND, converter_options
from lmu_deploy.sweeping.settings import TrialSettings
from targets.base import get_target


@dataclass(frozen=True)
class Making:
    """How networks of one form are made: table of the options, kind of chip, what it is by default.

    `method` is the converter's name of ``calibration.method``, None where it has one method alone.
    """

    table: str
    kind: str
    profile: str
    method: str | None


MADE: Mapping[str, Making] = {
    "integer": Making("quantise", "digital", "loihi2", "calibration_method"),
    "spiking": Making("spike", "analog", "generic-analog", "calibration"),
    "loihi": Making("spike", "digital", "loihi1", None),
}


@dataclass(frozen=True)
class Conversion:
    """How a trial's network is made.

    Attributes
    ----------
    form : {"float", "integer", "spiking", "loihi"}
    given : dict
        The options that are set, the rest being at their defaults.
    defaults : dict
        What holds where nothing is set.
    profile : DigitalProfile or AnalogProfile, or None for the form float
    samples : int
        Of the training data, to calibrate with.
    """

    form: str
    given: dict[str, Any]
    defaults: dict[str, Any]
    profile: Profile | None
    samples: int

    @property
    def by_command(self) -> bool:
        """Whether an option is set that the command `quantise` has and the converter has not."""
        return self.form == "integer" and any(name in COMMAND for name in self.given)

    def inputs(self) -> dict[str, Any]:
        """Give what is hashed: the settings that this form has a use for, and no others."""
        if self.profile is None:
            return {"form": self.form}
        chip = self.profile.model_dump(mode="json", exclude={"title"})
        options = {**self.defaults, **self.given}
        # The command's defaults of one option depend on others, so what is set is told apart.
        told = {"set": sorted(self.given)} if self.by_command else {}
        return {
            "form": self.form,
            "options": options,
            "chip": _without_sources(chip),
            "samples": self.samples,
            **told,
        }


def conversion_of(settings: TrialSettings) -> Conversion:
    """Find what the target of a trial runs, and complete the converter's options.

    Settings of the other converters are left aside, so that one sweep can hold targets of all.

    Raises
    ------
    InputError
        When there is no such target, profile, figure or option, or the target runs another form.
    MissingDependencyError
        When the target's library is absent.
    """
    name, _, form = settings.target.partition("/")
    form = _form(name, form)
    samples, method = settings.calibration.samples, settings.calibration.method
    if form == "float":
        return Conversion(form, {}, {}, None, samples)
    making, defaults = MADE[form], converter_options(form)
    given = dict(getattr(settings, making.table))
    if making.table == "spike":
        given["seed"] = settings.seed
    if method is not None:
        if making.method is None:
            raise InputError(
                f"calibration.method is {method!r}, and target {name} runs the form {form}, which "
                "is calibrated in one way alone; leave it out."
            )
        given[making.method] = method
    if strange := [option for option in given if option not in defaults]:
        raise InputError(
            f"{making.table}.{strange[0]} is no option for networks of form {form}; leave it out."
        )
    profile = chosen_profile(settings.chip, making.kind, making.profile)
    return Conversion(form, given, defaults, profile, samples)


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


def _without_sources(figures: Any) -> Any:
    """Leave the words away that say where a figure stands: they change no result."""
    if not isinstance(figures, dict):
        return figures
    if set(figures) == {"value", "source"}:
        return figures["value"]
    return {name: _without_sources(value) for name, value in figures.items()}
