"""What a user can choose about a quantization, checked against the profile before any work."""

from __future__ import annotations

from dataclasses import dataclass, fields

from converters.quantize.calibration import METHODS
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layers import REALIZATIONS
from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.core.validation import check_choice, check_flag, check_integer
from lmu_deploy.hardware.profile import DigitalProfile, load_profile

SCALES = ("power-of-two", "free")
AUTO = "auto"


@dataclass(frozen=True)
class Settings:
    """Choices of a quantization; see :func:`converters.quantize.quantize` for their meaning."""

    profile: DigitalProfile
    slices: int
    kernel_slices: int
    message_bits: int
    hidden_bits: int
    input_bits: int | None
    calibration_method: str
    scales: str | None
    realization: str
    taps: int | None = None
    kernel_bits: int | None = None
    refit: bool | None = None

    def __post_init__(self) -> None:
        check_integer("slices", self.slices, 1, 3)
        check_integer("kernel_slices", self.kernel_slices, 1, 3)
        check_choice("calibration_method", self.calibration_method, METHODS)
        if self.scales is not None:
            check_choice("scales", self.scales, SCALES)
        check_choice("realization", self.realization, (*REALIZATIONS, AUTO))
        if self.taps is not None:
            check_integer("taps", self.taps, 1, 65_536)
        if self.kernel_bits is not None:
            check_integer("kernel_bits", self.kernel_bits, 2, int(self.profile.weight_bits))
        if self.refit is not None:
            check_flag("refit", self.refit)
        for name in ("message_bits", "hidden_bits", "input_bits"):
            value = getattr(self, name)
            bits = check_integer(name, self.message_bits if value is None else value, 2, 20)
            allowed = int(self.profile.message_bits)
            if allowed < 2:
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
        """Row gains of what enters a memory: one slice needs all of its range."""
        return self.scales or ("free" if self.slices == 1 else "power-of-two")

    @property
    def kernel_scales(self) -> str:
        """Row gains of all else."""
        return self.scales or "power-of-two"

    @property
    def refits(self) -> bool:
        """Whether what reads a memory is fitted to it as it is rounded: one slice needs it."""
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
        """Give the choices as texts, for a file's provenance."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["profile"] = self.profile.name
        return {name: str(value) for name, value in values.items()}


def settings_for(
    network: LMUNetwork,
    profile: str | DigitalProfile,
    *,
    slices: int = 2,
    kernel_slices: int | None = None,
    message_bits: int = 12,
    hidden_bits: int | None = None,
    input_bits: int | None = None,
    calibration_method: str = "max",
    scales: str | None = None,
    realization: str = "dense-incremental",
    taps: int | None = None,
    kernel_bits: int | None = None,
    refit: bool | None = None,
) -> Settings:
    """Complete a user's choices for a network; see :func:`converters.quantize.quantize`.

    Raises
    ------
    InputError
        When the network has no LMU layer, or a choice is out of range.
    """
    if not any(isinstance(layer, LMULayer) for layer in network.layers):
        raise InputError(
            "quantize: the network has LSTM layers alone, which stay on the host, so nothing is "
            "left for a chip; give a network with an LMU layer."
        )
    every_step = network.return_sequences
    return Settings(
        digital_profile(profile),
        slices,
        (2 if every_step else 1) if kernel_slices is None else kernel_slices,
        message_bits,
        (12 if every_step else 8) if hidden_bits is None else hidden_bits,
        input_bits,
        calibration_method,
        scales,
        realization,
        taps,
        kernel_bits,
        refit,
    )


def digital_profile(name: str | DigitalProfile) -> DigitalProfile:
    """Load the profile called `name`, or take a profile itself; it must be a digital chip's."""
    profile = load_profile(name, kind="digital")
    assert isinstance(profile, DigitalProfile)
    return profile
