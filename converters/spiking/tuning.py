"""The current that makes a neuron fire at a wanted rate, in continuous time.

It only chooses tuning curves; decoders are never made from it, for spikes fall on whole steps.
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import trapezoid

from lmu_deploy.spiking_chip import NeuronModel
from lmu_deploy.spiking_dpi import DPICircuit

_CURRENTS = np.geomspace(1.0001, 1e3, 400)
_MEMBRANES = 4001


def currents_for(model: NeuronModel, rates: np.ndarray) -> tuple[float, np.ndarray]:
    """Give the current at which a neuron starts to fire, and those for the given rates.

    Parameters
    ----------
    model : NeuronModel
    rates : ndarray
        Hertz; for neurons with a refractory time below its inverse.

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
    """Integrate the time from reset to spike for many currents, and read off the one wanted.

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
