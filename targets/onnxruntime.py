"""Target `onnxruntime`: networks as ONNX graphs on ONNX Runtime's CPU provider.

Graphs are built in memory: those of float networks by :mod:`converters.onnx.models`, those of
integer networks by :mod:`converters.onnx.quantized`. A float network runs in float32; its states
are not sent as events, so none are counted. An integer network runs in integer operators; its
models count events and saturations (:mod:`targets.onnx_integers`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lmu_deploy.core.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.core.graph.executor import check_frames
from lmu_deploy.core.graph.linear import Embedding
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs, check_integer
from targets.base import Run, States, check_supported, flat_frames
from targets.onnx_integers import IntegerRunner
from targets.reference import float_populations

if TYPE_CHECKING:
    import onnx


def narrowed(inputs: np.ndarray) -> np.ndarray:
    """Convert inputs to float32.

    Raises
    ------
    InputError
        When an entry is out of range.
    """
    with np.errstate(over="ignore"):
        narrow = inputs.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise InputError("input has entries beyond float32 (3.4e38); scale it.")
    return narrow


def check_tokens(network: Network, inputs: np.ndarray) -> None:
    """Raise InputError when an embedding of the input has no row for a token.

    ONNX counts negative rows from the end and cuts off fractions.
    """
    for node in network.nodes:
        if isinstance(node.operator, Embedding) and INPUT in node.inputs:
            node.operator.apply(inputs)


def collect_floats(
    network: Network, steps: int, batches: Iterable[dict[str, np.ndarray]], record: bool
) -> dict[str, Any]:
    """Return fields of the Run of a float network; `batches` are outputs of its model."""
    parts = list(batches)
    results = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {
        "outputs": results["output"].astype(np.float64),
        "neurons": float_populations(network),
        "events": {},
        "synops": 0,
        "saturations": {},
        "states": _states(results, steps) if record else None,
    }


def _states(results: dict[str, np.ndarray], steps: int) -> States:
    """Return the recorded states; the model has no output for a kind that no node has."""
    none = np.empty((len(results["y"]), steps, 0), dtype=np.float32)
    y = results["y"].reshape(*none.shape[:2], -1)
    return States.of_reals(results.get("m", none), results.get("h", none), y)


PROVIDER = "CPUExecutionProvider"


def import_runtime() -> Any:
    """Import and return onnxruntime.

    Raises
    ------
    MissingDependencyError
        When it is missing or broken.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "target onnxruntime needs the library onnxruntime, which is missing or broken "
            f"({error}); install it with: pip install 'lmu-deploy[onnx]'."
        ) from error
    return onnxruntime


class Session:
    """Inference session of a model.

    Parameters
    ----------
    model : onnx.ModelProto
    threads : int
        Threads within one operation; 0 leaves the choice to ONNX Runtime.
    """

    def __init__(self, model: onnx.ModelProto, threads: int) -> None:
        runtime = import_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=[PROVIDER]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._errors = _errors_of(runtime)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name.

        Raises
        ------
        RunError
            When ONNX Runtime fails.
        """
        try:
            found = self._session.run(self._outputs, dict(feed))
        except self._errors as error:
            raise RunError(f"ONNX Runtime failed: {error}") from error
        return dict(zip(self._outputs, found, strict=True))


def _errors_of(runtime: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions of ONNX Runtime, which have no common base class."""
    own = vars(runtime.capi.onnxruntime_pybind11_state).values()
    named = [cls for cls in own if isinstance(cls, type) and issubclass(cls, Exception)]
    return (*named, RuntimeError, ValueError, MemoryError)


class OnnxRuntimeTarget:
    """Run integer networks, and float networks whose weights fit float32.

    Parameters
    ----------
    threads : int
        Threads within one operation; 0 leaves the choice to ONNX Runtime.
    batch_size : int
        Samples per batch.
    """

    name = "onnxruntime"
    accepts: tuple[type, ...] = (Network, IntegerNetwork)

    def __init__(self, threads: int = 1, batch_size: int = 500) -> None:
        self.threads = check_integer("threads", threads, 0, 1024)
        self.batch_size = check_integer("batch_size", batch_size, 1, 1_000_000)

    def unsupported(self, network: Network | IntegerNetwork) -> list[str]:
        """Return why a float network has no form in ONNX: mostly weights that are too large."""
        from converters.onnx import to_onnx

        if isinstance(network, IntegerNetwork):
            return []
        try:
            to_onnx(network)
        except InputError as error:
            return [str(error).rstrip(".")]
        return []

    def run(
        self,
        network: Network | IntegerNetwork,
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
        from converters.onnx import to_onnx

        check_supported(self, network)
        if isinstance(network, Network):
            inputs = check_frames(inputs, network.frame)
            check_tokens(network, inputs)
        else:
            inputs = check_inputs(flat_frames(inputs), network.n_in)
        samples, steps = inputs.shape[:2]
        start = time.perf_counter()
        if isinstance(network, IntegerNetwork):
            runner = IntegerRunner(
                network, steps, record, lambda model: Session(model, self.threads)
            )
            for batch in self._batches(samples, runner.batch_size(self.batch_size), progress):
                runner.take(inputs[batch])
            found = runner.fields(steps)
        else:
            narrow = narrowed(inputs)
            session = Session(to_onnx(network, record=record), self.threads)
            batches = self._batches(samples, self.batch_size, progress)
            results = (session.run({"input": narrow[batch]}) for batch in batches)
            found = {
                **collect_floats(network, steps, results, record),
                "steps": steps,
                "chip_steps": steps,
            }
        return Run(
            target=self.name,
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            settings={
                "graph": "integer" if isinstance(network, IntegerNetwork) else "float",
                "provider": PROVIDER,
                "threads": self.threads,
                "onnxruntime": runtime.__version__,
            },
            **found,
        )

    @staticmethod
    def _batches(samples: int, size: int, progress: Progress | None) -> Iterator[slice]:
        """Yield the samples of each batch; report progress when it is done."""
        for first in range(0, samples, size):
            batch = slice(first, min(first + size, samples))
            yield batch
            if progress:
                progress(batch.stop, samples)
