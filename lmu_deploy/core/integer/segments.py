"""An integer network cut where its layers change between chip and host.

Messages flow from layer to layer and never back, so that the segments can be run one after another
on whole sequences, or step by step, with the same result. integer-semantics.md, "Layers on the
host", has the equations.
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
    """Layers on the chip that follow one another, as a network of their own.

    Attributes
    ----------
    first : int
        Number of the first layer in the whole network.
    network : IntegerNetwork
        All on the chip.
    hands_over : bool
        Whether it only hands the messages of its last layer over to the host: then its readout is
        the identity, and its outputs at every step are what the messages stand for.
    """

    first: int
    network: IntegerNetwork
    hands_over: bool


@dataclass(frozen=True)
class HostSegment:
    """LSTM layers that follow one another, and the readout if they are the last.

    Attributes
    ----------
    first : int
        Number of the first layer in the whole network.
    layers : tuple of LSTMLayer
    basis : ndarray, shape (features, messages), or None
        From what the messages before stand for to the features of the first layer.
    readout : Readout or None
    """

    first: int
    layers: tuple[LSTMLayer, ...]
    basis: np.ndarray | None
    readout: Readout | None


Segment = ChipSegment | HostSegment


def segments(network: IntegerNetwork) -> list[Segment]:
    """Cut a network into its segments, in order; one that is all on the chip is a single one."""
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
    """Say which layers are on the host, and what is therefore not of them; None without any."""
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
    """Give the readout that gives a layer's messages as they are."""
    rows, widest = (1, layer.n_out), 32
    connection = Connection(
        np.eye(layer.n_out, dtype=np.int8)[None],
        np.ones(rows, np.int32),
        np.zeros(rows, np.int32),
        weight_bits=2,
        accumulator_bits=widest,
    )
    return IntegerReadout(connection, None, layer.output)
