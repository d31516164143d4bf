"""Heterogeneous populations for given states, and the mismatch of a chip.

Tuning curves are chosen with the rate of a neuron in continuous time. Decoders are never computed
from that rate, because simulated spikes fall on whole steps.
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import trapezoid

from lmu_deploy.core.spiking.chip import DPICircuit, NeuronModel, Populations

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
    v, h = np.exp(log_v), circuit.gain / circuit.onset
    exponent = np.clip((1.0 - v) * circuit.onset / circuit.width, -500.0, 500.0)
    leak = 1.0 - circuit.feedback / circuit.leak / (1.0 + np.exp(exponent))
    threshold = float(np.max((v + h) * leak))
    currents = threshold * _CURRENTS
    speeds = currents[:, None] / (v + h) - leak
    free_ms = model.membrane_tau_ms * trapezoid(1.0 / speeds, log_v, axis=1)
    reached = 1e3 / (model.refractory_ms + free_ms)
    return threshold, np.interp(rates, reached, currents)


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
        Negative states need not be distinguished: all encoders are +1 and intercepts are uniform
        from -0.05 to 0.95.

    Returns
    -------
    Populations
        With mismatch factors of one.
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
