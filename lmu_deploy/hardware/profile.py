"""Chip profiles: what a chip can hold and do, as TOML, with the source of every figure.

A profile file is ``profiles/NAME.toml`` beside this module. Each figure is a table
``{ value = 24, source = "where it stands" }``; a figure without a published source says
``source = "assumed: why"``. `kind` tells digital chips (integer networks)
from analog ones (spiking networks).
"""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lmu_deploy.core.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Figure(BaseModel):
    """A number and where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: float
    source: str = Field(min_length=8)

    def __int__(self) -> int:
        return int(self.value)


class LifFigures(BaseModel):
    """The digital LIF neurons of a chip, and how a spiking memory is set up on them.

    Attributes
    ----------
    current_decay, membrane_decay, threshold : Figure
        du, dv and vth of docs/reference/loihi-semantics.md.
    synapse_tau : Figure
        Of the relays that hold a memory's state, seconds.
    step : Figure
        What a step of the chip stands for, seconds.
    lowest_rate, highest_rate : Figure
        Between which a neuron's rate at the end of its range is drawn, hertz.
    lowest_intercept, highest_intercept : Figure
        Between which the encoded state at which a neuron starts to fire is drawn.
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
    """The neuron model of `core.spiking.chip.NeuronModel` nearest to a chip's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: Literal["lif", "dpi", "if", "poisson"]
    source: str = Field(min_length=8)


class DigitalProfile(BaseModel):
    """A chip that runs integer networks or digital LIF neurons.

    Attributes
    ----------
    weight_bits, state_bits, accumulator_bits, message_bits : Figure
        Widths, sign included.
    neurons_per_core, synaptic_bytes_per_core, fan_in, fan_out, cores : Figure
    lif : LifFigures, optional
        Of a chip on which `spike` can put a memory.
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


class AnalogProfile(BaseModel):
    """A chip, or a class of chips, of analog spiking neurons.

    Attributes
    ----------
    neuron : NeuronKind
        The circuit that the chip's neurons are nearest to.
    neurons : Figure
        On the whole chip.
    mismatch : Figure
        Coefficient of variation of neuron gains and biases across devices (lognormal).
    membrane_noise : Figure
        Standard deviation of a free membrane under the white noise of its current, in thresholds.
    weight_bits : Figure
        Width of a synaptic weight, sign included; 0 stands for real numbers.
    synapse_tau, membrane_tau, refractory : Figure
        Seconds.
    maximum_rate : Figure
        Hertz.
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


Profile = DigitalProfile | AnalogProfile
_READER: TypeAdapter[Profile] = TypeAdapter(Annotated[Profile, Field(discriminator="kind")])


def profile_names(kind: str | None = None) -> list[str]:
    """Names of all profiles, or of those of one kind (digital or analog)."""
    names = [
        item.name.removesuffix(".toml")
        for item in (files("lmu_deploy.hardware") / "profiles").iterdir()
        if item.name.endswith(".toml")
    ]
    return sorted(n for n in names if kind is None or load_profile(n).kind == kind)


def load_profile(name: str | Profile, kind: str | None = None) -> Profile:
    """Read the profile called `name`; a profile itself is given back, if it is of the kind.

    Raises
    ------
    InputError
        When there is none of that name (the valid ones are listed), it is of another kind, or its
        file is wrong.
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
        raise InputError(f"profile {name} is wrong: {error}") from error
