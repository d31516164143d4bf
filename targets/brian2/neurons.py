"""The neuron models in Brian2's own words; see :class:`lmu_deploy.spiking_chip.NeuronModel`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.spiking_network import SpikingNetwork

_ENCODING = """
current = slope * x + offset : 1
x : 1 (linked)
slope : 1 (constant)
offset : 1 (constant)
"""


@dataclass(frozen=True)
class Words:
    """What a NeuronGroup is made with, besides its size, refractory time and namespace.

    Attributes
    ----------
    equations, method, threshold, reset : str
        `reset` is None for a model without a membrane.
    """

    equations: str
    method: str
    threshold: str
    reset: str | None


LIF = Words(
    "dv/dt = (current - v) / membrane_tau : 1 (unless refractory)" + _ENCODING,
    "exact",
    "v > 1",
    "v = 0",
)
NOISY_LIF = Words(
    "dv/dt = (current + jitter - v) / membrane_tau : 1 (unless refractory)\n"
    "jitter = jitter_size * randn() : 1 (constant over dt)" + _ENCODING,
    LIF.method,
    LIF.threshold,
    LIF.reset,
)
IF = Words(
    # The current does not change within a step, so that Euler's method is exact.
    "dv/dt = clip(current, 0, inf) / membrane_tau : 1" + _ENCODING,
    "euler",
    "v > 1",
    "v -= 1",
)
POISSON = Words(
    "rate = current / membrane_tau : Hz" + _ENCODING,
    "euler",
    "rand() < rate * dt",
    None,
)


def words(network: SpikingNetwork) -> Words:
    """Choose the model of a network."""
    if network.neuron.kind == "lif":
        return NOISY_LIF if network.device.membrane_noise else LIF
    return {"if": IF, "poisson": POISSON}[network.neuron.kind]


def namespace(network: SpikingNetwork, b2: Any) -> dict[str, Any]:
    """Values of the names in the equations, with their units."""
    kept = np.exp(-network.dt_ms / network.neuron.membrane_tau_ms)
    # A free membrane that gets (1 - kept) * jitter in each step varies by the device's noise.
    jitter = network.device.membrane_noise * np.sqrt((1.0 + kept) / (1.0 - kept))
    return {"membrane_tau": network.neuron.membrane_tau_ms * b2.ms, "jitter_size": jitter}
