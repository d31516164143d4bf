r"""Realization `fir`: a delay line of messages, with the memory's response folded into its readers.

The states are :math:`m_t = \sum_{k<T} \bar A^k \bar B\, u_{t-k}`, which are those of the memory as
long as a sequence has no more steps than the delay line has taps, T.
"""

from __future__ import annotations

import math

import numpy as np

from converters.quantize.calibration import Signal, clip_range
from converters.quantize.connections import Connector, Source
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layered import IntegerMemory
from lmu_deploy.core.integer.parts import Connection, Format, largest
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import LMULayer

_ROWS = 4096
_SEQUENCE_VALUES = 2**21


def delay_line(
    place: str, layer: LMULayer, x: Source, connector: Connector
) -> tuple[IntegerMemory, Source]:
    """Quantize a memory as a delay line; see :func:`converters.quantize.integrators.integrators`.

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
    ends = np.linspace(0, samples * steps - 1, min(_ROWS, samples * steps), dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps, axis=1)
    newest_first = windows[..., ::-1].swapaxes(2, 3)  # (samples, steps, taps, width)
    rows = newest_first[ends // steps, ends % steps].reshape(len(ends), taps * width)
    few = max(1, _SEQUENCE_VALUES // (steps * taps * width))
    whole = newest_first[:few].reshape(-1, steps, taps * width)
    return Signal(signal.largest, rows, whole)
