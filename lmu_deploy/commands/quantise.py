"""`quantise`: a float network into integers, for a digital chip's widths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmu_deploy.checks import check_choice, check_integer
from lmu_deploy.commands.budget import check_budget, within_budget
from lmu_deploy.commands.check import remarks
from lmu_deploy.commands.sparsity import check_sparsity, make_sparse
from lmu_deploy.commands.task_data import CALIBRATION_SAMPLES, limited, task_for
from lmu_deploy.errors import InputError
from lmu_deploy.files import save
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.progress import progress_bar
from lmu_deploy.representations import load_float
from lmu_deploy.tasks.base import Task

if TYPE_CHECKING:
    from lmu_deploy.training.config import TrainConfig

METHODS = ("ptq", "qat")


def quantise(
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
    """Quantise a float network, with ranges measured on its training data.

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
        (:mod:`lmu_deploy.training.qat`); then `slices` is 1 unless it is given.
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
        Passed to :func:`converters.quantise.quantise`: slices, message_bits, hidden_bits, ...

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
        network = load_float(network, "quantise")
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
    for remark in remarks(integer):
        print(remark, file=sys.stderr)
    integer = make_sparse(integer, judged_by, sparsity_threshold, sparsity_loss)
    if out is not None:
        save(integer, out)
    return integer


def _rounded(
    network: LMUNetwork, task: Task, profile: str, options: dict[str, Any]
) -> IntegerNetwork:
    from converters.quantise import quantise as convert

    inputs = limited(task.load().train, CALIBRATION_SAMPLES).inputs
    with progress_bar("quantise") as progress:
        integer = convert(network, inputs, profile, progress=progress, **options)
    if reason := integer.provenance.get("realisation"):
        print(f"realisation {reason}", file=sys.stderr)
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
    from converters.quantise.calibrate import calibrate
    from converters.quantise.settings import settings_for
    from lmu_deploy.training.qat import train_quantised

    settings = settings_for(network, profile, **{"slices": 1, **options})
    data = task.load()
    if training.steps is not None or training.samples is not None:
        data = data.shortened(training.steps, training.samples)
    inputs = limited(data.train, CALIBRATION_SAMPLES).inputs
    with progress_bar("calibrate") as progress:
        signals = calibrate(network, inputs, progress)
    result = train_quantised(
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
    from lmu_deploy.training.config import read_toml
    from lmu_deploy.training.qat import qat_config

    values = {} if config is None else read_toml(config)
    return qat_config(network, values if epochs is None else {**values, "epochs": epochs})
