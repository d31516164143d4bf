"""Target `onnxruntime`: a network as an ONNX graph, run by ONNX Runtime on the CPU.

A float network is exported in memory (see :mod:`converters.onnx.sequence`) and run in float32. Its
states are not sent as events, so none are counted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.network import LMUNetwork
from targets.base import Progress, Run, States, check_supported
from targets.reference import float_populations

if TYPE_CHECKING:
    import onnx
    import onnxruntime

PROVIDER = "CPUExecutionProvider"
RESULTS = ("output", "m", "h", "y")


class OnnxRuntimeTarget:
    """Runs every LMUNetwork whose weights fit float32.

    Parameters
    ----------
    threads : int
        Threads within one operation; 0 leaves the choice to ONNX Runtime.
    batch_size : int
        Samples run at once; recording holds every state of so many.
    """

    name = "onnxruntime"
    accepts: tuple[type, ...] = (LMUNetwork,)

    def __init__(self, threads: int = 1, batch_size: int = 500) -> None:
        self.threads = check_integer("threads", threads, 0, 1024)
        self.batch_size = check_integer("batch_size", batch_size, 1, 1_000_000)

    def unsupported(self, network: LMUNetwork) -> list[str]:
        """Say which weights do not fit float32, or that they do not fit one ONNX file."""
        from converters.onnx.weights import Weights

        try:
            Weights(network)
        except InputError as error:
            return [str(error).rstrip(".")]
        return []

    def run(
        self,
        network: LMUNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run in float32; `seed` is not used.

        Raises
        ------
        InputError
            On inputs of another shape or with NaN, or a network that does not fit float32.
        MissingDependencyError
            When onnx or onnxruntime is absent.
        RunError
            When ONNX Runtime fails.
        """
        runtime = _import_runtime()
        from converters.onnx import to_onnx

        check_supported(self, network)
        inputs = _narrowed(check_inputs(inputs, network.n_in))
        start = time.perf_counter()
        session = _session(runtime, to_onnx(network, record=record), self.threads)
        names = [o.name for o in session.get_outputs() if o.name in RESULTS]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for first in range(0, len(inputs), self.batch_size):
            batch = inputs[first : first + self.batch_size]
            for name, value in zip(names, _run(session, names, batch), strict=True):
                parts[name].append(value)
            if progress:
                progress(first + len(batch), len(inputs))
        results = {name: np.concatenate(values) for name, values in parts.items()}
        return Run(
            target=self.name,
            outputs=results["output"].astype(np.float64),
            neurons=float_populations(network),
            events={},
            synops=0,
            saturations={},
            steps=inputs.shape[1],
            chip_steps=inputs.shape[1],
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            states=_states(results, inputs.shape[:2]) if record else None,
            settings={
                "provider": PROVIDER,
                "threads": self.threads,
                "onnxruntime": runtime.__version__,
            },
        )


def _import_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "target onnxruntime needs the library onnxruntime, which is absent or broken "
            f"({error}); install it with: pip install 'lmu-deploy[onnx]'."
        ) from error
    return onnxruntime


def _session(runtime: Any, model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])


def _narrowed(inputs: np.ndarray) -> np.ndarray:
    """Give the inputs in float32."""
    with np.errstate(over="ignore"):
        narrow = inputs.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise InputError("input has entries beyond float32 (3.4e38); scale it.")
    return narrow


def _run(session: Any, names: list[str], batch: np.ndarray) -> list[np.ndarray]:
    """Run one batch; ONNX Runtime's errors are classes of its own that share no base."""
    try:
        return session.run(names, {"input": batch})
    except Exception as error:
        raise RunError(f"ONNX Runtime failed: {error}") from error


def _states(results: dict[str, np.ndarray], size: tuple[int, ...]) -> States:
    """Give the recorded states; a kind that no layer has is left out of the model."""
    none = np.empty((*size, 0), dtype=np.float32)
    m, h = results.get("m", none), results.get("h", none)
    return States(m, h, results["y"], np.ones(m.shape[2]), np.ones(h.shape[2]))
