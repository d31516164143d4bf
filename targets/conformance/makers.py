"""From a small float network to each representation of ours, for the cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmu_deploy.checks import check_choice
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.spiking_network import SpikingNetwork
from targets.conformance.bench import MakeNetwork

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
    from converters.quantise import quantise

    return quantise(network, calibration)


def _spiking(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.spiking import spike

    return spike(network, calibration, seed=0)


def _spiking_on_dpi(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.spiking import spike

    return spike(network, calibration, neuron="dpi", synapse="dpi", seed=0)


def _loihi(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.loihi_spiking import loihi_spike

    # Few chip steps, for Lava is slow: the window is as many synapses long as by default.
    return loihi_spike(network, calibration, neurons_per_state=200, hold_ms=10.0, tau_ms=20.0)


_MAKERS: Mapping[type, Mapping[str, MakeNetwork]] = {
    LMUNetwork: {USUAL: _float},
    IntegerNetwork: {USUAL: _integer},
    SpikingNetwork: {USUAL: _spiking, "dpi": _spiking_on_dpi},
    LoihiNetwork: {USUAL: _loihi},
}
"""By representation and kind."""
