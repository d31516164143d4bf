r"""Which part of a float network a NIR graph carries, and which stays with the host.

NIR has nodes for linear maps and for leaky integrators, and none for tanh, relu or hard-tanh units
nor for an LSTM. So every memory with its encoders is in the graph; hidden units are if they are
linear and no feedback leaves them, and the readout is if the layer before it is in whole. A run of
layers that are in the graph is a segment: it begins with an Input, ends with an Output, and where
it ends before the network does, the Output gives the states m of the last memory, from which the
host goes on. Hidden units that feed back into their memory come in again through the same Input,
behind the features: [x[t], h[t-1]].
"""

from __future__ import annotations

from dataclasses import dataclass

from lmu_deploy.errors import InputError
from lmu_deploy.network import LMULayer, LMUNetwork, LSTMLayer


@dataclass(frozen=True)
class Segment:
    """Layers that follow each other without the host.

    Attributes
    ----------
    first, last : int
        Numbers of its layers, the last included.
    has_readout : bool
    """

    first: int
    last: int
    has_readout: bool

    @property
    def input(self) -> str:
        """Name of its Input node."""
        return "input" if self.first == 0 else f"layer{self.first}_input"

    @property
    def output(self) -> str:
        """Name of its Output node."""
        return "output" if self.has_readout else f"layer{self.last}_output"


def is_whole(layer: LMULayer | LSTMLayer) -> bool:
    """Whether NIR has nodes for all of a layer."""
    if isinstance(layer, LSTMLayer):
        return False
    hidden = layer.hidden
    if hidden is None:
        return True
    return (
        hidden.activation == "linear"
        and hidden.recurrent_kernel is None
        and layer.hidden_encoders is None
    )


def segments(network: LMUNetwork) -> list[Segment]:
    """Divide a network.

    Raises
    ------
    InputError
        When there is no memory in it.
    """
    found: list[Segment] = []
    first: int | None = None
    for number, layer in enumerate(network.layers):
        if is_whole(layer):
            first = number if first is None else first
            continue
        if first is not None:
            found.append(Segment(first, number - 1, False))
            first = None
        if isinstance(layer, LMULayer):
            found.append(Segment(number, number, False))
    if first is not None:
        found.append(Segment(first, len(network.layers) - 1, True))
    if not found:
        raise InputError(
            "the network has LSTM layers alone, for which NIR has no node; export it as onnx."
        )
    return found


def left_to_host(network: LMUNetwork) -> list[str]:
    """Name the parts of a float network that are not in its NIR graph.

    Parameters
    ----------
    network : LMUNetwork

    Returns
    -------
    list of str
        Such as "layer 0: 212 hidden units (tanh)"; empty when the graph is the whole network.
    """
    parts = []
    for number, layer in enumerate(network.layers):
        if is_whole(layer):
            continue
        if isinstance(layer, LSTMLayer):
            parts.append(f"layer {number}: LSTM of {layer.n_out} units")
        elif layer.hidden is not None:
            kind = layer.hidden.activation
            fed_back = layer.hidden.recurrent_kernel is not None or layer.feeds_back
            kind += " with feedback" if kind == "linear" and fed_back else ""
            parts.append(f"layer {number}: {layer.hidden.units} hidden units ({kind})")
    if not is_whole(network.layers[-1]):
        parts.append("readout")
    return parts
