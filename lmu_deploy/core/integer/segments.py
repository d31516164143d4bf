"""Partition of an integer network into segments on the chip and on the host.

There is no feedback between layers, so the segments can be run one after another on whole
sequences, or step by step, with the same result. The equations are in
docs/reference/integer-semantics.md, "Layers on the host".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from lmu_deploy.core.integer.network import HostLayer, IntegerLayer, IntegerNetwork, IntegerReadout
from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.core.network import LSTMLayer, Readout


@dataclass(frozen=True)
class ChipSegment:
    """Consecutive layers on the chip, as a network of their own.

    Attributes
    ----------
    first : int
        Index of the first layer in the whole network.
    network : IntegerNetwork
        Network of these layers.
    hands_over : bool
        Whether a host segment follows. Then the readout is the identity, and the outputs are the
        dequantized messages of the last layer at every step.
    """

    first: int
    network: IntegerNetwork
    hands_over: bool


@dataclass(frozen=True)
class HostSegment:
    """Consecutive LSTM layers on the host, and the readout if they are the last layers.

    Attributes
    ----------
    first : int
        Index of the first layer in the whole network.
    layers : tuple of LSTMLayer
    basis : ndarray, shape (features, messages), or None
        Matrix from the dequantized messages of the previous layer to the input features.
    readout : Readout or None
    """

    first: int
    layers: tuple[LSTMLayer, ...]
    basis: np.ndarray | None
    readout: Readout | None


Segment = ChipSegment | HostSegment


def segments(network: IntegerNetwork) -> list[Segment]:
    """Return the segments of a network in order; there is one if all layers are on the chip."""
    found: list[Segment] = []
    entering: Format = network.input
    before: IntegerLayer | None = None
    numbered = enumerate(network.layers)
    for on_host, group in groupby(numbered, key=lambda item: isinstance(item[1], HostLayer)):
        members = list(group)
        first, layers = members[0][0], [layer for _, layer in members]
        last = members[-1][0] + 1 == len(network.layers)
        if on_host:
            hosts = [layer for layer in layers if isinstance(layer, HostLayer)]
            basis = None if before is None else before.output_basis
            readout = network.readout if isinstance(network.readout, Readout) and last else None
            found.append(HostSegment(first, tuple(h.lstm for h in hosts), basis, readout))
            entering = hosts[-1].message or entering
            continue
        before = layers[-1] if isinstance(layers[-1], IntegerLayer) else None
        assert before is not None
        part = replace(
            network,
            input=entering,
            layers=tuple(layers),
            readout=network.readout if last else _identity(before),
            return_sequences=network.return_sequences if last else True,
            provenance={},
            source=None,
        )
        found.append(ChipSegment(first, part, not last))
    return found


def host_sentence(network: IntegerNetwork) -> str | None:
    """Return a sentence that lists the layers on the host; None if there are none."""
    numbers = [str(number) for number, _ in network.on_host]
    if not numbers:
        return None
    several = f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    layers = f"layers {several} (LSTM)" if len(numbers) > 1 else f"layer {numbers[0]} (LSTM)"
    readout = " and the readout" if isinstance(network.readout, Readout) else ""
    return (
        f"On the host, in float64: {layers}{readout}. Events, synaptic operations, saturations, "
        "placement and costs are those of the other layers alone."
    )


def _identity(layer: IntegerLayer) -> IntegerReadout:
    """Return a readout whose outputs are the messages of a layer."""
    rows, widest = (1, layer.n_out), 32
    connection = Connection(
        np.eye(layer.n_out, dtype=np.int8)[None],
        np.ones(rows, np.int32),
        np.zeros(rows, np.int32),
        weight_bits=2,
        accumulator_bits=widest,
    )
    return IntegerReadout(connection, None, layer.output)
