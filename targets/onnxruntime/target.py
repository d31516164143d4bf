"""The target itself: which graph a network becomes, and the Run that comes of it.

Graphs are made in memory: a float network's by :mod:`converters.onnx.sequence`, an integer
network's by :mod:`converters.onnx.quantised`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.network import LMUNetwork
from targets.base import Progress, Run, check_supported
from targets.in_segments import run_in_segments
from targets.onnxruntime.floats import collect_floats, narrowed
from targets.onnxruntime.integers import collect_integers, messages_of
from targets.onnxruntime.session import PROVIDER, Session, import_runtime


class OnnxRuntimeTarget:
    """Runs every IntegerNetwork, and every LMUNetwork whose weights fit float32.

    Parameters
    ----------
    threads : int
        Threads within one operation; 0 leaves the choice to ONNX Runtime.
    batch_size : int
        Samples run at once; recording holds every state of so many.
    """

    name = "onnxruntime"
    accepts: tuple[type, ...] = (LMUNetwork, IntegerNetwork)

    def __init__(self, threads: int = 1, batch_size: int = 500) -> None:
        self.threads = check_integer("threads", threads, 0, 1024)
        self.batch_size = check_integer("batch_size", batch_size, 1, 1_000_000)

    def unsupported(self, network: LMUNetwork | IntegerNetwork) -> list[str]:
        """Say which weights do not fit float32, or that they do not fit one ONNX file."""
        from converters.onnx.weights import Weights

        if isinstance(network, IntegerNetwork):
            return []
        try:
            Weights(network)
        except InputError as error:
            return [str(error).rstrip(".")]
        return []

    def run(
        self,
        network: LMUNetwork | IntegerNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run a float network in float32, an integer network in integers; `seed` is not used.

        Raises
        ------
        InputError
            On inputs of another shape or with NaN, or a network that does not fit float32.
        MissingDependencyError
            When onnx or onnxruntime is absent.
        RunError
            When ONNX Runtime fails.
        """
        runtime = import_runtime()
        from converters.onnx import to_onnx, to_onnx_integer

        check_supported(self, network)
        inputs = check_inputs(inputs, network.n_in)
        if isinstance(network, IntegerNetwork) and network.on_host:
            return run_in_segments(
                network,
                inputs,
                lambda part, x, kept, told: self.run(
                    part, x, record=kept, seed=seed, progress=told
                ),
                record=record,
                progress=progress,
            )
        steps = inputs.shape[1]
        integer = isinstance(network, IntegerNetwork)
        start = time.perf_counter()
        if isinstance(network, IntegerNetwork):
            model = to_onnx_integer(network, record=record, tally=True)
            messages, limited = messages_of(inputs, network.input)
            batches = self._batches(Session(model, self.threads), messages, progress)
            found = collect_integers(network, limited, batches, record)
        else:
            narrow = narrowed(inputs)
            session = Session(to_onnx(network, record=record), self.threads)
            batches = self._batches(session, narrow, progress)
            found = collect_floats(network, steps, batches, record)
        return Run(
            target=self.name,
            steps=steps,
            chip_steps=steps,
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            settings={
                "graph": "integer" if integer else "float",
                "provider": PROVIDER,
                "threads": self.threads,
                "onnxruntime": runtime.__version__,
            },
            **found,
        )

    def _batches(
        self, session: Session, inputs: np.ndarray, progress: Progress | None
    ) -> Iterator[dict[str, np.ndarray]]:
        for done, results in session.batches(inputs, self.batch_size):
            yield results
            if progress:
                progress(done, len(inputs))
