"""Formats of states, messages and outputs, from the ranges that the calibration measured.

Messages cover the calibrated range. A memory's state is finer than its messages by
`state_bits - message_bits - 2` bits, which leaves it a range four times theirs. A signal that
hardly answers to what flows into it gets no finer a unit than 2^-10 of that inflow is worth,
because the weights of so fine a unit would not fit.
"""

from __future__ import annotations

import math

import numpy as np

from converters.quantise.calibrate import Signal, clip_range
from converters.quantise.settings import Settings
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import Format, largest
from lmu_deploy.network import Hidden, Readout

HEADROOM_BITS = 2
_OUTPUT_HEADROOM = 4.0
FAINTEST = 2.0**-10


def memory_formats(place: str, m: Signal, settings: Settings) -> tuple[Format, Format, int]:
    """Format of a memory's state and of its messages, and the shift between them.

    Raises
    ------
    InputError
        When messages are so wide that the state has no room above them.
    """
    bits, state_bits = settings.message_bits, settings.state_bits
    clip = clip_range(m, settings.calibration_method, bits)
    beyond = math.ceil(math.log2(max(m.largest / clip, 1.0)))
    shift = state_bits - bits - HEADROOM_BITS - beyond
    if shift < 0:
        raise InputError(
            f"quantise: {place}, messages of {bits} bits leave no room in a state of "
            f"{state_bits}; use --message-bits {bits + shift}."
        )
    scale = clip / largest(bits)
    return Format(state_bits, scale * 2.0**-shift), Format(bits, scale), shift


def hidden_format(hidden: Hidden, x: Signal, m: Signal, h: Signal, settings: Settings) -> Format:
    """Format of hidden messages: up to 1 for tanh and hard-tanh, else the calibrated range."""
    bits = settings.hidden_bits
    if hidden.activation in ("tanh", "hard-tanh"):
        return Format(bits, 1.0 / largest(bits))
    carried = (hidden.input_kernel, x), (hidden.memory_kernel, m), (hidden.recurrent_kernel, h)
    inflow = max(_widest(kernel, signal) for kernel, signal in carried if kernel is not None)
    clip = clip_range(h, settings.calibration_method, bits)
    return Format(bits, max(clip, inflow * FAINTEST) / largest(bits))


def unit_format(h: Signal, settings: Settings) -> Format:
    """Format of what LSTM units send: the calibrated range, which never passes 1."""
    bits = settings.hidden_bits
    return Format(bits, min(1.0, clip_range(h, settings.calibration_method, bits)) / largest(bits))


def output_format(readout: Readout, last: Signal, y: Signal, settings: Settings) -> Format:
    """Format of the readout: four times the calibrated range, and no less than its bias.

    A bias may be far larger than what comes out, where it cancels against the kernel's part.
    """
    widest = max(y.largest, _widest(readout.kernel, last) * FAINTEST) or 1.0
    bias = 0.0 if readout.bias is None else float(np.abs(readout.bias).max(initial=0.0))
    top = max(widest * _OUTPUT_HEADROOM, bias)
    return Format(settings.state_bits, top / largest(settings.state_bits))


def _widest(kernel: np.ndarray, signal: Signal) -> float:
    """Greatest product of one entry of a kernel and the signal that it carries."""
    return float(np.abs(kernel).max(initial=0.0)) * signal.largest
