"""Band-limited white noise and delayed copies, for tasks that measure memory."""

from __future__ import annotations

import numpy as np

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
