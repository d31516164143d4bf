"""Tasks that measure memory: `delay` and `capacity` on white noise, and `copy`.

Delay
    The input is white noise of up to 5 cycles per window, in sequences of four windows. The target
    is the input one window of D steps ago; the first window is not evaluated. D is 100, or the
    number in the name: `delay-50`.
Capacity
    The input is white noise of up to 10 cycles per window. At every step the targets are the input
    0, 1/4, 1/2, 3/4 and 1 window of T steps ago; sequences have 2.5 windows (Voelker, Kajic,
    Eliasmith 2019, section 3.1). T is 1,000, or the number in the name: `capacity-100000`. A
    Legendre memory needs no training for this task: see :func:`untrained_network`.
Copy
    Ten of eight symbols are shown, then blanks, then a signal; during the next ten steps the
    network has to classify the symbols in their order (Hochreiter, Schmidhuber 1997; in this form
    Arjovsky, Shah, Bengio 2016, section 4.1). Inputs are one-hot: channels 0 to 7 are the symbols,
    8 is the blank, 9 the signal. Only the last ten steps are evaluated; the accuracy of guessing is
    1/8. The pause between the last symbol and the first answer is 50 steps, or the number in the
    name: `copy-100`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.legendre import window_decoders
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.validation import check_integer
from lmu_deploy.tasks.base import Split, Task, TaskData

RMS = 0.5


def white_noise(n_signals: int, steps: int, cycles: float, seed: int) -> np.ndarray:
    """Return random signals with constant power up to a highest frequency and none above.

    Each signal is rotated to begin at its sample closest to zero, to avoid an initial jump.

    Parameters
    ----------
    n_signals, steps : int
    cycles : float
        Highest frequency, in cycles over the whole signal; at least 1, at most ``steps / 2``.
    seed : int

    Returns
    -------
    signals : ndarray, shape (n_signals, steps), float64
        Signals of zero mean and root mean square 0.5.
    """
    rng = np.random.default_rng(seed)
    highest = int(cycles)
    spectrum = np.zeros((n_signals, steps // 2 + 1), np.complex128)
    parts = rng.normal(size=(2, n_signals, highest))
    spectrum[:, 1 : highest + 1] = parts[0] + 1j * parts[1]
    signals = np.fft.irfft(spectrum, n=steps, axis=1)
    signals *= RMS / np.sqrt(np.mean(signals**2, axis=1, keepdims=True))
    smallest = np.abs(signals).argmin(axis=1)
    return np.stack([np.roll(x, -s) for x, s in zip(signals, smallest, strict=True)])


def delayed(signals: np.ndarray, delays: np.ndarray) -> np.ndarray:
    """Return delayed copies of signals, zero before the start of a signal.

    Parameters
    ----------
    signals : ndarray, shape (n_signals, steps)
    delays : ndarray of int, shape (n_delays,)

    Returns
    -------
    copies : ndarray, shape (n_signals, steps, n_delays)
        ``copies[:, t, k] = signals[:, t - delays[k]]``.
    """
    copies = np.zeros((*signals.shape, len(delays)), signals.dtype)
    for k, delay in enumerate(delays):
        copies[:, delay:, k] = signals[:, : signals.shape[1] - delay]
    return copies


DELAY_WINDOW, _DELAY_CYCLES, _DELAY_WINDOWS = 100, 5, 4
_SHORTEST_DELAY, _LONGEST_DELAY = 12, 10_000
_DELAY_SEQUENCES = {"train": 256, "validation": 64, "test": 64}


def make_delay_data(window: int) -> TaskData:
    """Return the data, with inputs and targets (samples, 4 * window, 1)."""
    steps = _DELAY_WINDOWS * window
    parts = []
    for seed, n in enumerate(_DELAY_SEQUENCES.values()):
        signals = white_noise(n, steps, _DELAY_CYCLES * _DELAY_WINDOWS, seed)
        signals = signals.astype(np.float32)
        parts.append(Split(signals[:, :, None], delayed(signals, np.array([window]))))
    return TaskData(*parts)


def make_delay(window: int) -> Task:
    """Return the task for a delay of `window` steps, 12 to 10,000; else raise InputError."""
    window = check_integer("window of task delay", window, _SHORTEST_DELAY, _LONGEST_DELAY)
    return Task(
        "delay" if window == DELAY_WINDOW else f"delay-{window}",
        "regression",
        n_in=1,
        n_out=1,
        steps=_DELAY_WINDOWS * window,
        load=lru_cache(maxsize=1)(lambda: make_delay_data(window)),
        washout=window,
    )


DELAY = make_delay(DELAY_WINDOW)


CAPACITY_WINDOW, _CAPACITY_CYCLES, _CAPACITY_WINDOWS = 1000, 10, 2.5
POSITIONS = np.linspace(0.0, 1.0, 5)
_SMALLEST_WINDOW, _LARGEST_WINDOW = 25, 1_000_000
_CAPACITY_SEQUENCES = {"train": 64, "validation": 16, "test": 16}
_LEAST_SEQUENCES, _STEPS_OF_A_SPLIT = 4, 160_000


def delays(window: int) -> np.ndarray:
    """Return the five delays in steps, shape (5,), int64."""
    return np.rint(POSITIONS * window).astype(np.int64)


def make_capacity_data(window: int) -> TaskData:
    """Return the data; there are fewer sequences for long windows, but at least four per part.

    Returns
    -------
    data : TaskData
        Inputs (samples, 2.5 * window, 1), targets (samples, 2.5 * window, 5).
    """
    steps = int(_CAPACITY_WINDOWS * window)
    cycles = _CAPACITY_CYCLES * _CAPACITY_WINDOWS
    parts = []
    for seed, wanted in enumerate(_CAPACITY_SEQUENCES.values()):
        n = max(_LEAST_SEQUENCES, min(wanted, _STEPS_OF_A_SPLIT // steps))
        signals = white_noise(n, steps, min(cycles, steps // 2), seed).astype(np.float32)
        parts.append(Split(signals[:, :, None], delayed(signals, delays(window))))
    return TaskData(*parts)


def make_capacity(window: int) -> Task:
    """Return the task for a window of `window` steps, 25 to 1,000,000; else raise InputError."""
    window = check_integer("window of task capacity", window, _SMALLEST_WINDOW, _LARGEST_WINDOW)
    name = "capacity" if window == CAPACITY_WINDOW else f"capacity-{window}"
    return Task(
        name,
        "regression",
        n_in=1,
        n_out=len(POSITIONS),
        steps=int(_CAPACITY_WINDOWS * window),
        load=lru_cache(maxsize=1)(lambda: make_capacity_data(window)),
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
    name = make_capacity(window).name
    return Network.from_layers(LMUNetwork((layer,), readout, return_sequences=True, task=name))


CAPACITY = make_capacity(CAPACITY_WINDOW)


COPY_PAUSE = 50
SYMBOLS, LENGTH = 8, 10
BLANK, SIGNAL = 8, 9
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1, 10_000
_COPY_SEQUENCES = {"train": 5000, "validation": 500, "test": 1000}


def make_copies(pause: int, samples: int, seed: int) -> Split:
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


def make_copy_data(pause: int) -> TaskData:
    """Return the data for a pause in steps."""
    return TaskData(*(make_copies(pause, n, s) for s, n in enumerate(_COPY_SEQUENCES.values())))


def make_copy(pause: int) -> Task:
    """Return the task with a pause of `pause` steps, 1 to 10,000; else raise InputError."""
    pause = check_integer("pause of task copy", pause, _SHORTEST_PAUSE, _LONGEST_PAUSE)
    return Task(
        "copy" if pause == COPY_PAUSE else f"copy-{pause}",
        "classification",
        n_in=SYMBOLS + 2,
        n_out=SYMBOLS,
        steps=2 * LENGTH + pause,
        load=lru_cache(maxsize=1)(lambda: make_copy_data(pause)),
        washout=LENGTH + pause,
        every_step=True,
    )


COPY = make_copy(COPY_PAUSE)
