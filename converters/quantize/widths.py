"""Choose the width of the weights of each connection for a budget of synaptic memory.

The network is quantized at a few widths. Formats of states and messages do not depend on the width
of weights, so connections of different widths can be combined (:func:`mix_widths`).
:func:`search_widths` starts with the widest and repeatedly narrows the connection whose narrowing
changes the outputs least per byte saved, measured on the current network, until the budget is met;
then it spends the remaining budget. A price is measured again only when it is the lowest (the
accelerated greedy algorithm of Minoux, Optimization Techniques, Springer, 1978).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from converters.options import AUTO
from converters.quantize.calibration import Calibration
from converters.quantize.ptq import lower
from converters.quantize.settings import Settings
from converters.quantize.sparsity import Runner
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.graph import edges, with_connections
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, accumulator_place
from lmu_deploy.core.progress import Progress

Width = tuple[int, int]
"""Slices, and bits of each."""

WIDEST: Width = (2, 8)


@dataclass(frozen=True)
class Widths:
    """A network with a width for each connection.

    Attributes
    ----------
    network : IntegerNetwork
    widths : dict of place to (slices, bits)
    memory : dict of place to int
        Bytes of the nonzero synapses.
    """

    network: IntegerNetwork
    widths: dict[str, Width]
    memory: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all synapses."""
        return sum(self.memory.values())


def memory_of(connection: Connection) -> int:
    """Return the bytes of the nonzero synapses of a connection."""
    return -(-int(np.count_nonzero(connection.slices)) * connection.weight_bits // 8)


def at_width(
    network: Network, calibration: Calibration, settings: Settings, width: Width
) -> IntegerNetwork:
    """Quantize a network with the same width for every connection."""
    slices, bits = width
    figure = settings.profile.weight_bits.model_copy(update={"value": bits})
    narrow = settings.profile.model_copy(update={"weight_bits": figure})
    # A kernel that is fitted to a rounded memory would not fit a memory of another width.
    uniform = replace(
        settings,
        profile=narrow,
        slices=slices,
        kernel_slices=slices,
        kernel_bits=None,
        refit=False,
    )
    return lower(network, calibration, uniform).result


def connections_of(network: IntegerNetwork) -> dict[str, Connection]:
    """Return the connections of a network by place."""
    return {edge.place: edge.connection for edge in edges(network)}


def mix_widths(variants: Mapping[Width, IntegerNetwork], chosen: dict[str, Width]) -> Widths:
    """Combine connections of several widths to one network."""
    connections = {place: connections_of(variants[width])[place] for place, width in chosen.items()}
    changed = {place: c for place, c in connections.items() if chosen[place] != WIDEST}
    network = with_connections(variants[WIDEST], changed)
    found = {width: json.loads(each.provenance["accumulators"]) for width, each in variants.items()}
    accumulators = [
        (width, accumulator_place(place, number))
        for place, width in chosen.items()
        for number in range(len(connections[place].slices))
    ]
    needs = {name: found[width][name] for width, name in accumulators if name in found[width]}
    # Exact matrices, such as one of signs, are narrower than requested.
    widths = {place: (len(c.slices), c.weight_bits) for place, c in connections.items()}
    provenance = {
        **network.provenance,
        "accumulators": json.dumps(needs),
        "widths": json.dumps(widths),
    }
    memory = {place: memory_of(connection) for place, connection in connections.items()}
    return Widths(replace(network, provenance=provenance), widths, memory)


Setting = dict[str, Width]
"""Width of each connection, always in the same order."""

Move = tuple[str, Width]

NARROWER: tuple[Width, ...] = ((2, 6), (1, 8), (1, 6), (1, 5), (1, 4), (1, 3))


def search_widths(
    network: Network,
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
    network : Network
    calibration : Calibration
    settings : Settings
        Its slices and kernel widths are ignored.
    budget : int
        Largest size of all synapses, bytes.
    inputs : ndarray, shape (samples, steps, n_in)
        A few samples of the training or validation data, never of the test data.
    run : Runner
    progress : callable, optional
        Called with (runs done, total runs).

    Raises
    ------
    InputError
        When even the narrowest widths exceed the budget, or the realization is ``auto``.
    """
    if settings.realization == AUTO:
        raise InputError("a budget needs a realization; name one with --realization.")
    variants = {WIDEST: at_width(network, calibration, settings, WIDEST)}
    for width in NARROWER:
        if width[1] <= settings.weight_bits:
            variants[width] = at_width(network, calibration, settings, width)
    search = _Search(variants, inputs, run, progress)
    setting = search.widened(search.narrowed(budget), budget)
    search.finish()
    return mix_widths(variants, setting)


class _Search:
    """Search for widths: the cost of each setting, and its effect on the outputs."""

    def __init__(
        self,
        variants: Mapping[Width, IntegerNetwork],
        inputs: np.ndarray,
        run: Runner,
        progress: Progress | None,
    ) -> None:
        self._widest, self._inputs, self._run = variants[WIDEST], inputs, run
        self._progress = progress or (lambda done, total: None)
        self._connections = {width: connections_of(variant) for width, variant in variants.items()}
        self._places = list(self._connections[WIDEST])
        self._truth = run(self._widest, inputs).outputs
        self._size = float(np.mean(np.square(self._truth))) or 1.0
        self._harms: dict[tuple[Width, ...], float] = {(WIDEST,) * len(self._places): 0.0}
        self._total = 2 * len(self._places) * len(variants)

    def narrowed(self, budget: int) -> Setting:
        """Narrow connections, starting from the widest, until the budget is met."""
        setting = dict.fromkeys(self._places, WIDEST)
        prices: dict[Move, float] = {}
        while self._cost(setting) > budget:
            moves = [move for move in self._moves() if self._saved(setting, move) > 0]
            if not moves:
                raise InputError(
                    f"quantize: the narrowest weights take {self._cost(setting) / 1024:.1f} KiB, "
                    f"and the budget is {budget / 1024:.1f}; raise it, or train a smaller network."
                )
            fresh: set[Move] = set()
            while True:
                for move in moves:
                    if move not in prices:
                        prices[move] = self._price(setting, move)
                        fresh.add(move)
                best = min(moves, key=prices.__getitem__)
                if best in fresh:
                    break
                prices[best] = self._price(setting, best)
                fresh.add(best)
            setting = {**setting, best[0]: best[1]}
        return setting

    def widened(self, setting: Setting, budget: int) -> Setting:
        """Widen single connections while the budget allows it and the outputs improve."""
        while True:
            left = budget - self._cost(setting)
            wider = [
                {**setting, place: width}
                for place, width in self._moves()
                if 0 < -self._saved(setting, (place, width)) <= left
            ]
            best = min(wider, key=self._harm, default=setting)
            if self._harm(best) >= self._harm(setting):
                return setting
            setting = best

    def finish(self) -> None:
        """Report that the search is done."""
        self._progress(self._total, self._total)

    def _moves(self) -> list[Move]:
        return [(place, width) for place in self._places for width in self._connections]

    def _cost(self, setting: Setting) -> int:
        return sum(memory_of(self._connections[w][place]) for place, w in setting.items())

    def _saved(self, setting: Setting, move: Move) -> int:
        place, width = move
        before, after = self._connections[setting[place]][place], self._connections[width][place]
        return memory_of(before) - memory_of(after)

    def _price(self, setting: Setting, move: Move) -> float:
        """Return the harm of a move per byte saved."""
        harm = self._harm({**setting, move[0]: move[1]}) - self._harm(setting)
        return harm / self._saved(setting, move)

    def _harm(self, setting: Setting) -> float:
        """Return the mean squared change of the outputs, relative to their mean square."""
        key = tuple(setting.values())
        if key not in self._harms:
            changed = {
                place: self._connections[width][place]
                for place, width in setting.items()
                if width != WIDEST
            }
            outputs = self._run(with_connections(self._widest, changed), self._inputs).outputs
            self._harms[key] = float(np.mean(np.square(outputs - self._truth))) / self._size
            self._progress(min(len(self._harms), self._total - 1), self._total)
        return self._harms[key]
