"""Fixed-point LIF neurons as a simulator for dynamic calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.loihi.tuning import MESSAGE_ONE
from converters.spiking.neurons import PopulationSizes
from lmu_deploy.core.spiking.lif import make_neurons
from lmu_deploy.core.spiking.loihi import DECAY_ONE, MESSAGE_LIMIT, LoihiNeurons


@dataclass(frozen=True)
class FixedPointSimulator(PopulationSizes):
    """Neurons on the chip behind relays; see :class:`converters.spiking.neurons.NeuronSimulator`.

    Attributes
    ----------
    populations : LoihiNeurons
    order : int
    dt_ms : float
    decay : int
        Decay of the relays, in 4096ths.
    """

    populations: LoihiNeurons
    order: int
    dt_ms: float
    decay: int

    @property
    def tau_ms(self) -> float:
        """Time constant of the relays, milliseconds."""
        return float(-self.dt_ms / np.log1p(-self.decay / DECAY_ONE))

    def neurons(self, copies: int, rng: np.random.Generator) -> Forced:
        """Build neurons in the state in which every sample begins."""
        return Forced(self.populations, copies)


class Forced:
    """Neurons that receive given states one step later, as on the chip.

    Parameters
    ----------
    populations : LoihiNeurons
    copies : int
    """

    def __init__(self, populations: LoihiNeurons, copies: int) -> None:
        self._neurons = make_neurons(populations, copies)
        self._sent = np.zeros((copies, populations.states), np.int64)

    def step(self, x: np.ndarray) -> np.ndarray:
        """Encode scaled states (copies, states); return spikes (copies, states, neurons), bool."""
        spikes = self._neurons.step(self._sent)
        exact = np.rint(x * MESSAGE_ONE)
        self._sent = np.clip(exact, -MESSAGE_LIMIT, MESSAGE_LIMIT).astype(np.int64)
        return spikes
