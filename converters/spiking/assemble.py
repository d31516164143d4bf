"""All memories of a network on chips, and its last units where they go there too, put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.spiking.bench import Fit, Progress, part
from converters.spiking.build import build_memory
from converters.spiking.head import Head
from converters.spiking.host_inputs import memory_inputs, reaching_last
from converters.spiking.recipe import Recipe
from converters.spiking.units import build_units
from lmu_deploy.network import LMULayer, LMUNetwork
from lmu_deploy.spiking_chip import Calibration
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from lmu_deploy.spiking_units import SpikingUnits


def build_networks(
    network: LMUNetwork,
    recipes: Sequence[Recipe],
    inputs: np.ndarray,
    progress: Progress | None,
) -> list[SpikingNetwork]:
    """Lower each memory in turn, and then the last layer's units, as parts of one piece of work.

    Parameters
    ----------
    network : LMUNetwork
    recipes : sequence of Recipe
        One for each chip; only the seeds of their devices differ.
    inputs : ndarray, shape (samples, steps, n_in)
        To calibrate on.
    progress : callable, optional
        Called with (steps of calibration done, in all).
    """
    memories: list[list[SpikingMemory | None]] = [[] for _ in recipes]
    fits: list[list[Fit]] = [[] for _ in recipes]
    units: list[SpikingUnits | None] = [None for _ in recipes]
    reaching = memory_inputs(network, inputs)
    on_chip = recipes[0].neurons_per_unit > 0
    total, number = sum(u is not None for u in reaching) + on_chip, 0
    for layer, u in zip(network.layers, reaching, strict=True):
        if not isinstance(layer, LMULayer) or u is None:
            for of_chip in memories:
                of_chip.append(None)
            continue
        built = build_memory(recipes, layer.memory, u, number, part(progress, number, total))
        for chip, memory in enumerate(built.memories()):
            memories[chip].append(memory)
            fits[chip].append(built.fits[chip])
        number += 1
        if on_chip and layer is network.layers[-1]:
            head = Head(
                layer,
                network.readout,
                built.scaled,
                reaching_last(network, inputs),
                recipes[0].parts,
            )
            shown = part(progress, number, total)
            units = list(build_units(recipes, head, built, number - 1, shown))
    return [
        assemble(network, recipe, tuple(of_chip), _summary(recipe, len(inputs), found), on_neurons)
        for recipe, of_chip, found, on_neurons in zip(recipes, memories, fits, units, strict=True)
    ]


def _summary(recipe: Recipe, samples: int, fits: Sequence[Fit]) -> Calibration:
    return Calibration(
        method=recipe.calibration,
        seed=recipe.seed,
        samples=samples,
        ridge=max(fit.ridge for fit in fits),
        fit_error=max(fit.error for fit in fits),
    )


def assemble(
    network: LMUNetwork,
    recipe: Recipe,
    memories: tuple[SpikingMemory | None, ...],
    calibration: Calibration,
    units: SpikingUnits | None,
) -> SpikingNetwork:
    """Put one chip's parts together; each has what the recipe says of all."""
    return SpikingNetwork(
        memories=memories,
        host=network,
        neuron=recipe.model,
        device=recipe.device,
        calibration=calibration,
        dt_ms=recipe.dt_ms,
        tau_ms=recipe.tau_ms,
        hold_ms=recipe.hold_ms,
        synapse=recipe.synapse,
        maximum_rates=recipe.maximum_rates,
        units=units,
    )
