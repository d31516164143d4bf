"""One memory of the float network made into one spiking memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.calibrate import Chip, Fit, Progress, dynamic, static
from converters.spiking.populations import make_populations, with_mismatch
from converters.spiking.principle3 import behind_synapse, divide_step
from converters.spiking.trajectories import follow, ranges
from converters.spiking.weights import round_weights
from lmu_deploy.network import Memory
from lmu_deploy.spiking_chip import Device, NeuronModel
from lmu_deploy.spiking_dpi import DPISynapse
from lmu_deploy.spiking_network import SpikingMemory


@dataclass(frozen=True)
class Recipe:
    """What all memories of a network have in common.

    Attributes
    ----------
    model : NeuronModel
    device : Device
    dt_ms, tau_ms, hold_ms : float
        Milliseconds.
    neurons_per_state : int
    maximum_rate : float
        Hertz.
    calibration : {"dynamic", "static", "none"}
    seed : int
        Of tuning curves and calibration; the chip's own is in `device`.
    synapse : DPISynapse or None
        None for linear ones, for which W is calibrated in any case.
    """

    model: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    hold_ms: float
    neurons_per_state: int
    maximum_rate: float
    calibration: str
    seed: int
    synapse: DPISynapse | None = None

    @property
    def parts(self) -> int:
        """Steps of the simulation in a hold."""
        return round(self.hold_ms / self.dt_ms)


def build_memory(
    recipe: Recipe, memory: Memory, u: np.ndarray, number: int, progress: Progress | None = None
) -> tuple[SpikingMemory, Fit]:
    """Lower and calibrate one memory.

    Parameters
    ----------
    recipe : Recipe
    memory : Memory
    u : ndarray, shape (samples, steps, channels)
        What reaches the memory while it is calibrated.
    number : int
        Which memory of the network: each has its own neurons on the chip.
    progress : callable, optional
        Called with (steps of calibration done, in all).

    Raises
    ------
    InputError
        When the memory cannot be divided into steps of the simulation.
    """
    a_bar, b_bar = divide_step(memory, recipe.parts)
    decay = float(np.exp(-recipe.dt_ms / recipe.tau_ms))
    a_prime, b_prime = behind_synapse(a_bar, b_bar, decay)
    trajectory = follow(a_bar, b_bar, u, recipe.parts)
    scales = ranges(trajectory)
    trajectory /= scales.astype(np.float32)
    targets = a_prime * scales[:, None, :] / scales[:, :, None]

    drawn = np.random.default_rng([recipe.seed, number, 1])
    nominal = make_populations(
        memory.size, recipe.neurons_per_state, recipe.model, recipe.maximum_rate, drawn
    )
    made = np.random.default_rng([recipe.device.seed, number, 2])
    populations = with_mismatch(nominal, recipe.device.mismatch, made)
    chip = Chip(populations, recipe.model, recipe.device, recipe.dt_ms, recipe.tau_ms, memory.order)
    measuring = np.random.default_rng([recipe.seed, number, 3])
    if recipe.calibration == "dynamic":
        found = dynamic(chip, targets, trajectory, measuring, progress)
    elif recipe.calibration == "static":
        found = static(chip, targets, measuring, progress)
    else:
        ideal = replace(recipe.device, mismatch=0.0, membrane_noise=0.0)
        found = static(
            replace(chip, populations=nominal, device=ideal), targets, measuring, progress
        )
    weights = round_weights(found.weights, recipe.device.weight_bits)
    return SpikingMemory(populations, a_prime, b_prime, scales, weights), found
