r"""Whether a memory as it is rounded would run away in a stream without end.

The matrix that a memory's integers stand for may have eigenvalues beyond 1 though the float one
has none. Over a sequence that does no harm (:math:`1.0057^{784} = 86` of the smallest directions);
in an endless stream the states grow until they saturate, and the memory is lost. The spectral
radius is :math:`\lim \|A^n\|^{1/n}` (Gelfand 1941), here with n = 2^20 by squaring, which takes no
eigenvectors: those of a Legendre memory are far too ill-conditioned.
"""

from __future__ import annotations

import math

import numpy as np

from converters.quantise.coordinates import increment
from converters.quantise.predict import series_matrices
from converters.quantise.rounding import real_matrix
from lmu_deploy.integer_network import IntegerMemory, IntegerNetwork, SeriesMemory
from lmu_deploy.network import LMULayer

_SQUARINGS = 20
_GROWS = 1.0 + 1e-5
"""Beyond this, states grow e times in 100,000 steps; below, what is measured may be rounding."""


def spectral_radius(matrix: np.ndarray) -> float:
    """Largest magnitude of an eigenvalue of a square matrix, to about 1e-6."""
    power, log = np.asarray(matrix, dtype=np.float64), 0.0
    for squaring in range(_SQUARINGS + 1):
        size = float(np.linalg.norm(power))
        if size == 0.0:
            return 0.0
        log += math.log(size) / 2.0**squaring
        power = power / size
        if squaring < _SQUARINGS:
            power = power @ power
    return math.exp(log)


def memory_matrix(memory: IntegerMemory | SeriesMemory) -> np.ndarray:
    """Matrix of a step that the integers of a memory stand for, less what hidden units add."""
    if isinstance(memory, SeriesMemory):
        return series_matrices(memory, np.zeros((memory.size, 1)))[0]
    recurrent = real_matrix(memory.recurrent, memory.message.scale, memory.state.scale)
    return np.asarray(np.eye(memory.size) + recurrent)


def _remedy(memory: IntegerMemory | SeriesMemory) -> str:
    if isinstance(memory, SeriesMemory):
        return "quantise with --realisation dense-incremental, or"
    slices = len(memory.recurrent.slices)
    forms = "" if memory.realisation == "schur" else " or with --realisation schur"
    return f"quantise with --slices {slices + 1}{forms}, or" if slices < 3 else ""


def growing_memories(network: IntegerNetwork) -> list[str]:
    """Say of each memory that would grow without end how fast, and what to use instead.

    Parameters
    ----------
    network : IntegerNetwork
        What hidden units feed back is left out: an activation limits it.
    """
    found = []
    for number, layer in network.on_chip:
        radius = spectral_radius(memory_matrix(layer.memory))
        if radius <= _GROWS:
            continue
        remedy = f"{_remedy(layer.memory)} reset the state between sequences"
        truth = None if network.source is None else network.source.layers[number]
        if isinstance(truth, LMULayer):
            own = spectral_radius(np.eye(truth.memory.size) + increment(truth))
            if own > _GROWS:
                remedy = (
                    f"that of the float network is {own:.5f} already, so reset the state between "
                    "sequences, or train its memory encoders anew"
                )
        tenfold = math.log(10.0) / math.log(radius)
        found.append(
            f"layer{number}/memory as rounded has a spectral radius of {radius:.5f}: in a stream "
            f"without end its states grow tenfold every {tenfold:.3g} steps until they saturate; "
            f"{remedy.strip()}."
        )
    return found
