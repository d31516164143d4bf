"""Neuron models as Brian2 equations; see :class:`lmu_deploy.core.spiking.chip.NeuronModel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.spiking.network import SpikingNetwork

_ENCODING = """
current = slope * x + offset : 1
x : 1 (linked)
slope : 1 (constant)
offset : 1 (constant)
"""


_OWN_TAU = """
membrane_tau : second (constant)
jitter_size : 1 (constant)
"""


@dataclass(frozen=True)
class Equations:
    """Equations, threshold and reset of a NeuronGroup.

    Attributes
    ----------
    equations, method, threshold, reset : str
        `reset` is None for a model without a membrane.
    """

    equations: str
    method: str
    threshold: str
    reset: str | None


LIF = Equations(
    "dv/dt = (current - v) / membrane_tau : 1 (unless refractory)" + _ENCODING,
    "exact",
    "v > 1",
    "v = 0",
)
NOISY_LIF = Equations(
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
DPI = Equations(
    _DPI + _DPI_INPUT.format("current") + _ENCODING,
    "euler",
    "I_mem > I_spike",
    "I_mem = I_reset",
)
NOISY_DPI = Equations(
    _DPI
    + _DPI_INPUT.format("current + jitter")
    + "\njitter = jitter_size * randn() : 1 (constant over dt)"
    + _ENCODING,
    DPI.method,
    DPI.threshold,
    DPI.reset,
)
IF = Equations(
    # The current does not change within a step, so that Euler's method is exact.
    "dv/dt = clip(current, 0, inf) / membrane_tau : 1" + _ENCODING,
    "euler",
    "v > 1",
    "v -= 1",
)
POISSON = Equations(
    "rate = current / membrane_tau : Hz" + _ENCODING,
    "euler",
    "rand() < rate * dt",
    None,
)


@dataclass(frozen=True)
class Curves:
    """Tuning curves of the neurons of a group, each of shape (all neurons,).

    Attributes
    ----------
    slopes, offsets : ndarray
    tau_factors : ndarray or None
        See :class:`lmu_deploy.core.spiking.chip.Populations`.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    tau_factors: np.ndarray | None

    @classmethod
    def of_copies(cls, chips: Sequence[Populations], copies: int) -> Curves:
        """Repeat each chip's populations for its copies, chip by chip."""

        def repeated(arrays: list[np.ndarray]) -> np.ndarray:
            return np.concatenate([np.tile(array.reshape(-1), copies) for array in arrays])

        factors = [chip.tau_factors for chip in chips if chip.tau_factors is not None]
        return cls(
            repeated([chip.slopes for chip in chips]),
            repeated([chip.offsets for chip in chips]),
            repeated(factors) if factors else None,
        )


def model_equations(network: SpikingNetwork) -> Equations:
    """Return the equations of a network's neuron model."""
    noisy = network.device.membrane_noise > 0.0
    found = {
        "lif": NOISY_LIF if noisy else LIF,
        "dpi": NOISY_DPI if noisy else DPI,
        "if": IF,
        "poisson": POISSON,
    }[network.neuron.kind]
    if network.device.threshold_noise:
        found = replace(found, threshold=f"{found.threshold} * (1 + threshold_noise * randn())")
    if network.device.tau_mismatch:
        found = replace(found, equations=found.equations + _OWN_TAU)
    return found


def neuron_group(
    b2: Any,
    network: SpikingNetwork,
    curves: Curves,
    encoded: tuple[Any, np.ndarray],
    membranes: np.ndarray,
    clock: Any,
    name: str,
) -> Any:
    """Build a group of a network's neurons, each linked to the state that it encodes.

    Parameters
    ----------
    b2 : module
    network : SpikingNetwork
    curves : Curves
    encoded : (NeuronGroup, ndarray of int, shape (all neurons,))
        Group whose `x` is encoded, and the index of each neuron's state.
    membranes : ndarray, shape (all neurons,)
        Initial membranes, relative to the threshold; of a DPI, to its onset.
    clock : Clock
    name : str
    """
    model, refractory = model_equations(network), network.neuron.refractory_ms
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
    group.slope, group.offset = curves.slopes, curves.offsets
    if curves.tau_factors is not None:
        taus = network.neuron.membrane_tau_ms * curves.tau_factors
        group.membrane_tau, group.jitter_size = taus * b2.ms, _jitter(network, taus)
    states, index = encoded
    group.x = b2.linked_var(states, "x", index=index)
    if network.neuron.circuit is not None:
        group.I_mem = membranes * network.neuron.circuit.onset * b2.pA
    elif "v" in group.variables:
        group.v = membranes
    return group


def namespace(network: SpikingNetwork, b2: Any) -> dict[str, Any]:
    """Return the values of the names in the equations, with their units."""
    tau, circuit = network.neuron.membrane_tau_ms, network.neuron.circuit
    values: dict[str, Any] = {"threshold_noise": network.device.threshold_noise}
    if not network.device.tau_mismatch:  # else each neuron has its own
        values |= {"membrane_tau": tau * b2.ms, "jitter_size": _jitter(network, tau)}
    if circuit is not None:
        names = ("leak", "gain", "onset", "width", "spike", "reset", "dark")
        values |= {f"I_{name}": getattr(circuit, name) * b2.pA for name in names}
        values["I_most"] = circuit.feedback * b2.pA
    return values


def _jitter(network: SpikingNetwork, tau_ms: Any) -> Any:
    """Return the noise amplitude for which a free membrane has the device's membrane noise."""
    decay = np.exp(-network.dt_ms / tau_ms)
    if network.neuron.circuit is not None:  # stepped by Euler's method
        decay = 1.0 - network.dt_ms / tau_ms
    return network.device.membrane_noise * np.sqrt((1.0 + decay) / (1.0 - decay))
