r"""Realization `sign-taylor`: a truncated exponential series whose matrix has entries of +-1.

A step of the memory solves :math:`\theta\,\dot m = A m + B u` for constant u. In s substeps of
length :math:`h = 1 / (\theta s)` and with p terms,

.. math:: w_1 = h (A m + B u), \quad w_k = \tfrac{h}{k} A\, w_{k-1}, \quad
          m \leftarrow m + \sum_{k \le p} w_k .

:func:`plan_series` finds how many terms and substeps a Legendre memory needs. Its error is measured
by impulse responses R: no input of magnitude 1 moves state i further from the float memory's than
:math:`\sum_t |R^{series}_{t,i} - R_{t,i}|` (the norm induced by peak amplitudes; Boyd, Barratt,
Linear Controller Design, 1991, section 5.2). :func:`series_memory` then chooses the integers, with
the ranges of the terms measured on the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from converters.quantize.calibration import Signal
from converters.quantize.connections import (
    AccumulatorNeed,
    Connector,
    Source,
    bits_of,
    round_to_format,
)
from converters.quantize.formats import memory_formats
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layered import SeriesMemory
from lmu_deploy.core.integer.parts import LARGEST_MULTIPLIER, LARGEST_SHIFT, Connection, Format
from lmu_deploy.core.legendre import impulse_response, state_space
from lmu_deploy.core.network import LMULayer, Memory

LARGEST_ERROR = 2.0**-6
"""Largest allowed deviation of a state for inputs of magnitude 1."""

_MOST_TERMS = 8
_MOST_APPLICATIONS = 96
_WINDOWS = 4


@dataclass(frozen=True)
class Plan:
    """A series that is accurate enough.

    Attributes
    ----------
    terms, substeps : int
    error : float
        Largest deviation of any state for inputs of magnitude 1, over four windows.
    """

    terms: int
    substeps: int
    error: float


def plan_series(
    memory: Memory,
    largest_error: float = LARGEST_ERROR,
    acceptable: Callable[[int, int], bool] = lambda terms, substeps: True,
) -> Plan:
    """Find the series with the fewest applications of A, and among those the fewest substeps.

    Parameters
    ----------
    memory : Memory
    largest_error : float
    acceptable : callable, optional
        Further condition on the number of terms and of substeps.

    Raises
    ------
    InputError
        When 96 applications are not enough, as for trained matrices, or the terms are too large.
    """
    steps = max(2, math.ceil(_WINDOWS * memory.theta))
    truth = impulse_response(
        memory.a_bar.astype(np.float64), memory.b_bar.astype(np.float64), steps
    )
    least = math.inf
    for applications in range(1, _MOST_APPLICATIONS + 1):
        for terms in range(min(_MOST_TERMS, applications), 0, -1):
            if applications % terms == 0:
                error = series_error(memory, terms, applications // terms, truth)
                least = min(least, error)
                if error <= largest_error and acceptable(terms, applications // terms):
                    return Plan(terms, applications // terms, error)
    reason = f"the smallest error is {least:.2g}, and {largest_error:.2g} is allowed"
    if least <= largest_error:
        reason = "those that are accurate enough have terms so large that their rounding shows"
    raise InputError(
        f"no series of {_MOST_APPLICATIONS} applications approximates this memory (order "
        f"{memory.order}, theta {memory.theta:g}, discretizer {memory.discretizer}): {reason}; "
        f"choose another realization."
    )


def series_error(memory: Memory, terms: int, substeps: int, truth: np.ndarray) -> float:
    """Return the largest deviation of a state for inputs of magnitude 1.

    Parameters
    ----------
    memory : Memory
    terms, substeps : int
    truth : ndarray, shape (steps, order)
        The float memory's impulse response.
    """
    a, b = state_space(memory.order)
    h = 1.0 / (memory.theta * substeps)
    gains = [h / k * a for k in range(1, terms + 1)]
    with np.errstate(all="ignore"):
        step, entering = step_matrices(gains, substeps)
        response = impulse_response(step, entering @ (h * b), len(truth))
        deviation = np.abs(response - truth).sum(axis=0).max()
    return float(deviation) if np.isfinite(deviation) else math.inf


def step_matrices(gains: list[np.ndarray], substeps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices of a step, for the state m and the constant input c.

    Parameters
    ----------
    gains : list of ndarray, shape (order, order)
        G_k, with ``w_k = G_k @ w_{k-1}``.
    substeps : int

    Returns
    -------
    step, entering : ndarray, shape (order, order)
        ``m = step @ m + entering @ c``.
    """
    identity = np.eye(len(gains[0]))
    from_c, chain = identity, identity
    for gain in gains[1:]:
        chain = gain @ chain
        from_c = from_c + chain
    part = identity + from_c @ gains[0]
    step, entering = identity, np.zeros_like(identity)
    for _ in range(substeps):
        step, entering = part @ step, part @ entering + from_c
    return step, entering


LARGEST_GROWTH = 2.0
"""Largest ratio of terms to states: the rounding of larger terms, which cancel, shows."""

_UNSEEN = 1.25
_UNSEEN_BITS = 0.5
_ROWS = 1024


def series_memory(
    place: str, layer: LMULayer, x: Source, m: Signal, h: Source | None, connector: Connector
) -> tuple[SeriesMemory, Source]:
    """Quantize a memory as a series; see :func:`converters.quantize.realizations.integrators`.

    Raises
    ------
    InputError
        When no series approximates the float memory.
    """
    settings, memory = connector.settings, layer.memory
    limit = LARGEST_GROWTH * m.largest

    def stays_small(terms: int, substeps: int) -> bool:
        return max(_simulate(layer, m, terms, substeps).terms) <= limit

    plan = plan_series(memory, acceptable=stays_small)
    a, b = state_space(memory.order)
    step = 1.0 / (memory.theta * plan.substeps)
    gains = np.stack([step / k * np.diag(np.abs(a)) for k in range(1, plan.terms + 1)])
    seen = _simulate(layer, m, plan.terms, plan.substeps)
    within = replace(m, largest=max(m.largest, seen.states))

    def entering(encoders: np.ndarray) -> np.ndarray:
        """Return the matrix from a population to the states, through encoders (n, channels)."""
        return np.kron(encoders.T, step * b[:, None])

    real_bias = None
    if layer.memory_bias is not None:
        real_bias = entering(layer.memory_bias[None, :])[:, 0]
    inflow = x.inflow(entering(layer.input_encoders))
    if layer.hidden_encoders is not None and h is not None:
        inflow = max(inflow, h.inflow(entering(layer.hidden_encoders)))
    formats = memory_formats(place, within, settings, real_bias, inflow)
    state, message, shift = _coarse_enough(*formats, gains)
    shifts = [_shift_for(widest, state, message) for widest in seen.terms[:-1]]
    source = Source(m, message, "--message-bits")
    units = [state.scale * 2.0**s for s in (shift, *shifts)]
    multiplier, exponent = _as_integers(gains * (np.array(units) / state.scale)[:, None])
    need = _need(memory.order * message.limit, seen, units, settings.accumulator_bits)
    connector.record(f"{place}/series/recurrent", need, source)

    def connection(name: str, encoders: np.ndarray, sender: Source) -> Connection:
        return connector.memory(f"{place}/series/{name}", entering(encoders), sender, state)

    feedback, hidden = None, None
    if layer.memory_encoders is not None:
        feedback = connection("feedback", layer.memory_encoders, source)
    if layer.hidden_encoders is not None and h is not None:
        hidden = connection("hidden", layer.hidden_encoders, h)
    return (
        SeriesMemory(
            memory.channels,
            memory.order,
            plan.substeps,
            state,
            message,
            shift,
            np.array(shifts, dtype=np.int32),
            multiplier,
            exponent,
            connection("input", layer.input_encoders, x),
            feedback,
            hidden,
            None if real_bias is None else round_to_format(real_bias, state),
            settings.accumulator_bits,
        ),
        source,
    )


@dataclass(frozen=True)
class _Seen:
    """Largest magnitudes on the calibration: of m after any substep, of each term, and of S v."""

    states: float
    terms: list[float]
    sums: list[float]


def _simulate(layer: LMULayer, m: Signal, terms: int, substeps: int) -> _Seen:
    r"""Simulate the series in real numbers from states and channel inputs of the calibration.

    The inputs follow from the states: :math:`\bar B u_t = m_t - \bar A m_{t-1}`.
    """
    memory = layer.memory
    shape = (*m.sequences.shape[:2], memory.channels, memory.order)
    after = m.sequences.astype(np.float64).reshape(shape)
    before = np.zeros_like(after)
    before[:, 1:] = after[:, :-1]
    after, before = (v.reshape(-1, memory.order) for v in (after, before))
    every = max(1, len(after) // _ROWS)
    after, before = after[::every], before[::every]
    b_bar = memory.b_bar.astype(np.float64)
    u = (after - before @ memory.a_bar.T.astype(np.float64)) @ b_bar / (b_bar @ b_bar)
    a, b = state_space(memory.order)
    signs, h = a / np.abs(a), 1.0 / (memory.theta * substeps)
    widest, sizes, sums = 0.0, np.zeros(terms), np.zeros(terms)
    for _ in range(substeps):
        vector, drive = before, np.outer(u, h * b)
        for k in range(terms):
            sums[k] = max(sums[k], np.abs(vector @ signs.T).max(initial=0.0))
            vector = drive + vector @ a.T * (h / (k + 1))
            sizes[k] = max(sizes[k], np.abs(vector).max(initial=0.0))
            before, drive = before + vector, np.zeros_like(drive)
        widest = max(widest, np.abs(before).max(initial=0.0))
    return _Seen(float(widest), sizes.tolist(), sums.tolist())


def _coarse_enough(
    state: Format, message: Format, shift: int, gains: np.ndarray
) -> tuple[Format, Format, int]:
    """Make the state coarser if the multipliers would otherwise exceed their 15 bits."""
    excess = math.ceil(math.log2(float(gains.max()) * 2.0**shift / LARGEST_MULTIPLIER))
    fewer = min(max(0, excess), shift)
    return Format(state.bits, state.scale * 2.0**fewer), message, shift - fewer


def _shift_for(widest: float, state: Format, message: Format) -> int:
    """Return the least shift from a term to its message that fits the message's width."""
    if widest <= 0.0:
        return 0
    needed = math.log2(_UNSEEN * widest / (state.scale * message.limit))
    return min(max(0, math.ceil(needed)), LARGEST_SHIFT)


def _as_integers(gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return multipliers of 15 bits and shifts with ``multiplier / 2^shift`` for each gain."""
    _, exponent = np.frexp(gains)
    shift = np.clip(15 - exponent, 0, LARGEST_SHIFT)
    multiplier = np.rint(gains * np.exp2(shift))
    over = multiplier > LARGEST_MULTIPLIER
    shift = np.where(over, np.maximum(shift - 1, 0), shift)
    multiplier = np.clip(np.rint(gains * np.exp2(shift)), 1, LARGEST_MULTIPLIER)
    return multiplier.astype(np.int32), shift.astype(np.int32)


def _need(worst: int, seen: _Seen, units: list[float], accumulator_bits: int) -> AccumulatorNeed:
    """Return the need of the sums S v: from the messages' bound if it fits, else measured."""
    bound = float(bits_of(worst))
    if bound <= accumulator_bits:
        return AccumulatorNeed(0, bound, True)
    measured = max(
        float(bits_of(widest / unit)) for widest, unit in zip(seen.sums, units, strict=True)
    )
    return AccumulatorNeed(0, min(bound, measured + _UNSEEN_BITS), False)
