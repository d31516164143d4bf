"""Neurons whose states are forced, and the sums of products that a regression needs of them."""

from __future__ import annotations

import numpy as np

from converters.spiking.bench import Bench, Driven, Progress
from converters.spiking.ridge import Products
from lmu_deploy.spiking_chip import REACH

_NOISE_SHARE = (0.02, 0.10)
_STRAYING = (0.5, 2.5)
"""Of the predicted deviations; the spread also covers what the prediction leaves out."""
_EVERY_MS = 5.0
_BLOCK = 20


class Recorder:
    """Forced neurons, their spikes behind the synapse, and A' x behind the same synapse.

    They are driven by x = reach * trajectory + noise. The noise is as slow as the synapse and the
    sum of 2 to 10 % of the range, alike in all states, and of 0.5 to 2.5 times `spread`; how much
    of each is drawn for each sample. The reach is drawn too, between 1 and 1.5 for every second
    sample and 1 for the others: a memory is linear, so what it does with a larger signal is known,
    and a map that was never fitted out there leaves the states of such a signal astray.

    Parameters
    ----------
    bench : Bench
        Any of the chips.
    driven : Driven
        Neurons of all chips, chip by chip, that have not moved yet.
    chips, samples : int
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    rng : Generator
    spread : ndarray, shape (channels, order, order), optional
        See :func:`converters.spiking.deviations.predict_spread`; zero if absent.
    """

    def __init__(
        self,
        bench: Bench,
        driven: Driven,
        chips: int,
        samples: int,
        targets: np.ndarray,
        rng: np.random.Generator,
        spread: np.ndarray | None = None,
    ) -> None:
        self.bench, self.driven, self.chips = bench, driven, chips
        self.targets, self.rng = targets.astype(np.float32), rng
        self.decay = np.float32(np.exp(-bench.dt_ms / bench.tau_ms))
        shape = (samples, bench.channels, bench.order)
        farther = rng.uniform(1.0, REACH, (samples, 1, 1))
        every_second = np.arange(samples).reshape(farther.shape) % 2 == 1
        self.reach = np.where(every_second, farther, 1.0).astype(np.float32)
        self.size = rng.uniform(*_NOISE_SHARE, (samples, 1, 1)).astype(np.float32)
        self.noise: np.ndarray = rng.standard_normal(shape).astype(np.float32)
        self.spread = None if spread is None else spread.astype(np.float32)
        if spread is not None:
            self.straying = rng.uniform(*_STRAYING, (samples, 1, 1)).astype(np.float32)
        cells = (samples, chips * bench.channels * bench.order, bench.neurons_per_state)
        self.filtered = np.zeros(cells, dtype=np.float32)
        self.goal: np.ndarray = np.zeros(shape, dtype=np.float32)

    def advance(self, states: np.ndarray) -> None:
        """Move by one step; `states` has shape (samples, channels, order)."""
        x = self.reach * states + self.size * self.noise
        if self.spread is not None:
            x += self.straying * _each_channel(self.spread, self.noise)
        spikes = self.driven.step(x.reshape(len(x), -1))
        hertz = np.float32((1.0 - self.decay) / (self.bench.dt_ms * 1e-3))
        self.filtered *= self.decay
        self.filtered += hertz * spikes
        push = _each_channel(self.targets, x)
        self.goal = self.decay * self.goal + (1 - self.decay) * push
        fresh = self.rng.standard_normal(self.noise.shape).astype(np.float32)
        self.noise = self.decay * self.noise + np.sqrt(1 - self.decay**2) * fresh

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Give features (samples, chips * channels, features), goal (samples, channels, order)."""
        shape = (len(self.filtered), self.chips * self.bench.channels, -1)
        return self.filtered.reshape(shape).copy(), self.goal


def gather(
    recorder: Recorder, trajectory: np.ndarray, progress: Progress | None = None
) -> tuple[list[Products], list[Products]]:
    """Drive the neurons along the trajectory, and add up what they did.

    Parameters
    ----------
    recorder : Recorder
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every step of the simulation.
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    learnt, held_out : list of Products, one for each channel of each chip, chip by chip
        Held out is the last fifth of the samples; of the time, if there are fewer than five.
    """
    steps, samples = trajectory.shape[:2]
    bench, maps = recorder.bench, recorder.chips * recorder.bench.channels
    features = bench.order * bench.neurons_per_state
    learnt = [Products(features, bench.order) for _ in range(maps)]
    held_out = [Products(features, bench.order) for _ in range(maps)]
    learning = samples - samples // 5
    last_learnt = steps if samples >= 5 else steps - steps // 5
    every = max(round(_EVERY_MS / bench.dt_ms), 1)
    block: list[tuple[np.ndarray, np.ndarray]] = []
    for step in range(steps):
        recorder.advance(trajectory[step])
        if step % every == every - 1:
            block.append(recorder.rows())
        if block and (len(block) == _BLOCK or step + 1 in (steps, last_learnt)):
            phi, goal = (np.stack(part) for part in zip(*block, strict=True))
            block = []
            share = learning if step < last_learnt else 0
            for number in range(maps):
                aim = goal[:, :, number % bench.channels]
                _add(learnt[number], phi[:, :share, number], aim[:, :share])
                _add(held_out[number], phi[:, share:, number], aim[:, share:])
        if progress:
            progress(step + 1, steps)
    return learnt, held_out


def _each_channel(matrices: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("cij,scj->sci", matrices, x))


def _add(products: Products, phi: np.ndarray, goal: np.ndarray) -> None:
    if phi.size:
        products.add(phi.reshape(-1, phi.shape[-1]), goal.reshape(-1, goal.shape[-1]))
