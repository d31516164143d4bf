"""One memory of the float network made into one LoihiMemory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.loihi_spiking.bench import FixedPointBench
from converters.loihi_spiking.gains import LARGEST_ROUNDED, round_rows
from converters.loihi_spiking.tuning import MESSAGE_ONE, draw_neurons
from converters.spiking.bench import Fit, Progress
from converters.spiking.dynamic import dynamic
from converters.spiking.scaled import scale_memory
from lmu_deploy.hardware.profile import LifFigures
from lmu_deploy.loihi_memory import DECAY_ONE, MESSAGE_LIMIT, ONE, LoihiMemory
from lmu_deploy.network import Memory

_INPUT_MARGIN = 1.25
"""Inputs may be so much larger than any seen in calibration before they are limited."""


@dataclass(frozen=True)
class Recipe:
    """What all memories of a network have in common.

    Attributes
    ----------
    figures : LifFigures
    dt_ms, hold_ms : float
        Milliseconds.
    decay : int
        Of the relays, in 4096ths.
    neurons_per_state : int
    seed : int
        Of tuning curves and calibration.
    """

    figures: LifFigures
    dt_ms: float
    hold_ms: float
    decay: int
    neurons_per_state: int
    seed: int

    @property
    def parts(self) -> int:
        """Chip steps in a hold."""
        return round(self.hold_ms / self.dt_ms)


def build_memory(
    recipe: Recipe, memory: Memory, u: np.ndarray, number: int, progress: Progress | None = None
) -> tuple[LoihiMemory, Fit]:
    """Lower and calibrate one memory.

    Parameters
    ----------
    recipe : Recipe
    memory : Memory
    u : ndarray, shape (samples, steps, channels)
        What reaches the memory while it is calibrated.
    number : int
        Which memory of the network: each has its own neurons.
    progress : callable, optional
        Called with (steps of calibration done, in all).

    Raises
    ------
    InputError
        When the memory cannot be divided into chip steps, or a value does not fit its width.
    """
    lost = recipe.decay / DECAY_ONE
    scaled = scale_memory(memory, u, recipe.parts, 1.0 - lost)
    drawn = np.random.default_rng([recipe.seed, number, 1])
    neurons = draw_neurons(
        recipe.figures, memory.size, recipe.neurons_per_state, recipe.dt_ms, drawn
    )
    bench = FixedPointBench(neurons, memory.order, recipe.dt_ms, recipe.decay)
    measuring = np.random.default_rng([recipe.seed, number, 3])
    per_spike = lost / (recipe.dt_ms * 1e-3) * ONE
    largest = LARGEST_ROUNDED / per_spike
    found = dynamic(bench, scaled.targets, scaled.trajectory, measuring, progress, largest=largest)
    decoders = round_rows(found.weights.reshape(memory.size, -1) * per_spike)
    input_scale = np.maximum(np.abs(u).max(axis=(0, 1)) * _INPUT_MARGIN, 1e-9) / MESSAGE_LIMIT
    per_message = lost * ONE * scaled.b_prime / scaled.scales * input_scale[:, None]
    inputs = round_rows(per_message.reshape(memory.size, 1))
    return LoihiMemory(
        neurons=neurons,
        decoders=decoders.weights.reshape(memory.channels, memory.order, -1),
        decoder_multiplier=decoders.multiplier,
        decoder_shift=decoders.shift,
        input_weights=inputs.weights[:, 0],
        input_multiplier=inputs.multiplier,
        input_shift=inputs.shift,
        decay=recipe.decay,
        message_shift=round(np.log2(ONE / MESSAGE_ONE)),
        scales=scaled.scales,
        input_scale=input_scale,
    ), found
