"""Target `onnxruntime`: networks as ONNX graphs on ONNX Runtime's CPU provider.

Graphs are built in memory: those of float networks by :mod:`converters.onnx.models`, those of
integer networks by :mod:`converters.onnx.quantized`. A float network runs in float32; its states
are not sent as events, so none are counted. An integer network runs in integer operators; its
models, one for each stage, count events and saturations. Between the stages, nodes on the host are
computed by :mod:`targets.host`, as every target does, and not within a model: ONNX Runtime sums
products and evaluates tanh in another order or form than NumPy, so that a last bit, and then a
message, could differ.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lmu_deploy.core.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.core.graph.executor import check_frames as checked_frames
from lmu_deploy.core.graph.executor import check_steps
from lmu_deploy.core.graph.linear import Embedding
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.integer.graph import (
    check_frames,
    event_outlets,
    frame_counts,
    host_sentence,
    latency,
    saturation_places,
    sources,
)
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs, check_integer
from targets.base import Run, States, check_supported, flat_frames
from targets.host import encoded, host_values
from targets.reference import float_populations

if TYPE_CHECKING:
    import onnx

    from converters.onnx.quantized.sequence import Sequences


_VALUES_AT_ONCE = 2**25
"""Values of the widest signal that a batch holds."""


class Model(Protocol):
    """A model that is ready to run."""

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return all outputs by name."""


@dataclass
class _Batch:
    """Results of the stages of a batch.

    Attributes
    ----------
    real : dict of Place to ndarray, shape (samples, frames, n)
        The input, and what the host computes.
    messages : dict of Place to ndarray
        What the host may read.
    sent : dict of (source, threshold) to ndarray, int32
        What models take.
    """

    real: dict[Place, np.ndarray]
    messages: dict[Place, np.ndarray] = field(default_factory=dict)
    sent: dict[tuple[Place, int], np.ndarray] = field(default_factory=dict)


class IntegerRunner:
    """Runs an integer network batch by batch, and collects the fields of a Run.

    Parameters
    ----------
    network : IntegerNetwork
    steps : int
        Steps of the input.
    record : bool
    load : callable
        Returns the :class:`Model` of an ONNX model.
    """

    def __init__(
        self, network: IntegerNetwork, steps: int, record: bool, load: Callable[[Any], Model]
    ) -> None:
        from converters.onnx.quantized.export import sequence_stage
        from converters.onnx.quantized.stages import stages

        self._network, self._record = network, record
        check_frames(network, steps)
        self._frames = frame_counts(network, steps)
        self._stages = []
        for stage in stages(network):
            model, names = sequence_stage(network, stage, record=record, tally=True)
            ready = load(model) if stage.entries or stage.given else None
            self._stages.append((stage, ready, names))
        self._outlets = event_outlets(network)
        self._sources = sources(network)
        self._y: list[np.ndarray] = []
        self._parts: dict[Place, list[np.ndarray]] = defaultdict(list)
        self._events: dict[tuple[Place, int], list[np.ndarray]] = defaultdict(list)
        self._rasters: dict[str, np.ndarray] = {}
        self._saturations = Counter(dict.fromkeys(saturation_places(network), 0))

    def batch_size(self, most: int) -> int:
        """Return how many samples are computed at once, at most `most`."""
        widths = [1]
        for p in self._network.populations:
            width = max(p.size, p.drive_size) * self._frames[p.place]
            widths.append(width * max(1, len(self._network.entering(p.entrance))))
        return int(np.clip(_VALUES_AT_ONCE // max(widths), 1, most))

    def take(self, inputs: np.ndarray) -> None:
        """Run some samples, of shape (samples, steps, n_in)."""
        network, scale = self._network, self._network.y_scale
        batch = _Batch({network.input.place: network.input.scaled(inputs)})
        if network.input.place in self._sources:
            self._encode(network.input, batch)
        for stage, model, names in self._stages:
            for host in stage.hosts:
                batch.real[host.place] = host_values(network, host, batch.real, batch.messages)
                if self._record:
                    self._parts[host.place].append(batch.real[host.place])
                if host.message is not None:
                    self._encode(host, batch)
            if model is None:
                continue
            found = model.run({name: batch.sent[key] for key, name in names.inputs.items()})
            for key, name in names.messages.items():
                batch.sent[key] = found[name]
                if not key[1]:
                    batch.messages[key[0]] = found[name]
            self._collect(names, found)
            if names.output is not None:
                self._y.append(found[names.output] * scale)
        if isinstance(network[network.output], HostNodes):
            values = batch.real[network.output]
            self._y.append(values if network.return_sequences else values[:, -1])

    def _encode(self, source: Input | HostNodes, batch: _Batch) -> None:
        """Turn real values into messages; a model takes tokens as they are."""
        place, values = source.place, batch.real[source.place]
        batch.messages[place], limited = encoded(source, values)
        self._saturations[str(place)] += limited
        tokens = isinstance(source, Input) and source.tokens
        batch.sent[place, 0] = (values if tokens else batch.messages[place]).astype(np.int32)

    def _collect(self, names: Sequences, found: Mapping[str, np.ndarray]) -> None:
        """Keep states and counts of a stage."""
        for place, name in names.records.items():
            self._parts[place].append(found[name])
        for key, name in names.events.items():
            self._events[key].append(found[name])
        for where, name in names.saturations.items():
            self._saturations[where] += int(found[name])
        for place, name in names.rasters.items():
            self._rasters.setdefault(str(place), found[name].clip(max=255).astype(np.uint8))

    def fields(self, steps: int) -> dict[str, Any]:
        """Return the fields of the Run."""
        network = self._network
        events = {key: np.concatenate(parts) for key, parts in self._events.items()}
        sums: dict[Place, np.ndarray] = {}
        synops, carried = 0, {}
        for outlet in self._outlets:
            counted = events[outlet.source, outlet.threshold]
            own = counted[..., 0]
            sums[outlet.source] = sums[outlet.source] + own if outlet.source in sums else own
            carried.update({edge.place: int(own.sum()) for edge in outlet.edges})
            phases = outlet.period if outlet.edges else 0
            synops += sum(int(counted[:, n::phases, 1 + n].sum()) for n in range(phases))
        sentence, states = host_sentence(network), None
        if self._record:
            parts = {place: np.concatenate(found) for place, found in self._parts.items()}
            states = States.of_integers(network, parts)
        return {
            "outputs": np.concatenate(self._y),
            "neurons": {str(place): source.neurons for place, source in self._sources.items()},
            "events": {str(place): sums[place] for place in self._sources},
            "synops": synops,
            "carried": carried,
            "saturations": dict(self._saturations),
            "steps": steps,
            "chip_steps": steps + latency(network),
            "states": states,
            "rasters": {str(place): self._rasters[str(place)] for place in self._sources},
            "notes": () if sentence is None else (sentence,),
        }


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
            inputs = checked_frames(inputs, network.frame)
            check_steps(network, inputs.shape[1])
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
