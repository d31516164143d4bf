"""One memory of the float network made into a spiking memory, on one virtual chip or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.bench import Chip, Fit, Progress
from converters.spiking.calibrate import calibrate
from converters.spiking.populations import make_populations, with_mismatch
from converters.spiking.recipe import Recipe
from converters.spiking.scaled import ScaledMemory, scale_memory
from lmu_deploy.network import Memory
from lmu_deploy.spiking_network import SpikingMemory


@dataclass(frozen=True)
class Built:
    """One memory on several chips.

    Attributes
    ----------
    scaled : ScaledMemory
        What it is to hold, and its states on the way.
    chips : tuple of Chip
    fits : tuple of Fit
        One for each chip.
    """

    scaled: ScaledMemory
    chips: tuple[Chip, ...]
    fits: tuple[Fit, ...]

    def memories(self) -> list[SpikingMemory]:
        """Give the memory of each chip, its weights as the chip holds them."""
        scaled = self.scaled
        return [
            SpikingMemory(
                chip.populations,
                scaled.a_prime,
                scaled.b_prime,
                scaled.scales,
                chip.held(fit.weights),
            )
            for chip, fit in zip(self.chips, self.fits, strict=True)
        ]


def build_memory(
    recipes: Sequence[Recipe],
    memory: Memory,
    u: np.ndarray,
    number: int,
    progress: Progress | None = None,
) -> Built:
    """Lower one memory, and calibrate it on each chip.

    Parameters
    ----------
    recipes : sequence of Recipe
        One for each chip; only the seeds of their devices differ.
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
    recipe = recipes[0]
    decay = float(np.exp(-recipe.dt_ms / recipe.tau_ms))
    scaled = scale_memory(memory, u, recipe.parts, decay)
    drawn = np.random.default_rng([recipe.seed, number, 1])
    nominal = make_populations(
        memory.size, recipe.neurons_per_state, recipe.model, recipe.maximum_rates, drawn
    )
    ideal = recipe.device.ideal()
    perfect = Chip(nominal, recipe.model, ideal, recipe.dt_ms, recipe.tau_ms, memory.order)
    chips = []
    for one in recipes:
        made = np.random.default_rng([one.device.seed, number, 2])
        populations = with_mismatch(nominal, one.device.mismatch, made, one.device.tau_mismatch)
        chips.append(replace(perfect, populations=populations, device=one.device))
    fits = calibrate(recipe.calibration, perfect, chips, scaled, [recipe.seed, number], progress)
    return Built(scaled, tuple(chips), tuple(fits))
