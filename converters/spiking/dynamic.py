"""Dynamic calibration: all of W fitted to the filtered spikes of neurons whose states are forced.

In: neurons with all their imperfections, the memory's dynamics in scaled states, trajectories of
those states. Out: W, shape (channels, order, order * neurons), as spiking_network.py defines it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.spiking.batch import Batch
from converters.spiking.bench import Bench, Chip, Driven, Fit, Progress, part
from converters.spiking.ridge import Products, fit

DYNAMIC_RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_NOISE_SHARE = (0.02, 0.10)
_EVERY_MS = 5.0
_BLOCK = 20
_NEURONS_AT_ONCE = 50_000
"""Of all chips and samples: more do not go faster."""
_PRODUCTS_AT_ONCE = 10_000_000
"""Sums of products of all chips, 16 bytes each with those of the held-out part."""


def dynamic(
    bench: Bench,
    targets: np.ndarray,
    trajectory: np.ndarray,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Fit:
    """Force the states along a trajectory with slow noise, and fit all of W to A' x at once.

    The populations are driven by x = trajectory + noise (2 to 10 % of the range, as slow as the
    synapse, drawn for each sample); W is the ridge regression from the spikes filtered by the
    synapse to A' x filtered alike, so that it makes up for mismatch, for what neurons remember,
    and for what the synapse adds. The last fifth of the samples (of the time, if there are fewer
    than five) is held out and chooses the regularisation.

    Parameters
    ----------
    bench : Bench
        A :class:`converters.spiking.bench.Chip`, or other neurons.
    targets : ndarray, shape (channels, order, order)
        A' in scaled states.
    trajectory : ndarray, shape (steps, samples, channels, order)
        Scaled states at every step of the simulation.
    rng : Generator
    progress : callable, optional
        Called with (steps done, steps in all).
    """
    samples = trajectory.shape[1]
    recorder = _Recorder(bench, bench.neurons(samples, rng), 1, samples, targets, rng)
    return _measured(recorder, trajectory, progress)[0]


def dynamic_for_each(
    chips: Sequence[Chip],
    targets: np.ndarray,
    trajectory: np.ndarray,
    seed: Sequence[int],
    progress: Progress | None = None,
) -> list[Fit]:
    """Calibrate several chips, as many at once as is quick; each fit is that of its chip alone.

    Parameters
    ----------
    chips : sequence of Chip
        Alike but for their devices.
    targets, trajectory
        As for :func:`dynamic`.
    seed : sequence of int
        Of the generator that :func:`dynamic` would be given, for every chip.
    progress : callable, optional
        Called with (steps done, steps in all).
    """
    together = _together(chips[0], trajectory.shape[1])
    groups = [chips[i : i + together] for i in range(0, len(chips), together)]
    samples = trajectory.shape[1]
    found: list[Fit] = []
    for number, group in enumerate(groups):
        rng = np.random.default_rng(seed)
        driven = Batch(group).neurons(samples, rng)
        recorder = _Recorder(group[0], driven, len(group), samples, targets, rng)
        found += _measured(recorder, trajectory, part(progress, number, len(groups)))
    return found


def _together(chip: Chip, samples: int) -> int:
    by_speed = _NEURONS_AT_ONCE // (samples * chip.populations.encoders.size)
    features = chip.order * chip.neurons_per_state
    by_memory = _PRODUCTS_AT_ONCE // (chip.channels * features**2)
    return max(1, min(by_speed, by_memory))


def _measured(recorder: _Recorder, trajectory: np.ndarray, progress: Progress | None) -> list[Fit]:
    """Drive the neurons along the trajectory; give the fit of each chip."""
    steps, samples = trajectory.shape[:2]
    bench, maps = recorder.bench, recorder.chips * recorder.bench.channels
    features = bench.order * bench.neurons_per_state
    train = [Products(features, bench.order) for _ in range(maps)]
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
                _add(train[number], phi[:, :share, number], aim[:, :share])
                _add(held_out[number], phi[:, share:, number], aim[:, share:])
        if progress:
            progress(step + 1, steps)
    ends = range(0, maps, bench.channels)
    return [_choose(*(p[i : i + bench.channels] for p in (train, held_out))) for i in ends]


class _Recorder:
    """Forced neurons, their spikes behind the synapse, and A' x behind the same synapse.

    Parameters
    ----------
    bench : Bench
        Any of the chips.
    driven : Driven
        Neurons of all chips, chip by chip, that have not moved yet.
    chips, samples : int
    targets, rng
        As for :func:`dynamic`.
    """

    def __init__(
        self,
        bench: Bench,
        driven: Driven,
        chips: int,
        samples: int,
        targets: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        self.bench, self.driven, self.chips = bench, driven, chips
        self.targets, self.rng = targets.astype(np.float32), rng
        self.decay = np.float32(np.exp(-bench.dt_ms / bench.tau_ms))
        shape = (samples, bench.channels, bench.order)
        self.size = rng.uniform(*_NOISE_SHARE, (samples, 1, 1)).astype(np.float32)
        self.noise = rng.standard_normal(shape).astype(np.float32)
        cells = (samples, chips * bench.channels * bench.order, bench.neurons_per_state)
        self.filtered = np.zeros(cells, dtype=np.float32)
        self.goal = np.zeros(shape, dtype=np.float32)

    def advance(self, states: np.ndarray) -> None:
        """Move by one step; `states` has shape (samples, channels, order)."""
        x = states + self.size * self.noise
        spikes = self.driven.step(x.reshape(len(x), -1))
        hertz = np.float32((1.0 - self.decay) / (self.bench.dt_ms * 1e-3))
        self.filtered *= self.decay
        self.filtered += hertz * spikes
        push = np.einsum("cij,scj->sci", self.targets, x)
        self.goal = self.decay * self.goal + (1 - self.decay) * push
        fresh = self.rng.standard_normal(self.noise.shape).astype(np.float32)
        self.noise = self.decay * self.noise + np.sqrt(1 - self.decay**2) * fresh

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Give features (samples, chips * channels, features), goal (samples, channels, order)."""
        shape = (len(self.filtered), self.chips * self.bench.channels, -1)
        return self.filtered.reshape(shape).copy(), self.goal


def _add(products: Products, phi: np.ndarray, goal: np.ndarray) -> None:
    if phi.size:
        products.add(phi.reshape(-1, phi.shape[-1]), goal.reshape(-1, goal.shape[-1]))


def _choose(train: list[Products], held_out: list[Products]) -> Fit:
    """Take the regularisation with the least error on held-out time, all channels together."""
    candidates = [fit(products, DYNAMIC_RIDGES) for products in train]
    errors = [
        float(
            np.sqrt(
                np.mean(
                    [h.relative_error(w[r]) ** 2 for h, w in zip(held_out, candidates, strict=True)]
                )
            )
        )
        for r in range(len(DYNAMIC_RIDGES))
    ]
    best = int(np.argmin(errors))
    weights = np.stack([maps[best].T for maps in candidates])
    return Fit(weights, DYNAMIC_RIDGES[best], errors[best])
