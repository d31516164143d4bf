"""How a network's memories are put on a virtual analog chip: a profile, and what is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lmu_deploy.checks import check_choice, check_integer, check_number
from lmu_deploy.hardware.profile import AnalogProfile
from lmu_deploy.spiking_chip import CALIBRATIONS, Device, NeuronModel, check_multiple, check_rates
from lmu_deploy.spiking_dpi import DPISynapse

NEURONS_PER_STATE = 100
NEURONS_PER_UNIT = 20
UNITS = ("auto", "chip", "host")
DT_MS = 1.0
HOLD_MS = 50.0
_LOWEST_SHARE = 0.5
"""Of a profile's maximum rate, at which the slowest neurons end."""
_READOUT_SHARE = 0.3
"""Of a hold, that the readout's synapses take: long enough to average spikes, short enough to be
there at its end."""
SYNAPSES = {"linear": None, "dpi": DPISynapse()}


@dataclass(frozen=True)
class Recipe:
    """What all memories of a network have in common.

    Attributes
    ----------
    model : NeuronModel
    device : Device
    dt_ms, tau_ms, hold_ms : float
        Milliseconds.
    neurons_per_state : int
    maximum_rates : (float, float)
        Between which a neuron's rate at the end of its range is drawn, hertz.
    calibration : {"dynamic", "static", "none"}
    seed : int
        Of tuning curves and calibration; the chip's own is in `device`.
    synapse : DPISynapse or None
        None for linear ones, for which W is calibrated in any case.
    neurons_per_unit : int
        Of the last layer's hidden units; 0 where they stay on the host.
    readout_tau_ms : float
        Time constant of the readout's synapses, milliseconds.
    """

    model: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    hold_ms: float
    neurons_per_state: int
    maximum_rates: tuple[float, float]
    calibration: str
    seed: int
    synapse: DPISynapse | None = None
    neurons_per_unit: int = 0
    readout_tau_ms: float = 0.0

    @property
    def parts(self) -> int:
        """Steps of the simulation in a hold."""
        return round(self.hold_ms / self.dt_ms)

    def on_chip(self, seed: int) -> Recipe:
        """Give the same recipe for another chip."""
        return replace(self, device=replace(self.device, seed=seed))


def make_recipe(
    chip: AnalogProfile,
    *,
    neurons_per_state: int = NEURONS_PER_STATE,
    hold_ms: float = HOLD_MS,
    tau_ms: float | None = None,
    dt_ms: float = DT_MS,
    neuron: str | None = None,
    synapse: str | None = None,
    mismatch: float | None = None,
    membrane_noise: float | None = None,
    weight_bits: int | None = None,
    threshold_noise: float = 0.0,
    tau_mismatch: float = 0.0,
    maximum_rates: tuple[float, float] | None = None,
    calibration: str = "dynamic",
    neurons_per_unit: int = NEURONS_PER_UNIT,
    readout_tau_ms: float | None = None,
    seed: int = 0,
) -> Recipe:
    """Take from the profile what is not given; see :func:`converters.spiking.spike`.

    The chip's seed is `seed` until :meth:`Recipe.on_chip` names another.

    Raises
    ------
    InputError
        When a time is no whole multiple of the step, or a value is out of range.
    """
    seed = check_integer("seed", seed, 0, 2**32 - 1)
    dt_ms = check_number("dt_ms", dt_ms, 1e-3, 100.0)
    tau_ms = chip.synapse_tau.value * 1e3 if tau_ms is None else tau_ms
    if readout_tau_ms is None:
        readout_tau_ms = max(round(min(tau_ms, _READOUT_SHARE * hold_ms) / dt_ms), 1) * dt_ms
    model = _neuron_model(chip.neuron.value if neuron is None else neuron, chip)
    highest = chip.maximum_rate.value
    rates = (_LOWEST_SHARE * highest, highest) if maximum_rates is None else maximum_rates
    recipe = Recipe(
        model=model,
        device=Device(
            profile=chip.name,
            seed=seed,
            mismatch=chip.mismatch.value if mismatch is None else mismatch,
            membrane_noise=chip.membrane_noise.value if membrane_noise is None else membrane_noise,
            weight_bits=int(chip.weight_bits) if weight_bits is None else weight_bits,
            threshold_noise=threshold_noise,
            tau_mismatch=tau_mismatch,
        ),
        dt_ms=dt_ms,
        tau_ms=check_multiple("tau_ms", tau_ms, dt_ms),
        hold_ms=check_multiple("hold_ms", hold_ms, dt_ms),
        neurons_per_state=check_integer("neurons_per_state", neurons_per_state, 1, 100_000),
        maximum_rates=check_rates(rates, model),
        calibration=check_choice("calibration", calibration, CALIBRATIONS),
        seed=seed,
        neurons_per_unit=check_integer("neurons_per_unit", neurons_per_unit, 1, 100_000),
        readout_tau_ms=check_multiple("readout_tau_ms", readout_tau_ms, dt_ms),
        synapse=SYNAPSES[check_choice("synapse", synapse or "linear", tuple(SYNAPSES))],
    )
    check_multiple("refractory_ms", recipe.model.refractory_ms, dt_ms, least=0)
    return recipe


def _neuron_model(kind: str, chip: AnalogProfile) -> NeuronModel:
    refractory_ms = chip.refractory.value * 1e3 if kind in ("lif", "dpi") else 0.0
    return NeuronModel(kind, chip.membrane_tau.value * 1e3, refractory_ms)
