"""Quantization-aware training: train a float network with the weights that the chip will have.

In: a trained LMUNetwork, its task, and the settings of a quantization. Out: an IntegerNetwork with
the rounded weights of the trained network. During training, every weight is rounded as in the
integer network (:mod:`.qat_layers`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from converters.options import AUTO
from converters.quantize.calibration import Calibration
from converters.quantize.connections import Rounding
from converters.quantize.ptq import Quantizer
from converters.quantize.qat_layers import RoundedLMU, RoundedReadout
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.integer.network import HostLayer, IntegerLayer, IntegerNetwork, IntegerReadout
from lmu_deploy.core.network import Layer, LMULayer, LMUNetwork
from lmu_deploy.nn.config import LMUConfig, ModelConfig
from lmu_deploy.nn.convert import to_sequence_model
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.training.config import TrainConfig, read_settings
from lmu_deploy.training.module import predict, task_loss

DEFAULTS = {"epochs": 2, "learning_rate": 3e-4, "schedule": "cosine", "clip_norm": 1.0}
"""Default settings of a training that only has to correct the effect of rounding."""


@dataclass(frozen=True)
class QatResult:
    """Result of a quantization-aware training.

    Attributes
    ----------
    integer : IntegerNetwork
        The quantized network; its source is the network below.
    network : LMUNetwork
        The float network before rounding.
    figures : dict of str to float
        validation_METRIC of the rounded weights in floats, and validation_METRIC_before of the
        initial ones; best_epoch, 0 when no epoch was better than the start; epochs; seconds.
    history : list of dict of str to float
        As in :class:`lmu_deploy.training.TrainResult`.
    """

    integer: IntegerNetwork
    network: LMUNetwork
    figures: dict[str, float]
    history: list[dict[str, float]]


def qat_config(network: LMUNetwork, values: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the settings of a training of `network`; `values` override the defaults.

    Raises
    ------
    InputError
        When a setting is unknown or out of range, or would change the network.
    MissingDependencyError
        When torch is not installed.
    """
    values = dict(values or {})
    for name in ("layers", "readout_bias"):
        if name in values:
            raise InputError(f"settings of qat: {name} is the network's own; leave it out.")
    with _require_torch():
        from lmu_deploy.nn.convert import to_sequence_model
    own = to_sequence_model(network).config.model_dump(include={"layers", "readout_bias"})
    return read_settings({**DEFAULTS, **own, **values}, "settings of qat")


def train_quantized(
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
    """Train kernels, biases and readout with every weight rounded according to `settings`.

    The memory, its encoders and the formats of messages stay as the quantizer chooses them at the
    start, with the ranges of `calibration`. If no epoch is better than the start, the given network
    is quantized.

    Parameters
    ----------
    network : LMUNetwork
        Its LSTM layers are trained without rounding, since the host computes them in float.
    task : Task
    data : TaskData
    calibration : Calibration
        Calibration of `network`.
    settings : Settings
        Settings of the quantization; its realization must not be auto.
    config : TrainConfig
        As returned by :func:`qat_config`.
    seed : int
        Seed of the order of the training data.
    show, checkpoint, device
        As in :func:`lmu_deploy.training.fit.fit`.

    Raises
    ------
    InputError
        When the network cannot be quantized with these settings, or the realization is auto.
    MissingDependencyError
        When torch or lightning is not installed.
    RunError
        When training diverges.
    """
    if settings.realization == AUTO:
        raise InputError(
            "qat trains for one realization, and auto does not name one; quantize with --method "
            "ptq --realization auto first to see which one it chooses, and name that."
        )
    start = time.perf_counter()
    quantizer = Quantizer(settings, calibration)
    integer = quantizer.network(network)
    with _require_torch():
        from lmu_deploy.nn.convert import from_torch
        from lmu_deploy.training.fit import fit
    prepare = rounding_model(network, integer, quantizer.connector.roundings)
    before = evaluate(prepare, config.network_for(task), task, data.validation)
    fitted = fit(
        task,
        data,
        config,
        seed,
        show=show,
        checkpoint=checkpoint,
        device=device,
        prepare=prepare,
    )
    after = {"loss": fitted.validation_loss, "metric": fitted.validation_metric}
    gain = after[config.choose_by] - before[config.choose_by]
    better = gain < 0 if config.choose_by == "loss" or task.metric == "nrmse" else gain > 0
    if better:
        assert isinstance(fitted.model, SequenceModel)
        network = _with_kernels(network, from_torch(fitted.model), config, seed)
        integer = Quantizer(settings, calibration).network(network)
    figures = {
        f"validation_{task.metric}_before": before["metric"],
        f"validation_{task.metric}": (after if better else before)["metric"],
        "best_epoch": float(fitted.best_epoch if better else 0),
        "epochs": float(len(fitted.history)),
        "seconds": round(time.perf_counter() - start, 1),
    }
    return QatResult(integer, network, figures, fitted.history)


def _with_kernels(
    network: LMUNetwork, trained: LMUNetwork, config: TrainConfig, seed: int
) -> LMUNetwork:
    """Return the network with the trained weights; record the training in its provenance."""
    layers: list[Layer] = []
    for before, after in zip(network.layers, trained.layers, strict=True):
        if isinstance(before, LMULayer):
            assert isinstance(after, LMULayer)
            layers.append(replace(before, hidden=after.hidden))
        else:
            layers.append(after)
    record = {"seed": seed, **config.model_dump(exclude_none=True, exclude={"layers"})}
    provenance = {**network.provenance, "trained on while rounded": json.dumps(record)}
    return replace(network, layers=tuple(layers), readout=trained.readout, provenance=provenance)


@contextmanager
def _require_torch() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"qat needs torch and lightning ({error}); run: pip install 'lmu-deploy[train]'"
        ) from error


KERNELS = ("memory", "input", "recurrent")
_BATCH = 100

Prepare = Callable[[SequenceModel], None]


def rounding_model(
    network: LMUNetwork,
    integer: IntegerNetwork,
    roundings: Mapping[str, Rounding],
    rank: int | None = None,
) -> Prepare:
    """Return a function that turns a new model into one that rounds its weights.

    Parameters
    ----------
    network : LMUNetwork
        Network with the model's initial weights.
    integer : IntegerNetwork
        The quantized network.
    roundings : mapping of str to Rounding
        Rounding of each kernel, by the quantizer's names of places.
    rank : int, optional
        See :class:`converters.quantize.qat_layers.RoundedLMU`.
    """
    _refuse_bases_before_the_host(integer)

    def prepare(model: SequenceModel) -> None:
        n_in, x = model.config.n_in, integer.input
        for number, (config, part) in enumerate(
            zip(model.config.layers, integer.layers, strict=True)
        ):
            if isinstance(part, HostLayer):
                n_in, x = config.n_out, part.message or x
                continue
            assert isinstance(config, LMUConfig)
            places = {name: f"layer{number}/hidden/{name}" for name in KERNELS}
            own = {n: roundings[place] for n, place in places.items() if place in roundings}
            model.layers[number] = RoundedLMU(n_in, config, part, x, own, rank)
            n_in, x = config.n_out, part.output
        if isinstance(integer.readout, IntegerReadout):
            model.readout = RoundedReadout(
                n_in,
                model.config.n_out,
                model.config.readout_bias,
                integer.readout,
                roundings["readout"],
            )
        model.load_state_dict(to_sequence_model(network).state_dict())

    return prepare


def _refuse_bases_before_the_host(integer: IntegerNetwork) -> None:
    """Raise InputError if an LSTM on the host reads a memory in other coordinates."""
    for number, (before, after) in enumerate(pairwise(integer.layers)):
        if not (isinstance(before, IntegerLayer) and isinstance(after, HostLayer)):
            continue
        if before.output_basis is not None:
            raise InputError(
                f"qat: layer {number} sends its memory to an LSTM on the host, in other "
                "coordinates than the float network; use --no-refit with realization "
                "dense-incremental, or method ptq."
            )


def evaluate(prepare: Prepare, config: ModelConfig, task: Task, split: Split) -> dict[str, float]:
    """Return "loss" and "metric" of the prepared model."""
    model = SequenceModel(config)
    prepare(model)
    outputs = predict(model.eval(), split, _BATCH)
    loss = task_loss(task, torch.from_numpy(outputs), torch.from_numpy(split.targets))
    return {"loss": loss.item(), "metric": task.score(outputs, split.targets)}
