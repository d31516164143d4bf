"""One memory for a batch of samples: relays, neurons and the host's boundary, step by step.

The relays of a memory, as loihi-semantics.md says: spikes and input in, messages out.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.core.spiking.lif import make_neurons
from lmu_deploy.core.spiking.loihi import DECAY_ONE, MESSAGE_LIMIT, STATE_LIMIT, LoihiMemory
from targets.spiking.activity import KINDS, Activity, Boundary, Tally, empty_activity


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


def run_memory(
    memory: LoihiMemory,
    boundary: Boundary,
    samples: int,
    holds: int,
    hold_steps: int,
    raster: bool = False,
) -> Activity:
    """Simulate `memory` for a batch.

    Parameters
    ----------
    memory : LoihiMemory
    boundary : Boundary
    samples, holds : int
    hold_steps : int
        Chip steps of a hold.
    raster : bool
        Keep every event of sample 0.
    """
    done = empty_activity(memory, samples, holds, hold_steps, raster)
    relays, neurons = Relays(memory, samples), make_neurons(memory.neurons, samples)
    tallies = {kind: Tally(done, kind) for kind in KINDS}
    arriving = np.zeros((samples, memory.channels), np.int64)
    messages = np.zeros((samples, memory.states), np.int64)
    inputs, spikes = arriving, None
    for step in range(holds * hold_steps + 1):
        before = messages
        messages = relays.step(spikes, arriving)
        hold, phase = divmod(step, hold_steps)
        if phase == 0:
            if hold:
                done.states[:, hold - 1] = relays.x
                boundary.observe(hold - 1, relays.x * memory.state_unit)
            if hold == holds:
                break
            inputs = to_messages(memory, boundary.channels(hold), done)
        spikes = neurons.step(before)
        arriving = inputs
        events = {"memory": spikes, "relay": messages != 0, "input": inputs != 0}
        for kind, tally in tallies.items():
            tally.add(events[kind], hold, step)
            if phase == hold_steps - 1:
                tally.flush(hold)
    done.saturations["relay/state"] = relays.saturated
    done.saturations["relay/message"] = relays.messages_saturated
    return done


def to_messages(memory: LoihiMemory, channels: np.ndarray, done: Activity) -> np.ndarray:
    """Give the host's messages for real inputs, and count those that are limited.

    Parameters
    ----------
    memory : LoihiMemory
    channels : ndarray, shape (samples, channels)
    done : Activity
    """
    exact = np.rint(channels / memory.input_scale)
    messages, changed = limited(exact, MESSAGE_LIMIT)
    done.saturations["input"] += changed
    return messages.astype(np.int64)
