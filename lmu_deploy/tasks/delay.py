"""Task `delay`: give the input as it was some steps ago.

White noise of up to 5 cycles a window, over sequences of four windows; the target is the noise one
window of D steps ago, and the first window, in which there is nothing to give yet, does not count.
D is 100, or the number in the name: `delay-50`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lmu_deploy.core.validation import check_integer
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.tasks.white_noise import delayed, white_noise

WINDOW, CYCLES_PER_WINDOW, WINDOWS_PER_SEQUENCE = 100, 5, 4
SMALLEST_WINDOW, LARGEST_WINDOW = 12, 10_000
_SEQUENCES = {"train": 256, "validation": 64, "test": 64}


def make_data(window: int) -> TaskData:
    """Make the three parts: inputs and targets (samples, 4 * window, 1)."""
    steps = WINDOWS_PER_SEQUENCE * window
    parts = []
    for seed, n in enumerate(_SEQUENCES.values()):
        signals = white_noise(n, steps, CYCLES_PER_WINDOW * WINDOWS_PER_SEQUENCE, seed)
        signals = signals.astype(np.float32)
        parts.append(Split(signals[:, :, None], delayed(signals, np.array([window]))))
    return TaskData(*parts)


def make_task(window: int) -> Task:
    """Give the task for a delay of `window` steps, 12 to 10,000; InputError outside."""
    window = check_integer("window of task delay", window, SMALLEST_WINDOW, LARGEST_WINDOW)
    return Task(
        "delay" if window == WINDOW else f"delay-{window}",
        "regression",
        n_in=1,
        n_out=1,
        steps=WINDOWS_PER_SEQUENCE * window,
        load=lru_cache(maxsize=1)(lambda: make_data(window)),
        washout=window,
    )


TASK = make_task(WINDOW)
