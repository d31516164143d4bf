"""What the cases share: a run of each example, kept, and the way to say what is wrong.

From a small float network to each representation of ours, for the cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.reference import Trace, run_reference
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.validation import check_choice
from targets.base import Run, Target
from targets.conformance.networks import example

MakeNetwork = Callable[[LMUNetwork, np.ndarray], Any]
"""From a float network and calibration inputs to what the target runs."""

SEED = 7


class ConformanceError(AssertionError):
    """A target breaks a promise; the message says which, with the values."""


def require(kept: Any, message: str) -> None:
    """Raise a ConformanceError unless `kept`."""
    if not kept:
        raise ConformanceError(message)


@dataclass(frozen=True)
class Recorded:
    """A run of an example and what could be seen of it from outside.

    Attributes
    ----------
    run : Run
    given : ndarray
        The inputs that were handed over, as they were afterwards.
    progress : list of (done, total)
    """

    run: Run
    given: np.ndarray
    progress: list[tuple[int, int]]


@lru_cache(maxsize=64)
def made(make_network: MakeNetwork, name: str) -> Any:
    """Give an example as the target's representation; made once."""
    given = example(name)
    return make_network(given.network, given.calibration)


_KEPT: dict[tuple[int, int, str], tuple[Target, MakeNetwork, Recorded]] = {}
"""Runs by target, maker and example; both are held so that no other takes their identity."""


def observed(target: Target, make_network: MakeNetwork, name: str) -> Recorded:
    """Run an example with its states, or give the run of before, for a target may be slow."""
    key = id(target), id(make_network), name
    if key not in _KEPT:
        calls: list[tuple[int, int]] = []
        given = example(name).inputs.copy()
        run = target.run(
            made(make_network, name),
            given,
            record=True,
            seed=SEED,
            progress=lambda done, total: calls.append((done, total)),
        )
        _KEPT[key] = target, make_network, Recorded(run, given, calls)
    return _KEPT[key][2]


def recorded(target: Target, make_network: MakeNetwork, name: str) -> Run:
    """Give the run of an example with its states."""
    return observed(target, make_network, name).run


@lru_cache(maxsize=8)
def reference(name: str) -> Trace:
    """Give what the float reference does on an example."""
    given = example(name)
    return run_reference(given.network, given.inputs, record=True)


def is_spiking(network: Any) -> bool:
    """Whether a network is run by noise and spikes, so that no two inputs run alike."""
    return not isinstance(network, LMUNetwork | IntegerNetwork)


def tolerance(target: Any, network: Any) -> float:
    """How far answers may lie from the reference, as a share of its root mean square.

    A target says so in ``conformance_tolerance``; otherwise 1e-5 holds for a float network, 0.03
    for an integer one, and 0.1 for others.
    """
    usual = 1e-5 if isinstance(network, LMUNetwork) else 0.1
    if isinstance(network, IntegerNetwork):
        usual = 0.03
    return float(getattr(target, "conformance_tolerance", usual))


def deviation(values: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference, as a share of that of `expected`."""
    size = np.sqrt(np.mean(np.square(expected)))
    return float(np.sqrt(np.mean(np.square(np.asarray(values) - expected))) / size)


USUAL = "usual"


def kinds(representation: type) -> tuple[str, ...]:
    """Name the kinds of network that :func:`maker` makes of a representation, the usual first."""
    return tuple(_MAKERS.get(representation, {}))


def maker(representation: type, kind: str = USUAL) -> MakeNetwork:
    """Give the `make_network` that makes networks of a representation.

    Parameters
    ----------
    representation : type
    kind : str
        One of :func:`kinds`; "usual" is there for each, and "dpi" of `SpikingNetwork`: silicon
        neurons and synapses that are differential pair integrators.

    Raises
    ------
    InputError
        When the representation is none of ours (a target of its own kind brings its own), or has
        no such kind.
    """
    if representation not in _MAKERS:
        raise InputError(
            f"there is no maker of {representation.__name__}; write a function from a float "
            "network and calibration inputs to it."
        )
    return _MAKERS[representation][check_choice("kind", kind, kinds(representation))]


def _float(network: LMUNetwork, calibration: np.ndarray) -> Any:
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

    # Few chip steps, for Lava is slow: the window is as many synapses long as by default.
    return loihi_spike(
        network, calibration, neurons_per_state=200, presentation_ms=10.0, tau_ms=20.0
    )


_MAKERS: Mapping[type, Mapping[str, MakeNetwork]] = {
    LMUNetwork: {USUAL: _float},
    IntegerNetwork: {USUAL: _integer},
    SpikingNetwork: {USUAL: _spiking, "dpi": _spiking_on_dpi},
    LoihiNetwork: {USUAL: _loihi},
}
"""By representation and kind."""
