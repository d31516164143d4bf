"""The relays of a memory, as docs/spiking-semantics.md says: spikes and input in, messages out."""

from __future__ import annotations

import numpy as np

from lmu_deploy.loihi_memory import DECAY_ONE, MESSAGE_LIMIT, STATE_LIMIT, LoihiMemory


class Relays:
    """The states of many samples, from zero.

    Parameters
    ----------
    memory : LoihiMemory
    samples : int

    Attributes
    ----------
    x : ndarray, shape (samples, states), int64
    saturated : int
        How often a state was limited.
    messages_saturated : int
    """

    def __init__(self, memory: LoihiMemory, samples: int) -> None:
        self._memory, self._samples = memory, samples
        # Sums of weights of 8 bits over at most 2^16 spikes are exact in single precision.
        self._exact = np.float32 if memory.decoders.shape[2] < 2**16 else np.float64
        self._decoders = memory.decoders.transpose(0, 2, 1).astype(self._exact)
        self._decoder_gain = memory.decoder_multiplier.astype(np.int64)
        self._input_gain = memory.input_multiplier.astype(np.int64)
        self._decoder_shift = memory.decoder_shift.astype(np.int64)
        self._input_shift = memory.input_shift.astype(np.int64)
        self._input_weights = memory.input_weights.astype(np.int64)
        self.x = np.zeros((samples, memory.states), np.int64)
        self.saturated = self.messages_saturated = 0

    def step(self, spikes: np.ndarray | None, inputs: np.ndarray) -> np.ndarray:
        """Advance by one chip step; give the messages.

        Parameters
        ----------
        spikes : ndarray, shape (samples, states, neurons), bool, or None
            Of the step before; None stands for silence.
        inputs : ndarray, shape (samples, channels), int64
            The host's messages of the step before.

        Returns
        -------
        messages : ndarray, shape (samples, states), int64
        """
        memory = self._memory
        kept = self.x * (DECAY_ONE - memory.decay)
        x = (kept + (kept < 0) * (DECAY_ONE - 1)) >> 12
        if spikes is not None:
            x += scaled(self._decoded(spikes), self._decoder_gain, self._decoder_shift)
        driven = self._input_weights * np.repeat(inputs, memory.order, axis=1)
        x += scaled(driven, self._input_gain, self._input_shift)
        self.x, changed = limited(x, STATE_LIMIT)
        self.saturated += changed
        messages, changed = limited(scaled(self.x, 1, memory.message_shift), MESSAGE_LIMIT)
        self.messages_saturated += changed
        return messages

    def _decoded(self, spikes: np.ndarray) -> np.ndarray:
        """Sum the decoders of what spiked, channel by channel, shape (samples, states), int64."""
        rows = spikes.reshape(self._samples, self._memory.channels, -1).astype(self._exact)
        sums: np.ndarray = np.matmul(rows.transpose(1, 0, 2), self._decoders)
        return sums.transpose(1, 0, 2).reshape(self._samples, -1).astype(np.int64)


def scaled(values: np.ndarray, gain: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """Give ``ms(values, gain, shift)`` of the page."""
    result: np.ndarray = (values * gain + ((np.int64(1) << shift) >> 1)) >> shift
    return result


def limited(values: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
    """Limit integers to +-limit; give them and how many were changed."""
    result = np.minimum(np.maximum(values, -limit), limit)
    return result, int(np.count_nonzero(result != values))
