"""Widths of weights, connection by connection, for a budget of synaptic memory.

The network is quantised at a few widths. Formats of states and messages do not depend on them, so
connections of different widths fit together. Each connection alone is put at each width, and the
change of the answers measured; then the widths that save most for the harm they do are taken, until
the budget holds (trade.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from converters.quantise.calibrate import Calibration, Progress
from converters.quantise.ptq import Quantiser
from converters.quantise.settings import AUTO, Settings
from converters.quantise.sparsity import Runner
from converters.quantise.trade import Option, ladder
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import Connection, IntegerNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.rewiring import with_connections
from lmu_deploy.wiring import wires

Width = tuple[int, int]
"""Slices, and bits of each."""

WIDEST: Width = (2, 8)
NARROWER: tuple[Width, ...] = ((2, 6), (1, 8), (1, 6), (1, 5), (1, 4), (1, 3))


@dataclass(frozen=True)
class Widths:
    """A choice of widths.

    Attributes
    ----------
    network : IntegerNetwork
    widths : dict of place to (slices, bits)
    memory : dict of place to int
        Bytes of the synapses that are not zero.
    """

    network: IntegerNetwork
    widths: dict[str, Width]
    memory: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all synapses."""
        return sum(self.memory.values())


def search_widths(
    network: LMUNetwork,
    calibration: Calibration,
    settings: Settings,
    budget: int,
    inputs: np.ndarray,
    run: Runner,
    progress: Progress | None = None,
) -> Widths:
    """Choose the widths of all connections.

    Parameters
    ----------
    network : LMUNetwork
    calibration : Calibration
    settings : Settings
        Its slices and kernel widths are replaced.
    budget : int
        Bytes that all synapses may take.
    inputs : ndarray, shape (samples, steps, n_in)
        A few samples of the training or validation data, never of the test.
    run : Runner
    progress : callable, optional
        Called with (runs done, runs in all).

    Raises
    ------
    InputError
        When even the narrowest widths take more, or the realisation is ``auto``.
    """
    if settings.realisation == AUTO:
        raise InputError("a budget needs a realisation; name one with --realisation.")
    widest = _at(network, calibration, settings, WIDEST)
    made = {WIDEST: widest}
    for width in NARROWER:
        if width[1] <= settings.weight_bits:
            made[width] = _at(network, calibration, settings, width)
    truth = run(widest, inputs).outputs
    size = float(np.mean(np.square(truth))) or 1.0
    choices: dict[str, list[Option[Width]]] = {}
    trials = [(w.place, width) for w in wires(widest) for width in made if width != WIDEST]
    found = {width: _connections(variant) for width, variant in made.items()}
    for place, connection in found[WIDEST].items():
        choices[place] = [Option(WIDEST, memory_of(connection), 0.0)]
    for number, (place, width) in enumerate(trials, start=1):
        connection = found[width][place]
        if not _same(connection, found[WIDEST][place]):
            outputs = run(with_connections(widest, {place: connection}), inputs).outputs
            harm = float(np.mean(np.square(outputs - truth))) / size
            choices[place].append(Option(width, memory_of(connection), harm))
        if progress:
            progress(number, len(trials))
    rungs = ladder(choices)
    fitting = [rung for rung in rungs if sum(o.cost for o in rung.values()) <= budget]
    if not fitting:
        least = sum(o.cost for o in rungs[-1].values())
        raise InputError(
            f"quantise: the narrowest weights take {least / 1024:.1f} KiB, and the budget is "
            f"{budget / 1024:.1f}; give more, or train a smaller network."
        )
    return _mixed(made, {place: option.value for place, option in fitting[0].items()})


def memory_of(connection: Connection) -> int:
    """Bytes of the synapses of a connection that are not zero."""
    return -(-int(np.count_nonzero(connection.slices)) * connection.weight_bits // 8)


def _at(
    network: LMUNetwork, calibration: Calibration, settings: Settings, width: Width
) -> IntegerNetwork:
    """Quantise a network with every connection at one width."""
    slices, bits = width
    figure = settings.profile.weight_bits.model_copy(update={"value": bits})
    narrow = settings.profile.model_copy(update={"weight_bits": figure})
    uniform = replace(
        settings, profile=narrow, slices=slices, kernel_slices=slices, kernel_bits=None
    )
    return Quantiser(uniform, calibration).network(network)


def _connections(network: IntegerNetwork) -> dict[str, Connection]:
    return {wire.place: wire.connection for wire in wires(network)}


def _same(one: Connection, other: Connection) -> bool:
    """Whether two connections hold the same weights, as the exact ones of some realisations do."""
    return one.weight_bits == other.weight_bits and np.array_equal(one.slices, other.slices)


def _mixed(made: Mapping[Width, IntegerNetwork], chosen: dict[str, Width]) -> Widths:
    """Put a network together of connections of several widths."""
    connections = {place: _connections(made[width])[place] for place, width in chosen.items()}
    changed = {place: c for place, c in connections.items() if chosen[place] != WIDEST}
    network = with_connections(made[WIDEST], changed)
    needs = {
        f"{place}/{part}": need
        for place, width in chosen.items()
        for part, need in _needs(made[width], place).items()
    }
    # What is exact, such as a matrix of signs, is narrower than was asked for.
    widths = {place: (len(c.slices), c.weight_bits) for place, c in connections.items()}
    provenance = {
        **network.provenance,
        "accumulators": json.dumps(needs),
        "widths": json.dumps(widths),
    }
    memory = {place: memory_of(connection) for place, connection in connections.items()}
    return Widths(replace(network, provenance=provenance), widths, memory)


def _needs(network: IntegerNetwork, place: str) -> dict[str, str]:
    """Give what the accumulators of a connection need, slice by slice."""
    needs: dict[str, str] = json.loads(network.provenance["accumulators"])
    parts = {name.rpartition("/")[::2]: need for name, need in needs.items()}
    return {part: need for (where, part), need in parts.items() if where == place}
