"""When a target and the float reference part, and how their difference grows, for one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.fidelity.error_maps import ErrorMap, error_map
from lmu_deploy.fidelity.partings import Parting, first_parting, kinds_of, output_errors, size_of
from lmu_deploy.network import LMULayer, LMUNetwork
from targets.base import States

BOUND = 0.05
CHOSEN_SAMPLES = 4


@dataclass(frozen=True)
class Divergence:
    """All of it for one target.

    Attributes
    ----------
    samples : int
        That were recorded by both.
    bound : float
    partings : list of Parting
        Of the first samples, and of the one whose outputs differ most.
    maps : list of ErrorMap
    """

    samples: int
    bound: float
    partings: Sequence[Parting]
    maps: Sequence[ErrorMap]


def diverge(
    states: States,
    reference: States,
    source: LMUNetwork,
    bound: float = BOUND,
    samples: int = CHOSEN_SAMPLES,
) -> Divergence:
    """Find where and how a target's states leave the reference's.

    Parameters
    ----------
    states, reference : States
        Of the same first samples; only those that both recorded are looked at.
    source : LMUNetwork
        Whose memory the reference's states are.
    bound : float
        Of the error, as a share of the rms of the variable's kind.
    samples : int
        How many of the first samples get a Parting; the one with the worst outputs comes after.
    """
    both = min(len(states.m), len(reference.m))
    kinds = list(kinds_of(source, states, reference))
    sizes = {k.name: size_of(k, reference, both) for k in kinds}
    worst = int(np.argmax(output_errors(states, reference, both)))
    chosen = list(dict.fromkeys([*range(min(samples, both)), worst]))
    partings = [first_parting(number, states, reference, kinds, sizes, bound) for number in chosen]
    maps, start = [], 0
    for number, layer in enumerate(source.layers):
        if isinstance(layer, LMULayer) and reference.m.size:
            columns = slice(start, start + layer.memory.size)
            maps.append(error_map(f"layer{number}", layer, columns, states, reference, both))
            start = columns.stop
    return Divergence(both, bound, partings, maps)
