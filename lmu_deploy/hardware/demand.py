"""What neurons ask of the core on which they sit, whatever network they are of.

What counts, after Davies et al., IEEE Micro 38(1), 2018: a synapse is stored where its target
sits, and takes a weight's bits; a core has one input axon for each neuron, anywhere, that reaches
it, and a neuron one output axon for each core that it reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array


@dataclass(frozen=True)
class Demand:
    """What each neuron of a population asks of its core.

    Attributes
    ----------
    population : str
    synaptic_bytes : ndarray, shape (neurons,), float64
    sources : csr_array of bool, shape (neurons, all senders)
        Which senders reach it.
    """

    population: str
    synaptic_bytes: np.ndarray
    sources: csr_array


@dataclass(frozen=True)
class Sender:
    """Neurons that send: a part of the columns of all sources, in their order.

    Attributes
    ----------
    population : str
    neurons : int
    outside : bool
        They sit on no core: the input, or what a host sends.
    """

    population: str
    neurons: int
    outside: bool
