"""The target `spiking`: the NumPy twin of a LoihiNetwork, many samples at once."""

from __future__ import annotations

import time

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.loihi_network import LoihiNetwork
from targets.base import Progress, Run, check_supported
from targets.host import HostLayer
from targets.spiking.activity import Activity, Boundary, merged
from targets.spiking.layers import Job, run_layers
from targets.spiking.memory import run_memory
from targets.spiking.report import make_run

_NEURONS_AT_ONCE = 60_000
"""Of all samples of a batch: so that what a step touches stays in a core's cache."""


class SpikingTarget:
    """Runs every LoihiNetwork as docs/spiking-semantics.md says."""

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
