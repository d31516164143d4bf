"""Neuron models as Brian2 equations; see :class:`lmu_deploy.core.spiking.chip.NeuronModel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.spiking.graph import AnalogNetwork

_ENCODING = """
current = slope * x + offset : 1
x : 1 (linked)
slope : 1 (constant)
offset : 1 (constant)
"""


_OWN_TAU = "\nmembrane_tau : second (constant)"
_OWN_JITTER = "\njitter_size : 1 (constant)"


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
    tau_factors, noise_factors : ndarray or None
        See :class:`lmu_deploy.core.spiking.chip.Populations`.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    tau_factors: np.ndarray | None
    noise_factors: np.ndarray | None

    @classmethod
    def of_copies(cls, chips: Sequence[Populations], copies: int) -> Curves:
        """Repeat each chip's populations for its copies, chip by chip."""

        def repeated(arrays: list[np.ndarray]) -> np.ndarray:
            return np.concatenate([np.tile(array.reshape(-1), copies) for array in arrays])

        def factors(name: str) -> np.ndarray | None:
            found = [getattr(chip, name) for chip in chips]
            if all(array is None for array in found):
                return None
            ones = np.ones(chips[0].encoders.shape)
            return repeated([ones if array is None else array for array in found])

        return cls(
            repeated([chip.slopes for chip in chips]),
            repeated([chip.offsets for chip in chips]),
            factors("tau_factors"),
            factors("noise_factors"),
        )

    @classmethod
    def joined(cls, parts: Sequence[Curves]) -> Curves:
        """Return the curves of several groups as those of one."""

        def factors(name: str) -> np.ndarray | None:
            found = [getattr(each, name) for each in parts]
            if all(array is None for array in found):
                return None
            filled = zip(parts, found, strict=True)
            return np.concatenate([np.ones_like(p.slopes) if a is None else a for p, a in filled])

        return cls(
            np.concatenate([each.slopes for each in parts]),
            np.concatenate([each.offsets for each in parts]),
            factors("tau_factors"),
            factors("noise_factors"),
        )


def model_equations(network: AnalogNetwork, curves: Curves) -> Equations:
    """Return the equations of a network's neuron model, for neurons with these curves."""
    noisy = network.device.membrane_noise > 0.0
    found = {
        "lif": NOISY_LIF if noisy else LIF,
        "dpi": NOISY_DPI if noisy else DPI,
        "if": IF,
        "poisson": POISSON,
    }[network.neuron.kind]
    if network.device.threshold_noise:
        found = replace(found, threshold=f"{found.threshold} * (1 + threshold_noise * randn())")
    if curves.tau_factors is not None:
        found = replace(found, equations=found.equations + _OWN_TAU)
    if _own_jitter(curves):
        found = replace(found, equations=found.equations + _OWN_JITTER)
    return found


def _own_jitter(curves: Curves) -> bool:
    """Return whether each neuron has its own amplitude of noise."""
    return curves.tau_factors is not None or curves.noise_factors is not None


def neuron_group(
    b2: Any,
    network: AnalogNetwork,
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
    network : SpikingNetwork or SpikingGraph
    curves : Curves
    encoded : (NeuronGroup, ndarray of int, shape (all neurons,))
        Group whose `x` is encoded, and the index of each neuron's state.
    membranes : ndarray, shape (all neurons,)
        Initial membranes, relative to the threshold; of a DPI, to its onset.
    clock : Clock
    name : str
    """
    model, refractory = model_equations(network, curves), network.neuron.refractory_ms
    group = b2.NeuronGroup(
        len(membranes),
        model.equations,
        method=model.method,
        threshold=model.threshold,
        reset=model.reset,
        refractory=refractory * b2.ms if refractory else False,
        clock=clock,
        namespace=namespace(network, b2, curves),
        name=name,
    )
    group.slope, group.offset = curves.slopes, curves.offsets
    taus: Any = network.neuron.membrane_tau_ms
    if curves.tau_factors is not None:
        taus = taus * curves.tau_factors
        group.membrane_tau = taus * b2.ms
    if _own_jitter(curves):
        factors = 1.0 if curves.noise_factors is None else curves.noise_factors
        group.jitter_size = _jitter(network, taus, factors)
    states, index = encoded
    group.x = b2.linked_var(states, "x", index=index)
    if network.neuron.circuit is not None:
        group.I_mem = membranes * network.neuron.circuit.onset * b2.pA
    elif "v" in group.variables:
        group.v = membranes
    return group


def namespace(network: AnalogNetwork, b2: Any, curves: Curves) -> dict[str, Any]:
    """Return the values of the names in the equations, with their units."""
    tau, circuit = network.neuron.membrane_tau_ms, network.neuron.circuit
    values: dict[str, Any] = {"threshold_noise": network.device.threshold_noise}
    if curves.tau_factors is None:  # else each neuron has its own
        values["membrane_tau"] = tau * b2.ms
    if not _own_jitter(curves):
        values["jitter_size"] = _jitter(network, tau)
    if circuit is not None:
        names = ("leak", "gain", "onset", "width", "spike", "reset", "dark")
        values |= {f"I_{name}": getattr(circuit, name) * b2.pA for name in names}
        values["I_most"] = circuit.feedback * b2.pA
    return values


def _jitter(network: AnalogNetwork, tau_ms: Any, factors: Any = 1.0) -> Any:
    """Return the noise amplitude for which a free membrane has the device's membrane noise."""
    decay = np.exp(-network.dt_ms / tau_ms)
    if network.neuron.circuit is not None:  # stepped by Euler's method
        decay = 1.0 - network.dt_ms / tau_ms
    return network.device.membrane_noise * factors * np.sqrt((1.0 + decay) / (1.0 - decay))
