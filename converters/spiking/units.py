"""Put the last layer's hidden units and the readout on populations of one or several chips.

The equations are those of :class:`lmu_deploy.core.spiking.network.SpikingUnits`. The drives need no
fit of their own, because they are linear in the states that the memory's map produces. The readout
decodes the populations unit by unit from rate curves ("none" and "static"), or all at once from
filtered spikes while the whole chip runs freely ("dynamic"). The latter also compensates for
mismatch, for rounded drive weights, and for the lag of the readout's synapses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converters.spiking.build import Built, LastLayer
from converters.spiking.calibration import LEVELS, STATIC_RIDGE, measure_rates
from converters.spiking.neurons import NEURONS, Chip, Fit, part
from converters.spiking.populations import make_populations, with_mismatch
from converters.spiking.recipe import Recipe
from converters.spiking.ridge import (
    Products,
    best_ridge,
    fit_few_rows,
    round_and_refit,
    round_weights,
)
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import activate
from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.spiking.network import SpikingUnits

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_READ_AT = (0.6, 0.8, 1.0)
"""Shares of a presentation at which outputs are compared: its end, and shortly before it."""


def fit_readout(
    chip: Chip,
    weights: np.ndarray,
    units: SpikingUnits,
    last: LastLayer,
    seed: Sequence[int],
    progress: Progress | None = None,
) -> np.ndarray:
    """Fit the readout's decoders to a chip that runs freely.

    Nothing forces the states of the memory. The ridge regression is from the units' spikes,
    filtered by the readout's synapses, to the float network's outputs. The last fifth of the
    samples (of the time, if there are fewer than five) is held out and selects the
    regularization.

    Parameters
    ----------
    chip : Chip
        With the memory's populations.
    weights : ndarray, shape (channels, order, features)
        W as the chip stores it.
    units : SpikingUnits
        Their decoders are not used.
    last : LastLayer
        Target outputs, and the inputs to run on.
    seed : sequence of int
        Seed of initial membranes and of noise.
    progress : callable, optional
        Called with (steps done, steps in total).

    Returns
    -------
    ndarray, shape (n_out, units * neurons)
        In seconds, rounded to values that the chip's weights can represent.
    """
    steps, samples = last.scaled.trajectory.shape[:2]
    outputs = last.readout.kernel.shape[1]
    learned, held_out = (Products(units.neurons, outputs) for _ in range(2))
    share = samples - samples // 5
    last_learned = steps if samples >= 5 else steps - steps // 5
    rows = {round(of * last.parts) - 1 for of in _READ_AT}
    run = _FreeRun(chip, weights, units, last, seed)
    for step in range(steps):
        run.advance(step)
        if step % last.parts in rows:
            aim = last.answers(step)
            cut = share if step < last_learned else 0
            learned.add(run.filtered[:cut], aim[:cut])
            held_out.add(run.filtered[cut:], aim[cut:])
        if progress:
            progress(step + 1, steps)
    ridge, (found,) = best_ridge([learned], [held_out], _RIDGES)
    if not (bits := chip.device.weight_bits):
        return found.T
    return round_and_refit(found.T, bits, learned.penalized(ridge))


class _FreeRun:
    """Memory and units of one chip running freely, many samples at once.

    The equations are those of :mod:`lmu_deploy.core.spiking.network`.
    """

    def __init__(
        self,
        chip: Chip,
        weights: np.ndarray,
        units: SpikingUnits,
        last: LastLayer,
        seed: Sequence[int],
    ) -> None:
        rng = np.random.default_rng(seed)
        self.chip, self.units, self.last = chip, units, last
        samples = last.scaled.trajectory.shape[1]
        self.memory = chip.neurons(samples, rng)
        self.firing = NEURONS[chip.model.kind](
            units.populations, chip.model, chip.device, chip.dt_ms, samples, rng
        )
        hertz = 1.0 / (chip.dt_ms * 1e-3)
        self.effects = np.ascontiguousarray(weights.swapaxes(1, 2) * hertz, dtype=np.float32)
        self.drive = np.ascontiguousarray(units.drive.T * hertz, dtype=np.float32)
        self.decay = float(np.exp(-chip.dt_ms / chip.tau_ms))
        self.kept = np.float32(np.exp(-chip.dt_ms / units.tau_ms))
        self.gained = np.float32((1.0 - self.kept) * hertz)
        self.x = np.zeros((samples, chip.channels, chip.order))
        self.z = np.zeros((samples, units.units))
        self.before = np.zeros_like(self.x)
        self.filtered: np.ndarray = np.zeros((samples, units.neurons), dtype=np.float32)

    def advance(self, step: int) -> None:
        """Advance by one step; the input's part is the ideal trajectory less A' x."""
        scaled, samples = self.last.scaled, len(self.z)
        injected = self.units.injected(self.last.layer, self.last.x[:, step // self.last.parts])
        spikes = self.memory.step(self.x.reshape(samples, -1))
        fired = spikes.reshape(samples, -1).astype(np.float32)
        own = self.firing.step(self.z + injected).reshape(samples, -1)

        truth = scaled.trajectory[step].astype(np.float64)
        ideal = np.einsum("cij,scj->sci", scaled.targets, self.before)
        pushed = (truth - self.decay * self.before) / (1.0 - self.decay) - ideal
        by_channel = fired.reshape(samples, self.chip.channels, -1).swapaxes(0, 1)
        drive = (by_channel @ self.effects).swapaxes(0, 1)
        self.x = self.decay * self.x + (1.0 - self.decay) * (drive + pushed)
        entering = self._from_states(pushed)
        self.z = self.decay * self.z + (1.0 - self.decay) * (fired @ self.drive + entering)
        self.filtered *= self.kept
        self.filtered += self.gained * own
        self.before = truth

    def _from_states(self, scaled: np.ndarray) -> np.ndarray:
        """Return Z^-1 K^T S times scaled states of shape (samples, channels, order)."""
        hidden = self.last.layer.hidden
        assert hidden is not None
        states = (scaled * self.last.scaled.scales).reshape(len(scaled), -1)
        return np.asarray(states @ hidden.memory_kernel / self.units.scales)


_TUNING, _MISMATCH, _MEASURING = 6, 7, 8
"""Streams of random numbers, beside those of memories, which have the numbers below."""


def build_units(
    recipes: Sequence[Recipe],
    last: LastLayer,
    built: Built,
    number: int,
    progress: Progress | None = None,
) -> list[SpikingUnits]:
    """Put units on the same chips as their memory, and calibrate them.

    Parameters
    ----------
    recipes : sequence of Recipe
        One for each chip; only the seeds of their devices differ.
    last : LastLayer
    built : Built
        The memory on each chip.
    number : int
        Number of the memory in the network.
    progress : callable, optional
        Called with (calibration steps done, steps in total).
    """
    recipe, hidden = recipes[0], last.layer.hidden
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
    ranges, found = last.ranges(), []
    on_chips = zip(recipes, built.chips, built.fits, strict=True)
    for chip_number, (one, chip, chip_fit) in enumerate(on_chips):
        made = np.random.default_rng([one.device.seed, number, _MISMATCH])
        populations = with_mismatch(nominal, one.device.mismatch, made, one.device.tau_mismatch)
        units = _undecoded(one, last, populations, ranges, chip, chip_fit)
        shown = part(progress, chip_number, len(recipes))
        seed = [recipe.seed, number, _MEASURING]
        if recipe.calibration == "dynamic":
            decoders = fit_readout(chip, chip.rounded(chip_fit.weights), units, last, seed, shown)
        else:
            curves = replace(chip, populations=populations, order=1)
            if recipe.calibration == "none":
                ideal = chip.device.ideal()
                curves = replace(curves, populations=nominal, device=ideal)
            decoders = _static(curves, last, ranges, np.random.default_rng(seed), shown)
        rounded = round_weights(decoders, one.device.weight_bits)
        found.append(replace(units, decoders=rounded))
    return found


def _undecoded(
    recipe: Recipe,
    last: LastLayer,
    populations: Populations,
    ranges: np.ndarray,
    chip: Chip,
    fit: Fit,
) -> SpikingUnits:
    """Build units with zero decoders: V and C follow from the memory's W and B'."""
    hidden, scaled = last.layer.hidden, last.scaled
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
        np.zeros((last.readout.kernel.shape[1], populations.states * populations.neurons)),
        recipe.readout_tau_ms,
    )


def _static(
    chip: Chip,
    last: LastLayer,
    ranges: np.ndarray,
    rng: np.random.Generator,
    progress: Progress | None,
) -> np.ndarray:
    """Fit decoders of f to each unit's rate curves, and multiply them by the readout's weights."""
    hidden, rates = last.layer.hidden, measure_rates(chip, rng, progress)
    assert hidden is not None
    decoders = np.empty(rates.shape[1:])
    for unit, size in enumerate(ranges):
        aim = activate(hidden.activation, LEVELS * size)[:, None]
        decoders[unit] = fit_few_rows(rates[:, unit], aim, STATIC_RIDGE)[:, 0]
    kernel = last.readout.kernel.astype(np.float64)
    return np.asarray((kernel.T[:, :, None] * decoders).reshape(kernel.shape[1], -1))
