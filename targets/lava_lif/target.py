"""Target `lava-lif`: each memory of a LoihiNetwork as a run of Lava in a child process."""

from __future__ import annotations

import time

import numpy as np

from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from targets.base import Run, check_run
from targets.lava.compat import lava_settings, lava_version
from targets.lava.target import TimeLimited
from targets.lava_lif.jobs import chip_steps, run_jobs
from targets.spiking.activity import Activity
from targets.spiking.layers import Job, run_layers
from targets.spiking.target import make_run


class LavaLifTarget(TimeLimited):
    """Run LoihiNetworks on Lava's fixed-point LIF neurons; each layer has the time limit."""

    name = "lava-lif"
    accepts: tuple[type, ...] = (LoihiNetwork,)

    def unsupported(self, network: LoihiNetwork) -> list[str]:
        """Return no reason: every LoihiNetwork is supported."""
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
        """Run on Lava; see :class:`targets.base.Target`. Nothing is random: `seed` is not used.

        Raises
        ------
        MissingDependencyError
            When Lava is not installed.
        """
        inputs, seed = check_run(self, network, inputs, seed)
        version = lava_version()
        start = time.perf_counter()
        samples, steps, _ = inputs.shape
        memories = sum(memory is not None for memory in network.memories)
        before = 0

        def run_job(job: Job) -> Activity:
            nonlocal before

            def show(presentations: int) -> None:
                if progress:
                    progress((before + presentations) // (steps * memories), samples)

            done = run_jobs([job], self.seconds(chip_steps(job)), show)[0]
            show(samples * steps)
            before += samples * steps
            return done

        outcome = run_layers(network, inputs, run_job)
        return make_run(
            self.name,
            network,
            outcome,
            record=record,
            seed=seed,
            wall_seconds=time.perf_counter() - start,
            notes=("Simulated by Lava in fixed point, not run on a chip.",),
            settings=lava_settings(version),
        )
