"""One memory for a batch of samples: relays, neurons and the host's boundary, step by step."""

from __future__ import annotations

import numpy as np

from lmu_deploy.loihi_lif import make_neurons
from lmu_deploy.loihi_memory import MESSAGE_LIMIT, LoihiMemory
from targets.spiking.activity import KINDS, Activity, Boundary, Tally, empty_activity
from targets.spiking.relay import Relays, limited


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
