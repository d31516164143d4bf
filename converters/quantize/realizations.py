r"""Realizations of a memory as integrators or as a delay line; the refit of integrators.

**Delay line** (realization `fir`). The response of the memory is folded into the readers of a delay
line of messages. The states are :math:`m_t = \sum_{k<T} \bar A^k \bar B\, u_{t-k}`, which are those
of the memory as long as a sequence has no more steps than the delay line has taps, T.

**Integrators** (realizations `dense-incremental`, `schur` and `hessenberg`).

The integers are those of the memory's matrix minus the identity, in the Legendre basis or in the
coordinates of :mod:`.memory_analysis`.

**Refit.** Rounding a memory's matrix changes its dynamics, yet its states are still nearly the true
memory in other coordinates. With n the neurons of the rounded memory and m the true one, both with
the same inputs and hidden units, the basis

.. math:: P = \arg\min_P \textstyle\sum_{t \le T} \|m_t - P n_t\|^2
          + T \|(P - P_0)\, \mathrm{diag}(\nu)\|^2

replaces the nominal basis P_0 for everything that reads the memory. nu is the uncertainty of a
neuron: the rounding of its message, of variance q^2 / 12, and 1 % of its magnitude, for messages
that saturate and hidden units that differ. Without it the fit would depend on differences between
neurons that do not exist on the chip. If P is no better than P_0 on sequences that were not used
for the fit, P_0 is kept. On psMNIST, in one slice, the error of the memory falls from 30 % to 3 %.

**Range.** A matrix in one slice may respond several times as strongly as the true one (psMNIST,
order 468: 4.7 times, with eigenvalues beyond 1), so the range of its messages is taken from a
simulation of the rounded memory.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.linalg import solve

from converters.quantize.calibration import Signal, clip_range
from converters.quantize.connections import Connector, Source, round_to_format
from converters.quantize.formats import FAINTEST, memory_formats
from converters.quantize.memory_analysis import LinearMemory, coordinates, increment, linear_memory
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layered import IntegerMemory
from lmu_deploy.core.integer.parts import Connection, Format, largest
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import LMULayer

_TAPPED_ROWS = 4096
_SEQUENCE_VALUES = 2**21


def delay_line(
    place: str, layer: LMULayer, x: Source, connector: Connector
) -> tuple[IntegerMemory, Source]:
    """Quantize a memory as a delay line; see :func:`converters.quantize.realizations.integrators`.

    Raises
    ------
    InputError
        When the memory has feedback or a bias, or the delay line would have more taps than the
        fan-in of a neuron allows.
    """
    for name in ("hidden_encoders", "memory_encoders", "memory_bias"):
        if getattr(layer, name) is not None:
            raise InputError(
                f"quantize: {place} has {name}, and realization fir has nothing but delayed "
                "inputs; choose another realization."
            )
    settings, memory = connector.settings, layer.memory
    encoders = np.asarray(layer.input_encoders, dtype=np.float64)
    to_channels = encoders if x.basis is None else x.basis.T @ encoders
    direct = len(to_channels) <= memory.channels
    signal, form, option = x.signal, x.format, x.option
    if not direct:
        signal = _encoded(x.signal, to_channels)
        bits, option = settings.message_bits, "--message-bits"
        form = Format(bits, clip_range(signal, settings.calibration_method, bits) / largest(bits))
        to_channels = np.eye(memory.channels)
    width = len(to_channels)
    taps = settings.taps or math.ceil(memory.theta)
    if (states := taps * width) > int(settings.profile.fan_in):
        raise InputError(
            f"quantize: {place} needs {taps} taps of {width} lines, {states} neurons, and a neuron "
            f"of profile {settings.profile.name} has a fan-in of {int(settings.profile.fan_in)}; "
            "choose another realization or fewer --taps."
        )
    response = impulse_response(memory.a_bar.astype(np.float64), memory.b_bar, taps)
    basis = np.einsum("ki,jc->cikj", response, to_channels).reshape(memory.size, states)
    into_first_tap = exact(np.eye(states, width, dtype=np.int8), settings.accumulator_bits)
    if not direct:
        matrix = np.zeros((states, layer.n_in))
        matrix[:width] = encoders.T
        into_first_tap = connector.memory(f"{place}/memory/input", matrix, x, form)
    tapped = Source(_tapped(signal, taps), form, option, basis)
    return (
        IntegerMemory(
            form,
            form,
            0,
            _shift_by_one(taps, width, settings.accumulator_bits),
            into_first_tap,
            None,
            None,
            "fir",
            basis,
        ),
        tapped,
    )


def _shift_by_one(taps: int, width: int, accumulator_bits: int) -> Connection:
    """Return the connection that moves each tap to the next, as increments of the states."""
    states = taps * width
    weights = np.eye(states, k=-width, dtype=np.int8) - np.eye(states, dtype=np.int8)
    return exact(weights, accumulator_bits)


def exact(weights: np.ndarray, accumulator_bits: int) -> Connection:
    """Return a connection of whole weights and a gain of 1."""
    rows = (1, len(weights))
    one, zero = np.ones(rows, np.int32), np.zeros(rows, np.int32)
    return Connection(weights[None], one, zero, 2, accumulator_bits)


def _encoded(x: Signal, encoders: np.ndarray) -> Signal:
    """Return the signal of the channels."""
    rows, sequences = x.rows @ encoders, x.sequences @ encoders
    widest = float(np.abs(rows).max(initial=0.0))
    return Signal(widest, rows.astype(np.float32), sequences.astype(np.float32))


def _tapped(signal: Signal, taps: int) -> Signal:
    """Return the contents of all taps, at steps spread over the recorded sequences."""
    samples, steps, width = signal.sequences.shape
    past = np.zeros((samples, taps - 1, width), np.float32)
    padded = np.concatenate([past, signal.sequences], axis=1)
    ends = np.linspace(0, samples * steps - 1, min(_TAPPED_ROWS, samples * steps), dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps, axis=1)
    newest_first = windows[..., ::-1].swapaxes(2, 3)  # (samples, steps, taps, width)
    rows = newest_first[ends // steps, ends % steps].reshape(len(ends), taps * width)
    few = max(1, _SEQUENCE_VALUES // (steps * taps * width))
    whole = newest_first[:few].reshape(-1, steps, taps * width)
    return Signal(signal.largest, rows, whole)


_UNCERTAINTY = 0.01
"""Uncertainty of a neuron, relative to its rms magnitude."""

_DIVERGED = 1e3
"""Ratio to the true memory beyond which the states of a rounded memory are useless."""

_ROWS = 16_384


def integrators(
    place: str, layer: LMULayer, x: Source, m: Signal, h: Source | None, connector: Connector
) -> tuple[IntegerMemory, Source]:
    """Quantize a memory as integrators.

    Parameters
    ----------
    place : str
        Such as ``layer0``.
    layer : LMULayer
    x : Source
        Messages that enter the layer.
    m : Signal
        The float memory on the calibration.
    h : Source or None
        The layer's hidden units.
    connector : Connector

    Returns
    -------
    memory : IntegerMemory
    source : Source
        The messages that leave the memory.
    """
    settings, true_m = connector.settings, m
    recurrent, basis, inverse = increment(layer), None, None
    if settings.realization != "dense-incremental":
        rotated = coordinates(layer, settings.realization)
        rotated = rotated.scaled(_ranges(m.rows @ rotated.inverse.T))
        recurrent, basis, inverse = rotated.recurrent, rotated.basis, rotated.inverse
        m = _in_coordinates(m, inverse)

    def entering(encoders: np.ndarray) -> np.ndarray:
        """Return the matrix from a population to the states, through encoders (n, channels)."""
        matrix = np.kron(encoders.T, layer.memory.b_bar.astype(np.float64)[:, None])
        return matrix if inverse is None else inverse @ matrix

    into, from_hidden, real_bias = entering(layer.input_encoders), None, None
    inflow = x.inflow(into)
    if layer.hidden_encoders is not None and h is not None:
        from_hidden = entering(layer.hidden_encoders)
        inflow = max(inflow, h.inflow(from_hidden))
    if layer.memory_bias is not None:
        real_bias = entering(layer.memory_bias[None, :])[:, 0]

    def rounded_memory(m: Signal) -> IntegerMemory:
        """Round the memory, with messages for the range of m."""
        state, message, shift = memory_formats(place, m, settings, real_bias, inflow)
        own = Source(m, message, "--message-bits")
        hidden = None
        if from_hidden is not None and h is not None:
            hidden = connector.memory(f"{place}/memory/hidden", from_hidden, h, state)
        return IntegerMemory(
            state,
            message,
            shift,
            connector.memory(f"{place}/memory/recurrent", recurrent, own, state),
            connector.memory(f"{place}/memory/input", into, x, state),
            hidden,
            None if real_bias is None else round_to_format(real_bias, state),
            settings.realization,
            basis,
        )

    memory = rounded_memory(m)
    rounded = simulate_rounded(memory, x, m, h) if settings.refits else None
    if rounded is not None:
        signal = rounded_signal(m, rounded)
        if signal.largest > m.largest:
            memory = rounded_memory(signal)
        truth = true_m.sequences[: len(rounded)].astype(np.float64)
        memory = replace(memory, basis=refit_basis(memory, rounded, truth))
        m = signal
    return memory, Source(m, memory.message, "--message-bits", memory.basis)


def refit_basis(memory: IntegerMemory, rounded: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
    """Fit the basis of a rounded memory to the true memory on whole sequences.

    Parameters
    ----------
    memory : IntegerMemory
    rounded : ndarray, shape (samples, steps, neurons)
        States of the rounded memory.
    truth : ndarray, shape (samples, steps, Legendre states)

    Returns
    -------
    basis : ndarray, shape (Legendre states, neurons), or None
        The memory's own basis where there is only one sequence, or where the fit is no better on
        the second half of the sequences.
    """
    few = len(rounded)
    if few < 2:
        return memory.basis
    nominal = np.eye(memory.size) if memory.basis is None else memory.basis
    noise = memory.message.scale**2 / 12.0 + _UNCERTAINTY**2 * (rounded**2).mean(axis=(0, 1))
    half = few // 2
    first = _fit(rounded[:half], truth[:half], nominal, noise)
    unseen = rounded[half:], truth[half:], noise
    if _error(first, *unseen) >= _error(nominal, *unseen):
        return memory.basis
    return _fit(rounded, truth, nominal, noise)


def _fit(
    rounded: np.ndarray, truth: np.ndarray, nominal: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """Fit a basis to the rounded and the true states, (samples, steps, ...)."""
    n = rounded.reshape(-1, rounded.shape[2])
    missing = truth.reshape(-1, truth.shape[2]) - n @ nominal.T
    gram = n.T @ n + len(n) * np.diag(noise)
    correction: np.ndarray = solve(gram, n.T @ missing, assume_a="pos")
    return np.asarray(nominal + correction.T)


def _error(basis: np.ndarray, rounded: np.ndarray, truth: np.ndarray, noise: np.ndarray) -> float:
    """Return the mean squared error of a basis, including that of the neurons' noise."""
    return float(((rounded @ basis.T - truth) ** 2).sum(axis=2).mean() + (basis**2 @ noise).sum())


def simulate_rounded(
    memory: IntegerMemory, x: Source, m: Signal, h: Source | None
) -> np.ndarray | None:
    """Simulate the rounded memory on the inputs of the true one, without rounding messages.

    Parameters
    ----------
    memory : IntegerMemory
    x : Source
        Messages that enter the layer.
    m : Signal
        The true memory, in the neurons' coordinates.
    h : Source or None
        The layer's hidden units.

    Returns
    -------
    rounded : ndarray, shape (samples, steps, neurons), or None
        The states; None where no sequences were recorded, all are zero, or the memory diverges.
    """
    feedback = None if h is None or memory.hidden is None else h.signal.sequences
    recorded = [s for s in (m.sequences, x.signal.sequences, feedback) if s is not None]
    few = min(len(s) for s in recorded)
    widest = float(np.abs(m.sequences[:few]).max(initial=0.0))
    if widest == 0.0:
        return None
    linear = linear_memory(memory, x.format, None if h is None else h.format)
    inputs = x.signal.sequences[:few].astype(np.float64)
    rounded = _run(linear, inputs, None if feedback is None else feedback[:few])
    return rounded if np.abs(rounded).max() <= _DIVERGED * widest else None


def rounded_signal(m: Signal, rounded: np.ndarray) -> Signal:
    """Return the signal of a rounded memory, with its range scaled as its sequences are."""
    truth = m.sequences[: len(rounded)]
    larger = float(np.abs(rounded).max() / np.abs(truth).max())
    rows = rounded.reshape(-1, rounded.shape[2])
    rows = rows[:: -(-len(rows) // _ROWS)]
    largest = m.largest * max(1.0, larger)
    return Signal(largest, rows.astype(np.float32), rounded.astype(np.float32))


def _run(linear: LinearMemory, inputs: np.ndarray, feedback: np.ndarray | None) -> np.ndarray:
    entering = inputs @ linear.input.T
    if feedback is not None:
        assert linear.hidden is not None
        entering[:, 1:] += feedback[:, :-1] @ linear.hidden.T
    if linear.bias is not None:
        entering += linear.bias
    state = np.zeros((len(inputs), len(linear.step)))
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(inputs.shape[1]):
            state = state @ linear.step.T + entering[:, t]
            entering[:, t] = state
    return entering


def _ranges(rows: np.ndarray) -> np.ndarray:
    """Return the largest magnitude of each state, at least a small share of the largest of all."""
    ranges = np.abs(rows).max(axis=0, initial=0.0).astype(np.float64)
    return np.maximum(ranges, FAINTEST * ranges.max(initial=0.0) or 1.0)


def _in_coordinates(m: Signal, inverse: np.ndarray) -> Signal:
    """Transform a memory's signal to other coordinates.

    Its largest magnitude is that of the rows, scaled by how much the rows of the original signal
    underestimate the original's.
    """
    rows = m.rows @ inverse.T
    seen = float(np.abs(m.rows).max(initial=0.0))
    missed = m.largest / seen if seen > 0.0 else 1.0
    widest = float(np.abs(rows).max(initial=0.0)) * missed
    return Signal(widest, rows.astype(np.float32), (m.sequences @ inverse.T).astype(np.float32))
