"""The last layer's hidden units and the readout onto populations, on one virtual chip or several.

In: the layer, the readout, the memory's map as each chip holds it, states on the way. Out:
:class:`lmu_deploy.spiking_units.SpikingUnits`, whose equations stand there.

Drives need no fit of their own, for they are linear in what the memory's map gives. What the
populations make of them is decoded unit by unit from rate curves ("none" and "static"), or all at
once from filtered spikes while the whole chip runs freely ("dynamic"): that makes up for mismatch,
for rounded weights of the drives, and for the lag of the readout's synapses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converters.spiking.bench import Chip, Fit, Progress, part
from converters.spiking.build import Built
from converters.spiking.head import Head
from converters.spiking.populations import make_populations, with_mismatch
from converters.spiking.recipe import Recipe
from converters.spiking.ridge import fit_few_rows
from converters.spiking.static import LEVELS, STATIC_RIDGE, measure_rates
from converters.spiking.units_loop import listen
from converters.spiking.weights import round_weights
from lmu_deploy.reference import activate
from lmu_deploy.spiking_chip import Populations
from lmu_deploy.spiking_units import SpikingUnits

_TUNING, _MISMATCH, _MEASURING = 6, 7, 8
"""What a generator is for, beside the seed; memories have the numbers below."""


def build_units(
    recipes: Sequence[Recipe],
    head: Head,
    built: Built,
    number: int,
    progress: Progress | None = None,
) -> list[SpikingUnits]:
    """Put units on the same chips as their memory, and calibrate them.

    Parameters
    ----------
    recipes : sequence of Recipe
        One for each chip; only the seeds of their devices differ.
    head : Head
    built : Built
        The memory on each chip.
    number : int
        Which memory of the network.
    progress : callable, optional
        Called with (steps of calibration done, in all).
    """
    recipe, hidden = recipes[0], head.layer.hidden
    assert hidden is not None
    drawn = np.random.default_rng([recipe.seed, number, _TUNING])
    nominal = make_populations(
        hidden.units,
        recipe.neurons_per_unit,
        recipe.model,
        recipe.maximum_rates,
        drawn,
        rectified=hidden.activation == "relu",
    )
    ranges, found = head.ranges(), []
    on_chips = zip(recipes, built.chips, built.fits, strict=True)
    for chip_number, (one, chip, chip_fit) in enumerate(on_chips):
        made = np.random.default_rng([one.device.seed, number, _MISMATCH])
        populations = with_mismatch(nominal, one.device.mismatch, made, one.device.tau_mismatch)
        units = _undecoded(one, head, populations, ranges, chip, chip_fit)
        shown = part(progress, chip_number, len(recipes))
        seed = [recipe.seed, number, _MEASURING]
        if recipe.calibration == "dynamic":
            decoders = listen(chip, chip.held(chip_fit.weights), units, head, seed, shown)
        else:
            curves = replace(chip, populations=populations, order=1)
            if recipe.calibration == "none":
                ideal = chip.device.ideal()
                curves = replace(curves, populations=nominal, device=ideal)
            decoders = _static(curves, head, ranges, np.random.default_rng(seed), shown)
        held = round_weights(decoders, one.device.weight_bits)
        found.append(replace(units, decoders=held))
    return found


def _undecoded(
    recipe: Recipe,
    head: Head,
    populations: Populations,
    ranges: np.ndarray,
    chip: Chip,
    fit: Fit,
) -> SpikingUnits:
    """Give units with all but their decoders: V and C from the memory's own W and B'."""
    hidden, scaled = head.layer.hidden, head.scaled
    assert hidden is not None
    kernel = hidden.memory_kernel.astype(np.float64).reshape(chip.channels, chip.order, -1)
    from_states = kernel * scaled.scales[:, :, None] / ranges
    drive = np.einsum("cou,cof->ucf", from_states, fit.weights).reshape(len(ranges), -1)
    entering = np.einsum("cou,co->uc", from_states, scaled.b_prime / scaled.scales)
    return SpikingUnits(
        populations,
        round_weights(drive, recipe.device.weight_bits),
        entering,
        ranges,
        np.zeros((head.readout.kernel.shape[1], populations.states * populations.neurons)),
        recipe.readout_tau_ms,
    )


def _static(
    chip: Chip,
    head: Head,
    ranges: np.ndarray,
    rng: np.random.Generator,
    progress: Progress | None,
) -> np.ndarray:
    """Decode f from each unit's rate curves, then weigh it as the readout does."""
    hidden, rates = head.layer.hidden, measure_rates(chip, rng, progress)
    assert hidden is not None
    decoders = np.empty(rates.shape[1:])
    for unit, size in enumerate(ranges):
        aim = activate(hidden.activation, LEVELS * size)[:, None]
        decoders[unit] = fit_few_rows(rates[:, unit], aim, STATIC_RIDGE)[:, 0]
    kernel = head.readout.kernel.astype(np.float64)
    return np.asarray((kernel.T[:, :, None] * decoders).reshape(kernel.shape[1], -1))
