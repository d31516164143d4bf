"""Quantisation-aware training: a float network learns on with the weights that a chip will have.

In: a trained LMUNetwork, its task, and the choices of a quantisation. Out: an IntegerNetwork whose
every weight is one that the training went through.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.quantise.calibrate import Calibration
from converters.quantise.ptq import Quantiser
from converters.quantise.settings import AUTO, Settings
from lmu_deploy.errors import InputError, MissingDependencyError
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.network import LMULayer, LMUNetwork
from lmu_deploy.tasks.base import Task, TaskData
from lmu_deploy.training.config import TrainConfig, read_settings

if TYPE_CHECKING:
    from lmu_deploy.nn.model import SequenceModel

DEFAULTS = {"epochs": 2, "learning_rate": 3e-4, "schedule": "cosine", "clip_norm": 1.0}
"""Settings of a training that only has to mend what rounding broke."""


@dataclass(frozen=True)
class QatResult:
    """What a quantisation-aware training gave.

    Attributes
    ----------
    integer : IntegerNetwork
        With the network below as its source.
    network : LMUNetwork
        The float weights behind it, before rounding.
    figures : dict of str to float
        validation_METRIC of the rounded weights, best_epoch, epochs, seconds.
    history : list of dict of str to float
        As that of :class:`lmu_deploy.training.TrainResult`.
    """

    integer: IntegerNetwork
    network: LMUNetwork
    figures: dict[str, float]
    history: list[dict[str, float]]


def qat_config(network: LMUNetwork, values: dict[str, Any] | None = None) -> TrainConfig:
    """Give the settings of a training that starts from `network`, `values` replacing the usual.

    Raises
    ------
    InputError
        When a setting is unknown or out of range, or would change the network.
    """
    from converters.trainer import to_torch

    model = to_torch(network).config
    values = dict(values or {})
    for name in ("layers", "readout_bias"):
        if name in values:
            raise InputError(f"settings of qat: {name} is the network's own; leave it out.")
    own = {"layers": [layer.model_dump() for layer in model.layers]}
    own["readout_bias"] = model.readout_bias
    return read_settings({**DEFAULTS, **own, **values}, "settings of qat")


def train_quantised(
    network: LMUNetwork,
    task: Task,
    data: TaskData,
    calibration: Calibration,
    settings: Settings,
    config: TrainConfig,
    *,
    seed: int = 0,
    show: bool = True,
    checkpoint: Path | None = None,
    device: str = "auto",
) -> QatResult:
    """Train kernels, biases and readout with every weight rounded as `settings` have it.

    The memory and its encoders stay as the quantiser rounds them at the start. So do the formats of
    messages: ranges are those of `calibration`, which is of the network as given.

    Parameters
    ----------
    network : LMUNetwork
        Of LMU layers alone.
    task : Task
    data : TaskData
    calibration : Calibration
        Of `network`.
    settings : Settings
        Of the quantisation; its realisation must be named, not auto.
    config : TrainConfig
        As :func:`qat_config` gives it.
    seed : int
        Of the order of the training data.
    show, checkpoint, device
        As in :func:`lmu_deploy.training.fit.fit`.

    Raises
    ------
    InputError
        When the network cannot be quantised that way, or the realisation is auto.
    MissingDependencyError
        When torch or lightning is absent.
    RunError
        When training diverges.
    """
    if settings.realisation == AUTO:
        raise InputError(
            "qat trains for one realisation, and auto names none; quantise with --method ptq "
            "--realisation auto first to see which it takes, and name that."
        )
    start = time.perf_counter()
    quantiser = Quantiser(settings, calibration)
    integer = quantiser.network(network)
    try:
        from converters.trainer import from_torch
        from lmu_deploy.training.fit import fit
        from lmu_deploy.training.qat_model import rounding_model
    except ImportError as error:
        raise MissingDependencyError(
            f"qat needs torch and lightning ({error}); run: pip install 'lmu-deploy[train]'"
        ) from error
    prepare: Callable[[SequenceModel], None] = rounding_model(network, integer, quantiser)
    fitted = fit(
        task,
        data,
        config,
        seed,
        show=show,
        checkpoint=checkpoint,
        prepare=prepare,
        device=device,
    )
    trained = _with_memory_of(network, from_torch(fitted.model, network.task), config, seed)
    figures = {
        f"validation_{task.metric}": fitted.validation_metric,
        "best_epoch": float(fitted.best_epoch),
        "epochs": float(len(fitted.history)),
        "seconds": round(time.perf_counter() - start, 1),
    }
    made = Quantiser(settings, calibration).network(trained)
    return QatResult(made, trained, figures, fitted.history)


def _with_memory_of(
    network: LMUNetwork, trained: LMUNetwork, config: TrainConfig, seed: int
) -> LMUNetwork:
    """Put back, in full precision, what was not trained, and tell what was done."""
    layers = []
    for before, after in zip(network.layers, trained.layers, strict=True):
        assert isinstance(before, LMULayer)
        assert isinstance(after, LMULayer)
        layers.append(replace(before, hidden=after.hidden))
    told = {"seed": seed, **config.model_dump(exclude_none=True, exclude={"layers"})}
    provenance = {**network.provenance, "trained on, rounded": json.dumps(told)}
    return replace(trained, layers=tuple(layers), provenance=provenance)
