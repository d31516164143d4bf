"""Target `reference`: the NumPy float64 forward pass of an Network.

All other targets are compared with it. Float states are not sent as events, so it counts none.
"""

from __future__ import annotations

import time

import numpy as np

from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import run_reference
from targets.base import Run, States, check_supported


class ReferenceTarget:
    """Run every Network in float64."""

    name = "reference"
    accepts: tuple[type, ...] = (Network,)

    def unsupported(self, network: Network) -> list[str]:
        """Return no reason: every Network is supported."""
        return []

    def run(
        self,
        network: Network,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
        lengths: np.ndarray | None = None,
    ) -> Run:
        """Run in float64; see `core.reference.run_reference`. `seed` is not used.

        `lengths`, shape (samples,), are the steps of each sequence that count, if not all do.
        """
        check_supported(self, network)
        start = time.perf_counter()
        trace = run_reference(network, inputs, record, progress=progress, lengths=lengths)
        states = None
        if trace.m is not None and trace.h is not None and trace.y is not None:
            states = States.of_reals(trace.m, trace.h, trace.y)
        return Run(
            target=self.name,
            outputs=trace.outputs,
            neurons=float_populations(network),
            events={},
            synops=0,
            saturations={},
            steps=inputs.shape[1],
            chip_steps=inputs.shape[1],
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            states=states,
        )


def float_populations(network: Network) -> dict[str, int]:
    """Return the populations of a float network with their numbers of states or units."""
    return {
        f"{node.name}/{part}": size
        for node in network.nodes
        for part, size in node.operator.states.items()
    }
