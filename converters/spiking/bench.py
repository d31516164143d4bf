"""What a calibration measures: neurons of some chip behind first-order synapses, and their map W.

Decoders always come from simulated spikes: the analytic LIF rate is wrong where a spike can only
fall on whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from converters.spiking.neurons import NEURONS, Neurons
from converters.spiking.weights import round_weights
from lmu_deploy.spiking_chip import Device, NeuronModel, Populations

Progress = Callable[[int, int], None]


_FINE = 1000
"""Steps that a part of a calibration is shown as, however many it has."""


def part(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Show the progress of one of several parts as that of the whole, as if all took as long."""
    if progress is None:
        return None
    return lambda done, steps: progress(round(_FINE * (number + done / steps)), _FINE * parts)


class Driven(Protocol):
    """Neurons whose states are given to them at every step."""

    def step(self, x: np.ndarray) -> np.ndarray:
        """Take scaled states (copies, states); give spikes (copies, states, neurons), bool."""


class Bench(Protocol):
    """What a dynamic calibration measures: any neurons behind first-order synapses."""

    @property
    def order(self) -> int:
        """States of a channel."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def neurons_per_state(self) -> int:
        """Neurons of a population."""

    @property
    def dt_ms(self) -> float:
        """Step of the simulation, milliseconds."""

    @property
    def tau_ms(self) -> float:
        """Time constant of the synapses, milliseconds."""

    def neurons(self, copies: int, rng: np.random.Generator) -> Driven:
        """Make simulated copies of the chip."""


@dataclass(frozen=True)
class Chip:
    """What a calibration measures: neurons with all their imperfections, and their synapses."""

    populations: Populations
    model: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    order: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.populations.states // self.order

    @property
    def neurons_per_state(self) -> int:
        """Number of neurons of a population."""
        return self.populations.neurons

    def neurons(self, copies: int, rng: np.random.Generator) -> Neurons:
        """Make simulated copies of the chip."""
        return NEURONS[self.model.kind](
            self.populations, self.model, self.device, self.dt_ms, copies, rng
        )

    def held(self, weights: np.ndarray) -> np.ndarray:
        """Give weights (channels, order, features) as the chip holds them."""
        return round_weights(weights, self.device.weight_bits)


@dataclass(frozen=True)
class Fit:
    """A map and how it was found; see :class:`lmu_deploy.spiking_chip.Calibration`."""

    weights: np.ndarray
    ridge: float
    error: float
