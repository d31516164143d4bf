"""Target `integer`: the bit-exact simulator of an integer network, whole test sets in batches."""

from __future__ import annotations

import time

import numpy as np

from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_choice, check_inputs
from targets.base import Run, check_supported, flat_frames
from targets.integer.engine import ENGINES, choose_engine, float64_objections
from targets.integer.machine import Machine
from targets.integer.run import Collector, cut, run_tiles

_BATCH = 256


class IntegerTarget:
    """Run integer networks as docs/reference/integer-semantics.md specifies.

    Parameters
    ----------
    engine : {"auto", "numpy", "torch", "numba"}
        Array library; all produce the same integers. See engine.py.
    """

    name = "integer"
    accepts: tuple[type, ...] = (IntegerNetwork,)

    def __init__(self, engine: str = "auto") -> None:
        self._engine = check_choice("engine", engine, ENGINES)

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Return the connections whose sums float64 cannot represent exactly."""
        return float64_objections(network)

    def run(
        self,
        network: IntegerNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run a set of inputs; see :class:`targets.base.Target`. `seed` is not used."""
        check_supported(self, network)
        inputs = check_inputs(flat_frames(inputs), network.n_in)
        start = time.perf_counter()
        sample_steps = inputs.shape[0] * inputs.shape[1]
        engine = choose_engine(network, self._engine, sample_steps)
        tiles = cut(len(inputs), _BATCH, engine.threads)
        machines = [Machine(network, engine) for _ in range(min(engine.threads, len(tiles)))]
        collector = Collector(machines[0], inputs.shape, record)
        run_tiles(machines, tiles, inputs, collector, progress)
        return collector.run(self.name, seed, time.perf_counter() - start)
