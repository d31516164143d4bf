"""LIF neurons in fixed-point arithmetic, as specified in docs/reference/spiking-semantics.md.

There are two implementations with identical results. :class:`LifNeurons` follows the specification
operation by operation in 64 bits and serves any network. :class:`FastLifNeurons` works in place in
32 bits. It requires that the current decays within one step (du = 4095) and that the membrane decay
is a multiple of 16, because v (4096 - dv) / 4096 = v (256 - dv / 16) / 256 then fits 32 bits; it
wraps and clips where the specification does.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.core.spiking.loihi import DECAY_ONE, MESSAGE_LIMIT, STATE_LIMIT, LoihiNeurons

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
