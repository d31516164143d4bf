"""Target `onnxruntime`: networks as ONNX graphs on ONNX Runtime's CPU provider.

Graphs are built in memory: those of float networks by :mod:`converters.onnx.models`, those of
integer networks by :mod:`converters.onnx.quantized`. A float network runs in float32; its states
are not sent as events, so none are counted. An integer network runs in integer operators; its graph
counts events and saturations.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lmu_deploy.core.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.core.graph.executor import check_frames
from lmu_deploy.core.graph.linear import Embedding
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.integer.graph import outlets, populations
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs, check_integer
from targets.base import Run, States, check_supported
from targets.in_segments import run_in_segments
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


def messages_of(inputs: np.ndarray, message: Format) -> tuple[np.ndarray, int]:
    """Return the input messages ``sat(rint(real / scale))``, int32, and their saturations."""
    exact = np.rint(inputs / message.scale)
    limited = int(np.count_nonzero(np.abs(exact) > message.limit))
    return np.clip(exact, -message.limit, message.limit).astype(np.int32), limited


def collect_integers(
    network: IntegerNetwork, limited: int, batches: Iterable[dict[str, np.ndarray]], record: bool
) -> dict[str, Any]:
    """Return fields of the Run of an integer network.

    Parameters
    ----------
    network : IntegerNetwork
    limited : int
        Number of saturated inputs.
    batches : iterable of mapping
        Outputs of the sequence model with its tally; see :mod:`converters.onnx.quantized.integers`.
    record : bool
        Whether they include the states.
    """
    neurons = {name: population.neurons for name, population in populations(network).items()}
    edges_of = {
        f"events/{outlet.source}/{outlet.threshold}": outlet.edges for outlet in outlets(network)
    }
    wanted = ["output", *edges_of] + (["m", "h", "y"] * record)
    collected: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    saturations = Counter({"input": limited})
    # A series of one term sends no V_k, so its graph does not count there.
    saturations.update({f"{name}/message": 0 for name in neurons if name.endswith("/series")})
    rasters: dict[str, np.ndarray] = {}
    for batch in batches:
        for name in set(wanted) & set(batch):
            collected[name].append(batch[name])
        for name, value in batch.items():
            kind, _, where = name.partition("/")
            if kind == "saturations":
                saturations[where] += int(value)
            elif kind == "first":
                rasters.setdefault(where, value.clip(max=255).astype(np.uint8))
    results = {name: np.concatenate(parts) for name, parts in collected.items() if parts}
    counts = {name: results[name].astype(np.int64) for name in edges_of}
    return {
        "outputs": results["output"] * network.chip_readout.output.scale,
        "neurons": neurons,
        "events": {name: _events(counts, name) for name in neurons},
        "synops": sum(int(counted[..., 1].sum()) for counted in counts.values()),
        "carried": {
            edge.place: int(counts[name][..., 0].sum())
            for name, served in edges_of.items()
            for edge in served
        },
        "saturations": dict(saturations),
        "states": _integer_states(network, results) if record else None,
        "rasters": rasters,
    }


def _events(counts: dict[str, np.ndarray], population: str) -> np.ndarray:
    """Sum the events of a population under all thresholds; shape (samples, steps)."""
    own = [c[..., 0] for name, c in counts.items() if name.startswith(f"events/{population}/")]
    return np.asarray(np.sum(own, axis=0, dtype=np.int64))


def _integer_states(network: IntegerNetwork, results: dict[str, np.ndarray]) -> States:
    """Return the recorded states; a network without hidden units has no ``h``."""
    m = results["m"]
    h = results.get("h", np.empty((*m.shape[:2], 0), dtype=np.int32))
    return States.of_integers(network, m, h, results["y"])


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
    """Inference session of a model with one input called ``input``.

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

    def batches(
        self, inputs: np.ndarray, batch_size: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yield the number of samples done and the outputs by name, batch by batch.

        States after the last step, whose names end in ``.next``, are left out.

        Raises
        ------
        RunError
            When ONNX Runtime fails.
        """
        names = [name for name in self._outputs if not name.endswith(".next")]
        for first in range(0, len(inputs), batch_size):
            batch = inputs[first : first + batch_size]
            yield first + len(batch), dict(zip(names, self._run(names, batch), strict=True))

    def _run(self, names: list[str], batch: np.ndarray) -> list[np.ndarray]:
        try:
            return self._session.run(names, {"input": batch})
        except self._errors as error:
            raise RunError(f"ONNX Runtime failed: {error}") from error


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
        from converters.onnx import to_onnx, to_onnx_integer

        check_supported(self, network)
        if isinstance(network, Network):
            inputs = check_frames(inputs, network.frame)
            check_tokens(network, inputs)
        else:
            inputs = check_inputs(inputs, network.n_in)
        if isinstance(network, IntegerNetwork) and network.on_host:
            return run_in_segments(
                network,
                inputs,
                lambda part, x, recording, shown: self.run(
                    part, x, record=recording, seed=seed, progress=shown
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
