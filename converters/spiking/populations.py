r"""Heterogeneous populations for given states, the mismatch of a chip, and what time changes.

Tuning curves are chosen with the rate of a neuron in continuous time. Decoders are never computed
from that rate, because simulated spikes fall on whole steps.

Time and temperature multiply each of gain, bias and membrane time constant of a neuron by

.. math:: e^{d(t)}\,\bigl(1 + (c + s\,\xi)\,(T - T_0)\bigr)

with an own coefficient :math:`\xi \sim N(0, 1)`, and a drift d that is an Ornstein-Uhlenbeck
process (Uhlenbeck, Ornstein 1930, Physical Review 36, 823-841), zero when the chip is new. In steps
of a day, with r = exp(-1 day / `drift_time`),

.. math:: d \leftarrow r\, d + \sqrt{1 - r^2}\; \sigma\, N(0, 1)

so that its standard deviation rises to :math:`\sigma`. A neuron dies, or gets stuck, after a time
that is drawn from an exponential distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from lmu_deploy.core.spiking.chip import DPICircuit, NeuronModel, Populations
from lmu_deploy.core.validation import check_integer, check_number, set_fields

_CURRENTS = np.geomspace(1.0001, 1e3, 400)
_MEMBRANES = 4001


def currents_for(model: NeuronModel, rates: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the current at which a neuron starts to fire, and those for the given rates.

    Parameters
    ----------
    model : NeuronModel
    rates : ndarray
        Hertz; below the inverse of the refractory time, if there is one.

    Returns
    -------
    float, ndarray of the shape of `rates`
        In the model's units of current.
    """
    if model.circuit is not None:
        return _dpi(model, model.circuit, rates)
    if model.kind == "lif":
        free_ms = 1e3 / rates - model.refractory_ms
        return 1.0, -1.0 / np.expm1(-free_ms / model.membrane_tau_ms)
    return 0.0, rates * model.membrane_tau_ms * 1e-3


def _dpi(model: NeuronModel, circuit: DPICircuit, rates: np.ndarray) -> tuple[float, np.ndarray]:
    """Integrate the time from reset to spike for many currents, and interpolate.

    With v = I / onset, h = gain / onset and the model's current J, the circuit's equation is
    tau d(ln v)/dt = J / (v + h) - 1 + a(v), so it fires where J exceeds (v + h)(1 - a) for all v.
    """
    log_v = np.linspace(np.log(circuit.reset), np.log(circuit.spike), _MEMBRANES)
    log_v -= np.log(circuit.onset)
    from scipy.integrate import trapezoid  # only here, because it loads scipy.optimize

    v, h = np.exp(log_v), circuit.gain / circuit.onset
    exponent = np.clip((1.0 - v) * circuit.onset / circuit.width, -500.0, 500.0)
    leak = 1.0 - circuit.feedback / circuit.leak / (1.0 + np.exp(exponent))
    threshold = float(np.max((v + h) * leak))
    currents = threshold * _CURRENTS
    speeds = currents[:, None] / (v + h) - leak
    free_ms = model.membrane_tau_ms * trapezoid(1.0 / speeds, log_v, axis=1)
    reached = 1e3 / (model.refractory_ms + free_ms)
    return threshold, np.interp(rates, reached, currents)


INTERCEPTS = (-0.95, 0.95)
_RECTIFIED = -0.05
"""Lowest intercept of neurons that need not distinguish negative states."""


def make_populations(
    states: int,
    neurons: int,
    model: NeuronModel,
    maximum_rates: tuple[float, float],
    rng: np.random.Generator,
    rectified: bool = False,
    intercepts: tuple[float, float] = INTERCEPTS,
) -> Populations:
    """Draw tuning curves on an ideal chip.

    Each neuron has an encoder +-1, an intercept (the encoded state at which it starts to fire)
    uniform in a range, and a rate at the end of its range uniform between the two
    `maximum_rates`. Gains and biases follow from the rate in continuous time
    (Eliasmith, Anderson 2003, "Neural Engineering", section 2.1).

    Parameters
    ----------
    states, neurons : int
        Number of populations, and of neurons in each.
    model : NeuronModel
    maximum_rates : (float, float)
        Hertz, the lower one first.
    rng : Generator
    rectified : bool
        Negative states need not be distinguished: all encoders are +1 and intercepts are at least
        -0.05.
    intercepts : (float, float)
        Range from which they are drawn uniformly.

    Returns
    -------
    Populations
        With mismatch factors of one.
    """
    shape = (states, neurons)
    encoders = np.ones(shape) if rectified else rng.choice([-1.0, 1.0], shape)
    lowest, highest = intercepts
    starts = rng.uniform(max(lowest, _RECTIFIED) if rectified else lowest, highest, shape)
    rates = rng.uniform(*maximum_rates, shape)
    weakest, strongest = currents_for(model, rates)
    gains = (strongest - weakest) / (1.0 - starts)
    ones = np.ones(shape)
    return Populations(encoders, gains, weakest - gains * starts, ones, ones)


def with_mismatch(
    populations: Populations,
    mismatch: float,
    rng: np.random.Generator,
    tau_mismatch: float = 0.0,
) -> Populations:
    """Return the populations with the mismatch factors of one virtual chip.

    Gains and biases are multiplied by lognormal factors of mean one and coefficient of variation
    `mismatch`, time constants of membranes by those of `tau_mismatch`. The refractory time has no
    mismatch: at a step of 1 ms it could only change by whole steps.

    Parameters
    ----------
    populations : Populations
    mismatch : float
    rng : Generator
        Draws the factors; its seed identifies the chip.
    tau_mismatch : float
    """
    shape = populations.gains.shape
    gain_factors, bias_factors = (_factors(mismatch, shape, rng) for _ in range(2))
    return Populations(
        populations.encoders,
        populations.gains,
        populations.biases,
        gain_factors,
        bias_factors,
        _factors(tau_mismatch, shape, rng) if tau_mismatch else None,
    )


def _factors(spread: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    sigma = np.sqrt(np.log1p(spread**2))
    return np.asarray(np.exp(sigma * rng.standard_normal(shape) - sigma**2 / 2.0))


DAYS_PER_YEAR = 365.0
LONGEST = 36_500
"""Largest age, days."""
_LEAST = 0.01
"""Smallest factor; a linear law would cross zero far from the reference temperature."""
_ARRAYS = ("gain", "bias", "tau")


@dataclass(frozen=True)
class Drift:
    """Figures of drift, temperature and faults of a kind of chip.

    Attributes
    ----------
    gain_drift, bias_drift, tau_drift : float
        Standard deviation of the drift after a long time, of the logarithm of a factor.
    drift_time : float
        Correlation time of the drift, days.
    gain_temperature, bias_temperature, tau_temperature : float
        Relative change per kelvin that all neurons share.
    gain_spread, bias_spread, tau_spread : float
        Standard deviation over neurons of their own relative change per kelvin.
    reference_temperature : float
        Degrees Celsius.
    dead_rate, stuck_rate : float
        Neurons that die, and that begin to fire without pause, per neuron and year.
    """

    gain_drift: float
    bias_drift: float
    tau_drift: float
    drift_time: float
    gain_temperature: float
    bias_temperature: float
    tau_temperature: float
    gain_spread: float
    bias_spread: float
    tau_spread: float
    reference_temperature: float
    dead_rate: float
    stuck_rate: float

    def __post_init__(self) -> None:
        limits = {"drift_time": (1e-3, 1e6), "reference_temperature": (-273.0, 200.0)}
        for name in (each.name for each in fields(self)):
            low, high = limits.get(name, (-10.0 if name.endswith("temperature") else 0.0, 10.0))
            set_fields(self, **{name: check_number(name, getattr(self, name), low, high)})


class ChipLife:
    """The populations of one place on one chip at any age and temperature.

    Parameters
    ----------
    populations : Populations
        As they are when the chip is new, at the reference temperature.
    drift : Drift
    seed : sequence of int
        Identifies the chip and the place; equal seeds live the same life.
    """

    def __init__(self, populations: Populations, drift: Drift, seed: Sequence[int]) -> None:
        self.populations, self.drift, self._seed = populations, drift, list(seed)
        shape, rng = populations.encoders.shape, np.random.default_rng([*seed, 0])
        self._own = {name: rng.standard_normal(shape) for name in _ARRAYS}
        rates = {-1.0: drift.dead_rate, 1.0: drift.stuck_rate}
        self._ends = {
            fault: rng.exponential(size=shape) * DAYS_PER_YEAR / max(rate, 1e-300)
            for fault, rate in rates.items()
        }
        self._steps = np.random.default_rng([*seed, 1])
        self._day, self._now = 0, {name: np.zeros(shape) for name in _ARRAYS}

    def at(self, day: int, temperature: float) -> Populations:
        """Return the populations at an age in days, and a temperature in degrees Celsius.

        Raises
        ------
        InputError
            When the age is negative or above a hundred years, or no such temperature exists.
        """
        day = check_integer("age", day, 0, LONGEST)
        warmer = check_number("temperature", temperature, -273.0, 1000.0)
        warmer -= self.drift.reference_temperature
        drifted, changed = self._drifted(day), {}
        for name in _ARRAYS:
            common, spread = (
                getattr(self.drift, f"{name}_{of}") for of in ("temperature", "spread")
            )
            warmed = 1.0 + (common + spread * self._own[name]) * warmer
            new = getattr(self.populations, f"{name}_factors")
            factors = np.exp(drifted[name]) * np.maximum(warmed, _LEAST)
            changed[f"{name}_factors"] = factors if new is None else new * factors
        faults = self.populations.faults
        faults = np.zeros(drifted["gain"].shape) if faults is None else faults.copy()
        for fault, ends in self._ends.items():
            faults[(ends < day) & (faults == 0.0)] = fault
        return replace(self.populations, **changed, faults=faults if faults.any() else None)

    def _drifted(self, day: int) -> dict[str, np.ndarray]:
        """Return d of each array after so many daily steps."""
        if day < self._day:
            again = ChipLife(self.populations, self.drift, self._seed)
            return again._drifted(day)
        kept = np.exp(-1.0 / self.drift.drift_time)
        for _ in range(day - self._day):
            for name, before in self._now.items():
                size = getattr(self.drift, f"{name}_drift") * np.sqrt(1.0 - kept**2)
                fresh = self._steps.standard_normal(before.shape)
                self._now[name] = kept * before + size * fresh
        self._day = day
        return self._now
