"""A trainable network whose every weight is rounded as an integer network has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch

from converters.quantise.rounding import Rounding
from converters.trainer import to_torch
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import HostLayer, IntegerLayer, IntegerNetwork, IntegerReadout
from lmu_deploy.network import LMUNetwork
from lmu_deploy.nn.config import LMUConfig, ModelConfig
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.training.module import answer, task_loss
from lmu_deploy.training.qat_layers import RoundedLMU, RoundedReadout

KERNELS = ("memory", "input", "recurrent")
_BATCH = 100

Prepare = Callable[[SequenceModel], None]


def rounding_model(
    network: LMUNetwork,
    integer: IntegerNetwork,
    roundings: Mapping[str, Rounding],
    rank: int | None = None,
) -> Prepare:
    """Give what turns a fresh model of a network's shape into one that rounds its weights.

    Parameters
    ----------
    network : LMUNetwork
        Whose weights the model begins with.
    integer : IntegerNetwork
        What a quantiser made of it.
    roundings : mapping of str to Rounding
        How, by the quantiser's names of places.
    rank : int, optional
        See :class:`lmu_deploy.training.qat_layers.RoundedLMU`.
    """
    _refuse_bases_before_the_host(integer)

    def prepare(model: SequenceModel) -> None:
        n_in, x = model.config.n_in, integer.input
        for number, (config, made) in enumerate(
            zip(model.config.layers, integer.layers, strict=True)
        ):
            if isinstance(made, HostLayer):
                n_in, x = config.n_out, made.message or x
                continue
            assert isinstance(config, LMUConfig)
            places = {name: f"layer{number}/hidden/{name}" for name in KERNELS}
            own = {n: roundings[place] for n, place in places.items() if place in roundings}
            model.layers[number] = RoundedLMU(n_in, config, made, x, own, rank)
            n_in, x = config.n_out, made.output
        if isinstance(integer.readout, IntegerReadout):
            model.readout = RoundedReadout(
                n_in,
                model.config.n_out,
                model.config.readout_bias,
                integer.readout,
                roundings["readout"],
            )
        model.load_state_dict(to_torch(network).state_dict())

    return prepare


def _refuse_bases_before_the_host(integer: IntegerNetwork) -> None:
    """Raise InputError where an LSTM reads a memory in other coordinates than the float one's."""
    for number, (before, after) in enumerate(pairwise(integer.layers)):
        if not (isinstance(before, IntegerLayer) and isinstance(after, HostLayer)):
            continue
        if before.output_basis is not None:
            raise InputError(
                f"qat: layer {number} sends its memory to an LSTM on the host and holds it in "
                "other coordinates than the float network; use --no-refit with realisation "
                "dense-incremental, or method ptq."
            )


def judge(prepare: Prepare, config: ModelConfig, task: Task, split: Split) -> dict[str, float]:
    """Give the loss and the metric of the model as prepared, by the names "loss" and "metric"."""
    model = SequenceModel(config)
    prepare(model)
    outputs = answer(model.eval(), split, _BATCH)
    loss = task_loss(task, torch.from_numpy(outputs), torch.from_numpy(split.targets))
    return {"loss": loss.item(), "metric": task.score(outputs, split.targets)}
