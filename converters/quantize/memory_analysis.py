r"""Linear analysis of integer memories: coordinates, predicted error, and stability.

**Coordinates.** In the basis of orthonormal Legendre polynomials, :math:`n_i = m_i / \sqrt{2i+1}`,
the continuous matrix has entries :math:`\sqrt{(2i+1)(2j+1)}` times a sign, and its symmetric part
has only rank two (the signs at ij and ji add up to -2 for even i - j and to 0 for odd): it is
nearly normal. An orthogonal rotation to real Schur form (upper triangular, except for blocks of
2 x 2) or to Hessenberg form (upper triangular with one diagonal below) then makes half of its
entries zero and most others small (Golub, Van Loan, Matrix Computations, 2013, sections 7.4, 7.6).

**Linear map.** Without rounding of messages, an integer memory is

.. math:: n_t = T\, n_{t-1} + X\, x_t + H\, h_{t-1} + b

where n are the neurons' coordinates (`basis @ n` are the Legendre states).

**Error.** The relative rms error is predicted from two causes, whose squares are added. Weights:
the impulse responses R of the float memory and of the matrices of the integers,
:math:`\|\hat R - R\|_F / \|R\|_F`, which is the error for white input. Messages: rounding to a
unit q adds noise of variance q^2/12 at every step (Widrow, Kollar, Quantization Noise, 2008,
chapter 1), which circulates in the memory. Both are sums over time of :math:`A^t Q A^{tT}`, which
are computed by doubling. Feedback from hidden units is neglected.

**Stability.** The matrix of the integers may have eigenvalues beyond 1 although the float one does
not. Over a short sequence that is harmless (:math:`1.0057^{784} = 86` of the smallest directions);
in an endless stream the states grow until they saturate. The spectral radius is
:math:`\lim \|A^n\|^{1/n}` (Gelfand 1941), here with n = 2^20 by squaring, which needs no
eigenvectors: those of a Legendre memory are far too ill-conditioned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag, hessenberg, schur
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from converters.quantize.connections import NOISE, real_matrix
from converters.quantize.sign_taylor import step_matrices
from lmu_deploy.core.integer.graph import host_sentence
from lmu_deploy.core.integer.layered import (
    IntegerMemory,
    SeriesMemory,
    float_layers,
    memory_views,
)
from lmu_deploy.core.integer.memories import sign_matrix
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format, real_gains
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import LMULayer

_BOUND, _CLEAR, _ROUNDS, _ALIKE = 0.5005, 8.0, 20, 0.9
"""Errors of rounding with which ranges are fitted; units of weights from which they are; rounds of
that fit; least cosine of the bases of one form."""


@dataclass(frozen=True)
class Coordinates:
    """Coordinates n of a memory with m = basis @ n and n = inverse @ m.

    Attributes
    ----------
    recurrent : ndarray, shape (states, states)
        The memory's matrix minus the identity, including memory encoders.
    basis, inverse : ndarray, shape (states, states)
    """

    recurrent: np.ndarray
    basis: np.ndarray
    inverse: np.ndarray

    def scaled(self, ranges: np.ndarray) -> Coordinates:
        """Return coordinates in units of `ranges`, shape (states,)."""
        return Coordinates(
            self.recurrent * ranges[None, :] / ranges[:, None],
            self.basis * ranges[None, :],
            self.inverse / ranges[:, None],
        )


def increment(layer: LMULayer) -> np.ndarray:
    """Return the recurrent matrix minus the identity, with memory encoders; (states, states)."""
    memory = layer.memory
    a_bar = memory.a_bar.astype(np.float64) - np.eye(memory.order)
    matrix = np.kron(np.eye(memory.channels), a_bar)
    if layer.memory_encoders is not None:
        matrix += np.kron(layer.memory_encoders.T, memory.b_bar.astype(np.float64)[:, None])
    return matrix


def coordinates(layer: LMULayer, form: str) -> Coordinates:
    """Return coordinates in which a memory's matrix has a sparse form.

    Parameters
    ----------
    layer : LMULayer
        With memory encoders the channels are rotated together, otherwise each separately.
    form : {"schur", "hessenberg"}
    """
    memory = layer.memory
    copies = 1 if layer.memory_encoders is not None else memory.channels
    block = increment(layer)[: memory.size // copies, : memory.size // copies]
    weights = np.tile(np.sqrt(2.0 * np.arange(memory.order) + 1.0), memory.channels // copies)
    orthonormal = block * weights[None, :] / weights[:, None]
    if form == "schur":
        rotated, q = schur(orthonormal, output="real")
    else:
        rotated, q = hessenberg(orthonormal, calc_q=True)
    identity = np.eye(copies)
    return Coordinates(
        np.kron(identity, rotated),
        np.kron(identity, weights[:, None] * q),
        np.kron(identity, q.T / weights[None, :]),
    )


def in_form(fitted: np.ndarray, basis: np.ndarray) -> np.ndarray | None:
    """Return the basis of a form with the signs and lengths of a fitted one; None if they differ.

    Signs and the order of coordinates depend on the LAPACK that computed them.

    Parameters
    ----------
    fitted : ndarray, shape (Legendre states, states)
        Of a memory, as :func:`converters.quantize.realizations.refit_basis` returns it.
    basis : ndarray, shape (Legendre states, states)
        Of :class:`Coordinates`.
    """
    sizes = np.linalg.norm(basis, axis=1, keepdims=True)
    one, other = fitted / sizes, basis / sizes
    lengths = [np.linalg.norm(each, axis=0) for each in (one, other)]
    cosines = (one * other).sum(axis=0) / np.maximum(lengths[0] * lengths[1], 1e-300)
    if np.median(np.abs(cosines)) < _ALIKE:
        return None
    return np.asarray(basis * np.where(cosines < 0.0, -1.0, 1.0) * lengths[0] / lengths[1])


def rounding_ranges(
    n: int, connections: Sequence[tuple[Connection, np.ndarray, bool]]
) -> np.ndarray:
    r"""Return ranges d of the states of a memory with which its weights are rounded ones.

    A weight is the rounded :math:`A_{ij} d_j / d_i`, or :math:`X_{ij} / d_i` of another edge, so
    :math:`\log d_j - \log d_i` lies between two bounds (and d of the input is 1). Least absolute
    deviations give a start, and relaxation (Bellman 1958) goes from there to a solution of all
    bounds if there is one.

    Parameters
    ----------
    n : int
        Number of states.
    connections : sequence of (Connection, ndarray, bool)
        What enters the memory, with the real matrix in units of the integers where all ranges are
        1, and whether it comes from the memory itself.
    """
    upper = np.full((n + 1, n + 1), np.inf)
    """Bounds of x[column] - x[row], with x the logarithms and x[n] that of the input."""
    rows, columns, logs, sizes = ([] for _ in range(4))
    for connection, truth, own in connections:
        now = connection.dequantized
        i, j = np.nonzero(np.abs(truth) > NOISE * np.abs(truth).max(initial=0.0))
        size, unit = np.abs(truth[i, j]), connection.gains[-1][i]
        ratio, j = now[i, j] * np.sign(truth[i, j]), j if own else np.full(len(j), n)
        high, low = ratio + _BOUND * unit, ratio - _BOUND * unit
        with np.errstate(divide="ignore", invalid="ignore"):
            np.minimum.at(upper, (i, j), np.where(high > 0.0, np.log(high / size), np.inf))
            np.minimum.at(upper, (j, i), np.where(low > 0.0, -np.log(low / size), np.inf))
        clear = (ratio > _CLEAR * unit) & (i != j)
        rows.append(i[clear])
        columns.append(j[clear])
        logs.append(np.log(ratio[clear] / size[clear]))
        sizes.append(ratio[clear] / unit[clear])
    i, j, log, size = (np.concatenate(each) for each in (rows, columns, logs, sizes))
    x, weight = np.zeros(n + 1), size**2
    for _ in range(_ROUNDS):
        pairs = np.bincount(i * (n + 1) + j, weight, (n + 1) ** 2).reshape(n + 1, n + 1)
        pairs += pairs.T
        gram = np.diag(pairs.sum(axis=0) + 1e-9 * max(weight.max(initial=0.0), 1.0)) - pairs
        right = np.bincount(j, weight * log, n + 1) - np.bincount(i, weight * log, n + 1)
        x = np.linalg.solve(gram, right)
        weight = size**2 / np.maximum(np.abs(x[j] - x[i] - log) * size, 0.1)
    start = x
    for _ in range(n + 1):
        lower = np.minimum(x, (x[:, None] + upper).min(axis=0))
        if (lower == x).all():
            break
        x = lower
    else:
        x = start
    return np.exp(x[:n] - x[n])


Memory = IntegerMemory | SeriesMemory


def predicted_error(
    layer: LMULayer,
    memory: Memory,
    x: Format,
    x_basis: np.ndarray | None,
    power: float,
    steps: int,
) -> float:
    """Predict the relative rms error of a memory.

    Parameters
    ----------
    layer : LMULayer
        The float layer.
    memory : IntegerMemory or SeriesMemory
    x : Format
        Format of the messages that enter the layer.
    x_basis : ndarray, shape (n_in, messages), or None
        Maps the messages to the layer's input.
    power : float
        Mean of the sum of squares of the float states on the calibration.
    steps : int
        Length of a sequence.

    Returns
    -------
    error : float
        Infinite for an unstable memory.
    """
    if memory.realization == "fir":
        assert isinstance(memory, IntegerMemory)
        return _cut_off(layer, memory, power, steps)
    float_step = np.eye(layer.memory.size) + increment(layer)
    entering = np.kron(layer.input_encoders.T, layer.memory.b_bar.astype(np.float64)[:, None])
    if x_basis is not None:
        entering = entering @ x_basis
    basis = np.eye(memory.size) if memory.basis is None else memory.basis
    drive = real_matrix(memory.input, x.scale, memory.state.scale)
    if isinstance(memory, SeriesMemory):
        step, into, noise = series_matrices(memory, drive)
    else:
        step, into, noise = _integrators(memory, drive)
    with np.errstate(all="ignore"):
        both = np.vstack([entering, into])
        pair = gramian(block_diag(float_step, step), both @ both.T, steps)
        difference = np.hstack([np.eye(layer.memory.size), -basis])
        n = layer.memory.size
        weights = float(np.trace(difference @ pair @ difference.T) / np.trace(pair[:n, :n]))
        rounding = memory.message.scale**2 / 12.0 * np.eye(memory.size)
        messages = basis @ (gramian(step, noise, steps) + rounding) @ basis.T
        total = max(weights, 0.0) + float(np.trace(messages)) / max(power, 1e-30)
    return math.sqrt(total) if math.isfinite(total) else math.inf


def _integrators(
    memory: IntegerMemory, drive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices of a step and of its input, and the covariance of its noise."""
    recurrent = real_matrix(memory.recurrent, memory.message.scale, memory.state.scale)
    noise = recurrent @ recurrent.T * memory.message.scale**2 / 12.0
    return np.eye(memory.size) + recurrent, drive, noise


def series_matrices(
    memory: SeriesMemory, drive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices of a step and of its input, and the covariance of its noise."""
    units = [2.0**s for s in (memory.message_shift, *memory.term_shift.tolist())]
    signs = sign_matrix(memory.order).astype(np.float64)
    gains = [
        np.kron(
            np.eye(memory.channels),
            (real_gains(m, s) / unit)[:, None] * signs,
        )
        for m, s, unit in zip(memory.multiplier, memory.shift, units, strict=True)
    ]
    step, entering = step_matrices(gains, memory.substeps)
    step = step + entering @ real_feedback(memory)
    part, _ = step_matrices(gains, 1)
    noise, carried = np.zeros_like(part), np.zeros_like(part)
    for gain, unit in zip(gains[::-1], units[::-1], strict=True):
        carried = (np.eye(len(part)) + carried) @ gain
        noise += carried @ carried.T * (memory.state.scale * unit) ** 2 / 12.0
    return step, entering @ drive, gramian(part, noise, memory.substeps)


def real_feedback(memory: SeriesMemory) -> np.ndarray:
    """Return the matrix of the memory encoders as they enter c; zero without any."""
    if memory.feedback is None:
        return np.zeros((memory.size, memory.size))
    return real_matrix(memory.feedback, memory.message.scale, memory.state.scale)


def _cut_off(layer: LMULayer, memory: IntegerMemory, power: float, steps: int) -> float:
    """Return the error of a delay line: its cut-off, and the rounding of encoded inputs."""
    assert memory.basis is not None
    encoded = memory.input.weight_bits > 2  # else the taps are the messages themselves
    width = layer.memory.channels if encoded else memory.input.n_in
    a, b = (v.astype(np.float64) for v in (layer.memory.a_bar, layer.memory.b_bar))
    energy = (impulse_response(a, b, max(steps, 1)) ** 2).sum(axis=1)
    total = float(energy[memory.size // width :].sum() / energy.sum())
    if encoded:
        total += float((memory.basis**2).sum()) * memory.state.scale**2 / 12.0 / max(power, 1e-30)
    return math.sqrt(total)


def gramian(step: np.ndarray, each: np.ndarray, steps: int) -> np.ndarray:
    """Sum ``step^t @ each @ step^t.T`` over t; `steps` is rounded up to a power of two."""
    total, power, count = each, step, 1
    while count < steps:
        total = total + power @ total @ power.T
        power, count = power @ power, 2 * count
    return total


@dataclass(frozen=True)
class LinearMemory:
    """Linear map of a memory of n neurons.

    Attributes
    ----------
    step : ndarray, shape (n, n)
        T.
    input : ndarray, shape (n, n_in)
        X; n_in are the messages that enter the layer.
    hidden : ndarray, shape (n, units), or None
        H.
    bias : ndarray, shape (n,), or None
        b.
    """

    step: np.ndarray
    input: np.ndarray
    hidden: np.ndarray | None
    bias: np.ndarray | None


def linear_memory(
    memory: IntegerMemory | SeriesMemory, x: Format, h: Format | None
) -> LinearMemory:
    """Return the linear map of a memory's integers.

    Parameters
    ----------
    memory : IntegerMemory or SeriesMemory
    x : Format
        Format of the messages that enter the layer.
    h : Format or None
        Format of its hidden messages.
    """
    unit = memory.state.scale
    parts = [real_matrix(memory.input, x.scale, unit)]
    if memory.hidden is not None and h is not None:
        parts.append(real_matrix(memory.hidden, h.scale, unit))
    if memory.bias is not None:
        parts.append(memory.bias[:, None] * unit)
    if isinstance(memory, SeriesMemory):
        step, entering, _ = series_matrices(memory, np.hstack(parts))
        parts = np.split(entering, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)
    else:
        recurrent = real_matrix(memory.recurrent, memory.message.scale, unit)
        step = np.eye(memory.size) + recurrent
    rest = iter(parts[1:])
    hidden = None if memory.hidden is None else next(rest)
    bias = None if memory.bias is None else next(rest)[:, 0]
    return LinearMemory(step, parts[0], hidden, bias)


_SQUARINGS = 20
_GROWS = 1.0 + 1e-5
"""Spectral radius beyond which states grow e-fold in 100,000 steps; less may be rounding."""


def spectral_radius(matrix: np.ndarray) -> float:
    """Return the largest magnitude of an eigenvalue of a square matrix, to about 1e-6.

    States that do not influence each other, such as those of different channels, are computed by
    themselves.
    """
    count, group = connected_components(csr_array(matrix != 0), directed=False)
    if count > 1:
        members = [np.flatnonzero(group == number) for number in range(count)]
        return max(spectral_radius(matrix[np.ix_(rows, rows)]) for rows in members)
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
    """Return the matrix of one step of a memory's integers, without feedback of hidden units."""
    if isinstance(memory, SeriesMemory):
        return series_matrices(memory, np.zeros((memory.size, 1)))[0]
    recurrent = real_matrix(memory.recurrent, memory.message.scale, memory.state.scale)
    return np.asarray(np.eye(memory.size) + recurrent)


def _remedy(memory: IntegerMemory | SeriesMemory) -> str:
    if isinstance(memory, SeriesMemory):
        return "quantize with --realization dense-incremental, or"
    slices = len(memory.recurrent.slices)
    forms = "" if memory.realization == "schur" else " or with --realization schur"
    return f"quantize with --slices {slices + 1}{forms}, or" if slices < 3 else ""


def remarks(network: IntegerNetwork) -> list[str]:
    """Return warnings about a memory that breaks no rule of the chip.

    Returns
    -------
    list of str
        A sentence for the layers that run on the host, if any, and one for each memory that
        would grow without bound in an endless stream.
    """
    sentence = host_sentence(network)
    return [*([sentence] if sentence else []), *unstable_memories(network)]


def unstable_memories(network: IntegerNetwork) -> list[str]:
    """Describe each memory that would grow without bound, how fast, and what to do.

    Parameters
    ----------
    network : IntegerNetwork

    Returns
    -------
    list of str
        A sentence for each unstable memory. Feedback from hidden units is neglected, since an
        activation limits it.
    """
    found = []
    truths = float_layers(network.source)
    for place, memory in memory_views(network).items():
        radius = spectral_radius(memory_matrix(memory))
        if radius <= _GROWS:
            continue
        remedy = f"{_remedy(memory)} reset the state between sequences"
        if (truth := truths.get(place.node)) is not None:
            own = spectral_radius(np.eye(truth.memory.size) + increment(truth))
            if own > _GROWS:
                remedy = (
                    f"that of the float network is {own:.5f} already, so reset the state between "
                    "sequences, or train its memory encoders again"
                )
        tenfold = math.log(10.0) / math.log(radius)
        found.append(
            f"the rounded {place} has a spectral radius of {radius:.5f}: in an "
            f"endless stream its states grow tenfold every {tenfold:.3g} steps until they "
            f"saturate; {remedy.strip()}."
        )
    return found
