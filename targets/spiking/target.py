"""Target `spiking`: LoihiNetworks in NumPy, many samples at once, and the Run of such a network."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from targets.base import Run, States, check_run
from targets.host import HostLayer, feedback_notes, lstm_notes
from targets.spiking.activity import Activity, Boundary, merged
from targets.spiking.graph import GraphRunner, foreign, simulate
from targets.spiking.layers import Job, Outcome, run_layers
from targets.spiking.memory import run_memory


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
