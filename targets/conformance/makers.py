"""From a small float network to each representation of ours, for the cases."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.spiking_network import SpikingNetwork
from targets.conformance.bench import MakeNetwork


def maker(representation: type) -> MakeNetwork:
    """Give the `make_network` that makes networks of a representation.

    Raises
    ------
    InputError
        When the representation is none of ours; a target of its own kind brings its own.
    """
    makers = {
        LMUNetwork: _float,
        IntegerNetwork: _integer,
        SpikingNetwork: _spiking,
        LoihiNetwork: _loihi,
    }
    if representation not in makers:
        raise InputError(
            f"there is no maker of {representation.__name__}; write a function from a float "
            "network and calibration inputs to it."
        )
    return makers[representation]


def _float(network: LMUNetwork, calibration: np.ndarray) -> Any:
    return network


def _integer(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.quantise import quantise

    return quantise(network, calibration)


def _spiking(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.spiking import spike

    return spike(network, calibration, seed=0)


def _loihi(network: LMUNetwork, calibration: np.ndarray) -> Any:
    from converters.loihi_spiking import loihi_spike

    # Few chip steps, for Lava is slow: the window is as many synapses long as by default.
    return loihi_spike(network, calibration, neurons_per_state=200, hold_ms=10.0, tau_ms=20.0)
