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


def bias_limit(bits: int) -> int:
    """Greatest bias, in units, of what is held in `bits` bits: biases have 24 at most."""
    return largest(min(bits, 24))


def memory_formats(
    place: str,
    m: Signal,
    settings: Settings,
    bias: np.ndarray | None = None,
    inflow: float = 0.0,
) -> tuple[Format, Format, int]:
    """Format of a memory's state and of its messages, and the shift between them.

    Parameters
    ----------
    place : str
    m : Signal
    settings : Settings
    bias : ndarray, shape (states,), optional
        What the state has to hold as well; it may be far larger than the memory, where it cancels
        against the inputs.
    inflow : float
        Greatest product of one weight that enters the memory and the range of its messages.

    Raises
    ------
    InputError
        When messages are so wide that the state has no room above them.
    """
    bits, state_bits = settings.message_bits, settings.state_bits
    clip = max(clip_range(m, settings.calibration_method, bits), inflow * FAINTEST)
    widest = _widest_bias(bias)
    held = clip * 2.0**HEADROOM_BITS * (bias_limit(state_bits) / largest(state_bits))
    beyond = math.ceil(math.log2(max(m.largest / clip, widest / held, 1.0)))
    shift = state_bits - bits - HEADROOM_BITS - beyond
    if shift < 0:
        raise InputError(
            f"quantise: {place}, messages of {bits} bits leave no room in a state of "
            f"{state_bits}; use --message-bits {bits + shift}."
        )
    scale = clip / largest(bits)
    return Format(state_bits, scale * 2.0**-shift), Format(bits, scale), shift


def hidden_format(
    hidden: Hidden, inflow: float, m: Signal, h: Signal, settings: Settings
) -> Format:
    """Format of hidden messages: up to 1 for tanh and hard-tanh, else the calibrated range.

    A unit is no finer than the bias allows, which the drive has to hold.

    Parameters
    ----------
    hidden : Hidden
    inflow : float
        Greatest product of one weight of the input kernel and the range of the input messages.
    m, h : Signal
        Of the layer's memory and of the hidden units themselves.
    settings : Settings
    """
    bits = settings.hidden_bits
    if hidden.activation in ("tanh", "hard-tanh"):
        return Format(bits, 1.0 / largest(bits))
    carried = (hidden.memory_kernel, m), (hidden.recurrent_kernel, h)
    inflow = max(inflow, *(_widest(kernel, s) for kernel, s in carried if kernel is not None))
    clip = clip_range(h, settings.calibration_method, bits)
    unit = max(clip, inflow * FAINTEST) / largest(bits)
    return Format(bits, max(unit, _widest_bias(hidden.bias) / bias_limit(settings.state_bits)))


def unit_format(h: Signal, settings: Settings) -> Format:
    """Format of what LSTM units send: the calibrated range, which never passes 1."""
    bits = settings.hidden_bits
    return Format(bits, min(1.0, clip_range(h, settings.calibration_method, bits)) / largest(bits))


def output_format(readout: Readout, inflow: float, y: Signal, settings: Settings) -> Format:
    """Format of the readout: four times the calibrated range, and no less than its bias.

    A bias may be far larger than what comes out, where it cancels against the kernel's part;
    `inflow` is the greatest product of one weight and the range of the messages that it carries.
    """
    widest = max(y.largest, inflow * FAINTEST) or 1.0
    bits = settings.state_bits
    unit = widest * _OUTPUT_HEADROOM / largest(bits)
    return Format(bits, max(unit, _widest_bias(readout.bias) / bias_limit(bits)))


def _widest_bias(bias: np.ndarray | None) -> float:
    return 0.0 if bias is None else float(np.abs(bias).max(initial=0.0))


def _widest(kernel: np.ndarray, signal: Signal) -> float:
    """Greatest product of one entry of a kernel and the signal that it carries."""
    return float(np.abs(kernel).max(initial=0.0)) * signal.largest
