"""Simulation of one memory: relays, LIF neurons, and the messages of the host, step by step.

The equations are those of docs/reference/loihi-semantics.md.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.core.spiking.lif import make_neurons
from lmu_deploy.core.spiking.loihi import DECAY_ONE, MESSAGE_LIMIT, STATE_LIMIT, LoihiMemory
from targets.spiking.activity import KINDS, Activity, Boundary, Tally, empty_activity


class Relays:
    """Relays of several samples, whose states start at zero.

    Parameters
    ----------
    memory : LoihiMemory
    samples : int

    Attributes
    ----------
    x : ndarray, shape (samples, states), int64
    saturated : int
        Number of saturated states.
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
        """Advance by one chip step; return the messages.

        Parameters
        ----------
        spikes : ndarray, shape (samples, states, neurons), bool, or None
            Of the previous step; None for no spikes.
        inputs : ndarray, shape (samples, channels), int64
            The host's messages of the previous step.

        Returns
        -------
        messages : ndarray, shape (samples, states), int64
        """
        memory = self._memory
        decayed = self.x * (DECAY_ONE - memory.decay)
        x = (decayed + (decayed < 0) * (DECAY_ONE - 1)) >> 12
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
        """Sum the decoders of all spikes, channel by channel, shape (samples, states), int64."""
        rows = spikes.reshape(self._samples, self._memory.channels, -1).astype(self._exact)
        sums: np.ndarray = np.matmul(rows.transpose(1, 0, 2), self._decoders)
        return sums.transpose(1, 0, 2).reshape(self._samples, -1).astype(np.int64)


def scaled(values: np.ndarray, gain: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """Return ``ms(values, gain, shift)`` of the specification."""
    result: np.ndarray = (values * gain + ((np.int64(1) << shift) >> 1)) >> shift
    return result


def limited(values: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
    """Limit integers to +-limit; return them and the number of saturations."""
    result = np.minimum(np.maximum(values, -limit), limit)
    return result, int(np.count_nonzero(result != values))


def run_memory(
    memory: LoihiMemory,
    boundary: Boundary,
    samples: int,
    presentations: int,
    presentation_steps: int,
    raster: bool = False,
) -> Activity:
    """Simulate `memory` for a batch.

    Parameters
    ----------
    memory : LoihiMemory
    boundary : Boundary
    samples, holds : int
    hold_steps : int
        Chip steps of one presentation.
    raster : bool
        Record every event of sample 0.
    """
    done = empty_activity(memory, samples, presentations, presentation_steps, raster)
    relays, neurons = Relays(memory, samples), make_neurons(memory.neurons, samples)
    tallies = {kind: Tally(done, kind) for kind in KINDS}
    arriving = np.zeros((samples, memory.channels), np.int64)
    messages = np.zeros((samples, memory.states), np.int64)
    inputs, spikes = arriving, None
    for step in range(presentations * presentation_steps + 1):
        before = messages
        messages = relays.step(spikes, arriving)
        presentation, phase = divmod(step, presentation_steps)
        if phase == 0:
            if presentation:
                done.states[:, presentation - 1] = relays.x
                boundary.observe(presentation - 1, relays.x * memory.state_unit)
            if presentation == presentations:
                break
            inputs = to_messages(memory, boundary.channels(presentation), done)
        spikes = neurons.step(before)
        arriving = inputs
        events = {"memory": spikes, "relay": messages != 0, "input": inputs != 0}
        for kind, tally in tallies.items():
            tally.add(events[kind], presentation, step)
            if phase == presentation_steps - 1:
                tally.flush(presentation)
    done.saturations["relay/state"] = relays.saturated
    done.saturations["relay/message"] = relays.messages_saturated
    return done


def to_messages(memory: LoihiMemory, channels: np.ndarray, done: Activity) -> np.ndarray:
    """Return the host's messages for real inputs, and count saturations in `done`.

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
