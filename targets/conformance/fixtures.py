"""Fixtures of the conformance cases: example networks in each representation, and their runs.

The examples have few steps, because targets may be slow. Windows of ten steps and more, and
feedback well below one, suit targets of every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import Trace, run_reference
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.validation import check_choice
from targets.base import Run, Target

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


MakeNetwork = Callable[[LMUNetwork, np.ndarray], Any]
"""Converts a float network, with calibration inputs, to the target's representation."""

SEED = 7


class ConformanceError(AssertionError):
    """A target violates the interface; the message has the values."""


def require(condition: Any, message: str) -> None:
    """Raise a ConformanceError unless `condition` is true."""
    if not condition:
        raise ConformanceError(message)


@dataclass(frozen=True)
class Recorded:
    """A run of an example, with its inputs and progress.

    Attributes
    ----------
    run : Run
    given : ndarray
        The inputs after the run.
    progress : list of (done, total)
    """

    run: Run
    given: np.ndarray
    progress: list[tuple[int, int]]


@lru_cache(maxsize=64)
def made(make_network: MakeNetwork, name: str) -> Any:
    """Return an example in the target's representation, converted once."""
    given = example(name)
    return make_network(given.network, given.calibration)


_RUNS: dict[tuple[int, int, str], tuple[Target, MakeNetwork, Recorded]] = {}
"""Runs by target, maker and example; references to both keep their identities unique."""


def observed(target: Target, make_network: MakeNetwork, name: str) -> Recorded:
    """Run an example with states, or return the earlier run, because targets may be slow."""
    key = id(target), id(make_network), name
    if key not in _RUNS:
        calls: list[tuple[int, int]] = []
        given = example(name).inputs.copy()
        run = target.run(
            made(make_network, name),
            given,
            record=True,
            seed=SEED,
            progress=lambda done, total: calls.append((done, total)),
        )
        _RUNS[key] = target, make_network, Recorded(run, given, calls)
    return _RUNS[key][2]


def recorded(target: Target, make_network: MakeNetwork, name: str) -> Run:
    """Return the run of an example with its states."""
    return observed(target, make_network, name).run


@lru_cache(maxsize=8)
def reference(name: str) -> Trace:
    """Return the states and outputs of the float reference on an example."""
    given = example(name)
    return run_reference(given.network, given.inputs, record=True)


def is_spiking(network: Any) -> bool:
    """Return whether a network runs on spiking neurons."""
    return not isinstance(network, Network | LMUNetwork | IntegerNetwork)


def tolerance(target: Any, network: Any) -> float:
    """Return the largest deviation from the reference, relative to its root mean square.

    It is the target's ``conformance_tolerance``; by default 1e-5 for float networks, 0.03 for
    integer networks, and 0.1 for others.
    """
    usual = 1e-5 if isinstance(network, Network | LMUNetwork) else 0.1
    if isinstance(network, IntegerNetwork):
        usual = 0.03
    return float(getattr(target, "conformance_tolerance", usual))


def deviation(values: np.ndarray, expected: np.ndarray) -> float:
    """Return the root mean square of the difference, relative to that of `expected`."""
    size = np.sqrt(np.mean(np.square(expected)))
    return float(np.sqrt(np.mean(np.square(np.asarray(values) - expected))) / size)


USUAL = "usual"


def kinds(representation: type) -> tuple[str, ...]:
    """Return the kinds of network that :func:`maker` supports for a representation."""
    return tuple(_MAKERS.get(representation, {}))


def maker(representation: type, kind: str = USUAL) -> MakeNetwork:
    """Return the function that converts a float network to a representation.

    Parameters
    ----------
    representation : type
    kind : str
        One of :func:`kinds`: "usual", or "dpi" for `SpikingNetwork` with neurons and synapses that
        are differential pair integrators.

    Raises
    ------
    InputError
        When the representation is not one of this package, or has no such kind.
    """
    if representation not in _MAKERS:
        raise InputError(
            f"there is no maker of {representation.__name__}; write a function from a float "
            "network and calibration inputs to it."
        )
    return _MAKERS[representation][check_choice("kind", kind, kinds(representation))]


def _float(network: LMUNetwork, calibration: np.ndarray) -> Any:
    return Network.from_layers(network)


def _layers(network: LMUNetwork, calibration: np.ndarray) -> Any:
    return network


def _integer(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.quantize import quantize

    return quantize(network, calibration)


def _spiking(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.spiking import spike

    return spike(network, calibration, seed=0)


def _spiking_on_dpi(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.spiking import spike

    return spike(network, calibration, neuron="dpi", synapse="dpi", seed=0)


def _loihi(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.loihi import loihi_spike

    # Few chip steps, because Lava is slow; the ratio of window and synapse is the default.
    return loihi_spike(
        network, calibration, neurons_per_state=200, presentation_ms=10.0, tau_ms=20.0
    )


_MAKERS: Mapping[type, Mapping[str, MakeNetwork]] = {
    Network: {USUAL: _float},
    LMUNetwork: {USUAL: _layers},
    IntegerNetwork: {USUAL: _integer},
    SpikingNetwork: {USUAL: _spiking, "dpi": _spiking_on_dpi},
    LoihiNetwork: {USUAL: _loihi},
}
"""By representation and kind."""
