"""`train` a network on a task; `demo` runs everything on the digits of scikit-learn."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmu_deploy.api.exchange import export
from lmu_deploy.api.report import FidelityReport
from lmu_deploy.api.spike import spike
from lmu_deploy.api.validate import validate
from lmu_deploy.core.validation import check_choice
from lmu_deploy.tasks.dataset import TaskLike

if TYPE_CHECKING:
    from lmu_deploy.training import TrainResult
    from lmu_deploy.training.config import TrainConfig

_LOG = logging.getLogger(__name__)


def train(
    data: TaskLike,
    model: str | None = None,
    *,
    config: Path | str | Mapping[str, Any] | TrainConfig | None = None,
    seed: int = 0,
    epochs: int | None = None,
    out: Path | str | None = None,
    checkpoint: Path | str | None = None,
    device: str = "auto",
    blocks: int | None = None,
    width: int | None = None,
    stem_stride: int | None = None,
    scaling: str | None = None,
    devices: int = 1,
    strategy: str = "auto",
    precision: str = "32",
    chip: str | Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a network on a task; the test part is used once, at the end.

    Parameters
    ----------
    data : str, path, Task or Dataset
        Name of a task, or one's own data as an ``.npz`` file or a dataset.
    model : {"lmu", "parallel", "lstm", "hybrid", "stack"}, optional
        Which built-in network; by default a stack for one's own data with a class for each sample,
        and an lmu otherwise, or the kind that `config` gives. See
        :mod:`lmu_deploy.training.config`.
    config : path, mapping or TrainConfig, optional
        A TOML file, or names and values, that replaces some of the built-in settings.
    seed : int
        Of the first weights and of the order of the training data.
    epochs : int, optional
        At most this many, whatever the settings say.
    out : path, optional
        Where to write the network.
    checkpoint : path, optional
        State of the training, written after every epoch; an interrupted training resumes from it.
    device : {"auto", "cpu", "cuda", "mps"}
    blocks, width, stem_stride : int, optional
        Of a stack: its blocks, the features between them, and the steps of the input that it takes
        together as one.
    scaling : {"standard", "robust", "min-max", "none"}, optional
        Scale and offset of every input channel, and of every output of a regression, fitted on the
        training data and kept as nodes of the network. By default standard for one's own data.
    devices : int
        Processes that train together, each on a device of its own or on the processor, with a share
        of every batch. The result is that of one process, up to rounding and the random numbers of
        regularization. The command or script is started once for each, and only the first goes on
        behind this call.
    strategy : {"auto", "ddp"}
        How they do: both mean distributed data parallel.
    precision : {"32", "bf16-mixed"}
        With bf16-mixed, products outside LMU memories are computed in bfloat16, which is faster on
        processors with instructions for it, and much slower on others.
    chip : str or mapping, optional
        Train with the noise of calibrated analog chips, which is measured with the initial network.
        The name of a profile, or a mapping of `profile`, `chips` (how many are measured) and
        options of :func:`lmu_deploy.spike`, such as
        ``{"profile": "generic-analog", "neurons_per_state": 20, "weight_bits": 4}``.

    Returns
    -------
    TrainResult
        With `network`, `figures` and `history`.

    Raises
    ------
    InputError
        When the task, model or configuration is unknown or wrong, or `out` cannot be written.
    MissingDependencyError
        When torch or lightning is absent.
    """
    from lmu_deploy.fidelity.measures.chip_noise import measure_noise
    from lmu_deploy.training import train as fit

    check_choice("strategy", strategy, ("auto", "ddp"))

    if isinstance(chip, str):
        chip = {"profile": chip}
    return fit(
        data,
        model,
        config=Path(config) if isinstance(config, str) else config,
        seed=seed,
        epochs=epochs,
        out=None if out is None else Path(out),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        device=device,
        blocks=blocks,
        width=width,
        stem_stride=stem_stride,
        scaling=scaling,
        devices=devices,
        precision=precision,
        chip=chip,
        measure=measure_noise,
    )


TASK = "digits"
TARGETS = "onnxruntime,integer,lava:8,brian2"
NEURONS_PER_STATE, MISMATCH, WEIGHT_BITS = 10, 0.2, 6
"""The virtual chip of the demo: so few neurons that an uncalibrated one loses several points."""


def demo(out: Path | str = "demo-report", *, seed: int = 0) -> FidelityReport:
    """Train a network on 8x8 digits, convert it, run it on every target, and write the report.

    The analog chip has 10 neurons a state, 20 % mismatch and 6-bit weights, with and without
    calibration.

    Parameters
    ----------
    out : path
        Folder of the report; beside it lie the network in every form.
    seed : int

    Returns
    -------
    FidelityReport
        Also written to the folder.

    Raises
    ------
    InputError
        When a library is absent or the folder cannot be made.
    RunError
        When a target failed.
    """
    folder = Path(out)
    network = train(TASK, seed=seed).network
    chips = [
        spike(
            network,
            neurons_per_state=NEURONS_PER_STATE,
            mismatch=MISMATCH,
            weight_bits=WEIGHT_BITS,
            calibration=calibration,
            seed=seed,
        )
        for calibration in ("dynamic", "none")
    ]
    command = f"lmu-deploy demo --out {folder} --seed {seed}"
    report = validate(network, targets=TARGETS, out=folder, use=chips, seed=seed, command=command)
    for form in ("onnx", "onnx-step"):
        export(network, to=form, out=folder / f"{form}.onnx")
    _LOG.info("The report, and the network in every form beside it:")
    return report
