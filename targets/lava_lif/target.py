"""The target: layer after layer, each memory as a run of Lava in a child process."""

from __future__ import annotations

import platform
import time

import numpy as np

from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.validation import check_inputs, check_integer, check_number
from targets.base import Run, check_supported
from targets.lava.compat import lava_version
from targets.lava_lif.jobs import chip_steps, run_jobs
from targets.spiking.activity import Activity
from targets.spiking.layers import Job, run_layers
from targets.spiking.target import make_run


class LavaLifTarget:
    """Runs every LoihiNetwork on Lava's fixed-point LIF neurons.

    Parameters
    ----------
    time_limit : float, optional
        Seconds after which the run of one layer is given up; by default two minutes and a tenth of
        a second a chip step, some hundred times what it takes.
    """

    name = "lava-lif"
    accepts: tuple[type, ...] = (LoihiNetwork,)

    def __init__(self, time_limit: float | None = None) -> None:
        if time_limit is not None:
            time_limit = check_number("time limit", time_limit, 1.0, 1e7)
        self.time_limit = time_limit

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
        """Run on Lava; see :class:`targets.base.Target`. Nothing is random: `seed` is not used.

        Raises
        ------
        MissingDependencyError
            When Lava is absent.
        """
        check_supported(self, network)
        inputs = check_inputs(inputs, network.n_in)
        seed = check_integer("seed", seed, 0, 2**32 - 1)
        version = lava_version()
        start = time.perf_counter()
        samples, steps, _ = inputs.shape
        memories = sum(memory is not None for memory in network.memories)
        before = 0

        def run_job(job: Job) -> Activity:
            nonlocal before

            def show(holds: int) -> None:
                if progress:
                    progress((before + holds) // (steps * memories), samples)

            limit = self.time_limit or 120.0 + 0.1 * chip_steps(job)
            done = run_jobs([job], limit, show)[0]
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
            settings={
                "versions": {
                    "lava-nc": version,
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
                "run_config": "Loihi2SimCfg(select_tag='fixed_pt')",
            },
        )
