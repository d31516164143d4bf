"""Task `capacity`: memory capacity over a long window, with five delays at once.

The input is white noise of up to 10 cycles per window. At every step the targets are the input 0,
1/4, 1/2, 3/4 and 1 window of T steps ago; sequences have 2.5 windows (Voelker, Kajic, Eliasmith
2019, section 3.1). T is 1,000, or the number in the name: `capacity-100000`.

A Legendre memory needs no training for this task: see :func:`untrained_network`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.legendre import window_decoders
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.validation import check_integer
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.tasks.white_noise import delayed, white_noise

WINDOW, CYCLES_PER_WINDOW, WINDOWS_PER_SEQUENCE = 1000, 10, 2.5
POSITIONS = np.linspace(0.0, 1.0, 5)
SMALLEST_WINDOW, LARGEST_WINDOW = 25, 1_000_000
_SEQUENCES = {"train": 64, "validation": 16, "test": 16}
_LEAST_SEQUENCES, _STEPS_OF_A_SPLIT = 4, 160_000


def delays(window: int) -> np.ndarray:
    """Return the five delays in steps, shape (5,), int64."""
    return np.rint(POSITIONS * window).astype(np.int64)


def make_data(window: int) -> TaskData:
    """Return the data; there are fewer sequences for long windows, but at least four per part.

    Returns
    -------
    data : TaskData
        Inputs (samples, 2.5 * window, 1), targets (samples, 2.5 * window, 5).
    """
    steps = int(WINDOWS_PER_SEQUENCE * window)
    cycles = CYCLES_PER_WINDOW * WINDOWS_PER_SEQUENCE
    parts = []
    for seed, wanted in enumerate(_SEQUENCES.values()):
        n = max(_LEAST_SEQUENCES, min(wanted, _STEPS_OF_A_SPLIT // steps))
        signals = white_noise(n, steps, min(cycles, steps // 2), seed).astype(np.float32)
        parts.append(Split(signals[:, :, None], delayed(signals, delays(window))))
    return TaskData(*parts)


def make_task(window: int) -> Task:
    """Return the task for a window of `window` steps, 25 to 1,000,000; else raise InputError."""
    window = check_integer("window of task capacity", window, SMALLEST_WINDOW, LARGEST_WINDOW)
    name = "capacity" if window == WINDOW else f"capacity-{window}"
    return Task(
        name,
        "regression",
        n_in=1,
        n_out=len(POSITIONS),
        steps=int(WINDOWS_PER_SEQUENCE * window),
        load=lru_cache(maxsize=1)(lambda: make_data(window)),
    )


def untrained_network(window: int, order: int = 100) -> Network:
    """Return a Legendre memory with a readout of Legendre polynomials.

    Zero-order hold delays an input by half a step on average. The window is therefore one step
    longer than the longest delay, and a delay of k steps is read at k + 1/2.

    Parameters
    ----------
    window : int
        T in steps.
    order : int

    Returns
    -------
    network : Network
        One channel, no hidden units, an output at every step.
    """
    theta = window + 1.0
    decoders = window_decoders(order, (delays(window) + 0.5) / theta)
    layer = LMULayer(
        input_encoders=np.ones((1, 1)),
        hidden_encoders=None,
        memory_encoders=None,
        memory_bias=None,
        memory=Memory.legendre(order, theta),
        hidden=None,
    )
    readout = Readout(np.ascontiguousarray(decoders.T), None)
    name = make_task(window).name
    return Network.from_layers(LMUNetwork((layer,), readout, return_sequences=True, task=name))


TASK = make_task(WINDOW)
