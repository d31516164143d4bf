"""Options of a quantization, completed for one network and checked against a chip profile."""

from __future__ import annotations

from dataclasses import dataclass

from converters.options import LEAST_BITS, QuantizeOptions, default_slices
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.options import options_of
from lmu_deploy.core.validation import check_integer
from lmu_deploy.hardware.profile import DigitalProfile, load_profile


@dataclass(frozen=True, kw_only=True)
class Settings(QuantizeOptions):
    """Options of a quantization completed for one network and checked against a profile."""

    profile: DigitalProfile
    slices: int = 2
    kernel_slices: int = 1
    hidden_bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_bits is not None:
            check_integer("kernel_bits", self.kernel_bits, 2, int(self.profile.weight_bits))
        for name in ("message_bits", "hidden_bits", "input_bits"):
            value = getattr(self, name)
            bits = self.message_bits if value is None else value
            allowed = int(self.profile.message_bits)
            if allowed < LEAST_BITS:
                raise InputError(
                    f"profile {self.profile.name} sends spikes without a value, and an integer "
                    "network sends messages of several bits; choose loihi2, or make a spiking "
                    "network with lmu-deploy spike."
                )
            if bits > allowed:
                raise InputError(
                    f"{name} is {bits}, and profile {self.profile.name} sends at most "
                    f"{allowed}; give fewer."
                )

    @property
    def input_width(self) -> tuple[int, str]:
        """Bits of an input message, and the option that sets them."""
        if self.input_bits is None:
            return self.message_bits, "--message-bits"
        return self.input_bits, "--input-bits"

    @property
    def memory_scales(self) -> str:
        """Row gains of matrices that enter a memory; one slice needs the full range of weights."""
        return self.scales or ("free" if self.slices == 1 else "power-of-two")

    @property
    def kernel_scales(self) -> str:
        """Row gains of all other matrices."""
        return self.scales or "power-of-two"

    @property
    def refits(self) -> bool:
        """Whether kernels that read a memory are fitted to the rounded memory."""
        return self.slices == 1 if self.refit is None else self.refit

    @property
    def state_bits(self) -> int:
        """Width of states, drives and outputs."""
        return int(self.profile.state_bits)

    @property
    def weight_bits(self) -> int:
        """Width of a weight."""
        return int(self.profile.weight_bits)

    @property
    def kernel_width(self) -> int:
        """Width of a weight of hidden units and the readout."""
        return self.weight_bits if self.kernel_bits is None else self.kernel_bits

    @property
    def accumulator_bits(self) -> int:
        """Width of a dendritic accumulator."""
        return int(self.profile.accumulator_bits)

    def as_texts(self) -> dict[str, str]:
        """Return the settings as texts, for the provenance of a file."""
        values = {"profile": self.profile.name}
        values |= {name: getattr(self, name) for name in options_of(QuantizeOptions)}
        return {name: str(value) for name, value in values.items()}


def settings_for(
    network: Network,
    profile: str | DigitalProfile,
    options: QuantizeOptions | None = None,
) -> Settings:
    """Complete the options of a quantization for a network.

    Parameters
    ----------
    network : Network
    profile : str or DigitalProfile
    options : QuantizeOptions, optional
        By default every option has its default.

    Raises
    ------
    InputError
        If the profile does not allow a value.
    """
    values = (options or QuantizeOptions()).values()
    every_step = network.return_sequences
    values["slices"] = default_slices(values["slices"])
    if values["kernel_slices"] is None:
        values["kernel_slices"] = 2 if every_step else 1
    if values["hidden_bits"] is None:
        values["hidden_bits"] = 12 if every_step else 8
    return Settings(profile=digital_profile(profile), **values)


def digital_profile(name: str | DigitalProfile) -> DigitalProfile:
    """Return the digital profile of a name; a profile is returned unchanged."""
    profile = load_profile(name, kind="digital")
    assert isinstance(profile, DigitalProfile)
    return profile
