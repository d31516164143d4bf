r"""Task `mackey-glass`: predict a chaotic series 15 steps into the future.

The series solves :math:`\dot x = 0.2\, x_\tau / (1 + x_\tau^{10}) - 0.1\, x` with
:math:`x_\tau = x(t - 17)` by Euler's method, ten substeps of 0.1 to a step (Mackey, Glass 1977;
settings of Voelker, Kajic, Eliasmith 2019, section 3.3, as published with their code). The history
before the first step is 1.2 + 0.2 (U - 0.5) with U uniform in [0, 1), the first 100 steps are
dropped, the rest goes through tanh(x - 1), and the mean of all series is taken off.

At step t a network sees x[t] and has to answer x[t + 15]. (The published notebook had input and
target swapped, which asks for the past; with the two in their places it gives the paper's errors.)
Of 128 series, 32 train, 32 validate and 64 test.
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
    """Make the three parts of the task; fewer and shorter series for quick runs.

    Parameters
    ----------
    steps : int
        Steps of a sequence, 1 to 1,000,000.
    n_series : int
        At least 4: a quarter trains, a quarter validates, half tests.
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
    """Give the task at its full size."""
    return make_data()


def short_task(steps: int, n_series: int = SERIES, seed: int = SEED) -> Task:
    """Give the same task with shorter or fewer series; it keeps its name."""
    make: Callable[[], TaskData] = lru_cache(maxsize=1)(lambda: make_data(steps, n_series, seed))
    return Task("mackey-glass", "regression", n_in=1, n_out=1, steps=steps, load=make)


TASK = Task("mackey-glass", "regression", n_in=1, n_out=1, steps=STEPS, load=load)
