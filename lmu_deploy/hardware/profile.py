"""Hardware profiles and published costs of operations, as TOML with a source for every figure.

A profile is the file ``profiles/NAME.toml`` beside this module. Each figure is a table
``{ value = 24, source = "reference" }``; a figure without a published source has
``source = "assumed: reason"``. `kind` distinguishes digital chips (integer networks) from analog
chips (spiking networks).

Costs are in ``energy/NAME.toml``: the energy and time of one synaptic operation, one message and
one neuron update, each as a range. Missing entries are not counted; nothing is estimated in their
place.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from lmu_deploy.core.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Figure(BaseModel):
    """A number and its source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: float
    source: str = Field(min_length=8)

    def __int__(self) -> int:
        return int(self.value)


_UNLIMITED = Figure(value=0, source="assumed: no limit, as the profile gives none")


class LifFigures(BaseModel):
    """Digital LIF neurons of a chip, and parameters of spiking memories on them.

    Attributes
    ----------
    current_decay, membrane_decay, threshold : Figure
        Parameters du, dv and vth of docs/reference/loihi-semantics.md.
    synapse_tau : Figure
        Time constant of the relays that represent the state of a memory, seconds.
    step : Figure
        Duration of a step of the chip, seconds.
    lowest_rate, highest_rate : Figure
        Range of firing rates of neurons at the end of the range of a state, hertz.
    lowest_intercept, highest_intercept : Figure
        Range of the encoded states at which neurons begin to fire.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    current_decay: Figure
    membrane_decay: Figure
    threshold: Figure
    synapse_tau: Figure
    step: Figure
    lowest_rate: Figure
    highest_rate: Figure
    lowest_intercept: Figure
    highest_intercept: Figure


class NeuronKind(BaseModel):
    """The neuron model of `core.spiking.chip.NeuronModel` closest to the circuit of a chip."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: Literal["lif", "dpi", "if", "poisson"]
    source: str = Field(min_length=8)


class DigitalProfile(BaseModel):
    """A chip that runs integer networks or digital LIF neurons.

    Attributes
    ----------
    weight_bits, state_bits, accumulator_bits, message_bits : Figure
        Widths including the sign.
    neurons_per_core, synaptic_bytes_per_core, fan_in, fan_out, cores : Figure
    lif : LifFigures, optional
        For chips on which `spike` can implement a memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["digital"]
    name: str
    title: str
    weight_bits: Figure
    state_bits: Figure
    accumulator_bits: Figure
    message_bits: Figure
    neurons_per_core: Figure
    synaptic_bytes_per_core: Figure
    fan_in: Figure
    fan_out: Figure
    cores: Figure
    lif: LifFigures | None = None


class DriftFigures(BaseModel):
    """Changes of a chip with time and temperature; see `converters.spiking.populations.Drift`.

    Attributes
    ----------
    gain_drift, bias_drift, tau_drift : Figure
        Slow drift of a neuron: relative standard deviation after a long time.
    drift_time : Figure
        Correlation time of the drift, days.
    gain_temperature, bias_temperature, tau_temperature : Figure
        Relative change per kelvin that all neurons share.
    gain_spread, bias_spread, tau_spread : Figure
        Standard deviation over neurons of their own relative change per kelvin.
    reference_temperature : Figure
        Temperature at which a chip is calibrated, degrees Celsius.
    dead_rate, stuck_rate : Figure
        Fraction of neurons that die, and that begin to fire without pause, in a year.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    gain_drift: Figure
    bias_drift: Figure
    tau_drift: Figure
    drift_time: Figure
    gain_temperature: Figure
    bias_temperature: Figure
    tau_temperature: Figure
    gain_spread: Figure
    bias_spread: Figure
    tau_spread: Figure
    reference_temperature: Figure
    dead_rate: Figure
    stuck_rate: Figure

    def values(self) -> dict[str, float]:
        """Return the numbers by name."""
        return {name: getattr(self, name).value for name in type(self).model_fields}


class AnalogProfile(BaseModel):
    """A chip, or a class of chips, of analog spiking neurons.

    Attributes
    ----------
    neuron : NeuronKind
        The model closest to the neurons of the chip.
    neurons : Figure
        Number of neurons of the chip.
    mismatch : Figure
        Coefficient of variation of neuron gains and biases across devices (lognormal).
    membrane_noise : Figure
        Standard deviation of a subthreshold membrane under white current noise, in thresholds.
    weight_bits : Figure
        Width of a synaptic weight including the sign; 0 for real weights.
    synapse_tau, membrane_tau, refractory : Figure
        Time constants and refractory time, seconds.
    maximum_rate : Figure
        Maximum firing rate, hertz.
    drift : DriftFigures, optional
        Effects of time and temperature.
    fan_in : Figure
        Largest number of synapses onto a neuron, each of either sign; 0 for no limit.
    synapses : Figure
        Number of synapses of the chip; 0 for no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["analog"]
    name: str
    title: str
    neuron: NeuronKind
    neurons: Figure
    mismatch: Figure
    membrane_noise: Figure
    weight_bits: Figure
    synapse_tau: Figure
    membrane_tau: Figure
    refractory: Figure
    maximum_rate: Figure
    drift: DriftFigures | None = None
    fan_in: Figure = _UNLIMITED
    synapses: Figure = _UNLIMITED


Profile = DigitalProfile | AnalogProfile
_READER: TypeAdapter[Profile] = TypeAdapter(Annotated[Profile, Field(discriminator="kind")])


def profile_names(kind: str | None = None) -> list[str]:
    """Return the names of all profiles, or of those of one kind (digital or analog)."""
    names = [
        item.name.removesuffix(".toml")
        for item in (files("lmu_deploy.hardware") / "profiles").iterdir()
        if item.name.endswith(".toml")
    ]
    return sorted(n for n in names if kind is None or load_profile(n).kind == kind)


def load_profile(name: str | Profile, kind: str | None = None) -> Profile:
    """Return the profile called `name`, or the given profile, if it is of the kind.

    Raises
    ------
    InputError
        When there is no profile of that name (the message lists the valid ones), it is of another
        kind, or its file is invalid.
    """
    profile = _read(name, kind) if isinstance(name, str) else name
    if kind is not None and profile.kind != kind:
        valid = ", ".join(profile_names(kind))
        raise InputError(
            f"profile {profile.name} is of a chip that is {profile.kind}; choose a profile that is "
            f"{kind}: {valid}."
        )
    return profile


def _read(name: str, kind: str | None) -> Profile:
    item = files("lmu_deploy.hardware") / "profiles" / f"{name}.toml"
    if "/" in name or "\\" in name or not item.is_file():
        raise InputError(
            f"unknown profile {name!r}; choose one of {', '.join(profile_names(kind))}."
        )
    try:
        return _READER.validate_python(tomllib.loads(item.read_text(encoding="utf-8")))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"profile {name} is invalid: {error}") from error


class Range(BaseModel):
    """A figure between two bounds, with its source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float = Field(ge=0)
    high: float
    source: str = Field(min_length=20)

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class CostTable(BaseModel):
    """Costs of single operations on a chip, or in a process technology.

    Attributes
    ----------
    kind : {"digital", "analog"}
        Kind of networks to which it applies.
    title : str
    synop_pj, message_pj, update_pj : Range, optional
        Energy of a synaptic operation, of a message and of a neuron update; picojoules.
    step_ns : Range, optional
        Shortest time step of the chip; nanoseconds.
    synop_ns, message_ns, update_ns : Range, optional
        Time of an operation; nanoseconds.
    time_factor : Range, optional
        Real time per simulated time of the neurons.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["digital", "analog"]
    title: str
    synop_pj: Range | None = None
    message_pj: Range | None = None
    update_pj: Range | None = None
    step_ns: Range | None = None
    synop_ns: Range | None = None
    message_ns: Range | None = None
    update_ns: Range | None = None
    time_factor: Range | None = None


@cache
def cost_tables() -> dict[str, CostTable]:
    """Return all tables by name, in alphabetical order."""
    folder = files("lmu_deploy.hardware") / "energy"
    items = sorted((i for i in folder.iterdir() if i.name.endswith(".toml")), key=lambda i: i.name)
    return {
        item.name.removesuffix(".toml"): CostTable.model_validate(
            tomllib.loads(item.read_text(encoding="utf-8"))
        )
        for item in items
    }
