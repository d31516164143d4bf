"""Decode the window of a Legendre memory: higher orders represent faster signals.

A band-limited signal runs through memories of several orders, and the last `theta` steps are read
back from the states after the last one. Run: python examples/decode_window.py
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.core.legendre import discretize, window_decoders

THETA, STEPS = 200, 1000
FASTEST = 5.0  # periods within a window


def signal(rng: np.random.Generator) -> np.ndarray:
    """Add up sines of random phase, none faster than FASTEST periods in a window."""
    time = np.arange(STEPS)[:, None] / THETA
    periods = np.linspace(0.2, FASTEST, 25)
    waves = np.sin(2 * np.pi * (time * periods + rng.random(len(periods))))
    return waves.sum(axis=1) / np.sqrt(len(periods))


def error(order: int, u: np.ndarray) -> float:
    """Return the root mean square error of the decoded window, relative to the window itself."""
    a_bar, b_bar = discretize(order, THETA)
    m = np.zeros(order)
    for value in u:
        m = a_bar @ m + b_bar * value
    # An input is constant over its step, so the value of k steps ago is centered k + 1/2 steps ago.
    delays = np.arange(THETA) + 0.5
    window = window_decoders(order, delays / THETA) @ m
    truth = u[::-1][:THETA]
    return float(np.sqrt(np.mean((window - truth) ** 2) / np.mean(truth**2)))


def main() -> None:
    """Print the error for a few orders."""
    u = signal(np.random.default_rng(0))
    for order in (4, 8, 12, 16, 24, 32):
        print(f"order {order:2d}: error {error(order, u):.4f}")


if __name__ == "__main__":
    main()
