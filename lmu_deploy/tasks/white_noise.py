"""Band-limited white noise and its delayed copies, for the tasks that ask what a memory holds."""

from __future__ import annotations

import numpy as np

RMS = 0.5


def white_noise(n_signals: int, steps: int, cycles: float, seed: int) -> np.ndarray:
    """Draw signals whose power is flat up to a highest frequency and zero above.

    Each starts at its sample closest to zero, so that it does not jump out of the silence before.

    Parameters
    ----------
    n_signals, steps : int
    cycles : float
        Highest frequency, in cycles over the whole signal; at least 1, at most ``steps / 2``.
    seed : int

    Returns
    -------
    signals : ndarray, shape (n_signals, steps), float64
        Without mean, of root mean square 0.5.
    """
    rng = np.random.default_rng(seed)
    highest = int(cycles)
    spectrum = np.zeros((n_signals, steps // 2 + 1), np.complex128)
    parts = rng.normal(size=(2, n_signals, highest))
    spectrum[:, 1 : highest + 1] = parts[0] + 1j * parts[1]
    signals = np.fft.irfft(spectrum, n=steps, axis=1)
    signals *= RMS / np.sqrt(np.mean(signals**2, axis=1, keepdims=True))
    starts = np.abs(signals).argmin(axis=1)
    return np.stack([np.roll(x, -s) for x, s in zip(signals, starts, strict=True)])


def delayed(signals: np.ndarray, delays: np.ndarray) -> np.ndarray:
    """Give each signal as it was some steps ago; zero before its start.

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
