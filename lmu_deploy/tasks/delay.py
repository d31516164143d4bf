"""Task `delay`: reproduce the input of some steps ago.

The input is white noise of up to 5 cycles per window, in sequences of four windows. The target is
the input one window of D steps ago; the first window is not evaluated. D is 100, or the number in
the name: `delay-50`.
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
    """Return the data, with inputs and targets (samples, 4 * window, 1)."""
    steps = WINDOWS_PER_SEQUENCE * window
    parts = []
    for seed, n in enumerate(_SEQUENCES.values()):
        signals = white_noise(n, steps, CYCLES_PER_WINDOW * WINDOWS_PER_SEQUENCE, seed)
        signals = signals.astype(np.float32)
        parts.append(Split(signals[:, :, None], delayed(signals, np.array([window]))))
    return TaskData(*parts)


def make_task(window: int) -> Task:
    """Return the task for a delay of `window` steps, 12 to 10,000; else raise InputError."""
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
