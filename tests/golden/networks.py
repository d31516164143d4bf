"""The networks and inputs of the golden test: the examples, and small ones of every form.

Weights and inputs are drawn from seeds with NumPy's PCG64, whose streams never change; sines are
avoided, so that the inputs do not depend on a mathematics library.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import adapter
import numpy as np

EXAMPLES = (
    "digits",
    "psmnist-lmu",
    "psmnist-parallel",
    "mackey-glass-lmu",
    "mackey-glass-hybrid",
)
SMALL = ("feedback", "stacked", "memory", "window", "mixed", "host-readout")
SAMPLES, STEPS = 3, 12


@cache
def network(name: str) -> Any:
    """Return a network by name."""
    return adapter.load(name) if name in EXAMPLES else _MAKERS[name](_rng(name))


@cache
def inputs(name: str) -> np.ndarray:
    """Return the inputs that a network is run on, (samples, steps, features)."""
    if name == "digits":
        return adapter.first_samples("digits", 2, 8)[0]
    if name.startswith("mackey"):
        return adapter.first_samples("mackey-glass", 2, 2)[0][:, :24]
    if name.startswith("psmnist"):
        return _pixels(2, 32, seed=2)
    return smooth(SAMPLES, STEPS, _N_IN[name], seed=2)


@cache
def calibration(name: str) -> np.ndarray:
    """Return the inputs that a conversion is calibrated on, none of which is run."""
    if name == "digits":
        return adapter.first_samples("digits", 0, 64)[0]
    if name.startswith("mackey"):
        return adapter.first_samples("mackey-glass", 0, 4)[0][:, :48]
    if name.startswith("psmnist"):
        return _pixels(4, 48, seed=3)
    return smooth(24, STEPS, _N_IN[name], seed=3)


def smooth(samples: int, steps: int, features: int, seed: int) -> np.ndarray:
    """Return parabolas through random points, between -1 and 1."""
    rng = np.random.default_rng([2019, seed, features])
    low, middle, high = rng.uniform(-1.0, 1.0, (3, samples, 1, features))
    t = (np.arange(steps) / steps)[None, :, None]
    curves = (
        low * (1.0 - t) * (1.0 - 2.0 * t) + 4.0 * middle * t * (1.0 - t) + high * t * (2 * t - 1)
    )
    return np.clip(curves, -1.0, 1.0)


def _pixels(samples: int, steps: int, seed: int) -> np.ndarray:
    """Return sequences like pixels of handwritten digits: four of five are black."""
    rng = np.random.default_rng([784, seed])
    values = rng.integers(0, 256, (samples, steps, 1)) / 255.0
    return np.where(rng.random(values.shape) < 0.8, 0.0, values)


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng([2019, *name.encode()])


def _array(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw entries whose sums over the first axis are about one, in the type of trained weights."""
    return (rng.uniform(-1.7, 1.7, shape) / np.sqrt(shape[0])).astype(np.float32)


def _feedback(rng: np.random.Generator) -> Any:
    """Every feedback there is, two channels, no bias; one answer."""
    layer = adapter.lmu_layer(
        3,
        10.0,
        2,
        "zoh",
        (_array(rng, 2, 2), 0.2 * _array(rng, 5, 2), 0.1 * _array(rng, 6, 2)),
        None,
        (_array(rng, 6, 5), _array(rng, 2, 5), 0.5 * _array(rng, 5, 5), None, "tanh"),
    )
    return adapter.float_network((layer,), _array(rng, 5, 3), None, False)


def _stacked(rng: np.random.Generator) -> Any:
    """Two layers with biases, other discretizations and activations; answers at every step."""
    first = adapter.lmu_layer(
        4,
        12.0,
        1,
        "bilinear",
        (_array(rng, 1, 1), None, None),
        np.array([0.1], np.float32),
        (_array(rng, 4, 6), _array(rng, 1, 6), None, 0.2 * _array(rng, 6), "relu"),
    )
    second = adapter.lmu_layer(
        3,
        10.0,
        1,
        "zoh",
        (_array(rng, 6, 1), None, None),
        None,
        (_array(rng, 3, 5), None, 0.5 * _array(rng, 5, 5), 0.2 * _array(rng, 5), "hard-tanh"),
    )
    return adapter.float_network((first, second), _array(rng, 5, 2), _array(rng, 2), True)


def _memory(rng: np.random.Generator) -> Any:
    """A memory without hidden units; answers at every step."""
    layer = adapter.lmu_layer(
        4, 12.0, 1, "zoh", (np.ones((1, 1), np.float32), None, None), None, None
    )
    return adapter.float_network((layer,), _array(rng, 4, 2), None, True)


def _window(rng: np.random.Generator) -> Any:
    """Only the input enters the memory, and the units are feed-forward; one answer."""
    layer = adapter.lmu_layer(
        4,
        10.0,
        2,
        "zoh",
        (_array(rng, 2, 2), None, None),
        None,
        (_array(rng, 8, 6), None, None, 0.2 * _array(rng, 6), "relu"),
    )
    return adapter.float_network((layer,), _array(rng, 6, 3), _array(rng, 3), False)


def _mixed(rng: np.random.Generator) -> Any:
    """An LSTM between two LMUs, the second of linear units; answers at every step."""
    first = adapter.lmu_layer(
        3,
        8.0,
        2,
        "zoh",
        (_array(rng, 2, 2), 0.2 * _array(rng, 4, 2), None),
        None,
        (_array(rng, 6, 4), _array(rng, 2, 4), None, _array(rng, 4), "tanh"),
    )
    middle = adapter.lstm_layer(_array(rng, 4, 12), _array(rng, 3, 12), _array(rng, 12))
    last = adapter.lmu_layer(
        4,
        9.0,
        1,
        "euler",
        (_array(rng, 3, 1), None, None),
        None,
        (_array(rng, 4, 5), None, None, None, "linear"),
    )
    return adapter.float_network((first, middle, last), _array(rng, 5, 2), _array(rng, 2), True)


def _host_readout(rng: np.random.Generator) -> Any:
    """An LSTM after an LMU, so that the readout belongs to the host; one answer."""
    first = adapter.lmu_layer(
        3,
        8.0,
        1,
        "zoh",
        (_array(rng, 2, 1), None, 0.1 * _array(rng, 3, 1)),
        None,
        (_array(rng, 3, 4), None, 0.4 * _array(rng, 4, 4), None, "tanh"),
    )
    last = adapter.lstm_layer(_array(rng, 4, 12), _array(rng, 3, 12), _array(rng, 12))
    return adapter.float_network((first, last), _array(rng, 3, 2), None, False)


_MAKERS = {
    "feedback": _feedback,
    "stacked": _stacked,
    "memory": _memory,
    "window": _window,
    "mixed": _mixed,
    "host-readout": _host_readout,
}
_N_IN = {"feedback": 2, "stacked": 1, "memory": 1, "window": 2, "mixed": 2, "host-readout": 2}
