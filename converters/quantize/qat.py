"""Quantization-aware training: train a float network with the weights that the chip will have.

In: a trained Network, its task, and the settings of a quantization. Out: an IntegerNetwork with
the rounded weights of the trained network. During training, every weight is rounded as in the
integer network (:mod:`.qat_layers`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from converters.options import AUTO
from converters.quantize.calibration import Calibration
from converters.quantize.lowering.lower import Lowering
from converters.quantize.ptq import lower
from converters.quantize.qat_layers import RoundedLMU, RoundedReadout
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.graph.transforms import as_layers, without_input_scaling
from lmu_deploy.core.integer.layered import IntegerLayer, IntegerReadout, layer_views
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.loading import as_graph
from lmu_deploy.core.network import Layer, LMULayer, LMUNetwork
from lmu_deploy.nn.config import LMUConfig, ModelConfig
from lmu_deploy.nn.convert import to_sequence_model
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.training.config import TrainConfig, read_settings
from lmu_deploy.training.module import predict, task_loss
from lmu_deploy.training.scaling import Scaling

DEFAULTS = {"epochs": 2, "learning_rate": 3e-4, "schedule": "cosine", "clip_norm": 1.0}
"""Default settings of a training that only has to correct the effect of rounding."""


@dataclass(frozen=True)
class QatResult:
    """Result of a quantization-aware training.

    Attributes
    ----------
    integer : IntegerNetwork
        The quantized network; its source is the network below.
    network : Network
        The float network before rounding.
    figures : dict of str to float
        validation_METRIC of the rounded weights in floats, and validation_METRIC_before of the
        initial ones; best_epoch, 0 when no epoch was better than the start; epochs; seconds.
    history : list of dict of str to float
        As in :class:`lmu_deploy.training.TrainResult`.
    """

    integer: IntegerNetwork
    network: Network
    figures: dict[str, float]
    history: list[dict[str, float]]


def qat_config(
    network: Network | LMUNetwork, values: Mapping[str, Any] | None = None
) -> TrainConfig:
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
    own = to_sequence_model(as_chain(network)[0]).config.model_dump(
        include={"layers", "readout_bias"}
    )
    return read_settings({**DEFAULTS, **own, **values}, "settings of qat")


def train_quantized(
    network: Network | LMUNetwork,
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
    network : Network
        Its LSTM layers are trained without rounding.
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
    graph: Network = as_graph(network)
    layers, names = as_chain(graph)
    lowering = lower(graph, calibration, settings)
    integer = lowering.result
    with _require_torch():
        from lmu_deploy.nn.convert import from_torch
        from lmu_deploy.training.fit import fit
    prepare = rounding_model(graph, lowering)
    scaling = Scaling.of_inputs(graph)
    before = evaluate(prepare, config.network_for(task), task, data.validation, scaling)
    fitted = fit(
        task,
        data,
        config,
        seed,
        show=show,
        checkpoint=checkpoint,
        device=device,
        prepare=prepare,
        scaling=scaling,
    )
    after = {"loss": fitted.validation_loss, "metric": fitted.validation_metric}
    gain = after[config.choose_by] - before[config.choose_by]
    better = gain < 0 if config.choose_by == "loss" or task.metric == "nrmse" else gain > 0
    if better:
        assert isinstance(fitted.model, SequenceModel)
        trained = _with_kernels(layers, from_torch(fitted.model), config, seed)
        graph = _renamed(trained, graph, names)
        integer = lower(graph, calibration, settings).result
    figures = {
        f"validation_{task.metric}_before": before["metric"],
        f"validation_{task.metric}": (after if better else before)["metric"],
        "best_epoch": float(fitted.best_epoch if better else 0),
        "epochs": float(len(fitted.history)),
        "seconds": round(time.perf_counter() - start, 1),
    }
    return QatResult(integer, graph, figures, fitted.history)


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


_BATCH = 100

Prepare = Callable[[SequenceModel], None]


def as_chain(network: Network | LMUNetwork) -> tuple[LMUNetwork, list[str]]:
    """Return a network as layers one behind the other, and the names of their nodes.

    Raises
    ------
    InputError
        When a node is no layer that this training supports.
    """
    graph = without_input_scaling(as_graph(network))
    layers = as_layers(graph, "qat")
    names = [n.name for n in graph.nodes if not isinstance(n.operator, Reduce)][:-1]
    same = Network.from_layers(layers)
    if len(same.nodes) != len(graph.nodes) or len(names) != len(layers.layers):
        raise InputError(
            "qat trains networks whose nodes are LMU and LSTM layers with a dense readout; use "
            "--method ptq."
        )
    return layers, names


def _renamed(layers: LMUNetwork, network: Network, names: list[str]) -> Network:
    """Return layers as a graph with the names of the nodes of another."""
    trained = Network.from_layers(layers)
    layered = without_input_scaling(network).nodes
    new = {node.name: other.operator for node, other in zip(layered, trained.nodes, strict=True)}
    nodes = tuple(replace(n, operator=new.get(n.name, n.operator)) for n in network.nodes)
    return replace(network, nodes=nodes, provenance=layers.provenance)


def rounding_model(
    network: Network | LMUNetwork, lowering: Lowering, rank: int | None = None
) -> Prepare:
    """Return a function that turns a new model into one that rounds its weights.

    Parameters
    ----------
    network : Network or LMUNetwork
        Network with the model's initial weights.
    lowering : Lowering
        What the quantizer decided for them.
    rank : int, optional
        See :class:`converters.quantize.qat_layers.RoundedLMU`.
    """
    integer, roundings = lowering.result, lowering.connector.roundings
    layers, names = as_chain(network)
    views = layer_views(integer, names)
    _refuse_bases_before_lstm(views)
    (last,) = integer.entering(integer.output)
    output = integer[integer.output]
    assert output.message is not None
    readout = IntegerReadout(last.connection, output.bias, output.message)

    def prepare(model: SequenceModel) -> None:
        n_in, x = model.config.n_in, integer.input.message
        for number, (config, part) in enumerate(zip(model.config.layers, views, strict=True)):
            if part is None:  # an LSTM, which is trained without rounding
                units = integer[Place(names[number], "hidden")]
                assert units.message is not None
                n_in, x = config.n_out, units.message
                continue
            assert isinstance(config, LMUConfig)
            hidden = Place(names[number], "hidden")
            places = {e.name: e.place for e in integer.entering(hidden)} if part.hidden else {}
            own = {n: roundings[place] for n, place in places.items() if place in roundings}
            model.layers[number] = RoundedLMU(n_in, config, part, x, own, rank)
            n_in, x = config.n_out, part.output
        model.readout = RoundedReadout(
            n_in, model.config.n_out, model.config.readout_bias, readout, roundings[last.place]
        )
        model.load_state_dict(to_sequence_model(layers).state_dict())

    return prepare


def _refuse_bases_before_lstm(views: Sequence[IntegerLayer | None]) -> None:
    """Raise InputError if an LSTM reads a memory in other coordinates."""
    for number, (before, after) in enumerate(pairwise(views)):
        if before is not None and after is None and before.output_basis is not None:
            raise InputError(
                f"qat: layer {number} sends its memory to an LSTM, in other coordinates than the "
                "float network; use --no-refit with realization dense-incremental, or method ptq."
            )


def evaluate(
    prepare: Prepare,
    config: ModelConfig,
    task: Task,
    split: Split,
    scaling: Scaling | None = None,
) -> dict[str, float]:
    """Return "loss" and "metric" of the prepared model, for scaled inputs."""
    model = SequenceModel(config)
    prepare(model)
    outputs = predict(model.eval(), split, _BATCH, scaling)
    loss = task_loss(task, torch.from_numpy(outputs), torch.from_numpy(split.targets))
    return {"loss": loss.item(), "metric": task.score(outputs, split.targets)}
