r"""Task `mackey-glass`: predict a chaotic series 15 steps ahead.

The series solves :math:`\dot x = 0.2\, x_\tau / (1 + x_\tau^{10}) - 0.1\, x` with
:math:`x_\tau = x(t - 17)` by Euler's method, ten substeps of 0.1 per step (Mackey, Glass 1977;
settings of Voelker, Kajic, Eliasmith 2019, section 3.3, as published with their code). The history
before the first step is 1.2 + 0.2 (U - 0.5) with U uniform in [0, 1). The first 100 steps are
dropped, the remainder is transformed by tanh(x - 1), and the mean over all series is subtracted.

The input at step t is x[t] and the target x[t + 15]. (In the published notebook input and target
are interchanged, so that the target is the past; in the right order the task gives the errors of
the paper.) Of 128 series, 32 are for training, 32 for validation and 64 for testing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from lmu_deploy.core.validation import check_integer
from lmu_deploy.tasks.base import Split, Task, TaskData

DELAY, SUBSTEPS = 17, 10
SERIES, STEPS, WASHOUT = 128, 5000, 100
AHEAD = 15
SEED = 0
_SMALLEST_SERIES = 4


def simulate(n_series: int, steps: int, seed: int) -> np.ndarray:
    """Solve the delay equation from random histories.

    Parameters
    ----------
    n_series, steps : int
    seed : int

    Returns
    -------
    x : ndarray, shape (n_series, steps), float64
    """
    rng = np.random.RandomState(seed)
    length = DELAY * SUBSTEPS
    past = np.ascontiguousarray((1.2 + 0.2 * (rng.rand(n_series, length) - 0.5)).T)
    x = np.full(n_series, 1.2)
    series = np.empty((steps, n_series))
    for substep in range(steps * SUBSTEPS):
        oldest = substep % length
        delayed = past[oldest].copy()
        past[oldest] = x
        power = delayed * delayed
        power = power * power * power * power * power
        x = x + (0.2 * delayed / (1.0 + power) - 0.1 * x) / SUBSTEPS
        if (substep + 1) % SUBSTEPS == 0:
            series[substep // SUBSTEPS] = x
    return np.ascontiguousarray(series.T)


def make_data(steps: int = STEPS, n_series: int = SERIES, seed: int = SEED) -> TaskData:
    """Return the data; quick runs use fewer and shorter series.

    Parameters
    ----------
    steps : int
        Number of steps of a sequence, 1 to 1,000,000.
    n_series : int
        Number of series, at least 4: 1/4 training, 1/4 validation, 1/2 test.
    seed : int

    Returns
    -------
    data : TaskData
        Inputs and targets of shape (samples, steps, 1), ``targets[:, t] = inputs[:, t + 15]``
        wherever both exist.
    """
    steps = check_integer("steps", steps, 1, 1_000_000)
    n_series = check_integer("n_series", n_series, _SMALLEST_SERIES, 100_000)
    raw = simulate(n_series, WASHOUT + steps + AHEAD, seed)[:, WASHOUT:]
    x = np.tanh(raw - 1.0)
    x = (x - x.mean()).astype(np.float32)[:, :, None]
    inputs, targets = x[:, :-AHEAD], x[:, AHEAD:]
    half = n_series // 2
    quarter = half // 2
    parts = slice(0, quarter), slice(quarter, half), slice(half, None)
    return TaskData(*(Split(inputs[part].copy(), targets[part].copy()) for part in parts))


@lru_cache(maxsize=1)
def load() -> TaskData:
    """Return the data of full size."""
    return make_data()


def short_task(steps: int, n_series: int = SERIES, seed: int = SEED) -> Task:
    """Return the task of the same name with shorter or fewer series."""
    make: Callable[[], TaskData] = lru_cache(maxsize=1)(lambda: make_data(steps, n_series, seed))
    return Task("mackey-glass", "regression", n_in=1, n_out=1, steps=steps, load=make)


TASK = Task("mackey-glass", "regression", n_in=1, n_out=1, steps=STEPS, load=load)
