"""Tuning curves of LIF neurons, their rounding to int8 rows with gains, and their simulator.

A neuron fires where its current, in the long run, lifts the membrane above threshold: at
u = 64 vth dv / 4096. Curves are drawn in units of that current, as in
:func:`converters.spiking.populations.make_populations`, and rounded to the widths of
:class:`lmu_deploy.core.spiking.loihi.LoihiNeurons`. :class:`FixedPointSimulator` simulates these
neurons for dynamic calibration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.spiking.neurons import PopulationSizes
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.spiking.loihi import DECAY_ONE, MESSAGE_LIMIT, LoihiNeurons, make_neurons
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
    dv, vth = int(figures.membrane_decay), int(figures.threshold)
    signs = rng.choice([-1.0, 1.0], shape)
    intercepts = _uniform(rng, figures.lowest_intercept, figures.highest_intercept, shape)
    rates = _uniform(rng, figures.lowest_rate, figures.highest_rate, shape)
    membrane_steps = -1.0 / np.log1p(-dv / DECAY_ONE)
    between_spikes = 1e3 / (rates * dt_ms)
    strongest = -1.0 / np.expm1(-between_spikes / membrane_steps)
    gains = (strongest - 1.0) / (1.0 - intercepts)
    threshold_current = 64 * vth * dv / DECAY_ONE
    encoders, exponent = _rounded_encoders(signs * gains * threshold_current)
    mantissas, bias_exponent = _rounded_biases((1.0 - gains * intercepts) * threshold_current)
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
