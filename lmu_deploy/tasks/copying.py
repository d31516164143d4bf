"""Task `copy`: repeat ten symbols after a long pause.

Ten symbols out of eight are shown, then blanks, then at one step a signal to begin; over the next
ten steps the symbols have to be named in their order (Hochreiter, Schmidhuber 1997; in this form
Arjovsky, Shah, Bengio 2016, section 4.1). Inputs are one-hot: channels 0 to 7 the symbols, 8 the
blank, 9 the signal. Only the ten answers count; guessing gets 1/8 of them. The pause between the
last symbol and the first answer is 50 steps, or the number in the name: `copy-100`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lmu_deploy.core.validation import check_integer
from lmu_deploy.tasks.base import Split, Task, TaskData

PAUSE = 50
SYMBOLS, LENGTH = 8, 10
BLANK, SIGNAL = 8, 9
SMALLEST_PAUSE, LARGEST_PAUSE = 1, 10_000
_SEQUENCES = {"train": 5000, "validation": 500, "test": 1000}


def make_split(pause: int, samples: int, seed: int) -> Split:
    """Draw sequences.

    Returns
    -------
    split : Split
        Inputs (samples, 20 + pause, 10) one-hot; targets (samples, 20 + pause) int64, the symbols
        at the last ten steps and class 0 before, where no answer counts.
    """
    rng = np.random.default_rng([seed, pause])
    symbols = rng.integers(SYMBOLS, size=(samples, LENGTH))
    steps = 2 * LENGTH + pause
    shown = np.full((samples, steps), BLANK)
    shown[:, :LENGTH] = symbols
    shown[:, LENGTH + pause - 1] = SIGNAL
    targets = np.zeros((samples, steps), np.int64)
    targets[:, -LENGTH:] = symbols
    return Split(np.eye(SYMBOLS + 2, dtype=np.float32)[shown], targets)


def make_data(pause: int) -> TaskData:
    """Make the three parts."""
    return TaskData(*(make_split(pause, n, s) for s, n in enumerate(_SEQUENCES.values())))


def make_task(pause: int) -> Task:
    """Give the task with a pause of `pause` steps, 1 to 10,000; InputError outside."""
    pause = check_integer("pause of task copy", pause, SMALLEST_PAUSE, LARGEST_PAUSE)
    return Task(
        "copy" if pause == PAUSE else f"copy-{pause}",
        "classification",
        n_in=SYMBOLS + 2,
        n_out=SYMBOLS,
        steps=2 * LENGTH + pause,
        load=lru_cache(maxsize=1)(lambda: make_data(pause)),
        washout=LENGTH + pause,
        every_step=True,
    )


TASK = make_task(PAUSE)
