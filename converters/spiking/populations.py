"""Heterogeneous populations for given states, and what the chip's mismatch makes of them."""

from __future__ import annotations

import numpy as np

from converters.spiking.tuning import currents_for
from lmu_deploy.spiking_chip import NeuronModel, Populations

_INTERCEPTS = (-0.95, 0.95)
_RECTIFIED = (-0.05, 0.95)


def make_populations(
    states: int,
    neurons: int,
    model: NeuronModel,
    maximum_rates: tuple[float, float],
    rng: np.random.Generator,
    rectified: bool = False,
) -> Populations:
    """Draw tuning curves on an ideal chip.

    Each neuron has an encoder +-1, an intercept (the encoded state at which it starts to fire)
    uniform in +-0.95, and a rate at the end of its range uniform between the two
    `maximum_rates`. Gains and biases follow from the rate in continuous time
    (Eliasmith, Anderson 2003, "Neural Engineering", section 2.1), which only chooses curves:
    decoders are never made from it.

    Parameters
    ----------
    states, neurons : int
        Populations, and neurons in each.
    model : NeuronModel
    maximum_rates : (float, float)
        Hertz, the lower one first.
    rng : Generator
    rectified : bool
        Nothing below zero is to be told apart: all encoders are +1 and intercepts are uniform from
        -0.05 to 0.95.

    Returns
    -------
    Populations
        With factors of one.
    """
    shape = (states, neurons)
    encoders = np.ones(shape) if rectified else rng.choice([-1.0, 1.0], shape)
    intercepts = rng.uniform(*(_RECTIFIED if rectified else _INTERCEPTS), shape)
    rates = rng.uniform(*maximum_rates, shape)
    weakest, strongest = currents_for(model, rates)
    gains = (strongest - weakest) / (1.0 - intercepts)
    ones = np.ones(shape)
    return Populations(encoders, gains, weakest - gains * intercepts, ones, ones)


def with_mismatch(
    populations: Populations,
    mismatch: float,
    rng: np.random.Generator,
    tau_mismatch: float = 0.0,
) -> Populations:
    """Give the populations the factors of one virtual chip.

    Gains and biases are multiplied by lognormal factors of mean one and coefficient of variation
    `mismatch`, time constants of membranes by those of `tau_mismatch`. The refractory time is left
    alone: at a step of 1 ms it could only change by whole steps.

    Parameters
    ----------
    populations : Populations
    mismatch : float
    rng : Generator
        The chip: another one draws other factors.
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
