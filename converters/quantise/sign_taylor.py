"""Realisation `sign-taylor`: integers for a series, with ranges of its terms on the calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from converters.quantise.accumulators import Need, bits_of
from converters.quantise.calibrate import Signal
from converters.quantise.connector import Connector, Source, integers
from converters.quantise.formats import memory_formats
from converters.quantise.series import plan_series
from lmu_deploy.integer_network import (
    LARGEST_MULTIPLIER,
    LARGEST_SHIFT,
    Connection,
    Format,
    SeriesMemory,
)
from lmu_deploy.legendre import state_space
from lmu_deploy.network import LMULayer

LARGEST_GROWTH = 2.0
"""How large terms may be, in states, before they cancel: larger ones show their roundings."""

_UNSEEN = 1.25
_UNSEEN_BITS = 0.5
_ROWS = 1024


def series_memory(
    place: str, layer: LMULayer, x: Source, m: Signal, h: Source | None, connector: Connector
) -> tuple[SeriesMemory, Source]:
    """Quantise a memory as a series; see :func:`converters.quantise.integrators.integrators`.

    Raises
    ------
    InputError
        When no series follows the float memory.
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
        """Matrix of what goes into the channels through encoders of shape (n, channels)."""
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
            None if real_bias is None else integers(real_bias, state),
            settings.accumulator_bits,
        ),
        source,
    )


@dataclass(frozen=True)
class _Seen:
    """Greatest magnitudes on the calibration: of m after any substep, of each term and S v."""

    states: float
    terms: list[float]
    sums: list[float]


def _simulate(layer: LMULayer, m: Signal, terms: int, substeps: int) -> _Seen:
    r"""Run the series in real numbers from states and channel inputs of the calibration.

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
    """Make a state coarser if a message counts so many of its units that no multiplier holds it."""
    excess = math.ceil(math.log2(float(gains.max()) * 2.0**shift / LARGEST_MULTIPLIER))
    fewer = min(max(0, excess), shift)
    return Format(state.bits, state.scale * 2.0**fewer), message, shift - fewer


def _shift_for(widest: float, state: Format, message: Format) -> int:
    """Least shift from a term to its message that keeps it within the message's width."""
    if widest <= 0.0:
        return 0
    needed = math.log2(_UNSEEN * widest / (state.scale * message.limit))
    return min(max(0, math.ceil(needed)), LARGEST_SHIFT)


def _as_integers(gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers of 15 bits and shifts, ``multiplier / 2^shift`` being each gain."""
    _, exponent = np.frexp(gains)
    shift = np.clip(15 - exponent, 0, LARGEST_SHIFT)
    multiplier = np.rint(gains * np.exp2(shift))
    over = multiplier > LARGEST_MULTIPLIER
    shift = np.where(over, np.maximum(shift - 1, 0), shift)
    multiplier = np.clip(np.rint(gains * np.exp2(shift)), 1, LARGEST_MULTIPLIER)
    return multiplier.astype(np.int32), shift.astype(np.int32)


def _need(worst: int, seen: _Seen, units: list[float], accumulator_bits: int) -> Need:
    """Bits of the sums S v: from the messages' bound where that is enough, else measured."""
    bound = float(bits_of(worst))
    if bound <= accumulator_bits:
        return Need(0, bound, True)
    measured = max(
        float(bits_of(widest / unit)) for widest, unit in zip(seen.sums, units, strict=True)
    )
    return Need(0, min(bound, measured + _UNSEEN_BITS), False)
