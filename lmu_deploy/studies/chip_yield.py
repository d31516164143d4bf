"""Chip yield: the results of one network on many virtual chips, before and after calibration.

A record holds the result of every chip of a study and can be written, read and extended, so that a
study can run in parts. Chips run in batches that share what does not depend on the chip, in this
process or on the workers of a cluster (:mod:`lmu_deploy.studies.workers`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from converters.options import SpikeOptions
from converters.spiking import spike_chips
from converters.spiking.graph.build import graphs_on_chips
from converters.spiking.graph.plan import whole_plan
from lmu_deploy import __version__
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint, write_text
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.metrics import reached_by
from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.validation import check_integer
from lmu_deploy.fidelity.assemble import hash_array
from lmu_deploy.hardware.profile import AnalogProfile, load_profile
from lmu_deploy.studies.plan import digest, without_sources
from lmu_deploy.studies.records import read_fields
from lmu_deploy.studies.workers import Call, Cluster, Spread
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.dataset import TaskLike
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for
from targets.base import Run
from targets.spiking import SpikingTarget

METHODS = ("none", "dynamic")
_SHARES = {
    "worst chip": 1.0,
    "95 % reach": 0.95,
    "median": 0.5,
    "5 % reach": 0.05,
    "best chip": 0.0,
}
_STUDY = ("network", "task", "metric", "profile", "samples", "steps", "settings")
"""Attributes that all chips of a study share."""
_BINS, _WIDEST = 12, 50

_IDEAL = {
    "mismatch": 0.0,
    "tau_mismatch": 0.0,
    "membrane_noise": 0.0,
    "threshold_noise": 0.0,
    "weight_bits": 0,
    "fan_in": 0,
}
_FIXED = ("calibration", "chip_seed")
"""Options that a study sets itself."""
_NEURONS_AT_ONCE = 500_000
_CHIPS_AT_ONCE = 25
"""Largest number of chips that run together before the record is written."""


def _empty() -> dict[str, list[float]]:
    return {method: [] for method in METHODS}


@dataclass(frozen=True)
class ChipYield:
    """Metric of a task on every chip of a study.

    Attributes
    ----------
    network : str
        Fingerprint of the float network.
    task, metric : str
        The metric is accuracy (more is better) or nrmse (less is better).
    profile : str
    samples, steps : int
        Size of the test data.
    settings : mapping
        Seed and options of every chip.
    reference, ideal : float
        Metric of the float network, and of a calibrated chip without mismatch, noise and weight
        rounding.
    chips : list of int
        Seeds of the chips, in rising order.
    values, spikes : mapping of calibration to list of float
        Metric and spikes per sample of each chip, by calibration method.
    inputs : str
        Hash of everything on which these depend; empty in records of early versions.
    """

    network: str
    task: str
    metric: str
    profile: str
    samples: int
    steps: int
    settings: Mapping[str, Any]
    reference: float
    ideal: float
    chips: list[int] = field(default_factory=list)
    values: Mapping[str, list[float]] = field(default_factory=_empty)
    spikes: Mapping[str, list[float]] = field(default_factory=_empty)
    inputs: str = ""

    def reached_by(self, method: str, share: float) -> float:
        """Return the metric that at least this fraction (0 to 1) of the chips reaches."""
        return reached_by(self.values[method], share, self.metric)

    @property
    def study(self) -> dict[str, Any]:
        """Attributes that two records need to share to be combined."""
        return {name: getattr(self, name) for name in _STUDY}

    def with_chips(self, other: ChipYield) -> ChipYield:
        """Return a record with the chips of another record of the study added, each once."""
        place = {chip: (of, n) for of in (other, self) for n, chip in enumerate(of.chips)}
        order = [place[chip] for chip in sorted(place)]
        return replace(
            self,
            chips=sorted(place),
            values={m: [of.values[m][n] for of, n in order] for m in METHODS},
            spikes={m: [of.spikes[m][n] for of, n in order] for m in METHODS},
        )

    def of_chips(
        self, chips: Sequence[int], figures: Mapping[str, Sequence[tuple[float, float]]]
    ) -> ChipYield:
        """Return a record of these chips only; a chip has a metric and spikes for each method."""
        return replace(
            self,
            chips=list(chips),
            values={method: [value for value, _ in of] for method, of in figures.items()},
            spikes={method: [fired for _, fired in of] for method, of in figures.items()},
        )

    def verdict(self) -> str:
        """Return a sentence that compares the calibrated chips with an ideal one."""
        reached = self.reached_by("dynamic", 0.95)
        if self.metric == "accuracy":
            distance = f"{100.0 * (self.ideal - reached):.2f} points below"
        else:
            distance = f"{100.0 * (reached / self.ideal - 1.0):.1f} % above"
        return (
            f"{self.task}, {len(self.chips)} chips of {self.profile}, {self.samples} samples of "
            f"{self.steps} steps, {self.metric}: float {self.reference:.4f}, ideal device "
            f"{self.ideal:.4f}; 95 % of the calibrated chips reach {reached:.4f}, {distance} the "
            "ideal device."
        )

    def table(self) -> str:
        """Return a Markdown table of the metric that a fraction of the chips reaches."""
        lines = [
            f"| calibration | {' | '.join(_SHARES)} | spikes a sample |",
            "|---|" + "--:|" * (len(_SHARES) + 1),
        ]
        for method in METHODS:
            cells = [f"{self.reached_by(method, share):.4f}" for share in _SHARES.values()]
            spikes = f"{np.mean(self.spikes[method]):,.0f}"
            lines.append(f"| {method} | {' | '.join(cells)} | {spikes} |")
        return "\n".join(lines)

    def histogram(self) -> str:
        """Return both distributions as text, a line for each bin."""
        edges = np.histogram_bin_edges(np.concatenate(list(self.values.values())), _BINS)
        lines = []
        for method in METHODS:
            counts = np.histogram(self.values[method], edges)[0]
            lines.append(f"{method}:")
            lines += _bars(edges, counts, max(1.0, len(self.chips) / _WIDEST))
        return "\n".join(lines)


def yield_of_chips(
    network: Network | Path | str,
    options: SpikeOptions,
    *,
    profile: str = "generic-analog",
    task: TaskLike | None = None,
    chips: int = 100,
    first_chip: int = 0,
    limit: int | None = None,
    steps: int | None = None,
    out: Path | str | None = None,
    add: Sequence[Path | str] = (),
    scheduler: str | None = None,
    workers: int | None = None,
) -> ChipYield:
    """Run a network on many virtual chips, with options in one object.

    :func:`lmu_deploy.chip_yield` describes the parameters and the errors.
    """
    chips = check_integer("chips", chips, 1, 100_000)
    first_chip = check_integer("first_chip", first_chip, 0, 2**31)
    if fixed := [name for name in _FIXED if name in options.changed()]:
        raise InputError(f"a yield study sets {fixed[0]} itself; leave it out.")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise InputError(f"cannot write {out}: no such folder; give a folder that exists.")
    graph = load_float(network, "yield")
    layers = graph if whole_plan(graph, options) else as_layers(graph, "yield")
    chosen = task_for(layers, task)
    with ExitStack() as opened, progress_bar("yield", "chips") as progress:
        cluster = cluster_for(scheduler, workers)
        if cluster is not None:
            opened.enter_context(cluster)
        spread = Spread(partial(_Study, layers, chosen, profile, limit, steps, options), cluster)
        records = [*add, out] if out is not None and Path(out).exists() else list(add)
        found = spread.study.start(records)
        wanted = [c for c in range(first_chip, first_chip + chips) if c not in found.chips]
        groups = spread.study.groups(wanted, spread.size) if wanted else []
        done = 0
        for call, figures in spread.run([Call("run_chips", (group,)) for group in groups]):
            (group,) = call.arguments
            found = found.with_chips(found.of_chips(group, figures))
            done += len(group)
            progress(done, len(wanted))
            if out is not None:
                save_yield(found, out)
    if out is not None:
        save_yield(found, out)
    return found


def cluster_for(scheduler: str | None, workers: int | None) -> Cluster | None:
    """Return the cluster that was asked for, or None for this process."""
    return None if scheduler is None and workers is None else Cluster(scheduler, workers)


def hash_of(
    network: LMUNetwork | Network,
    profile: str | AnalogProfile,
    options: SpikeOptions,
    data: Sequence[np.ndarray],
    **others: Any,
) -> str:
    """Return the hash of everything on which the results of chips depend."""
    chip = load_profile(profile, "analog").model_dump(mode="json", exclude={"title"})
    return digest(
        {
            "version": __version__,
            "network": fingerprint(network),
            "chip": without_sources(chip),
            "options": {**options.changed(), "seed": options.seed},
            "data": [hash_array(array) for array in data],
            **others,
        }
    )


class _Study:
    """Data and options of all chips of a study.

    A Network becomes a graph of neurons on each chip, an LMUNetwork a chain of layers.
    """

    def __init__(
        self,
        network: LMUNetwork | Network,
        task: Task,
        profile: str,
        limit: int | None,
        steps: int | None,
        options: SpikeOptions,
    ) -> None:
        data = task.load() if steps is None else task.load().shortened(steps)
        self.network, self.task, self.profile = network, task, profile
        self.split: Split = limited(data.test, limit)
        self.known = limited(data.train, CALIBRATION_SAMPLES).filled
        self.options = options
        shown = (self.known, self.split.inputs, self.split.targets)
        self.inputs = hash_of(network, profile, options, shown, metric=task.metric)

    def start(self, records: Sequence[Path | str]) -> ChipYield:
        """Combine the records; without any, run the reference and the ideal chip."""
        settings = {**self.options.changed(), "seed": self.options.seed}
        study: dict[str, Any] = {
            "network": fingerprint(self.network),
            "task": self.task.name,
            "metric": self.task.metric,
            "profile": self.profile,
            "samples": len(self.split),
            "steps": int(self.split.inputs.shape[1]),
            # The types that JSON has, so that they are equal to those of a record.
            "settings": json.loads(json.dumps(settings)),
        }
        found: ChipYield | None = None
        for path in records:
            record = load_yield(path)
            check_study(record, study, path)
            if record.inputs not in ("", self.inputs):
                raise InputError(
                    f"the chips in {path} were run with other data, another chip profile or "
                    "another version of lmu-deploy; use another file."
                )
            found = record if found is None else found.with_chips(record)
        if found is not None:
            return found
        ((ideal, _),) = self._measure([self.options.seed], "dynamic", **_IDEAL)
        reference = self.task.score(self._float_outputs(), self.split.targets)
        return ChipYield(**study, reference=reference, ideal=ideal, inputs=self.inputs)

    def groups(self, chips: Sequence[int], workers: int = 1) -> list[tuple[int, ...]]:
        """Split the chips into groups that run in one simulation, at least one for a worker."""
        if isinstance(self.network, Network):
            return [(chip,) for chip in chips]  # each takes as long as its own simulation
        layers = (la for la in self.network.layers if isinstance(la, LMULayer))
        states = max((layer.memory.size for layer in layers), default=1)
        neurons = states * self.options.neurons_per_state
        fitting = _NEURONS_AT_ONCE // max(neurons * len(self.split), 1)
        together = max(1, min(_CHIPS_AT_ONCE, fitting, ceil(len(chips) / workers)))
        return [tuple(chips[first : first + together]) for first in range(0, len(chips), together)]

    def _float_outputs(self) -> np.ndarray:
        if isinstance(self.network, Network):
            return run(self.network, self.split.inputs)
        return run_reference(self.network, self.split.inputs).outputs

    def run_chips(self, chips: Sequence[int]) -> dict[str, list[tuple[float, float]]]:
        """Return metric and spikes per sample of each chip, by calibration method."""
        return {method: self._measure(chips, method) for method in METHODS}

    def _measure(
        self, chips: Sequence[int], method: str, **changes: Any
    ) -> list[tuple[float, float]]:
        """Calibrate and run chips; return metric and spikes per sample of each."""
        options = self.options.replace(calibration=method, **changes)
        given = (self.known, self.profile, chips, options)
        inputs, seed = self.split.inputs, self.options.seed
        runs: Sequence[Run]
        if isinstance(self.network, Network):
            made = graphs_on_chips(self.network, *given)
            runs = [SpikingTarget().run(each, inputs, seed=seed) for each in made]
        else:
            from targets.brian2 import Brian2Target

            runs = Brian2Target().run_chips(spike_chips(self.network, *given), inputs, seed=seed)
        return [
            (
                self.task.score(done.outputs, self.split.targets),
                sum(int(events.sum()) for events in done.events.values()) / len(self.split),
            )
            for done in runs
        ]


def check_study(found: ChipYield, study: Mapping[str, Any], place: Path | str) -> None:
    """Check that a record is of this study.

    Raises
    ------
    InputError
        If it is not; the message names the first difference.
    """
    for name, theirs in found.study.items():
        same = theirs == study[name]
        if name == "settings" and not same:
            same = _options(theirs) == _options(study[name])
        if not same:
            raise InputError(
                f"the chips in {place} were run with {name} {theirs}, and this study has "
                f"{study[name]}; use the same {name}, or another file."
            )


def _options(settings: Mapping[str, Any]) -> SpikeOptions | None:
    """Return the options of a study; None if an earlier version had others."""
    try:
        return SpikeOptions.build(settings)
    except InputError:
        return None


def save_yield(found: ChipYield, path: Path | str) -> None:
    """Write a record as JSON."""
    write_text(path, json.dumps(asdict(found), indent=1, allow_nan=False) + "\n")


def load_yield(path: Path | str) -> ChipYield:
    """Read what :func:`save_yield` wrote.

    Raises
    ------
    InputError
        If there is no such file, or it is not a record.
    """
    wrong = f"{path} is no record of a yield study; give a file that lmu-deploy yield wrote."
    read = read_fields(path, ChipYield, wrong)
    found = ChipYield(**read)
    if not _is_complete(found):
        raise InputError(wrong)
    return found


def _is_complete(found: ChipYield) -> bool:
    """Return whether every chip has all numbers."""
    columns: list[Any] = []
    for of_method in (found.values, found.spikes):
        if not isinstance(of_method, dict) or set(of_method) != set(METHODS):
            return False
        columns += of_method.values()
    if not all(isinstance(column, list) for column in (found.chips, *columns)):
        return False
    if not isinstance(found.inputs, str):
        return False
    numbers = [found.reference, found.ideal, *found.chips, *(v for c in columns for v in c)]
    return all(len(column) == len(found.chips) for column in columns) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers
    )


def _bars(edges: np.ndarray, counts: Sequence[int] | np.ndarray, chips_each: float) -> list[str]:
    return [
        f"    {low:.4f} to {high:.4f} {count:>4} {'#' * int(np.ceil(count / chips_each))}".rstrip()
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
