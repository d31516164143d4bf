"""Assembly of fidelity.json from the runs of all targets, and the summary of ``deploy --json``.

The file also describes the task, the float network and the provenance of the figures: versions of
libraries, and hashes of files and data.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import Network, Node
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.fidelity import schema
from lmu_deploy.fidelity.attribution import Attribution
from lmu_deploy.fidelity.judge import judge, rounded, window_of
from lmu_deploy.fidelity.measures.agreement import is_integer
from lmu_deploy.fidelity.measures.events import RasterExcerpt, excerpt
from lmu_deploy.fidelity.measures.memory_error import true_window
from lmu_deploy.fidelity.measures.metric import keep_answers, measure
from lmu_deploy.fidelity.measures.ranges import LayerRanges
from lmu_deploy.fidelity.measures.sizes import network_sizes
from lmu_deploy.tasks.base import Split, Task
from targets.base import Run


def describe_task(task: Task) -> schema.TaskSummary:
    """Return the entry of a task."""
    kind: Literal["classification", "regression"] = (
        "classification" if task.kind == "classification" else "regression"
    )
    return schema.TaskSummary(
        name=task.name,
        kind=kind,
        inputs=task.n_in,
        outputs=task.n_out,
        steps=task.steps,
        washout=task.washout,
    )


def describe_network(network: Network) -> schema.NetworkSummary:
    """Return the entry of a float network."""
    return schema.NetworkSummary(
        inputs=network.n_in,
        outputs=network.n_out,
        parameters=network.n_parameters,
        return_sequences=network.return_sequences,
        layers=[_layer(node) for node in network.nodes if node.operator.states],
        provenance=dict(network.provenance),
        nodes=[
            schema.Node(
                name=node.name,
                operator=node.operator.describe(),
                inputs=list(node.inputs),
                shape=str(network.shapes[node.name]),
                parameters=node.operator.n_parameters,
            )
            for node in network.nodes
        ],
    )


_KINDS: dict[type, Literal["lmu", "lstm", "gru", "rnn"]] = {
    LMU: "lmu", LinearMemory: "lmu", LSTM: "lstm", GRU: "gru", SimpleRNN: "rnn",
}  # fmt: skip


def _layer(node: Node) -> schema.Layer:
    """Return the entry of a node that carries states."""
    operator: Any = node.operator
    memory = getattr(operator, "memory", None)
    cell = operator if memory is None else getattr(operator, "hidden", None)
    feedback = {
        "hidden to memory": getattr(operator, "hidden_encoders", None) is not None,
        "memory to memory": getattr(operator, "memory_encoders", None) is not None,
        "hidden to hidden": getattr(cell, "recurrent_kernel", None) is not None,
    }
    return schema.Layer(
        name=node.name,
        kind=_KINDS[type(operator)],
        inputs=operator.n_in,
        order=None if memory is None else memory.order,
        channels=None if memory is None else memory.channels,
        theta=None if memory is None else memory.theta,
        discretizer=None if memory is None else memory.discretizer,
        feedback=[name for name, present in feedback.items() if present],
        units=0 if cell is None else cell.n_out,
        activation=cell.activation.name if isinstance(cell, SimpleRNN) else None,
    )


PACKAGES = (
    "lmu-deploy",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "lightning",
    "onnx",
    "onnxruntime",
    "lava-nc",
    "brian2",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries that can change a figure."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hash_file(path: Path | str) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def hash_array(array: np.ndarray) -> str:
    """Return the SHA-256 of type, shape and values of an array (little-endian, C order)."""
    array = np.ascontiguousarray(array)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(array.reshape(-1).view(np.uint8).data)  # a view, not a copy
    return digest.hexdigest()


Excerpts = dict[str, RasterExcerpt]


@dataclass(frozen=True)
class Result:
    """Result of one target in a validation.

    Attributes
    ----------
    run : Run
    network : Network, IntegerNetwork or SpikingNetwork, optional
        The network that it ran.
    variants : mapping of name to Result
        The same target with other settings, such as without calibration.
    attribution : Attribution, optional
        Contribution of each source of error.
    ranges : LayerRanges, optional
        Ranges of signals, weights and sums by layer.
    """

    run: Run
    network: object = None
    variants: Mapping[str, Result] = field(default_factory=dict)
    attribution: Attribution | None = None
    ranges: LayerRanges | None = None


def assemble(
    results: Sequence[Result],
    reference: Run,
    task: Task,
    split: Split,
    source: Network,
    *,
    command: str,
    seed: int,
    files: Mapping[str, Path] | None = None,
    date: str | None = None,
    margin: float | None = None,
) -> tuple[schema.Fidelity, Excerpts]:
    """Evaluate every target and record the provenance of the figures.

    Parameters
    ----------
    results : sequence of Result
        One for each target, in the order of the report.
    reference : Run
        Run of target `reference` on all samples; memory errors need its states.
    task : Task
    split : Split
        The samples that were run, in order.
    source : Network
        The float network.
    command : str
        The command that a reader can repeat.
    seed : int
    files : mapping of name to path, optional
        Model files whose hashes are recorded.
    date : str, optional
        In ISO 8601; by default the current time.
    margin : float, optional
        Of equivalence; see :func:`lmu_deploy.fidelity.measures.metric.compare`.

    Returns
    -------
    fidelity : Fidelity
    excerpts : mapping of "target/variant/population" to RasterExcerpt

    Raises
    ------
    InputError
        When two results have the same target, or runs, samples and network do not match.
    """
    names = [result.run.target for result in results]
    if len(set(names)) < len(names):
        raise InputError(f"targets {', '.join(names)} contain a duplicate; name each target once.")
    peers = _integer_peers(results)
    common = (reference, task, split, source, seed, margin)
    judged = {r.run.target: _judged(r, peers.get(r.run.target), *common) for r in results}
    hashes = {name: hash_file(path) for name, path in (files or {}).items()}
    fidelity = schema.Fidelity(
        command=command,
        date=date or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seed=seed,
        versions=versions(),
        hashes={**hashes, "inputs": hash_array(split.inputs), "targets": hash_array(split.targets)},
        task=describe_task(task),
        network=describe_network(source),
        reference=_reference(reference, task, split, source, seed),
        targets=judged,
    )
    return fidelity, {
        f"{name}/{population}": excerpt(raster)
        for result in results
        for name, run in _runs(result)
        for population, raster in run.rasters.items()
        if raster.size
    }


def deploy_summary(
    run: Run,
    reference: Run | None,
    task: Task,
    targets: np.ndarray,
    *,
    network: object = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the summary that ``deploy --json`` writes; parameters as in :func:`judge`."""
    found = judge(run, reference, task, targets, network=network, seed=seed)
    against = found.reference
    return {
        "target": found.target,
        "task": task.name,
        "n_samples": found.samples,
        "metric": found.metric.model_dump(mode="json"),
        "reference": {
            "value": against and against.value,
            "agreement": against and against.agreement,
            "deviation": against and against.deviation,
        },
        "events": found.events.model_dump(mode="json"),
        "synops": found.synops,
        "saturations": found.saturations,
        "steps": found.steps,
        "chip_steps": found.chip_steps,
        "wall_seconds": found.wall_seconds,
        "seed": found.seed,
        "notes": found.notes,
        "settings": found.settings,
        "versions": versions(),
    }


def _integer_peers(results: Sequence[Result]) -> dict[str, Run]:
    """Map each integer target to the first one before it that ran the same type of network."""
    first: dict[type, Run] = {}
    found = {}
    for result in results:
        if is_integer(result.run.states):
            peer = first.setdefault(type(result.network), result.run)
            if peer is not result.run:
                found[result.run.target] = peer
    return found


def _judged(
    result: Result,
    integer_peer: Run | None,
    reference: Run,
    task: Task,
    split: Split,
    source: Network,
    seed: int,
    margin: float | None,
) -> schema.TargetFidelity:
    common = (reference, task, split, source, seed, margin)
    return judge(
        result.run,
        reference,
        task,
        split.targets,
        network=result.network,
        source=source,
        inputs=split.inputs if split.lengths is None else None,
        integer_peer=integer_peer,
        variants={name: _judged(v, None, *common) for name, v in result.variants.items()},
        attribution=result.attribution,
        ranges=result.ranges,
        seed=seed,
        margin=margin,
    )


def _runs(result: Result) -> list[tuple[str, Run]]:
    name = result.run.target
    return [(f"{name}/", result.run)] + [
        (f"{name}/{variant}", other.run) for variant, other in result.variants.items()
    ]


def _reference(
    reference: Run, task: Task, split: Split, source: Network, seed: int
) -> schema.Reference:
    sizes = network_sizes(source)
    window = window_of(reference.states, reference.states, source)
    truth = None
    states, first = reference.states, source.nodes[0]
    if window is not None and states is not None:
        assert isinstance(first.operator, LMU | LinearMemory)
        sizes_of = first.operator.states
        m, h = states.m[0, :, : sizes_of["memory"]], states.h[0, :, : sizes_of.get("hidden", 0)]
        truth = rounded(true_window(first.operator, split.inputs[0], m, h, window.channel))
    return schema.Reference(
        metric=measure(reference.outputs, split.targets, task, seed),
        samples=len(reference.outputs),
        steps=reference.steps,
        wall_seconds=reference.wall_seconds,
        sizes=None if sizes is None else schema.Sizes(**asdict(sizes)),
        true_window=truth,
        window=window,
        answers=keep_answers(reference.outputs, split.targets[: len(reference.outputs)], task),
    )
