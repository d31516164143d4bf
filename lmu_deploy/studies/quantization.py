"""Quantization with the data of a task: calibration, training, message thresholds, budgets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.options import QuantizeOptions, TaskQuantizeOptions
from converters.quantize import SOFTMAX, calibrate, quantize_with
from converters.quantize.memory_analysis import remarks
from converters.quantize.settings import settings_for
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import check_output, save
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import has_direct_path, with_logits
from lmu_deploy.core.integer.graph import sources
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.hardware.profile import DigitalProfile
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.tasks.dataset import TaskLike, part_as_task
from lmu_deploy.tasks.preflight import warn_of
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for
from targets.base import ByLength, Run

if TYPE_CHECKING:
    from lmu_deploy.training.config import TrainConfig


_LOG = logging.getLogger(__name__)
COMPARED_SAMPLES, ALLOWED_LOSS = 100, 0.01
"""Calibration samples on which float and integers are compared, and the loss of accuracy above
which that is a warning; for an NRMSE twice that share."""

_STRETCH = 2.0
_REAL_BITS, _REAL_SLICES = 12, 2

VALIDATION_SAMPLES, SEARCH_SAMPLES = 2000, 64
"""Number of validation samples that a loss is computed on, and of these the number that
thresholds and widths are searched with."""


def make_sparse(
    network: IntegerNetwork, task: Task, threshold: float | None, loss: float | None
) -> IntegerNetwork:
    """Return the network with message thresholds on its connections.

    Parameters
    ----------
    network : IntegerNetwork
    task : Task
        Task whose validation data are used; its test data are not.
    threshold : float or None
        Smallest change that is sent, as a fraction of the range of messages; see
        :func:`converters.quantize.sparsity.with_fraction`.
    loss : float or None
        Allowed loss of accuracy (0.002 is 0.2 points) or relative growth of the NRMSE.
    """
    from converters.quantize.sparsity import with_fraction

    if threshold is not None:
        network = with_fraction(network, threshold)
    elif loss is not None:
        network = _tune_thresholds(network, task, loss)
    else:
        return network
    return _with_report(network, {"threshold": threshold, "loss": loss}, validation_split(task))


def _tune_thresholds(network: IntegerNetwork, task: Task, allowed: float) -> IntegerNetwork:
    from converters.quantize.sparsity import highest_rung, make_ladder

    data = validation_split(task)
    with progress_bar("thresholds", "runs") as progress:
        ladder = make_ladder(network, data.inputs[:SEARCH_SAMPLES], run_integer, progress)
    before = run_integer(ladder.at(0), data.inputs).outputs
    loss = loss_of(task, data, before)
    with progress_bar("tuning", "runs") as progress:
        rung = highest_rung(
            len(ladder.rungs),
            lambda number: loss(run_integer(ladder.at(number), data.inputs).outputs),
            allowed,
            progress,
        )
    return ladder.at(rung)


def loss_of(task: Task, data: Split, before: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return a function that computes the loss of outputs relative to `before`."""
    from converters.quantize.sparsity import expected_loss

    if task.kind == "classification":
        if task.every_step:
            before, data = before[:, task.washout :], _without_washout(data, task.washout)
            return lambda outputs: expected_loss(outputs[:, task.washout :], before, data.targets)
        return lambda outputs: expected_loss(outputs, before, data.targets)
    score = task.score(before, data.targets)
    return lambda outputs: task.score(outputs, data.targets) / max(score, 1e-30) - 1.0


def _without_washout(data: Split, washout: int) -> Split:
    return Split(data.inputs, data.targets[:, washout:])


def validation_split(task: Task) -> Split:
    """Return validation data, or training data if a task has none."""
    data = task.load()
    return limited(data.validation if len(data.validation) else data.train, VALIDATION_SAMPLES)


def run_integer(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    """Run a network on the bit-exact simulator."""
    from targets.integer import IntegerTarget

    return IntegerTarget().run(network, inputs)


def _with_report(
    network: IntegerNetwork, asked: dict[str, float | None], data: Split
) -> IntegerNetwork:
    """Log the fraction of silent messages, and return the network with it in the provenance."""
    from converters.quantize.sparsity import silent_shares

    inputs = data.inputs[:SEARCH_SAMPLES]
    made = run_integer(network, inputs)
    shares = silent_shares(network, made.carried, inputs.shape[0] * inputs.shape[1])
    limits = {place: source.message.limit for place, source in sources(network).items()}
    thresholds = {w.place: w.connection.threshold for w in network.edges if w.place in shares}
    for edge in network.edges:
        if threshold := thresholds.get(edge.place):
            _LOG.info(
                f"sparsity {edge.place}: threshold {threshold} of {limits[edge.source]}, "
                f"{shares[edge.place]:.1%} of its messages silent",
            )
    _LOG.info(f"sparsity: {shares['total']:.1%} of all messages silent")
    report = {**asked, "thresholds": thresholds, "silent": shares}
    return replace(network, provenance={**network.provenance, "sparsity": json.dumps(report)})


def within_budget(
    network: Network,
    task: Task,
    profile: str | DigitalProfile,
    kib: float,
    options: QuantizeOptions,
) -> IntegerNetwork:
    """Quantize a network such that its synapses take at most so much memory.

    Parameters
    ----------
    network : Network
    task : Task
        Task whose training data calibrate and whose validation data choose.
    profile : str or DigitalProfile
    kib : float
        Limit in KiB (1,024 bytes).
    options : QuantizeOptions
        Other options; their slices and weight widths have no effect.
    """
    from converters.quantize.widths import search_widths

    settings = settings_for(network, profile, completed(options, task))
    with progress_bar("calibrate") as progress:
        signals = calibrate(network, calibration_inputs(network, task), progress)
    data = validation_split(task)
    few, budget = data.inputs[:SEARCH_SAMPLES], int(kib * 1024)
    with progress_bar("widths", "runs") as progress:
        found = search_widths(network, signals, settings, budget, few, run_integer, progress)
    for place, (slices, bits) in found.widths.items():
        memory = found.memory[place] / 1024
        _LOG.info(f"width {place}: {slices} x {bits} bits, {memory:.1f} KiB")
    loss = loss_of(task, data, run(network, data.inputs))
    _LOG.info(
        f"budget: {found.total / 1024:.1f} of {kib:g} KiB; "
        f"{loss(run_integer(found.network, data.inputs).outputs):.2%} lost on "
        f"{len(data)} validation samples",
    )
    return found.network


def quantize_for_task(
    network: Network | Path | str,
    options: TaskQuantizeOptions | None = None,
    *,
    profile: str | DigitalProfile = "loihi2",
    task: TaskLike | Split | None = None,
    out: Path | str | None = None,
) -> IntegerNetwork:
    """Quantize a float network with ranges measured on the training data of a task.

    Parameters
    ----------
    network : Network or path
    options : TaskQuantizeOptions, optional
        By default every option has its default.
    profile : str or DigitalProfile
        Digital chip.
    task : str, path, Task, Dataset or Split, optional
        Task whose training inputs calibrate, or the samples that do; by default the one that the
        network was trained for.
    out : path, optional
        File to write.

    Raises
    ------
    InputError
        If the file, task or profile is wrong, or the network does not fit the profile's widths.
    MissingDependencyError
        If method is qat, and torch or lightning is not installed.
    RunError
        If the training diverges.
    """
    options = options or TaskQuantizeOptions()
    check_output(out, network)
    given = load_float(network, "quantize")
    network = with_logits(given, SOFTMAX)
    if network is not given:
        _LOG.info(f"{network.provenance['left out']}.")
    if isinstance(task, Split) and (
        options.method == "qat" or (options.budget_kib, options.sparsity_loss) != (None, None)
    ):
        raise InputError(
            "quantize: method qat, budget_kib and sparsity_loss choose on validation samples; give "
            "the whole Dataset in place of one part."
        )
    chosen = task_for(network, part_as_task(task))
    warn_of(chosen, network)
    if options.method == "qat":
        integer = _train(network, chosen, profile, options)
    elif options.budget_kib is not None:
        integer = within_budget(network, chosen, profile, options.budget_kib, options.rounding)
    else:
        integer = _quantize(network, chosen, profile, options.rounding)
    for remark in remarks(integer):
        _LOG.info(remark)
    integer = make_sparse(integer, chosen, options.sparsity_threshold, options.sparsity_loss)
    _compare(integer, network, chosen)
    if out is not None:
        save(integer, out)
    return integer


def calibration_inputs(network: Network, task: Task, data: TaskData | None = None) -> np.ndarray:
    """Return training inputs on which ranges are measured, shape (samples, steps, *frame).

    A series leaves the range that a network was trained on sooner or later. Where a direct path
    lets the network follow it, half of the inputs are stretched: they are twice as far from the
    mean of their channel as the samples are.

    Parameters
    ----------
    network : Network
    task : Task
    data : TaskData, optional
        By default all data of the task.
    """
    train = (data or task.load()).train
    if not has_direct_path(network):
        return limited(train, CALIBRATION_SAMPLES).filled
    inputs = limited(train, CALIBRATION_SAMPLES // 2).filled
    center = inputs.mean(axis=(0, 1), keepdims=True, dtype=np.float64)
    stretched = (center + _STRETCH * (inputs - center)).astype(np.float32)
    return np.concatenate([inputs, stretched])


def completed(options: QuantizeOptions, task: Task) -> QuantizeOptions:
    """Return options with the widths that a regression of the user needs, where none are given.

    Its answers are numbers, also where it answers once, as those at every step are.
    """
    if not (task.is_own and task.kind == "regression"):
        return options
    bits = _REAL_BITS if options.hidden_bits is None else options.hidden_bits
    slices = _REAL_SLICES if options.kernel_slices is None else options.kernel_slices
    return replace(options, hidden_bits=bits, kernel_slices=slices)


def _compare(integer: IntegerNetwork, network: Network, task: Task) -> None:
    """Log what the integers reach on calibration samples, and warn of a loss with its place."""
    from targets.integer import IntegerTarget

    data = limited(task.load().train, COMPARED_SAMPLES)
    if task.kind == "regression" and not np.nan_to_num(data.targets).any():
        return  # relative to zero no error is defined
    target = IntegerTarget()
    found = (target if data.lengths is None else ByLength(target, data.lengths)).run(
        integer, data.inputs
    )
    before = run(network, data.inputs, data.lengths)
    expected, value = (task.score(outputs, data.targets) for outputs in (before, found.outputs))
    said = (
        f"{len(data)} calibration samples: {task.metric} {expected:.4f} float, {value:.4f} integer"
    )
    if task.kind == "classification":
        lost = expected - value > ALLOWED_LOSS
    else:
        lost = value > (1.0 + 2 * ALLOWED_LOSS) * expected
    if not lost:
        _LOG.info(said)
        return
    place = max(found.saturations, key=lambda name: found.saturations[name], default="")
    most = found.saturations[place] if place else 0
    where = f"{place} saturates most ({most:,} times)" if most else "nothing saturates"
    _LOG.warning(f"{said}; {where}. lmu-deploy check --task examines the data.")


def _quantize(
    network: Network, task: Task, profile: str | DigitalProfile, options: QuantizeOptions
) -> IntegerNetwork:
    inputs, options = calibration_inputs(network, task), completed(options, task)
    with progress_bar("quantize") as progress:
        integer = quantize_with(network, inputs, profile, options, progress)
    if reason := integer.provenance.get("realization"):
        _LOG.info(f"realization {reason}")
    return integer


def _train(
    network: Network, task: Task, profile: str | DigitalProfile, options: TaskQuantizeOptions
) -> IntegerNetwork:
    from converters.quantize.qat import train_quantized

    training = _training(network, options.config, options.epochs)
    settings = settings_for(network, profile, completed(options.rounding, task))
    data = task.load()
    if training.steps is not None or training.samples is not None:
        data = data.shortened(training.steps, training.samples)
    with progress_bar("calibrate") as progress:
        signals = calibrate(network, calibration_inputs(network, task, data), progress)
    result = train_quantized(
        network,
        task,
        data,
        signals,
        settings,
        training,
        seed=options.seed,
        checkpoint=options.checkpoint,
        device=options.device,
        simulate=_simulated,
    )
    for name, value in result.figures.items():
        _LOG.info(f"{name}: {value:.4f}")
    return result.integer


def _simulated(
    network: IntegerNetwork, inputs: np.ndarray
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    from targets.integer import IntegerTarget

    run = IntegerTarget().run(network, inputs, record=True)
    assert run.states is not None
    return run.outputs, run.states.parts


def _training(network: Network, config: Path | None, epochs: int | None) -> TrainConfig:
    from converters.quantize.qat import qat_config
    from lmu_deploy.training.config import read_toml

    values = {} if config is None else read_toml(config)
    return qat_config(network, values if epochs is None else {**values, "epochs": epochs})
