"""Target `spiking`: LoihiNetworks in NumPy, many samples at once, and the Run of such a network.

A memory is simulated step by step: relays, LIF neurons, and the messages of the host. The equations
are those of docs/reference/loihi-semantics.md.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.core.spiking.loihi import (
    DECAY_ONE,
    MESSAGE_LIMIT,
    STATE_LIMIT,
    LoihiMemory,
    LoihiNetwork,
    make_neurons,
)
from targets.base import Run, States, check_run
from targets.host import HostLayer, feedback_notes, lstm_notes
from targets.spiking.graph import GraphRunner, foreign, simulate
from targets.spiking.layers import (
    KINDS,
    Activity,
    Boundary,
    Job,
    Outcome,
    Tally,
    empty_activity,
    merged,
    run_layers,
)


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


def make_run(
    target: str,
    network: LoihiNetwork,
    outcome: Outcome,
    *,
    record: bool,
    seed: int,
    wall_seconds: float,
    notes: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
) -> Run:
    """Build the Run of a target for LoihiNetworks.

    Parameters
    ----------
    target : str
    network : LoihiNetwork
    outcome : Outcome
    record : bool
        Whether states were asked for.
    seed : int
    wall_seconds : float
    notes, settings
        Additional ones of the target.
    """
    steps = outcome.y.shape[1]
    states = None
    if record:
        states = States(outcome.m, outcome.h, outcome.y, outcome.unit, np.ones(outcome.h.shape[2]))
    return Run(
        target=target,
        outputs=outcome.y if network.return_sequences else outcome.y[:, -1],
        neurons=outcome.neurons,
        events=outcome.events,
        synops=outcome.synops,
        saturations=outcome.saturations,
        steps=steps,
        chip_steps=steps * network.steps_per_presentation + 1,
        wall_seconds=wall_seconds,
        seed=seed,
        states=states,
        rasters=outcome.rasters,
        notes=(*_notes(network), *notes),
        settings=_settings(network) | (settings or {}),
    )


def _notes(network: LoihiNetwork) -> tuple[str, ...]:
    layers = [layer for layer in network.host.layers if isinstance(layer, LMULayer)]
    notes = [
        "The memory ran on LIF neurons in Loihi's fixed point; encoders, hidden layer and readout "
        "ran on the host in float.",
        "Relays store the state and send graded messages, which the first Loihi does not support: "
        "there an embedded core or the host computes them.",
        f"Each input was presented for {network.presentation_ms:g} ms; m is the state of the "
        "relays at the end of the presentation.",
    ]
    if len(layers) > 1:
        notes.append("Layers ran one after the other, each for the whole of the input.")
    return (*notes, *feedback_notes(network.host), *lstm_notes(network.host))


def _settings(network: LoihiNetwork) -> dict[str, Any]:
    memory = next(memory for memory in network.memories if memory is not None)
    return {
        "profile": network.profile,
        "weight_bits": 8,
        "neuron": "lif, fixed point",
        "neurons_per_state": memory.neurons.neurons,
        "current_decay": memory.neurons.current_decay,
        "membrane_decay": memory.neurons.membrane_decay,
        "threshold": memory.neurons.threshold,
        "calibration": network.calibration.method,
        "calibration_error": network.calibration.fit_error,
        "calibration_ridge": network.calibration.ridge,
        "dt_ms": network.dt_ms,
        "tau_ms": network.tau_ms,
        "presentation_ms": network.presentation_ms,
    }


_NEURONS_AT_ONCE = 60_000
"""Neurons of all samples of a batch, such that the data of a step stay in a core's cache."""


class SpikingTarget:
    """Run LoihiNetworks as docs/reference/loihi-semantics.md specifies, and SpikingGraphs."""

    name = "spiking"
    accepts: tuple[type, ...] = (LoihiNetwork, SpikingGraph)

    def unsupported(self, network: LoihiNetwork | SpikingGraph) -> list[str]:
        """Return why a network cannot run: it was calibrated for a device without a simulation."""
        return foreign(network) if isinstance(network, SpikingGraph) else []

    def run(
        self,
        network: LoihiNetwork | SpikingGraph,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run in NumPy; see :class:`targets.base.Target`.

        Nothing is random in a LoihiNetwork; `seed` is that of a SpikingGraph's initial membranes
        and noise.
        """
        inputs, seed = check_run(self, network, inputs, seed)
        if isinstance(network, SpikingGraph):
            runner = GraphRunner(self.name, network, inputs, seed, simulate, {}, progress)
            return runner.run(record)
        start = time.perf_counter()
        watch = Watch(network, len(inputs), inputs.shape[1], progress)
        outcome = run_layers(network, inputs, lambda job: run_job(job, watch))
        seconds = time.perf_counter() - start
        return make_run(self.name, network, outcome, record=record, seed=seed, wall_seconds=seconds)


class Watch:
    """Progress in whole samples, from the presentations of all layers."""

    def __init__(
        self, network: LoihiNetwork, samples: int, steps: int, progress: Progress | None
    ) -> None:
        memories = sum(memory is not None for memory in network.memories)
        self._per_sample, self._samples = steps * memories, samples
        self._progress, self._done = progress, 0

    def presented(self, samples: int) -> None:
        """Count one presentation of `samples` samples."""
        self._done += samples
        if self._progress:
            self._progress(self._done // self._per_sample, self._samples)


def run_job(job: Job, watch: Watch | None = None) -> Activity:
    """Run one memory in batches of the fastest size.

    Parameters
    ----------
    job : Job
    watch : Watch, optional
    """
    batch = max(1, _NEURONS_AT_ONCE // job.memory.size)
    parts = []
    for first in range(0, job.samples, batch):
        part = job.part(slice(first, first + batch))
        host = HostLayer(part.layer, part.signal)

        def observe(presentation: int, m: np.ndarray, host: HostLayer = host) -> None:
            host.observe(presentation, m)
            if watch:
                watch.presented(len(m))

        boundary = Boundary(host.channels, observe)
        parts.append(
            run_memory(
                job.memory,
                boundary,
                part.samples,
                job.presentations,
                job.presentation_steps,
                raster=first == 0,
            )
        )
    return merged(parts)
