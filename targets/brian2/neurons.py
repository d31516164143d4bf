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
_DPI = """
dI_mem/dt = int(push > 0 or I_mem > I_dark) * I_mem * push / membrane_tau : amp (unless refractory)
push = I_gain * I_in / (I_leak * (I_mem + I_gain)) + I_feedback / I_leak - 1 : 1
I_feedback = I_most * (1 + tanh((I_mem - I_onset) / (2 * I_width))) / 2 : amp
"""
_DPI_INPUT = "I_in = I_leak * I_onset / I_gain * clip({}, 0, inf) : amp"
DPI = Words(
    _DPI + _DPI_INPUT.format("current") + _ENCODING,
    "euler",
    "I_mem > I_spike",
    "I_mem = I_reset",
)
NOISY_DPI = Words(
    _DPI
    + _DPI_INPUT.format("current + jitter")
    + "\njitter = jitter_size * randn() : 1 (constant over dt)"
    + _ENCODING,
    DPI.method,
    DPI.threshold,
    DPI.reset,
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
    noisy = network.device.membrane_noise > 0.0
    if network.neuron.kind == "lif":
        return NOISY_LIF if noisy else LIF
    if network.neuron.kind == "dpi":
        return NOISY_DPI if noisy else DPI
    return {"if": IF, "poisson": POISSON}[network.neuron.kind]


def neuron_group(
    b2: Any,
    network: SpikingNetwork,
    currents: tuple[np.ndarray, np.ndarray],
    encoded: tuple[Any, np.ndarray],
    membranes: np.ndarray,
    clock: Any,
    name: str,
) -> Any:
    """Make a group of a network's neurons, each linked to the state that it encodes.

    Parameters
    ----------
    b2 : module
    network : SpikingNetwork
    currents : (ndarray, ndarray), shape (all neurons,) each
        Slopes and offsets; see :class:`lmu_deploy.spiking_chip.Populations`.
    encoded : (NeuronGroup, ndarray of int, shape (all neurons,))
        Whose `x` is encoded, and which of them by each neuron.
    membranes : ndarray, shape (all neurons,)
        Where they start, as shares of the threshold; of a DPI, of its onset.
    clock : Clock
    name : str
    """
    model, refractory = words(network), network.neuron.refractory_ms
    group = b2.NeuronGroup(
        len(membranes),
        model.equations,
        method=model.method,
        threshold=model.threshold,
        reset=model.reset,
        refractory=refractory * b2.ms if refractory else False,
        clock=clock,
        namespace=namespace(network, b2),
        name=name,
    )
    group.slope, group.offset = currents
    states, index = encoded
    group.x = b2.linked_var(states, "x", index=index)
    if network.neuron.circuit is not None:
        group.I_mem = membranes * network.neuron.circuit.onset * b2.pA
    elif "v" in group.variables:
        group.v = membranes
    return group


def namespace(network: SpikingNetwork, b2: Any) -> dict[str, Any]:
    """Values of the names in the equations, with their units."""
    kept = np.exp(-network.dt_ms / network.neuron.membrane_tau_ms)
    circuit = network.neuron.circuit
    if circuit is not None:  # stepped by Euler's method
        kept = 1.0 - network.dt_ms / network.neuron.membrane_tau_ms
    # A free membrane that gets (1 - kept) * jitter in each step varies by the device's noise.
    jitter = network.device.membrane_noise * np.sqrt((1.0 + kept) / (1.0 - kept))
    values = {"membrane_tau": network.neuron.membrane_tau_ms * b2.ms, "jitter_size": jitter}
    if circuit is not None:
        names = ("leak", "gain", "onset", "width", "spike", "reset", "dark")
        values |= {f"I_{name}": getattr(circuit, name) * b2.pA for name in names}
        values["I_most"] = circuit.feedback * b2.pA
    return values
