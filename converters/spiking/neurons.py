"""A NumPy twin of the chip's neurons, used to measure them: currents in, spikes out.

The update and its order are those of the Brian2 target, so that a calibration made here fits the
run there: (1) membranes of neurons that are not refractory move to the exact solution of a step
with constant current, (2) those above threshold spike, (3) and are reset.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.spiking_chip import Device, NeuronModel, Populations


class Neurons:
    """Many copies of one chip's populations, each copy with states of its own.

    Parameters
    ----------
    populations : Populations
    model : NeuronModel
    device : Device
        Its noise counts; its mismatch stands in the factors of `populations`.
    dt_ms : float
    copies : int
    rng : Generator
        Draws where membranes start (uniform between rest and threshold), and the noise.
    dtype : dtype
        Single precision measures as well and faster; double repeats the Brian2 target's spikes.
    """

    def __init__(
        self,
        populations: Populations,
        model: NeuronModel,
        device: Device,
        dt_ms: float,
        copies: int,
        rng: np.random.Generator,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        kept = np.exp(-dt_ms / model.membrane_tau_ms)
        self.dtype = dtype
        self.slopes = populations.slopes.astype(dtype)
        self.offsets = populations.offsets.astype(dtype)
        self.rng = rng
        self.kept = dtype(kept)
        self.noise = dtype(device.membrane_noise * np.sqrt(1.0 - kept**2))
        self.refractory_steps = max(round(model.refractory_ms / dt_ms), 1)
        shape = (copies, *self.slopes.shape)
        self.v = rng.random(shape).astype(dtype)
        self.waiting = np.zeros(shape, dtype=np.int16)

    def step(self, x: np.ndarray) -> np.ndarray:
        """Advance by one step.

        Parameters
        ----------
        x : ndarray, shape (copies, states)
            Scaled states.

        Returns
        -------
        spikes : ndarray, shape (copies, states, neurons), bool
        """
        current = x.astype(self.dtype)[:, :, None] * self.slopes
        current += self.offsets
        moved = self.v - current
        moved *= self.kept
        moved += current
        if self.noise:
            moved += self.noise * self.rng.standard_normal(moved.shape).astype(self.dtype)
        self.waiting -= 1
        free = self.waiting <= 0
        self.v = np.where(free, moved, self.v)
        spikes = self.v > 1.0
        self.v[spikes] = 0.0
        self.waiting[spikes] = self.refractory_steps
        np.maximum(self.waiting, 0, out=self.waiting)
        return spikes
