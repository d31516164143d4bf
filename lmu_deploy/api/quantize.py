"""Quantize a float network with the data of its task."""

from __future__ import annotations

from pathlib import Path

from converters.options import TaskQuantizeOptions
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.hardware.profile import DigitalProfile
from lmu_deploy.studies.quantization import quantize_for_task
from lmu_deploy.tasks.base import Split
from lmu_deploy.tasks.dataset import TaskLike


def quantize(
    network: Network | Path | str,
    data: TaskLike | Split | None = None,
    *,
    profile: str | DigitalProfile = "loihi2",
    out: Path | str | None = None,
    slices: int | None = None,
    kernel_slices: int | None = None,
    message_bits: int = 12,
    hidden_bits: int | None = None,
    input_bits: int | None = None,
    calibration_method: str = "max",
    scales: str | None = None,
    realization: str = "dense-incremental",
    taps: int | None = None,
    kernel_bits: int | None = None,
    refit: bool | None = None,
    method: str = "ptq",
    config: Path | str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    device: str = "auto",
    sparsity_threshold: float | None = None,
    sparsity_loss: float | None = None,
    budget_kib: float | None = None,
) -> IntegerNetwork:
    """Quantize a float network, with ranges measured on its training data.

    Parameters
    ----------
    network : Network or path
    data : Dataset, Task, Split, str or path, optional
        A dataset, the name of a task or an ``.npz`` file whose training inputs calibrate, or one
        part of a dataset, whose inputs do; by default the task that the network was trained for.
    profile : str or DigitalProfile
        Digital chip; ``lmu-deploy doctor`` lists the names.
    out : path, optional
        The `.safetensors` file to write.
    slices : int, optional
        Slices of every matrix that enters a memory; by default 2, or 1 with method qat.
    kernel_slices, message_bits, hidden_bits, input_bits, calibration_method, scales, realization
        As for :func:`converters.quantize.quantize`.
    taps, kernel_bits, refit
        As for :func:`converters.quantize.quantize`.
    method : {"ptq", "qat"}
        Round the weights as they are, or continue the training with rounded weights
        (:mod:`converters.quantize.qat`).
    config : path, optional
        For qat: a TOML file that replaces settings of the training; see
        :class:`lmu_deploy.training.config.TrainConfig`.
    epochs : int, optional
        For qat: the largest number of epochs; by default that of the settings.
    seed : int
        For qat: seed of the order of the training data.
    checkpoint : path, optional
        For qat: file with the state of the training, from which an interrupted one resumes.
    device : {"auto", "cpu", "cuda", "mps"}
        For qat: where the training runs.
    sparsity_threshold : float, optional
        Send a message only if it changed by at least this fraction of its range; 0 sends every
        change. Connections of a memory with itself send every message.
    sparsity_loss : float, optional
        Choose the thresholds on validation data for this loss of accuracy (0.002 is 0.2 points) or
        relative growth of the NRMSE.
    budget_kib : float, optional
        Choose slices and weight widths, connection by connection, such that the synapses take at
        most this memory and the outputs on validation data change least.

    Raises
    ------
    InputError
        If the file, task, profile or an option is wrong, or the network does not fit the profile's
        widths.
    MissingDependencyError
        If method is qat, and torch or lightning is not installed.
    RunError
        If the training diverges.
    """
    options = TaskQuantizeOptions(
        slices=slices,
        kernel_slices=kernel_slices,
        message_bits=message_bits,
        hidden_bits=hidden_bits,
        input_bits=input_bits,
        calibration_method=calibration_method,
        scales=scales,
        realization=realization,
        taps=taps,
        kernel_bits=kernel_bits,
        refit=refit,
        method=method,
        config=None if config is None else Path(config),
        epochs=epochs,
        seed=seed,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        device=device,
        sparsity_threshold=sparsity_threshold,
        sparsity_loss=sparsity_loss,
        budget_kib=budget_kib,
    )
    return quantize_for_task(network, options, profile=profile, task=data, out=out)
