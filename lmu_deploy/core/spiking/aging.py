r"""What time and temperature do to the neurons of a virtual chip.

Each of gain, bias and membrane time constant of a neuron is multiplied by

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

from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.validation import check_integer, check_number, set_fields

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
