"""`quantize`: a float network into integers, for a digital chip's widths.

What `quantize` does for less memory: widths of weights chosen for a budget.

What `quantize` does for fewer messages: thresholds as given, or tuned on the validation data.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import save
from lmu_deploy.core.integer.graph import edges, populations
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.validation import check_choice, check_integer, check_number
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for
from targets.base import Run

if TYPE_CHECKING:
    from lmu_deploy.training.config import TrainConfig


JUDGED, TRIED = 2000, 64
"""Validation samples that judge a loss, and of these those that thresholds are tried on."""


def check_sparsity(threshold: float | None, loss: float | None) -> None:
    """Raise InputError when what is asked for makes no sense, before any work."""
    if threshold is not None and loss is not None:
        raise InputError(
            "a sparsity threshold and a sparsity loss were given; a loss chooses the thresholds, "
            "so leave one of them out."
        )
    if threshold is not None:
        check_number("sparsity threshold", threshold, 0.0, 1.0)
    if loss is not None:
        check_number("sparsity loss", loss, 0.0, 1.0)


def make_sparse(
    network: IntegerNetwork, task: Task, threshold: float | None, loss: float | None
) -> IntegerNetwork:
    """Give connections thresholds.

    Parameters
    ----------
    network : IntegerNetwork
    task : Task
        Whose validation data tune; its test data are not looked at.
    threshold : float or None
        Share of the range of messages that a change has to reach; see
        :func:`converters.quantize.sparsity.with_fraction`.
    loss : float or None
        Allowed loss: of accuracy, 0.002 being 0.2 points; or relative growth of NRMSE.
    """
    from converters.quantize.sparsity import with_fraction

    if threshold is not None:
        network = with_fraction(network, threshold)
    elif loss is not None:
        network = _tuned(network, task, loss)
    else:
        return network
    return _reported(network, {"threshold": threshold, "loss": loss}, judged_on(task))


def _tuned(network: IntegerNetwork, task: Task, allowed: float) -> IntegerNetwork:
    from converters.quantize.sparsity import highest_rung, make_ladder

    data = judged_on(task)
    with progress_bar("thresholds", "runs") as progress:
        ladder = make_ladder(network, data.inputs[:TRIED], run_twin, progress)
    before = run_twin(ladder.at(0), data.inputs).outputs
    loss = loss_of(task, data, before)
    with progress_bar("tuning", "runs") as progress:
        rung = highest_rung(
            len(ladder.rungs),
            lambda number: loss(run_twin(ladder.at(number), data.inputs).outputs),
            allowed,
            progress,
        )
    return ladder.at(rung)


def loss_of(task: Task, data: Split, before: np.ndarray) -> Callable[[np.ndarray], float]:
    """Give the function that tells what other outputs than those `before` lose."""
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


def judged_on(task: Task) -> Split:
    """Give validation data, or training data where a task has no others."""
    data = task.load()
    return limited(data.validation if len(data.validation) else data.train, JUDGED)


def run_twin(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    """Run the integer twin."""
    from targets.integer import IntegerTarget

    return IntegerTarget().run(network, inputs)


def _reported(
    network: IntegerNetwork, asked: dict[str, float | None], data: Split
) -> IntegerNetwork:
    """Say what each connection sends now, and keep it in the provenance."""
    from converters.quantize.sparsity import silent_shares

    inputs = data.inputs[:TRIED]
    made = run_twin(network, inputs)
    shares = silent_shares(network, made.carried, inputs.shape[0] * inputs.shape[1])
    limits = {name: p.message.limit for name, p in populations(network).items()}
    thresholds = {w.place: w.connection.threshold for w in edges(network) if w.place in shares}
    for edge in edges(network):
        if threshold := thresholds.get(edge.place):
            print(
                f"sparsity {edge.place}: threshold {threshold} of {limits[edge.source]}, "
                f"{shares[edge.place]:.1%} of its messages silent",
                file=sys.stderr,
            )
    print(f"sparsity: {shares['total']:.1%} of all messages silent", file=sys.stderr)
    said = {**asked, "thresholds": thresholds, "silent": shares}
    return replace(network, provenance={**network.provenance, "sparsity": json.dumps(said)})


_CHOSEN = ("slices", "kernel_slices", "kernel_bits")


def check_budget(kib: float, options: dict[str, Any]) -> None:
    """Raise InputError when what is asked for makes no sense, before any work."""
    check_number("budget in KiB", kib, 0.001, 1e9)
    if given := [name for name in _CHOSEN if options.get(name) is not None]:
        raise InputError(f"a budget chooses {', '.join(_CHOSEN)}; leave out {', '.join(given)}.")


def within_budget(
    network: LMUNetwork,
    task: Task,
    profile: str,
    kib: float,
    options: dict[str, Any],
    calibration_samples: int,
) -> IntegerNetwork:
    """Quantize a network whose synapses take at most so much memory.

    Parameters
    ----------
    network : LMUNetwork
    task : Task
        Whose training data calibrate, and whose validation data choose.
    profile : str
    kib : float
        1,024 bytes each.
    options : dict
        Other choices of :func:`converters.quantize.quantize`.
    calibration_samples : int
    """
    from converters.quantize.calibration import calibrate
    from converters.quantize.settings import settings_for
    from converters.quantize.widths import search_widths

    left = {name: value for name, value in options.items() if name not in _CHOSEN}
    settings = settings_for(network, profile, **left)
    with progress_bar("calibrate") as progress:
        inputs = limited(task.load().train, calibration_samples).inputs
        signals = calibrate(network, inputs, progress)
    data = judged_on(task)
    few, budget = data.inputs[:TRIED], int(kib * 1024)
    with progress_bar("widths", "runs") as progress:
        found = search_widths(network, signals, settings, budget, few, run_twin, progress)
    for place, (slices, bits) in found.widths.items():
        memory = found.memory[place] / 1024
        print(f"width {place}: {slices} x {bits} bits, {memory:.1f} KiB", file=sys.stderr)
    loss = loss_of(task, data, run_reference(network, data.inputs).outputs)
    print(
        f"budget: {found.total / 1024:.1f} of {kib:g} KiB; "
        f"{loss(run_twin(found.network, data.inputs).outputs):.2%} lost on "
        f"{len(data)} validation samples",
        file=sys.stderr,
    )
    return found.network


METHODS = ("ptq", "qat")


def quantize(
    network: LMUNetwork | Path | str,
    *,
    profile: str = "loihi2",
    task: str | None = None,
    out: Path | str | None = None,
    method: str = "ptq",
    config: Path | str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    device: str = "auto",
    sparsity_threshold: float | None = None,
    sparsity_loss: float | None = None,
    budget_kib: float | None = None,
    **options: Any,
) -> IntegerNetwork:
    """Quantize a float network, with ranges measured on its training data.

    Parameters
    ----------
    network : LMUNetwork or path
    profile : str
        A digital chip; see ``lmu-deploy doctor`` for the names.
    task : str, optional
        Whose training inputs calibrate; by default the one that the network was trained for.
    out : path, optional
        Where to write the `.safetensors` file.
    method : {"ptq", "qat"}
        Round the weights as they are, or train on with every weight rounded
        (:mod:`converters.quantize.qat`); then `slices` is 1 unless it is given.
    config : path, optional
        Of qat: a TOML file that replaces settings of the training; see
        :class:`lmu_deploy.training.config.TrainConfig`.
    epochs : int, optional
        Of qat: at most this many, whatever the settings say.
    seed : int
        Of qat: of the order of the training data.
    checkpoint : path, optional
        Of qat: state of the training, from which an interrupted one goes on.
    device : {"auto", "cpu", "cuda", "mps"}
        Of qat.
    sparsity_threshold : float, optional
        Connections but those of a memory's own loop send a message's change once it reaches this
        share of the messages' range; 0 sends every change.
    sparsity_loss : float, optional
        Chooses the thresholds for an allowed loss of accuracy (0.002 is 0.2 points) or relative
        growth of NRMSE on validation data.
    budget_kib : float, optional
        Chooses slices and widths of weights, connection by connection, so that all synapses take at
        most so much memory and the answers on validation data change least.
    **options
        Passed to :func:`converters.quantize.quantize`: slices, message_bits, hidden_bits, ...

    Raises
    ------
    InputError
        When the file, task, profile or method is wrong, or the network does not fit the profile's
        widths.
    MissingDependencyError
        When qat is asked for and torch or lightning is absent.
    RunError
        When training diverges.
    """
    check_choice("method", method, METHODS)
    check_integer("seed", seed, 0, 2**32 - 1)
    check_sparsity(sparsity_threshold, sparsity_loss)
    if budget_kib is not None:
        check_budget(budget_kib, options)
    if not isinstance(network, LMUNetwork):
        network = load_float(network, "quantize")
    judged_by = task_for(network, task)
    if method == "ptq":
        if config is not None or epochs is not None or checkpoint is not None:
            raise InputError(
                "config, epochs and checkpoint are of a training, and method ptq trains nothing; "
                "add --method qat or leave them out."
            )
        if budget_kib is None:
            integer = _rounded(network, judged_by, profile, options)
        else:
            samples = CALIBRATION_SAMPLES
            integer = within_budget(network, judged_by, profile, budget_kib, options, samples)
    else:
        if budget_kib is not None:
            raise InputError("a budget is met by choosing widths after training; use method ptq.")
        training = _training(network, config, epochs)
        where = None if checkpoint is None else Path(checkpoint)
        integer = _trained(network, judged_by, profile, options, training, seed, where, device)
    from converters.quantize.memory_analysis import remarks

    for remark in remarks(integer):
        print(remark, file=sys.stderr)
    integer = make_sparse(integer, judged_by, sparsity_threshold, sparsity_loss)
    if out is not None:
        save(integer, out)
    return integer


def _rounded(
    network: LMUNetwork, task: Task, profile: str, options: dict[str, Any]
) -> IntegerNetwork:
    from converters.quantize import quantize as convert

    inputs = limited(task.load().train, CALIBRATION_SAMPLES).inputs
    with progress_bar("quantize") as progress:
        integer = convert(network, inputs, profile, progress=progress, **options)
    if reason := integer.provenance.get("realization"):
        print(f"realization {reason}", file=sys.stderr)
    return integer


def _trained(
    network: LMUNetwork,
    task: Task,
    profile: str,
    options: dict[str, Any],
    training: TrainConfig,
    seed: int,
    checkpoint: Path | None,
    device: str,
) -> IntegerNetwork:
    from converters.quantize.calibration import calibrate
    from converters.quantize.qat import train_quantized
    from converters.quantize.settings import settings_for

    settings = settings_for(network, profile, **{"slices": 1, **options})
    data = task.load()
    if training.steps is not None or training.samples is not None:
        data = data.shortened(training.steps, training.samples)
    inputs = limited(data.train, CALIBRATION_SAMPLES).inputs
    with progress_bar("calibrate") as progress:
        signals = calibrate(network, inputs, progress)
    result = train_quantized(
        network,
        task,
        data,
        signals,
        settings,
        training,
        seed=seed,
        checkpoint=checkpoint,
        device=device,
    )
    for name, value in result.figures.items():
        print(f"{name}: {value:.4f}", file=sys.stderr)
    return result.integer


def _training(network: LMUNetwork, config: Path | str | None, epochs: int | None) -> TrainConfig:
    from converters.quantize.qat import qat_config
    from lmu_deploy.training.config import read_toml

    values = {} if config is None else read_toml(config)
    return qat_config(network, values if epochs is None else {**values, "epochs": epochs})
