"""Example networks of the conformance cases, with few steps, because targets may be slow.

Windows of ten steps and more, and feedback well below one, suit targets of every kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout

SAMPLES, STEPS = 4, 12
_CALIBRATION_SAMPLES = 32


@dataclass(frozen=True)
class Example:
    """A float network with test inputs and calibration inputs.

    Attributes
    ----------
    network : LMUNetwork
    inputs : ndarray, shape (SAMPLES, STEPS, n_in), float64
    calibration : ndarray, shape (samples, STEPS, n_in), float64
    """

    network: LMUNetwork
    inputs: np.ndarray
    calibration: np.ndarray


@cache
def example(name: str) -> Example:
    """Return an example by name.

    ``recurrent`` has all kinds of feedback and no bias, and an output after the last step;
    ``stacked`` has two layers with biases and an output at every step; ``memory`` has no hidden
    units.
    """
    makers = {"recurrent": _recurrent, "stacked": _stacked, "memory": _memory}
    if name not in makers:
        raise InputError(f"unknown example {name!r}; choose one of {', '.join(makers)}.")
    rng = np.random.default_rng([2019, *name.encode()])
    network = makers[name](rng)
    inputs = _smooth(rng, SAMPLES, network.n_in)
    return Example(network, inputs, _smooth(rng, _CALIBRATION_SAMPLES, network.n_in))


def _recurrent(rng: np.random.Generator) -> LMUNetwork:
    memory = Memory.legendre(3, 10.0, channels=2)
    layer = LMULayer(
        input_encoders=_array(rng, 2, 2),
        hidden_encoders=0.2 * _array(rng, 5, 2),
        memory_encoders=0.1 * _array(rng, 6, 2),
        memory_bias=None,
        memory=memory,
        hidden=Hidden(_array(rng, 6, 5), _array(rng, 2, 5), 0.5 * _array(rng, 5, 5), None, "tanh"),
    )
    return LMUNetwork((layer,), Readout(_array(rng, 5, 3), None))


def _stacked(rng: np.random.Generator) -> LMUNetwork:
    first = LMULayer(
        input_encoders=np.ones((1, 1)),
        hidden_encoders=None,
        memory_encoders=None,
        memory_bias=np.array([0.1]),
        memory=Memory.legendre(4, 12.0),
        hidden=Hidden(_array(rng, 4, 6), _array(rng, 1, 6), None, 0.2 * _array(rng, 6), "relu"),
    )
    second = LMULayer(
        input_encoders=_array(rng, 6, 1),
        hidden_encoders=None,
        memory_encoders=None,
        memory_bias=None,
        memory=Memory.legendre(3, 10.0),
        hidden=Hidden(_array(rng, 3, 5), None, 0.5 * _array(rng, 5, 5), _array(rng, 5), "tanh"),
    )
    readout = Readout(_array(rng, 5, 2), _array(rng, 2))
    return LMUNetwork((first, second), readout, return_sequences=True)


def _memory(rng: np.random.Generator) -> LMUNetwork:
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(4, 12.0), None)
    return LMUNetwork((layer,), Readout(_array(rng, 4, 2), None), return_sequences=True)


def _array(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw entries whose sums over the first axis are about one."""
    return rng.normal(size=shape) / np.sqrt(shape[0])


def _smooth(rng: np.random.Generator, samples: int, features: int) -> np.ndarray:
    """Draw sines of random phase, a half to one and a half periods long; read-only."""
    periods = rng.uniform(0.5, 1.5, size=(samples, 1, features))
    phase = rng.uniform(0.0, 2.0 * np.pi, size=(samples, 1, features))
    t = np.arange(STEPS)[None, :, None] / STEPS
    sines = np.sin(2.0 * np.pi * periods * t + phase)
    sines.flags.writeable = False
    return sines
