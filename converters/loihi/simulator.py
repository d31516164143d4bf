"""The twin's neurons as something that a dynamic calibration can drive and measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.loihi.tuning import MESSAGE_ONE
from lmu_deploy.core.spiking.lif import make_neurons
from lmu_deploy.core.spiking.loihi import DECAY_ONE, MESSAGE_LIMIT, LoihiNeurons


@dataclass(frozen=True)
class FixedPointBench:
    """Neurons on the chip behind relays; see :class:`converters.spiking.neurons.Bench`.

    Attributes
    ----------
    populations : LoihiNeurons
    order : int
    dt_ms : float
    decay : int
        Of the relays, in 4096ths.
    """

    populations: LoihiNeurons
    order: int
    dt_ms: float
    decay: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.populations.states // self.order

    @property
    def neurons_per_state(self) -> int:
        """Neurons of a population."""
        return self.populations.neurons

    @property
    def tau_ms(self) -> float:
        """Time constant whose exponential decay is the relays', milliseconds."""
        return float(-self.dt_ms / np.log1p(-self.decay / DECAY_ONE))

    def neurons(self, copies: int, rng: np.random.Generator) -> Forced:
        """Make neurons that have settled where a sample begins."""
        return Forced(self.populations, copies)


class Forced:
    """Neurons that are sent given states, and see them one step later, as on the chip.

    Parameters
    ----------
    populations : LoihiNeurons
    copies : int
    """

    def __init__(self, populations: LoihiNeurons, copies: int) -> None:
        self._neurons = make_neurons(populations, copies)
        self._sent = np.zeros((copies, populations.states), np.int64)

    def step(self, x: np.ndarray) -> np.ndarray:
        """Take scaled states (copies, states); give spikes (copies, states, neurons), bool."""
        spikes = self._neurons.step(self._sent)
        exact = np.rint(x * MESSAGE_ONE)
        self._sent = np.clip(exact, -MESSAGE_LIMIT, MESSAGE_LIMIT).astype(np.int64)
        return spikes
