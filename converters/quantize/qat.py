"""Quantization-aware training: train a float network with the weights that the chip will have.

In: a trained Network, its task, and the settings of a quantization. Out: an IntegerNetwork with
the rounded weights of the trained network. During training, every weight of a chain of LMU layers
is rounded as in the integer network, and messages are real numbers (:mod:`.qat_layers`); any other
graph has the values of its integer network in full.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator

from converters.options import AUTO
from converters.quantize.calibration import Calibration
from converters.quantize.lowering.lower import Lowering
from converters.quantize.ptq import lower
from converters.quantize.qat_layers import IntegerValues, RoundedLMU, RoundedReadout, Simulator
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.graph.transforms import as_layers, without_input_scaling
from lmu_deploy.core.integer.layered import IntegerReadout, layer_views
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.loading import as_graph
from lmu_deploy.core.network import Layer, LMULayer, LMUNetwork
from lmu_deploy.nn.config import LMUConfig
from lmu_deploy.nn.convert import to_sequence_model
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.training.config import TrainConfig, read_settings
from lmu_deploy.training.module import Model, predict, task_loss
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
    if not is_chain(network):
        for name in ("dropout", "stack", "chip"):
            if values.get(name):
                raise InputError(f"settings of qat: {name} is not for graphs; leave it out.")
        return read_settings({**DEFAULTS, **values}, "settings of qat", GraphTraining)
    own = to_sequence_model(as_chain(network)[0]).config.model_dump(
        include={"layers", "readout_bias"}
    )
    return read_settings({**DEFAULTS, **own, **values}, "settings of qat")


class GraphTraining(TrainConfig):
    """Settings of a training whose network is given."""

    @model_validator(mode="after")
    def _has_one_network(self) -> GraphTraining:
        return self


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
    simulate: Simulator | None = None,
) -> QatResult:
    """Train kernels, biases and readout with every weight rounded according to `settings`.

    The memory, its encoders and the formats of messages stay as the quantizer chooses them at the
    start, with the ranges of `calibration`. If no epoch is better than the start, the given network
    is quantized.

    Parameters
    ----------
    network : Network
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
    simulate : callable, optional
        Runs integer networks; needed for a network that is no chain of LMU layers.

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
    with _require_torch():
        from lmu_deploy.training.fit import fit
    training = (
        _Chain(graph, task, calibration, settings, config)
        if is_chain(graph)
        else _Graph(graph, task, data, calibration, settings, simulate)
    )
    before = evaluate(training.model(), task, data.validation, training.scaling)
    fitted = fit(
        task,
        data,
        config,
        seed,
        show=show,
        checkpoint=checkpoint,
        device=device,
        model=training.model(),
        scaling=training.scaling,
    )
    after = {"loss": fitted.validation_loss, "metric": fitted.validation_metric}
    gain = after[config.choose_by] - before[config.choose_by]
    better = gain < 0 if config.choose_by == "loss" or task.metric == "nrmse" else gain > 0
    integer = training.lowering.result
    if better:
        record = {"seed": seed, **config.model_dump(exclude_none=True, exclude={"layers"})}
        trained = training.trained(fitted.model)
        provenance = {**graph.provenance, "trained on while rounded": json.dumps(record)}
        graph = replace(trained, provenance=provenance)
        integer = lower(graph, calibration, settings).result
    figures = {
        f"validation_{task.metric}_before": before["metric"],
        f"validation_{task.metric}": (after if better else before)["metric"],
        "best_epoch": float(fitted.best_epoch if better else 0),
        "epochs": float(len(fitted.history)),
        "seconds": round(time.perf_counter() - start, 1),
    }
    return QatResult(integer, graph, figures, fitted.history)


class _Chain:
    """A training of LMU layers one behind the other."""

    def __init__(
        self,
        network: Network,
        task: Task,
        calibration: Calibration,
        settings: Settings,
        config: TrainConfig,
    ) -> None:
        self.network, self.lowering = network, lower(network, calibration, settings)
        self.scaling = Scaling.of_inputs(network)
        self._config = config.network_for(task)

    def model(self) -> SequenceModel:
        """Return a new model with the initial weights."""
        model = SequenceModel(self._config)
        rounding_model(self.network, self.lowering)(model)
        return model

    def trained(self, model: Model) -> Network:
        """Return the network with the weights of a model."""
        from lmu_deploy.nn.convert import from_torch

        assert isinstance(model, SequenceModel)
        layers, names = as_chain(self.network)
        return _renamed(_with_kernels(layers, from_torch(model)), self.network, names)


class _Graph:
    """A training of any graph."""

    def __init__(
        self,
        network: Network,
        task: Task,
        data: TaskData,
        calibration: Calibration,
        settings: Settings,
        simulate: Simulator | None,
    ) -> None:
        if simulate is None:
            raise InputError("qat of a graph needs a simulator; call lmu_deploy.quantize.")
        outputs = None
        if task.kind == "regression":
            outputs = Scaling.fit(task, data.train, "standard").outputs
        self.scaling = Scaling(None, outputs)
        self._given = network, calibration, settings, simulate, outputs
        self.lowering = self.model().lowering

    def model(self) -> IntegerValues:
        """Return a new model with the initial weights."""
        return IntegerValues(*self._given)

    def trained(self, model: Model) -> Network:
        """Return the network with the weights of a model."""
        assert isinstance(model, IntegerValues)
        return model.to_network()


def _with_kernels(network: LMUNetwork, trained: LMUNetwork) -> LMUNetwork:
    """Return the network with the trained hidden units and readout."""
    layers: list[Layer] = []
    for before, after in zip(network.layers, trained.layers, strict=True):
        assert isinstance(before, LMULayer)
        assert isinstance(after, LMULayer)
        layers.append(replace(before, hidden=after.hidden))
    return replace(network, layers=tuple(layers), readout=trained.readout)


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
    """Return a network as LMU layers one behind the other, and the names of their nodes.

    Raises
    ------
    InputError
        When a node is something else.
    """
    graph = without_input_scaling(as_graph(network))
    layers = as_layers(graph, "qat")
    names = [n.name for n in graph.nodes if not isinstance(n.operator, Reduce)][:-1]
    same = Network.from_layers(layers)
    lmus = all(isinstance(layer, LMULayer) for layer in layers.layers)
    if not lmus or len(same.nodes) != len(graph.nodes) or len(names) != len(layers.layers):
        raise InputError("qat: the network is no chain of LMU layers with a dense readout.")
    return layers, names


def is_chain(network: Network | LMUNetwork) -> bool:
    """Return whether a network is LMU layers one behind the other with a dense readout."""
    try:
        as_chain(network)
    except InputError:
        return False
    return True


def _renamed(layers: LMUNetwork, network: Network, names: list[str]) -> Network:
    """Return layers as a graph with the names of the nodes of another."""
    trained = Network.from_layers(layers)
    layered = without_input_scaling(network).nodes
    new = {node.name: other.operator for node, other in zip(layered, trained.nodes, strict=True)}
    nodes = tuple(replace(n, operator=new.get(n.name, n.operator)) for n in network.nodes)
    return replace(network, nodes=nodes)


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
    (last,) = integer.entering(integer.output)
    output = integer[integer.output]
    assert output.message is not None
    readout = IntegerReadout(last.connection, output.bias, output.message)

    def prepare(model: SequenceModel) -> None:
        n_in, x = model.config.n_in, integer.input.message
        for number, (config, part) in enumerate(zip(model.config.layers, views, strict=True)):
            assert isinstance(config, LMUConfig)
            assert part is not None
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


def evaluate(
    model: Model, task: Task, split: Split, scaling: Scaling | None = None
) -> dict[str, float]:
    """Return "loss" and "metric" of a model on a split."""
    scaling = scaling or Scaling()
    outputs = predict(model.eval(), split, _BATCH, scaling)
    targets = scaling.targets(torch.from_numpy(split.targets))
    loss = task_loss(task, scaling.targets(torch.from_numpy(outputs)), targets)
    return {"loss": loss.item(), "metric": task.score(outputs, split.targets)}
