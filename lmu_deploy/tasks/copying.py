"""Task `copy`: repeat ten symbols after a long pause.

Ten of eight symbols are shown, then blanks, then a signal; during the next ten steps the network
has to classify the symbols in their order (Hochreiter, Schmidhuber 1997; in this form Arjovsky,
Shah, Bengio 2016, section 4.1). Inputs are one-hot: channels 0 to 7 are the symbols, 8 is the
blank, 9 the signal. Only the last ten steps are evaluated; the accuracy of guessing is 1/8. The
pause between the last symbol and the first answer is 50 steps, or the number in the name:
`copy-100`.
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
    """Return random sequences.

    Returns
    -------
    split : Split
        Inputs (samples, 20 + pause, 10) one-hot; targets (samples, 20 + pause) int64, the symbols
        at the last ten steps and class 0 before, which is not evaluated.
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
    """Return the data for a pause in steps."""
    return TaskData(*(make_split(pause, n, s) for s, n in enumerate(_SEQUENCES.values())))


def make_task(pause: int) -> Task:
    """Return the task with a pause of `pause` steps, 1 to 10,000; else raise InputError."""
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
