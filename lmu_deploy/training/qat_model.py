"""A trainable network whose every weight is rounded as an integer network has it."""

from __future__ import annotations

from collections.abc import Callable

from converters.quantise.ptq import Quantiser
from converters.quantise.rounding import Rounding
from converters.trainer import to_torch
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.nn.config import LMUConfig
from lmu_deploy.nn.lmu import LMU
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.training.qat_layers import RoundedLMU, RoundedReadout

KERNELS = ("memory", "input", "recurrent")


def rounding_model(
    network: LMUNetwork, integer: IntegerNetwork, quantiser: Quantiser, rank: int | None = None
) -> Callable[[SequenceModel], None]:
    """Give what turns a fresh model of the network's shape into one that rounds its weights.

    Parameters
    ----------
    network : LMUNetwork
        Whose weights it begins with.
    integer : IntegerNetwork
        What `quantiser` made of it.
    quantiser : Quantiser
    rank : int, optional
        See :class:`lmu_deploy.training.qat_layers.RoundedLMU`.
    """
    roundings = quantiser.connector.roundings

    def prepare(model: SequenceModel) -> None:
        formats = [integer.input, *(layer.output for layer in integer.layers)]
        for number, (layer, made) in enumerate(zip(model.layers, integer.layers, strict=True)):
            config = model.config.layers[number]
            assert isinstance(layer, LMU)
            assert isinstance(config, LMUConfig)
            own = _of_hidden(roundings, number)
            model.layers[number] = RoundedLMU(layer.n_in, config, made, formats[number], own, rank)
        n_out, n_in = model.readout.weight.shape
        model.readout = RoundedReadout(
            n_in, n_out, model.config.readout_bias, integer.readout, roundings["readout"]
        )
        model.load_state_dict(to_torch(network).state_dict())

    return prepare


def _of_hidden(roundings: dict[str, Rounding], layer: int) -> dict[str, Rounding]:
    places = {name: f"layer{layer}/hidden/{name}" for name in KERNELS}
    return {name: roundings[place] for name, place in places.items() if place in roundings}
