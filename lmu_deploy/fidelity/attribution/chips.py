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
from lmu_deploy.fingerprint import fingerprint
from lmu_deploy.spiking_network import SpikingNetwork

METHOD = "dynamic"
_IMPERFECTIONS = ("mismatch", "tau_mismatch", "membrane_noise", "threshold_noise", "weight_bits")


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
        self._made: dict[tuple[float, ...], SpikingNetwork] = {}

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

    def calibrated(
        self, *, mismatch: bool = False, noise: bool = False, bits: bool = False
    ) -> SpikingNetwork:
        """Give the chip with its own mismatch, noise or few bits of a weight, or without."""
        device = self.network.device
        found = (
            device.mismatch if mismatch else 0.0,
            device.tau_mismatch if mismatch else 0.0,
            device.membrane_noise if noise else 0.0,
            device.threshold_noise if noise else 0.0,
            device.weight_bits if bits else 0,
        )
        if found not in self._made:
            imperfections = dict(zip(_IMPERFECTIONS, found, strict=True))
            recipe = self._recipe() | imperfections
            self._made[found] = spike(self.network.host, self._known, calibration=METHOD, **recipe)
        return self._made[found]

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
            "threshold_noise": device.threshold_noise,
            "tau_mismatch": device.tau_mismatch,
            "weight_bits": device.weight_bits,
            "maximum_rates": network.maximum_rates,
            "calibration_samples": max(1, network.calibration.samples),
            "seed": network.calibration.seed,
            "chip_seed": device.seed,
            "units": "host",  # they come last, read by the network's own memory
        }


def alike(network: SpikingNetwork, other: SpikingNetwork) -> bool:
    """Whether two chips compute the very same: neurons, weights, times and noise."""
    plain = [
        fingerprint(replace(each, calibration=network.calibration)) for each in (network, other)
    ]
    return plain[0] == plain[1]
