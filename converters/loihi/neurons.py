"""LIF neurons in Loihi's fixed point: tuning curves, rounding to int8 rows with gains, simulation.

A neuron fires where its current, in the long run, lifts the membrane above threshold: at
u = 64 vth dv / 4096. Curves are drawn in units of that current, as in
:func:`converters.spiking.populations.make_populations`, and rounded to the widths of
:class:`lmu_deploy.core.spiking.loihi.LoihiNeurons`. :class:`FixedPointSimulator` simulates these
neurons for dynamic calibration.

There are two implementations of the neurons with identical results. :class:`LifNeurons` follows
docs/reference/loihi-semantics.md operation by operation in 64 bits and serves any network.
:class:`FastLifNeurons` works in place in 32 bits. It requires that the current decays within one
step (du = 4095) and that the membrane decay is a multiple of 16, because
v (4096 - dv) / 4096 = v (256 - dv / 16) / 256 then fits 32 bits; it wraps and clips where the
specification does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.spiking.device import Block, Driven, NeuronDevice
from converters.spiking.neurons import PopulationSizes
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.spiking.loihi import DECAY_ONE, MESSAGE_LIMIT, STATE_LIMIT, LoihiNeurons
from lmu_deploy.hardware.profile import Figure, LifFigures

MESSAGE_ONE = 2**13
"""Value of x = 1 in a relay's message; messages reach four times as far."""
_LARGEST_WEIGHT = 127
_BIASES = (-4096, 4095)
_LARGEST_EXPONENT = 7


def draw_neurons(
    figures: LifFigures, states: int, neurons: int, dt_ms: float, rng: np.random.Generator
) -> LoihiNeurons:
    """Draw heterogeneous populations.

    Each neuron has a sign, an intercept (the encoded state at which it starts to fire) and a rate
    at the end of its range, uniform between the profile's limits; gains and biases follow from
    the rate of a LIF neuron without refractory time (Eliasmith, Anderson 2003, "Neural
    Engineering", section 2.1).

    Parameters
    ----------
    figures : LifFigures
    states, neurons : int
        Number of populations, and of neurons in each.
    dt_ms : float
        Duration of a chip step, milliseconds.
    rng : Generator

    Raises
    ------
    InputError
        When the curves do not fit the chip's widths.
    """
    shape = (states, neurons)
    dv = int(figures.membrane_decay)
    signs = rng.choice([-1.0, 1.0], shape)
    intercepts = _uniform(rng, figures.lowest_intercept, figures.highest_intercept, shape)
    rates = _uniform(rng, figures.lowest_rate, figures.highest_rate, shape)
    membrane_steps = -1.0 / np.log1p(-dv / DECAY_ONE)
    between_spikes = 1e3 / (rates * dt_ms)
    strongest = -1.0 / np.expm1(-between_spikes / membrane_steps)
    gains = (strongest - 1.0) / (1.0 - intercepts)
    return round_neurons(figures, signs * gains, 1.0 - gains * intercepts)


def round_neurons(figures: LifFigures, slopes: np.ndarray, offsets: np.ndarray) -> LoihiNeurons:
    """Round tuning curves to the widths of the chip.

    Parameters
    ----------
    figures : LifFigures
    slopes : ndarray, shape (states, neurons)
        Currents for a state of 1, in units of the least current at which a neuron fires.
    offsets : ndarray, shape (states, neurons)
        Currents for a state of 0, in the same units.

    Raises
    ------
    InputError
        When the curves do not fit.
    """
    dv, vth = int(figures.membrane_decay), int(figures.threshold)
    threshold_current = 64 * vth * dv / DECAY_ONE
    encoders, exponent = _rounded_encoders(slopes * threshold_current)
    mantissas, bias_exponent = _rounded_biases(offsets * threshold_current)
    return LoihiNeurons(
        encoders=encoders,
        encoder_exponent=exponent,
        bias_mantissas=mantissas,
        bias_exponent=bias_exponent,
        current_decay=int(figures.current_decay),
        membrane_decay=dv,
        threshold=vth,
    )


def _uniform(
    rng: np.random.Generator, low: Figure, high: Figure, shape: tuple[int, int]
) -> np.ndarray:
    return rng.uniform(low.value, high.value, shape)


def _rounded_encoders(currents: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the weights and the exponent of encoders; `currents` are those of x = 1."""
    per_unit = currents / (64 * MESSAGE_ONE)
    largest = float(np.abs(per_unit).max())
    exponent = int(np.floor(np.log2(_LARGEST_WEIGHT / largest)))
    if exponent < 0:
        raise InputError(
            f"an encoder of {largest:.4g} does not fit a weight of 8 bits; choose lower maximum "
            "rates or a lower highest intercept."
        )
    exponent = min(exponent, _LARGEST_EXPONENT)
    return np.rint(per_unit * 2.0**exponent).astype(np.int8), exponent


def _rounded_biases(currents: np.ndarray) -> tuple[np.ndarray, int]:
    """Return mantissas and the least exponent for which all fit."""
    for exponent in range(_LARGEST_EXPONENT + 1):
        mantissas = np.rint(currents / 2.0**exponent)
        if mantissas.min() >= _BIASES[0] and mantissas.max() <= _BIASES[1]:
            return mantissas.astype(np.int16), exponent
    raise InputError(
        f"a bias of {np.abs(currents).max():.4g} does not fit 13 bits times 2^7; choose a lower "
        "threshold or lower maximum rates."
    )


_MULTIPLIER_BITS = 15
_LARGEST_SHIFT = 31
LARGEST_ROUNDED = float(_LARGEST_WEIGHT * (2**_MULTIPLIER_BITS - 1))
"""Largest weight that :func:`round_rows` can represent, in units of the state."""


@dataclass(frozen=True)
class RowsOfWeights:
    """Rows of int8 weights; ``ms(weights @ v, multiplier, shift)`` is about ``real @ v``.

    Attributes
    ----------
    weights : ndarray, shape (rows, columns), int8
    multiplier, shift : ndarray, shape (rows,), int32
    """

    weights: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray


def round_rows(real: np.ndarray) -> RowsOfWeights:
    """Round each row of weights to int8 times a gain.

    Parameters
    ----------
    real : ndarray, shape (rows, columns)
        In units of the state that the sum is added to.

    Raises
    ------
    InputError
        When a gain would need more than 15 bits.
    """
    gain = np.abs(real).max(axis=1) / _LARGEST_WEIGHT
    gain[gain == 0.0] = 1.0
    shift = np.clip(_MULTIPLIER_BITS - 1 - np.floor(np.log2(gain)), 0, _LARGEST_SHIFT)
    multiplier = np.rint(gain * 2.0**shift)
    if np.any(multiplier > 2**_MULTIPLIER_BITS - 1):
        # Rounding up to a power of two takes one bit more, and an even number one less.
        shift[multiplier > 2**_MULTIPLIER_BITS - 1] -= 1
        multiplier = np.rint(gain * 2.0**shift)
    if np.any(shift < 0) or np.any(multiplier > 2**_MULTIPLIER_BITS - 1):
        raise InputError(
            f"a weight of {np.abs(real).max():.4g} units of state does not fit 8 bits and a gain "
            "of 15; use a longer presentation time or more neurons."
        )
    multiplier = np.maximum(multiplier, 1.0)
    rounded = np.rint(real / (multiplier / 2.0**shift)[:, None])
    weights = np.clip(rounded, -_LARGEST_WEIGHT - 1, _LARGEST_WEIGHT)
    return RowsOfWeights(
        weights.astype(np.int8), multiplier.astype(np.int32), shift.astype(np.int32)
    )


_AROUND = 2**24
_INPUT_SHIFT = 6
_FINE = 16


class LifNeurons:
    """The neurons of a memory for a batch of samples, with states initially zero.

    Parameters
    ----------
    neurons : LoihiNeurons
    samples : int
    """

    def __init__(self, neurons: LoihiNeurons, samples: int) -> None:
        self._neurons = neurons
        self._encoders = neurons.encoders.astype(np.int64)
        self._biases = neurons.biases.astype(np.int64)
        shape = (samples, *neurons.encoders.shape)
        self.u = np.zeros(shape, np.int64)
        self.v = np.zeros(shape, np.int64)

    def step(self, messages: np.ndarray) -> np.ndarray:
        """Advance by one chip step.

        Parameters
        ----------
        messages : ndarray, shape (samples, states), int64
            Messages that the relays sent in the previous step.

        Returns
        -------
        spikes : ndarray, shape (samples, states, neurons), bool
        """
        neurons = self._neurons
        arriving = (self._encoders * messages[:, :, None]) >> neurons.encoder_exponent
        kept = _toward_zero(self.u * (DECAY_ONE - 1 - neurons.current_decay))
        self.u = _wrapped_once(kept + (arriving << _INPUT_SHIFT))
        kept = _toward_zero(self.v * (DECAY_ONE - neurons.membrane_decay))
        self.v = np.clip(kept + self.u + self._biases, -STATE_LIMIT, STATE_LIMIT)
        spikes: np.ndarray = self.v > neurons.threshold << _INPUT_SHIFT
        self.v[spikes] = 0
        return spikes


def _toward_zero(product: np.ndarray) -> np.ndarray:
    """Return ``product / 4096``, rounded toward zero."""
    return (product + np.where(product < 0, DECAY_ONE - 1, 0)) >> 12


def scaled(values: np.ndarray, gain: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """Return ``ms(values, gain, shift)`` of the specification."""
    result: np.ndarray = (values * gain + ((np.int64(1) << shift) >> 1)) >> shift
    return result


def decayed(register: np.ndarray, decay: int) -> np.ndarray:
    """Return ``tz(register * (4096 - decay) / 4096)`` of the specification."""
    return _toward_zero(register * (DECAY_ONE - decay))


def limited(values: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
    """Limit integers to +-limit; return them and the number of saturations."""
    result = np.minimum(np.maximum(values, -limit), limit)
    return result, int(np.count_nonzero(result != values))


def _wrapped_once(current: np.ndarray) -> np.ndarray:
    """Return a current wrapped into (-2^23, 2^23]."""
    over, under = current > _AROUND // 2, current <= -_AROUND // 2
    wrapped: np.ndarray = current - _AROUND * over + _AROUND * under
    return wrapped


class FastLifNeurons:
    """The neurons of a memory in 32-bit arithmetic; see the module docstring.

    Parameters
    ----------
    neurons : LoihiNeurons
        Must satisfy :func:`is_fast`.
    samples : int
    """

    def __init__(self, neurons: LoihiNeurons, samples: int) -> None:
        self._encoders = neurons.encoders.astype(np.int32)
        self._biases = neurons.biases
        self._exponent = neurons.encoder_exponent
        self._kept = np.int32((DECAY_ONE - neurons.membrane_decay) // _FINE)
        self._threshold = np.int32(neurons.threshold << _INPUT_SHIFT)
        self._clips = False
        self._unclipped = _largest_unclipped(neurons)
        self._unwrapped = _largest_unwrapped(neurons)
        shape = (samples, *neurons.encoders.shape)
        self.v = np.zeros(shape, np.int32)
        self._drive = np.empty(shape, np.int32)
        self._spikes = np.empty(shape, bool)

    def step(self, messages: np.ndarray) -> np.ndarray:
        """Advance by one chip step; see :meth:`LifNeurons.step`. The result is reused."""
        largest = int(np.abs(messages).max(initial=0))
        self._clips |= largest > self._unclipped
        drive, v = self._drive, self.v
        np.multiply(self._encoders, messages[:, :, None].astype(np.int32), out=drive)
        _floor_to_64ths(drive, self._exponent)
        if largest > self._unwrapped:
            np.copyto(drive, _wrapped_once(drive))
        drive += self._biases

        # To round toward zero, add 255 to negative values before the division by 256.
        upward = v.view(np.uint32) >> np.uint32(24)
        np.multiply(v, self._kept, out=v)
        v += upward.view(np.int32)
        v >>= 8
        v += drive
        if self._clips:
            np.clip(v, -STATE_LIMIT, STATE_LIMIT, out=v)
        np.greater(v, self._threshold, out=self._spikes)
        np.putmask(v, self._spikes, 0)
        return self._spikes


def _floor_to_64ths(drive: np.ndarray, exponent: int) -> None:
    """Replace each entry with 64 floor(entry / 2^exponent), in place."""
    if exponent > _INPUT_SHIFT:
        drive >>= exponent - _INPUT_SHIFT
    elif exponent < _INPUT_SHIFT:
        drive <<= _INPUT_SHIFT - exponent
    if exponent:
        drive &= -(1 << _INPUT_SHIFT)


def is_fast(neurons: LoihiNeurons) -> bool:
    """Return whether 32-bit arithmetic is exact for these neurons."""
    decays = neurons.current_decay == DECAY_ONE - 1
    return decays and neurons.membrane_decay % _FINE == 0 and neurons.membrane_decay > 0


def make_neurons(neurons: LoihiNeurons, samples: int) -> LifNeurons | FastLifNeurons:
    """Return the fastest exact implementation of these neurons."""
    return (FastLifNeurons if is_fast(neurons) else LifNeurons)(neurons, samples)


def _largest_unclipped(neurons: LoihiNeurons) -> int:
    """Return the largest message that can never drive a membrane to its limit.

    A constant drive u moves a membrane to at most u 4096 / dv below zero, and above zero to at most
    one drive beyond the threshold.
    """
    share = neurons.membrane_decay / DECAY_ONE
    room = np.minimum(
        STATE_LIMIT * share + neurons.biases,
        STATE_LIMIT - (neurons.threshold << _INPUT_SHIFT) - neurons.biases,
    )
    return _largest_message(neurons, room - 2 * (1 << _INPUT_SHIFT))


def _largest_unwrapped(neurons: LoihiNeurons) -> int:
    """Return the largest message whose currents stay within 24 bits."""
    return _largest_message(neurons, np.full(neurons.encoders.shape, float(STATE_LIMIT)))


def _largest_message(neurons: LoihiNeurons, room: np.ndarray) -> int:
    """Return the largest message whose currents stay below `room` everywhere; -1 if none."""
    gains = np.abs(neurons.encoders.astype(np.float64)) * 2.0 ** (
        _INPUT_SHIFT - neurons.encoder_exponent
    )
    if np.any(room <= 0.0):
        return -1
    return int(min(np.min(room / np.maximum(gains, 1e-9)), MESSAGE_LIMIT))


@dataclass(frozen=True)
class FixedPointSimulator(PopulationSizes):
    """Neurons on the chip behind relays; see :class:`converters.spiking.neurons.NeuronSimulator`.

    Attributes
    ----------
    populations : LoihiNeurons
    order : int
    dt_ms : float
    decay : int
        Decay of the relays, in 4096ths.
    """

    populations: LoihiNeurons
    order: int
    dt_ms: float
    decay: int

    @property
    def tau_ms(self) -> float:
        """Time constant of the relays, milliseconds."""
        return float(-self.dt_ms / np.log1p(-self.decay / DECAY_ONE))

    def neurons(self, copies: int, rng: np.random.Generator) -> Forced:
        """Build neurons in the state in which every sample begins."""
        return Forced(self.populations, copies)


class Forced:
    """Neurons that receive given states one step later, as on the chip.

    Parameters
    ----------
    populations : LoihiNeurons
    copies : int
    """

    def __init__(self, populations: LoihiNeurons, copies: int) -> None:
        self._neurons = make_neurons(populations, copies)
        self._sent = np.zeros((copies, populations.states), np.int64)

    def step(self, x: np.ndarray) -> np.ndarray:
        """Encode scaled states (copies, states); return spikes (copies, states, neurons), bool."""
        spikes = self._neurons.step(self._sent)
        exact = np.rint(x * MESSAGE_ONE)
        self._sent = np.clip(exact, -MESSAGE_LIMIT, MESSAGE_LIMIT).astype(np.int64)
        return spikes


class FixedPointDevice(NeuronDevice):
    """LIF neurons of a digital chip, as calibration drives them.

    Parameters
    ----------
    figures : LifFigures
    """

    name = "LIF neurons in fixed point"
    live = True

    def __init__(self, figures: LifFigures) -> None:
        self.figures = figures

    def rounded(self, populations: Populations) -> LoihiNeurons:
        """Return populations as the chip has them."""
        return round_neurons(self.figures, populations.slopes, populations.offsets)

    def start(self, block: Block, copies: int, rng: np.random.Generator) -> Driven:
        """See :meth:`NeuronDevice.start`; all membranes start at zero."""
        return Forced(self.rounded(block.populations), copies)

    def run(self, block: Block, drive: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """See :meth:`NeuronDevice.run`."""
        neurons = self.start(block, drive.shape[1], np.random.default_rng(seed))
        return np.stack([neurons.step(x).copy() for x in drive])
