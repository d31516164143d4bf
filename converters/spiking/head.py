"""What a last layer's hidden units and the readout are to do, whatever the neurons are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.spiking.scaled import ScaledMemory
from lmu_deploy.network import LMULayer, Readout
from lmu_deploy.reference import activate

_RANGE_PERCENTILE = 99.9
_SMALLEST_SHARE = 1e-3


@dataclass(frozen=True)
class Head:
    """What is to be put on neurons.

    Attributes
    ----------
    layer : LMULayer
        The last one.
    readout : Readout
    scaled : ScaledMemory
        Of its memory.
    x : ndarray, shape (samples, steps, n_in)
        What reaches the layer while the chip is calibrated.
    parts : int
        Steps of the simulation in a hold.
    """

    layer: LMULayer
    readout: Readout
    scaled: ScaledMemory
    x: np.ndarray
    parts: int

    def drives(self, step: int) -> np.ndarray:
        """Z (z + i) of an ideal chip after a step of the simulation, shape (samples, units)."""
        hidden = self.layer.hidden
        assert hidden is not None
        states = self.scaled.trajectory[step] * self.scaled.scales
        z = states.reshape(len(states), -1) @ hidden.memory_kernel
        if hidden.input_kernel is not None:
            z = z + self.x[:, step // self.parts] @ hidden.input_kernel
        return np.asarray(z if hidden.bias is None else z + hidden.bias, dtype=np.float64)

    def answers(self, step: int) -> np.ndarray:
        """Give what they stand for, without the readout's bias, shape (samples, n_out)."""
        hidden = self.layer.hidden
        assert hidden is not None
        h = activate(hidden.activation, self.drives(step))
        return np.asarray(h @ self.readout.kernel.astype(np.float64))

    def ranges(self) -> np.ndarray:
        """99.9 % of each drive's sizes at the ends of holds, shape (units,), never zero."""
        ends = range(self.parts - 1, len(self.scaled.trajectory), self.parts)
        seen = np.concatenate([self.drives(step) for step in ends])
        size = np.percentile(np.abs(seen), _RANGE_PERCENTILE, axis=0)
        return np.maximum(size, max(_SMALLEST_SHARE * float(size.max()), 1e-12))
