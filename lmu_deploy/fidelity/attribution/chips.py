"""The chips that a spiking network is compared with: better ones, each calibrated for itself.

What imperfections cost cannot be taken out of a network that was fitted to all of them together. So
the float network is put on other chips, by the same recipe and with the same tuning curves: one
without mismatch, noise and rounded weights, then with one more of them at a time. Each is
calibrated dynamically, so that an imperfection costs what calibration cannot make up for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from converters.spiking import spike
from converters.spiking.weights import round_weights
from lmu_deploy.fingerprint import fingerprint
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork

METHOD = "dynamic"


class Chips:
    """Makes them, each once.

    Parameters
    ----------
    network : SpikingNetwork
        Whose recipe is taken.
    known : ndarray, shape (samples, steps, n_in)
        Inputs to calibrate with: those that `network` was calibrated with, if its own calibration
        is to come out again.
    """

    def __init__(self, network: SpikingNetwork, known: np.ndarray) -> None:
        self.network, self._known = network, known
        self._made: dict[tuple[float, float], SpikingNetwork] = {}

    def of(self, network: SpikingNetwork) -> Chips:
        """Give those of another network: these, if it has the same recipe but for its calibration.

        Parameters
        ----------
        network : SpikingNetwork
            Such as the same one without calibration.
        """
        others = Chips(network, self._known)
        same = fingerprint(network.host) == fingerprint(self.network.host)
        if same and others._recipe() == self._recipe():
            others._made = self._made
        return others

    @property
    def wanted(self) -> int:
        """How many are compared with."""
        device = self.network.device
        return (1 + (device.mismatch > 0)) * (1 + (device.membrane_noise > 0))

    def calibrated(self, *, mismatch: bool = False, noise: bool = False) -> SpikingNetwork:
        """Give the chip with its own mismatch or noise, or without, its weights not rounded."""
        device = self.network.device
        found = device.mismatch if mismatch else 0.0, device.membrane_noise if noise else 0.0
        if found not in self._made:
            self._made[found] = self._spike(*found)
        return self._made[found]

    def rounded(self, network: SpikingNetwork) -> SpikingNetwork:
        """Round the weights of a chip as this network's are."""
        bits = self.network.device.weight_bits

        def with_few_bits(memory: SpikingMemory) -> SpikingMemory:
            return replace(memory, weights=round_weights(memory.weights, bits))

        return replace(
            network,
            memories=tuple(None if m is None else with_few_bits(m) for m in network.memories),
            device=replace(network.device, weight_bits=bits),
        )

    def _spike(self, mismatch: float, noise: float) -> SpikingNetwork:
        recipe = {**self._recipe(), "mismatch": mismatch, "membrane_noise": noise, "weight_bits": 0}
        return spike(self.network.host, self._known, calibration=METHOD, **recipe)

    def _recipe(self) -> dict[str, Any]:
        """How the network was made, but for its float network and the method of calibration."""
        network, device = self.network, self.network.device
        memory = next(memory for memory in network.memories if memory is not None)
        return {
            "profile": device.profile,
            "neurons_per_state": memory.populations.neurons,
            "hold_ms": network.hold_ms,
            "tau_ms": network.tau_ms,
            "dt_ms": network.dt_ms,
            "neuron": network.neuron.kind,
            "mismatch": device.mismatch,
            "membrane_noise": device.membrane_noise,
            "weight_bits": device.weight_bits,
            "calibration_samples": max(1, network.calibration.samples),
            "seed": network.calibration.seed,
            "chip_seed": device.seed,
        }


def alike(network: SpikingNetwork, other: SpikingNetwork) -> bool:
    """Whether two chips compute the very same: neurons, weights, times and noise."""
    plain = [
        fingerprint(replace(each, calibration=network.calibration)) for each in (network, other)
    ]
    return plain[0] == plain[1]
