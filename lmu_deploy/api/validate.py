"""`validate`: one float network on several targets, each compared with the float reference."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converters.options import QuantizeOptions
from lmu_deploy.api.forms import UNCALIBRATED, Asked, Beside, Forms, Runs, runs_apart
from lmu_deploy.api.report import FidelityReport, make_folder, require
from lmu_deploy.api.run import part_of
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import with_logits
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import AnyNetwork, check_network_inputs, load_float
from lmu_deploy.core.progress import Progress, progress_bar
from lmu_deploy.core.spiking.graph import AnalogNetwork, SpikingGraph
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.validation import check_integer, check_number
from lmu_deploy.fidelity import Result, assemble
from lmu_deploy.fidelity.attribution import Attribution, attribute
from lmu_deploy.fidelity.attribution.chips import Chips
from lmu_deploy.fidelity.attribution.graphs import GraphChips, attribute_graph
from lmu_deploy.fidelity.attribution.remedies import with_remedies
from lmu_deploy.fidelity.attribution.spiking import SAMPLES, affordable_runs, attribute_spiking
from lmu_deploy.fidelity.gate import Limits, check_limits
from lmu_deploy.fidelity.measures.damage import damage
from lmu_deploy.fidelity.measures.ranges import LayerRanges, layer_ranges
from lmu_deploy.fidelity.store import Parts, write_fidelity
from lmu_deploy.studies.quantization import calibration_inputs, completed
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.tasks.dataset import TaskLike
from lmu_deploy.tasks.preflight import not_better, warn_of
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for
from targets.base import Run, get_target
from targets.recorded import RecordedTarget, Recording

_LOG = logging.getLogger(__name__)


def explained(
    results: Sequence[Result],
    split: Split,
    task: Task,
    samples: int | None,
    budget: float = 0.0,
    calibration: np.ndarray | None = None,
    forms: Forms | None = None,
    begun: Mapping[int, Beside[Explained]] | None = None,
) -> list[Result]:
    """Add an attribution to the first result of each network, and ranges to integer ones.

    Other targets that run the same network do the same operations, so one of them says it for all.

    Parameters
    ----------
    results : sequence of Result
    split : Split
        Of which the first samples are run again.
    task : Task
    samples : int or None
        How many; None for as many as take a minute or two, 0 for no attribution and no ranges.
    budget : float
        Seconds for Shapley values of the sources of each network's error; see :func:`attribute`
        and :func:`attribute_spiking`.
    calibration : ndarray, shape (samples, steps, n_in), optional
        Inputs with which integer networks were quantized by the defaults of `quantize`; remedies
        are tried if it is given.
    forms : Forms, optional
        Where the networks come from, and where finished parts are kept.
    begun : mapping of int to Beside, optional
        What has been begun beside the runs, by the `id` of the integer network.

    Raises
    ------
    InputError
        When `samples` is negative.
    """
    found, done = [], set()
    parts = Parts(None) if forms is None else forms.parts
    made = [] if forms is None else [n for k, n in forms.made.items() if k not in forms.given]
    for result in results:
        network = result.network
        if samples == 0 or id(network) in done:
            found.append(result)
            continue
        done.add(id(network))
        if isinstance(network, IntegerNetwork) and network.source is not None:
            with progress_bar("attribution", "runs") as progress:
                if begun is not None and id(network) in begun:
                    sources, ranges = begun[id(network)].result(progress)
                else:
                    sources, ranges = _integer(
                        network, split, task, samples, budget, calibration, parts, progress
                    )
            result = dataclasses.replace(result, attribution=sources, ranges=ranges)
        elif isinstance(network, AnalogNetwork) and (board := network.device.board):
            result = _noted(
                result,
                f"The errors of device {board} were not attributed to their sources, because the "
                "file of the network does not hold the neurons of the device.",
            )
        elif isinstance(network, SpikingNetwork) and network.synapse is None:
            result = _spiking(result, network, split, task, samples, budget, parts, made)
        elif isinstance(network, SpikingGraph):
            result = _graph(result, split, task, samples, budget, parts, made)
        found.append(result)
    return found


Explained = tuple[Attribution, LayerRanges]
"""Attribution and ranges of an integer network."""


def _integer(
    network: IntegerNetwork,
    split: Split,
    task: Task,
    samples: int | None,
    budget: float,
    calibration: np.ndarray | None,
    parts: Parts,
    progress: Progress,
) -> Explained:
    def attributed() -> Attribution:
        return attribute(network, split.inputs, split.targets, task, samples, progress, budget)

    what = (network.fingerprint(), split.inputs, split.targets, task.name, samples, budget)
    sources = parts.attribution(attributed, "sources", *what)
    if damage(network):
        sources = dataclasses.replace(sources, remedies={})
    elif calibration is not None and sources.causes:
        options = completed(QuantizeOptions(), task)
        try_remedies = partial(with_remedies, sources, network, split.inputs, calibration, options)
        sources = parts.attribution(try_remedies, "confirmed remedies", *what, calibration)
    return sources, layer_ranges(network, split.inputs, sources.tally, sources.samples)


def _calibration(source: Network, task: Task, data: TaskData, forms: Forms) -> np.ndarray | None:
    """Return the inputs with which the defaults calibrate; None for a network that was given."""
    if "integer" in forms.given or data.train.lengths is not None:
        return None
    return calibration_inputs(source, task, data)


def _spiking(
    result: Result,
    network: SpikingNetwork,
    split: Split,
    task: Task,
    samples: int | None,
    budget: float,
    parts: Parts,
    made: Collection[AnyNetwork],
) -> Result:
    """Attribute with the seed of the run; a single sample cannot be fitted and judged.

    Variants, such as the same network without calibration, are attributed too.
    """
    if len(split.inputs) < 2 or samples == 1:
        return result
    if samples is None and not (samples := affordable_runs(network, *split.inputs.shape[:2])):
        return _noted(
            result,
            "The errors of the chip were not attributed to its imperfections, because the "
            "calibrations that this needs take more than about two minutes; --attribution 8 does "
            "it with 8 samples.",
        )
    chips = Chips(network, limited(task.load().train, CALIBRATION_SAMPLES).filled, parts)
    if any(network is each for each in made):
        chips.add(network)

    def attributed(each: Result, label: str) -> Result:
        if not isinstance(each.network, SpikingNetwork) or each.network.synapse is not None:
            return each
        seed, spiking = each.run.seed, each.network

        def make() -> Attribution:
            with progress_bar(label, "runs") as progress:
                return attribute_spiking(
                    spiking,
                    split.inputs,
                    split.targets,
                    task,
                    samples,
                    seed,
                    progress,
                    chips,
                    budget=budget,
                )

        given = (split.inputs, split.targets, task.name, samples, seed, budget)
        sources = parts.attribution(make, "spiking", spiking.fingerprint(), *given)
        return dataclasses.replace(each, attribution=sources)

    variants = {n: attributed(v, f"attribution, {n}") for n, v in result.variants.items()}
    return dataclasses.replace(attributed(result, "attribution"), variants=variants)


def _noted(result: Result, note: str) -> Result:
    """Return a result whose run has one more note, which is logged."""
    _LOG.info("%s: %s", result.run.target, note)
    run = dataclasses.replace(result.run, notes=(*result.run.notes, note))
    return dataclasses.replace(result, run=run)


_GRAPH_UPDATES = 5e8
"""Updates of neurons in the attribution of a graph of neurons: about 15 s on one core."""


def _graph(
    result: Result,
    split: Split,
    task: Task,
    samples: int | None,
    budget: float,
    parts: Parts,
    made: Collection[AnyNetwork],
) -> Result:
    """Attribute a graph of neurons and its variants with the seeds of their runs."""
    known = limited(task.load().train, CALIBRATION_SAMPLES).filled
    if samples is None and isinstance(result.network, SpikingGraph):
        graph_steps = split.inputs.shape[1] * result.network.steps_per_presentation
        fit = int(_GRAPH_UPDATES / (result.network.neurons * graph_steps))
        samples = max(2, min(SAMPLES, fit))

    def attributed(each: Result, label: str) -> Result:
        graph, seed = each.network, each.run.seed
        if not isinstance(graph, SpikingGraph):
            return each
        data, as_made = (split.inputs, split.targets), any(graph is other for other in made)
        chips = GraphChips(graph, known, parts, as_made)

        def make() -> Attribution:
            with progress_bar(label, "steps") as progress:
                return attribute_graph(graph, *data, task, samples, seed, progress, chips, budget)

        what = (graph.fingerprint(), *data, task.name, samples, seed, budget, known, as_made)
        return dataclasses.replace(each, attribution=parts.attribution(make, "graph", *what))

    variants = {n: attributed(v, f"attribution, {n}") for n, v in result.variants.items()}
    return dataclasses.replace(attributed(result, "attribution"), variants=variants)


def _of_one_length(split: Split) -> Split:
    """Return the samples of the most frequent length, cut to it, where lengths differ."""
    if split.lengths is None:
        return split
    lengths, counts = np.unique(split.lengths, return_counts=True)
    length = int(lengths[counts.argmax()])
    return split.taken(np.flatnonzero(split.lengths == length)).cut(length).changed(lengths=None)


TargetsLike = str | Sequence[str | Mapping[str, int | None]] | Mapping[str, int | None]
"""Targets of a validation: "integer,lava:8", ["integer", {"lava": 8}] or {"lava": 8}."""


def validate(
    network: Network | Path | str,
    data: TaskLike | None = None,
    *,
    targets: TargetsLike = ("onnxruntime", "integer"),
    out: Path | str | None = None,
    limit: int | None = None,
    first: int | None = None,
    steps: int | None = None,
    use: Sequence[AnyNetwork | Path | str] = (),
    seed: int = 0,
    attribution: int | None = None,
    recordings: Sequence[Recording | Path | str] = (),
    attribution_budget: float = 60.0,
    margin: float | None = None,
    must_equal: bool = False,
    command: str | None = None,
) -> FidelityReport:
    """Run a float network on several targets, and compare each with the float reference.

    The integer and spiking networks that the targets need are made with the defaults of
    `quantize` and `spike`. A spiking target also runs without calibration.

    Parameters
    ----------
    network : Network or path
    data : Dataset, Task, str or path, optional
        What the targets are judged on: a dataset, the name of a task, or an ``.npz`` file. By
        default the task that the network was trained for.
    targets : str, or sequence of str and of mappings of str to int
        Names, each with a limit of samples if wanted: ``["integer", {"lava": 8}]`` or
        ``"integer,lava:8"``. A target that runs several forms of a network runs the float one,
        unless its name is followed by another: ``"onnxruntime/integer"``.
    out : path, optional
        Folder for fidelity.json, report.html, report.md and the networks; made if it is not there.
        By default nothing is written.
    limit : int, optional
        Only so many test samples: the first, or of the user's data a stratified random choice.
    first : int, optional
        Only so many of the first test samples, in the order of the file.
    steps : int, optional
        Of each test sample only so many steps, where every step is answered.
    use : sequence of Network or path
        Networks that `quantize` or `spike` made of this one, run in place of what their defaults
        would make; a spiking one without calibration is shown beside the calibrated one.
    seed : int
    attribution : int, optional
        Samples on which each source of an integer network's error is switched on by itself; by
        default as many as take a minute or two, 0 to leave it out.
    attribution_budget : float
        Seconds on one core, estimated from sizes, for the Shapley values of the sources of each
        network's error; 0 for none. Fewer seconds take fewer samples and orders, and of an analog
        network fewer chips.
    recordings : sequence of Recording or path
        What a board or another program recorded of a network (``.npz``); each is judged as a target
        ``recorded/NAME``. The network is the one given by `use`, otherwise the integer one; with
        several, ``"spiking=board.npz"`` says which. docs/how-to/board.md describes the file.
    margin : float, optional
        Margin within which every target must be equivalent to float, or better: accuracy in shares
        of all samples, NRMSE in shares of float's. By default verdicts use 0.01 (one point) and
        0.02, and nothing is required.
    must_equal : bool
        Whether every integer that a target records must be that of the specification, and every
        recorded analog chip must follow its network file.
    command : str, optional
        The command that the report names as its origin.

    Returns
    -------
    FidelityReport

    Raises
    ------
    InputError
        When a file, name or value is wrong, or a target cannot run the network; before anything
        has run.
    RunError
        When a run failed, or after the report was written, when a target does not keep to the
        margin or differs from the specification.

    Examples
    --------
    >>> import lmu_deploy as ld
    >>> report = ld.validate(
    ...     "examples/models/digits.safetensors", targets=["integer"], attribution=0
    ... )
    >>> report["integer"].samples, report.verdicts["integer"].tone
    (359, 'same')
    """
    check_number("attribution_budget", attribution_budget, 0.0, 1e6)
    limits = Limits(equal=must_equal, margin=margin)
    source = with_logits(load_float(network, "validate"))  # as targets answer
    runners = [
        (name, get_target(name.partition("/")[0]), own) for name, own in parse_targets(targets)
    ]
    for recorded in map(RecordedTarget, recordings):
        if recorded.name in (name for name, _, _ in runners):
            raise InputError(f"two targets are called {recorded.name}; rename a recording.")
        runners.append((recorded.name, recorded, recorded.samples))
    chosen = task_for(source, data)
    warn_of(chosen, source)
    parts = chosen.load()
    if steps is not None:
        parts = parts.shortened(check_integer("steps", steps, 1, 2**31))
    if recordings and first is None and parts.test.order is not None:
        if limit is not None:
            raise InputError(
                "recordings are of samples in the order of the file; choose them with first, not "
                "with limit, which draws at random from your own data."
            )
        first = len(parts.test)
    split = limited(parts.test, limit) if first is None else part_of(parts.test, limit, first)
    split = split.changed(inputs=check_network_inputs(source, split.inputs), order=None)
    folder = None if out is None else make_folder(out)
    finished = Parts(folder)
    forms = Forms(source, chosen, seed, folder, parts=finished)
    forms.use(use)
    asked = [forms.asked(*each, whole=limit is None and first is None) for each in runners]
    forms.check_used(asked)
    of_one_length = _of_one_length(split)
    calibration = _calibration(source, chosen, parts, forms)
    given = (of_one_length, chosen, attribution, attribution_budget, calibration)
    explaining: dict[int, Beside[Explained]] = {}
    results: dict[str, Result] = {}
    reference: Run | None = None
    with Runs(finished, split, seed) as runs:
        for each in asked:
            if runs_apart(each.runner):
                runs.begin(each, forms.needed_by(each.runner, each.form))
        for each in sorted(asked, key=runs.has_begun):  # while those run, the others do
            runs.raise_failures()
            form, variants = forms.needed_by(each.runner, each.form), {}
            if each.varies(form) and (plain := forms.uncalibrated()) is not None:
                run = runs.run(each, plain, UNCALIBRATED)
                variants[UNCALIBRATED] = Result(run, plain)
            run = dataclasses.replace(runs.run(each, form), target=each.name)
            results[each.name] = Result(run, form, variants)
            if reference is None:
                reference = runs.run(Asked("reference", get_target("reference"), None), source)
            others_wait = len(results) < len(asked)
            beside = attribution != 0 and others_wait and id(form) not in explaining
            if beside and isinstance(form, IntegerNetwork) and form.source is not None:
                explaining[id(form)] = runs.beside(partial(_integer, form, *given, finished))
            so_far = [results[one.name] for one in asked if one.name in results]
            _write_so_far(folder, so_far, reference, chosen, split, source, seed, forms.files)
    assert reference is not None  # there is at least one target
    if chosen.is_own:
        value = chosen.score(reference.outputs, split.targets)
        judged = int(np.prod(split.targets.shape[:2])) if chosen.every_step else len(split)
        if sentence := not_better(chosen, value, judged):
            _LOG.warning("float network: %s", sentence)
    fidelity, excerpts = assemble(
        explained(so_far, *given, forms, explaining),
        reference,
        chosen,
        split,
        source,
        command=command or _command_line(),
        seed=seed,
        files=forms.files,
        margin=margin,
    )
    report = FidelityReport(fidelity, excerpts, forms.made, folder=folder)
    if folder is not None:
        from lmu_deploy.report.robustness_file import forget_robustness

        forget_robustness(folder)
        report.save(folder)
        finished.remove()
    require(check_limits(fidelity, limits))
    return report


def parse_targets(targets: TargetsLike) -> list[tuple[str, int | None]]:
    """Return names and limits, such as [("integer", None), ("lava", 8)]; a name keeps its form.

    Raises
    ------
    InputError
        When a limit is not a whole number, or a name is empty or occurs twice.
    """
    found: list[tuple[str, int | None]] = []
    for name, limit in _named_targets(targets):
        valid = limit is None or (type(limit) is int and limit >= 0)
        if not name or name.endswith("/") or not valid:
            shown = name if limit is None else f"{name}:{limit}"
            raise InputError(
                f"targets {targets!r}: {shown!r} is not NAME, NAME/FORM or either with :SAMPLES; "
                "write for example integer,lava:8,onnxruntime/integer."
            )
        if name in (other for other, _ in found):
            raise InputError(f"targets {targets!r} name {name} twice; name each once.")
        found.append((name, None if limit is None else int(limit)))
    return found


def _named_targets(targets: TargetsLike) -> Iterator[tuple[str, Any]]:
    """Yield names and limits, whatever they are."""
    if isinstance(targets, str):
        for item in targets.split(","):
            name, colon, limit = item.strip().partition(":")
            yield name, (int(limit) if limit.isdecimal() else limit) if colon else None
    elif isinstance(targets, Mapping):
        yield from targets.items()
    else:
        for target in targets:
            yield from _named_targets(target)


def _write_so_far(
    folder: Path | None,
    results: Sequence[Result],
    reference: Run,
    task: Task,
    split: Split,
    source: Network,
    seed: int,
    files: Mapping[str, Path],
) -> None:
    """Write fidelity.json of the targets that are done, without attribution, for `report`."""
    if folder is None:
        return
    found = assemble(
        results, reference, task, split, source, command=_command_line(), seed=seed, files=files
    )
    write_fidelity(folder, *found)


def _command_line() -> str:
    """Return what was typed in repeatable form, or the name of the Python call."""
    program = Path(sys.argv[0]).name
    if program != "lmu-deploy":
        return "lmu_deploy.validate(...)"
    return shlex.join([program, *sys.argv[1:]])
