"""The target `spiking`: the NumPy twin of a LoihiNetwork, many samples at once.

The Run of a LoihiNetwork: what every target of it says of itself.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.validation import check_inputs, check_integer
from targets.base import Run, States, check_supported
from targets.host import HostLayer
from targets.spiking.activity import Activity, Boundary, merged
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
    """Put together what a target gives back.

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
        What this target adds to those of all.
    """
    steps = outcome.y.shape[1]
    states = None
    if record:
        h_scale = np.ones(outcome.h.shape[2])
        states = States(outcome.m, outcome.h, outcome.y, outcome.unit, h_scale)
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
        "Relays hold the state and send graded messages, which the first Loihi cannot: there an "
        "embedded core or the host does their work.",
        f"Each input was presented for {network.presentation_ms:g} ms; m is the state of the "
        "relays at the end of the presentation.",
    ]
    if len(layers) > 1:
        notes.append("Layers ran one after the other, each for the whole of the input.")
    if any(layer.feeds_back for layer in layers):
        notes.append(
            "Feedback from hidden units or memory into the memory's input went through the host "
            "once in each hold."
        )
    if len(layers) < len(network.host.layers):
        notes.append("LSTM layers ran on the host in float.")
    return tuple(notes)


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
"""Of all samples of a batch: so that what a step touches stays in a core's cache."""


class SpikingTarget:
    """Runs every LoihiNetwork as docs/reference/loihi-semantics.md says."""

    name = "spiking"
    accepts: tuple[type, ...] = (LoihiNetwork,)

    def unsupported(self, network: LoihiNetwork) -> list[str]:
        """Nothing that a LoihiNetwork can hold is unsupported."""
        return []

    def run(
        self,
        network: LoihiNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run in NumPy; see :class:`targets.base.Target`. Nothing is random: `seed` is not used."""
        check_supported(self, network)
        inputs = check_inputs(inputs, network.n_in)
        seed = check_integer("seed", seed, 0, 2**32 - 1)
        start = time.perf_counter()
        watch = Watch(network, len(inputs), inputs.shape[1], progress)
        outcome = run_layers(network, inputs, lambda job: run_job(job, watch))
        seconds = time.perf_counter() - start
        return make_run(self.name, network, outcome, record=record, seed=seed, wall_seconds=seconds)


class Watch:
    """Turns holds done into whole samples of all layers together."""

    def __init__(
        self, network: LoihiNetwork, samples: int, steps: int, progress: Progress | None
    ) -> None:
        memories = sum(memory is not None for memory in network.memories)
        self._per_sample, self._samples = steps * memories, samples
        self._progress, self._done = progress, 0

    def held(self, samples: int) -> None:
        """Note that so many samples have come one hold further."""
        self._done += samples
        if self._progress:
            self._progress(self._done // self._per_sample, self._samples)


def run_job(job: Job, watch: Watch | None = None) -> Activity:
    """Run one memory, in batches of as many samples as are fastest.

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

        def observe(hold: int, m: np.ndarray, host: HostLayer = host) -> None:
            host.observe(hold, m)
            if watch:
                watch.held(len(m))

        boundary = Boundary(host.channels, observe)
        parts.append(
            run_memory(
                job.memory, boundary, part.samples, job.holds, job.hold_steps, raster=first == 0
            )
        )
    return merged(parts)
