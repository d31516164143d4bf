"""Target `spiking`: networks on Loihi's neurons in NumPy, many samples at once, and their Runs.

Relays, LIF neurons and the messages of the host are simulated step by step, a memory of a chain or
a stage of a graph at a time. The equations are those of docs/reference/loihi-semantics.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.loihi.neurons import decayed, limited, make_neurons, scaled
from lmu_deploy.core.graph.network import INPUT
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.graph import LoihiEnsemble, LoihiGraph, OnLoihi, SpikingGraph
from lmu_deploy.core.spiking.loihi import (
    MESSAGE_LIMIT,
    ONE,
    STATE_LIMIT,
    LoihiConnection,
    LoihiCurrent,
    LoihiMemory,
    LoihiNetwork,
)
from targets.base import Run, States, check_run
from targets.host import HostLayer, feedback_notes, lstm_notes
from targets.spiking import graph as graphs
from targets.spiking.graph import GraphRunner, Stage, foreign, simulate
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
    """The relays of one ensemble for several samples, whose registers start at zero.

    Parameters
    ----------
    ensemble : LoihiEnsemble
    decay, fast_decay : int
        Of the registers X and R, in 4096ths.
    samples : int

    Attributes
    ----------
    z : ndarray, shape (samples, size), int64
        Drives after the last step.
    messages : ndarray, shape (samples, size), int64
        What the relays sent in the last step.
    saturations : mapping of place to int
    """

    def __init__(self, ensemble: LoihiEnsemble, decay: int, fast_decay: int, samples: int) -> None:
        self._ensemble, shape = ensemble, (samples, ensemble.size)
        self._decays = decay, fast_decay
        self._x, self._r, self.z, self.messages = (np.zeros(shape, np.int64) for _ in range(4))
        # Sums of weights of 8 bits over fewer than 2^16 spikes are exact in single precision.
        self._weights = [
            each.weights.swapaxes(1, 2).astype(
                np.float32 if each.weights.shape[2] < 2**16 else np.float64
            )
            for each in ensemble.connections
        ]
        parts: tuple[LoihiConnection | LoihiCurrent, ...]
        parts = (*ensemble.connections, *ensemble.currents)
        self._gains = [
            (each.multiplier.astype(np.int64), each.shift.astype(np.int64)) for each in parts
        ]
        self._state, self._message = (str(Place(ensemble.name, p)) for p in ("state", "message"))
        self.saturations = {self._state: 0}
        if ensemble.populations is not None:
            self.saturations[self._message] = 0

    def step(
        self, fired: Mapping[str, np.ndarray] | None, inputs: Mapping[str, np.ndarray]
    ) -> None:
        """Advance by one chip step.

        Parameters
        ----------
        fired : mapping of ensemble to ndarray, shape (samples, neurons), bool, or None
            Spikes of the step before; None for no spikes.
        inputs : mapping of source to ndarray, shape (samples, features), int64
            Messages of the host of the step before.
        """
        ensemble, ends = self._ensemble, len(self._ensemble.connections)
        x, r = (
            decayed(register, decay)
            for register, decay in zip((self._x, self._r), self._decays, strict=True)
        )
        if fired is not None:
            parts = zip(ensemble.connections, self._weights, self._gains[:ends], strict=True)
            for each, weights, gains in parts:
                register = r if each.fast else x
                register += scaled(_summed(fired[each.source], weights), *gains)
        direct = np.zeros_like(x)
        for current, gains in zip(ensemble.currents, self._gains[ends:], strict=True):
            register = direct if current.direct else x
            sums = inputs[current.source].astype(np.float64) @ current.weights.T
            register += scaled(sums.astype(np.int64), *gains)
        self._x, self._r = self._limited(x), self._limited(r)
        self.z = self._limited(self._x + self._r + direct)
        if ensemble.populations is not None:
            messages = scaled(self.z, 1, ensemble.message_shift)
            self.messages, changed = limited(messages, MESSAGE_LIMIT)
            self.saturations[self._message] += changed

    def _limited(self, values: np.ndarray) -> np.ndarray:
        found, changed = limited(values, STATE_LIMIT)
        self.saturations[self._state] += changed
        return found


def _summed(fired: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sums of the weights of all spikes, shape (samples, size), int64."""
    blocks = fired.reshape(len(fired), len(weights), -1).swapaxes(0, 1).astype(weights.dtype)
    return np.asarray((blocks @ weights).swapaxes(0, 1).reshape(len(fired), -1), np.int64)


def host_messages(
    graph: LoihiGraph, values: Mapping[str, np.ndarray], saturations: dict[str, int]
) -> dict[str, np.ndarray]:
    """Return what the host sends for values of all sources, and count saturations.

    Parameters
    ----------
    graph : LoihiGraph
    values : mapping of source to ndarray, shape (..., features)
    saturations : dict of place to int

    Returns
    -------
    mapping of source to ndarray of the same shape, int64
    """
    found = {}
    for source, given in values.items():
        sent = graph.input(source)
        messages, changed = limited(np.rint(given / sent.scales), MESSAGE_LIMIT)
        saturations[sent.place] = saturations.get(sent.place, 0) + changed
        found[source] = messages.astype(np.int64)
    return found


def simulate_fixed(stage: Stage) -> graphs.Activity:
    """Simulate a stage of a LoihiGraph as docs/reference/loihi-semantics.md specifies."""
    graph, done = stage.graph, graphs.Activity.empty(stage, extra_steps=1)
    decays = graph.decay, graph.fast_decay
    relays, reading = (
        {each.name: Relays(each, *decays, stage.samples) for each in parts}
        for parts in (stage.ensembles, stage.probes)
    )
    neurons = {e.name: make_neurons(e.populations, stage.samples) for e in stage.ensembles}
    messages = host_messages(graph, stage.values, done.saturations)
    sent = {source: np.zeros_like(each[:, 0]) for source, each in messages.items()}
    fired: dict[str, np.ndarray] | None = None
    for step in range(stage.steps * graph.steps_per_presentation + 1):
        before = {name: own.messages for name, own in relays.items()}
        for own in (*relays.values(), *reading.values()):
            own.step(fired, sent)
        presentation, phase = divmod(step, graph.steps_per_presentation)
        if phase == 0 and presentation:
            for each in stage.ensembles:
                done.drives[each.name][:, presentation - 1] = relays[each.name].z / ONE
            for each in stage.probes:
                read = reading[each.name].z / ONE * each.scales
                done.read[each.name][:, presentation - 1] = read
        if presentation == stage.steps:
            break
        fired = {n: s.step(before[n]).reshape(stage.samples, -1) for n, s in neurons.items()}
        sent = {source: each[:, presentation] for source, each in messages.items()}
        for ensemble in stage.ensembles:
            done.count(ensemble.name, fired[ensemble.name], presentation, step)
            done.count(ensemble.relays, relays[ensemble.name].messages != 0, presentation, step)
        for source, given in sent.items():
            done.count(graph.input(source).place, given != 0, presentation, step)
    for own in (*relays.values(), *reading.values()):
        done.saturations.update(own.saturations)
    return done


def as_ensemble(memory: LoihiMemory) -> LoihiEnsemble:
    """Return a memory as an ensemble that its own spikes and the host's messages drive."""
    columns = np.repeat(np.eye(memory.channels, dtype=np.int8), memory.order, axis=0)
    decoders = memory.decoder_multiplier, memory.decoder_shift
    inputs = memory.input_multiplier, memory.input_shift
    current = LoihiCurrent(INPUT, columns * memory.input_weights[:, None], *inputs, direct=False)
    connection = LoihiConnection("relay", memory.decoders, *decoders, fast=False)
    return LoihiEnsemble(
        "relay",
        memory.scales.reshape(-1),
        (connection,),
        (current,),
        memory.message_shift,
        memory.neurons,
    )


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
    samples, presentations : int
    presentation_steps : int
        Chip steps of one presentation.
    raster : bool
        Record every event of sample 0.
    """
    done = empty_activity(memory, samples, presentations, presentation_steps, raster)
    relays = Relays(as_ensemble(memory), memory.decay, memory.decay, samples)
    neurons = make_neurons(memory.neurons, samples)
    tallies = {kind: Tally(done, kind) for kind in KINDS}
    arriving = np.zeros((samples, memory.channels), np.int64)
    inputs, spikes = arriving, None
    for step in range(presentations * presentation_steps + 1):
        before = relays.messages
        relays.step(None if spikes is None else {"relay": spikes}, {INPUT: arriving})
        presentation, phase = divmod(step, presentation_steps)
        if phase == 0:
            if presentation:
                done.states[:, presentation - 1] = relays.z
                boundary.observe(presentation - 1, relays.z * memory.state_unit)
            if presentation == presentations:
                break
            inputs = to_messages(memory, boundary.channels(presentation), done)
        spikes = neurons.step(before)
        arriving = inputs
        events = {"memory": spikes, "relay": relays.messages != 0, "input": inputs != 0}
        for kind, tally in tallies.items():
            tally.add(events[kind], presentation, step)
            if phase == presentation_steps - 1:
                tally.flush(presentation)
    done.saturations.update(relays.saturations)
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
    """Run LoihiNetworks and LoihiGraphs as the specification says, and SpikingGraphs."""

    name = "spiking"
    accepts: tuple[type, ...] = (LoihiNetwork, LoihiGraph, SpikingGraph)

    def unsupported(self, network: OnLoihi | SpikingGraph) -> list[str]:
        """Return why a network cannot run: it was calibrated for a device without a simulation."""
        return foreign(network) if isinstance(network, SpikingGraph) else []

    def run(
        self,
        network: OnLoihi | SpikingGraph,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run in NumPy; see :class:`targets.base.Target`.

        Nothing is random on Loihi; `seed` is that of a SpikingGraph's initial membranes and noise.
        """
        inputs, seed = check_run(self, network, inputs, seed)
        if isinstance(network, SpikingGraph | LoihiGraph):
            stage = simulate if isinstance(network, SpikingGraph) else simulate_fixed
            return GraphRunner(self.name, network, inputs, seed, stage, {}, progress).run(record)
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
