"""Faults planted in integer networks and in their runs, for planted_faults.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.core.integer.graph import components, with_connections
from lmu_deploy.core.integer.memories import Integrators
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Output, Pointwise, Population
from lmu_deploy.fidelity.replay.integers import Replay, Touch

Parts = dict[Place, np.ndarray]
Recorded = Callable[[np.ndarray, Parts], Parts]


@dataclass
class Planted:
    """A fault: what the target computes instead, and what a statement must name.

    `places` lists (place, index) of which one must be named; without an index the place suffices.
    `touch` changes what a population holds, and `recorded` what is recorded of whole samples, from
    the inputs and what should be recorded.
    """

    network: IntegerNetwork
    places: list[tuple[str, int | None]]
    touch: Touch | None = None
    recorded: Recorded | None = None


Plant = Callable[[IntegerNetwork, np.random.Generator], Planted]


def some_edge(network: IntegerNetwork, rng: np.random.Generator) -> Edge:
    """Draw an edge with weights."""
    edges = [edge for edge in network.edges if edge.connection.slices.any()]
    return edges[int(rng.integers(len(edges)))]


def row_names(network: IntegerNetwork, edge: Edge, *rows: int) -> list[tuple[str, int | None]]:
    """Return the names of rows: by edge, or by the neuron that they drive."""
    size = network[edge.target].size
    place = str(network[edge.target].place)
    by_neuron = [(place, (edge.row + row) % size) for row in rows]
    whole = [(edge.place, None)] if edge.connection.n_out == 1 else []
    return [*((edge.place, row) for row in rows), *by_neuron, *whole]


def of_rows(change: Callable[..., dict[str, np.ndarray]], two: bool = False) -> Plant:
    """Return a fault of one row of weights, or of two."""

    def plant(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
        edge = some_edge(network, rng)
        connection = edge.connection
        used = np.flatnonzero(connection.slices.any(axis=(0, 2)))
        rows = [int(i) for i in rng.permutation(used)[: 2 if two else 1]]
        if len(rows) < 1 + two:
            return plant(network, rng)
        arrays = {n: getattr(connection, n).copy() for n in ("slices", "multiplier", "shift")}
        changed = change(arrays, *rows, rng)
        bad = with_connections(network, {edge.place: replace(connection, **changed)})
        return Planted(bad, row_names(network, edge, *rows))

    return plant


def of_columns(change: Callable[..., np.ndarray], two: bool = False) -> Plant:
    """Return a fault of one column of weights, or of two."""

    def plant(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
        edge = some_edge(network, rng)
        used = np.flatnonzero(edge.connection.slices.any(axis=(0, 1)))
        columns = [int(j) for j in rng.permutation(used)[: 2 if two else 1]]
        if len(columns) < 1 + two:
            return plant(network, rng)
        slices = change(edge.connection.slices.copy(), *columns)
        bad = with_connections(network, {edge.place: replace(edge.connection, slices=slices)})
        whole = [(edge.place, None)] if edge.connection.n_in == 1 else []
        named = [(str(edge.source), j % edge.n_source) for j in columns]
        if edge.connection.n_out == 1:  # a column is one weight
            named += [(edge.place, j) for j in columns]
        return Planted(bad, named + whole)

    return plant


def of_edges(change: Callable[..., dict[str, np.ndarray]]) -> Plant:
    """Return a fault of all weights of an edge."""

    def plant(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
        edge = some_edge(network, rng)
        connection = edge.connection
        arrays = {n: getattr(connection, n).copy() for n in ("slices", "multiplier", "shift")}
        bad = with_connections(network, {edge.place: replace(connection, **change(arrays))})
        return Planted(bad, [(edge.place, None)])

    return plant


def weight(arrays: dict[str, np.ndarray], row: int, rng: np.random.Generator) -> dict:
    """Change one weight by a quarter of its range, or within the largest weight there is."""
    slices = arrays["slices"]
    used = np.flatnonzero(slices[0, row]) if slices[0, row].any() else [0]
    j = int(rng.choice(used))
    limit = int(np.abs(slices.astype(int)).max())
    off = -32 if slices[0, row, j] > 0 else 32
    slices[0, row, j] = np.clip(int(slices[0, row, j]) + off, -limit, limit)
    return {"slices": slices}


def flipped(arrays: dict[str, np.ndarray], row: int, rng: np.random.Generator) -> dict:
    """Flip the sign of one weight."""
    slices = arrays["slices"]
    j = int(np.abs(slices[0, row].astype(int)).argmax())
    slices[:, row, j] *= -1
    return {"slices": slices}


def one_unit(arrays: dict[str, np.ndarray], row: int, rng: np.random.Generator) -> dict:
    """Change a weight that is used by one unit of the last slice."""
    slices = arrays["slices"]
    j = int(rng.choice(np.flatnonzero(slices[:, row].any(axis=0))))
    slices[-1, row, j] += -1 if slices[-1, row, j] > 0 else 1
    return {"slices": slices}


def shifted(by: int) -> Callable[..., dict[str, np.ndarray]]:
    """Return a change of the shift of a row."""

    def change(arrays: dict[str, np.ndarray], row: int, _: object) -> dict[str, np.ndarray]:
        shift = arrays["shift"]
        shift[:, row] = np.clip(shift[:, row] + by, 0, 31)
        return {"shift": shift}

    return change


def scaled(arrays: dict[str, np.ndarray], row: int, _: object) -> dict[str, np.ndarray]:
    """Multiply the gain of a row by three quarters."""
    arrays["multiplier"][:, row] = np.minimum(3 * arrays["multiplier"][:, row], 2**15 - 1)
    arrays["shift"][:, row] = np.minimum(arrays["shift"][:, row] + 2, 31)
    return {"multiplier": arrays["multiplier"], "shift": arrays["shift"]}


def negated(arrays: dict[str, np.ndarray], row: int, _: object) -> dict[str, np.ndarray]:
    """Negate a row."""
    arrays["slices"][:, row] *= -1
    return {"slices": arrays["slices"]}


def emptied(arrays: dict[str, np.ndarray], row: int, _: object) -> dict[str, np.ndarray]:
    """Remove a row."""
    arrays["slices"][:, row] = 0
    return {"slices": arrays["slices"]}


def permuted(arrays: dict[str, np.ndarray], row: int, rng: np.random.Generator) -> dict:
    """Permute the weights of a row."""
    slices = arrays["slices"]
    slices[:, row] = slices[:, row][:, rng.permutation(slices.shape[2])]
    return {"slices": slices}


def exchanged(arrays: dict[str, np.ndarray], i: int, j: int, _: object) -> dict[str, np.ndarray]:
    """Exchange two rows with their gains."""
    for array in arrays.values():
        array[:, [i, j]] = array[:, [j, i]]
    return arrays


def copied(arrays: dict[str, np.ndarray], i: int, j: int, _: object) -> dict[str, np.ndarray]:
    """Replace the weights of one row by those of another."""
    for array in arrays.values():
        array[:, i] = array[:, j]
    return arrays


def without_column(slices: np.ndarray, j: int) -> np.ndarray:
    """Remove a column."""
    slices[:, :, j] = 0
    return slices


def negative_column(slices: np.ndarray, j: int) -> np.ndarray:
    """Negate a column."""
    slices[:, :, j] *= -1
    return slices


def exchanged_columns(slices: np.ndarray, i: int, j: int) -> np.ndarray:
    """Exchange two columns."""
    slices[:, :, [i, j]] = slices[:, :, [j, i]]
    return slices


def last_slice(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove the last slice."""
    arrays["slices"][-1] = 0
    return arrays


def first_slice(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove the first slice."""
    arrays["slices"][0] = 0
    return arrays


def edge_sign(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Negate all weights."""
    return {"slices": -arrays["slices"]}


def edge_gain(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Shift by one bit more."""
    return {"shift": np.minimum(arrays["shift"] + 1, 31)}


def population(
    network: IntegerNetwork, rng: np.random.Generator, *kinds: type[Population]
) -> Population:
    """Draw a population of some kinds."""
    found = [p for p in network.on_chip[1:] if not kinds or isinstance(p, kinds)]
    return found[int(rng.integers(len(found)))]


def with_population(network: IntegerNetwork, old: Population, new: Population) -> IntegerNetwork:
    """Return the network with another population at the same place."""
    return replace(network, populations=tuple(new if p is old else p for p in network.populations))


def of_neurons(change: Callable[[np.ndarray, int, int, int], None], two: bool = False) -> Plant:
    """Return a fault of what a neuron holds, (values, frame, neuron, other)."""

    def plant(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
        p = population(network, rng)
        if p.size < 2:
            return plant(network, rng)
        i, j = (int(n) for n in rng.permutation(p.size)[:2])

        def touch(place: Place, frame: int, values: np.ndarray) -> np.ndarray:
            if place != p.place:
                return values
            values = values.copy()
            change(values, frame, i, j)
            return values

        which = (i, j) if two else (i,)
        places = [(str(p.place), n) for n in which] + [(f"{p.entrance}/bias", n) for n in which]
        return Planted(network, places, touch)

    return plant


def stuck(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Hold a value."""
    values[:, i] = 29


def dead(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Hold zero."""
    values[:, i] = 0


def bit(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Flip a bit of one sample at one frame."""
    if frame == 2:
        values[len(values) // 2, i] ^= 1 << 4


def swapped(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Exchange what two neurons hold."""
    values[:, [i, j]] = values[:, [j, i]]


def offset(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Add a constant."""
    values[:, i] += 3


def negative(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Negate a value."""
    values[:, i] *= -1


def halved(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Halve a value."""
    values[:, i] //= 2


def cut(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Lose the four lowest bits of a value."""
    values[:, i] = values[:, i] >> 4 << 4


def one_sample(values: np.ndarray, frame: int, i: int, j: int) -> None:
    """Add a constant in one sample, from its middle on."""
    if frame >= 4:
        values[len(values) // 3, i] += 5


def exchanged_samples(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
    """Record two samples in each other's place."""
    some = [int(i) for i in rng.permutation(4)[:2]]

    def recorded(inputs: np.ndarray, parts: Parts) -> Parts:
        order = np.arange(len(inputs))
        order[some] = order[some[::-1]]
        return {place: values[order] for place, values in parts.items()}

    return Planted(network, [("", i) for i in some], recorded=recorded)


def stopped(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
    """Stop at a step."""
    step = int(rng.integers(2, 6))

    def recorded(inputs: np.ndarray, parts: Parts) -> Parts:
        still = {place: values.copy() for place, values in parts.items()}
        for values in still.values():
            values[:, step + 1 :] = values[:, step : step + 1]
        return still

    return Planted(network, [("", step)], recorded=recorded)


def not_reset(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
    """Begin each sample in the states in which the one before it ended."""

    def recorded(inputs: np.ndarray, parts: Parts) -> Parts:
        count, steps, n_in = inputs.shape
        chained = Replay(network, inputs.reshape(1, count * steps, n_in))
        return {place: chained[place].reshape(values.shape) for place, values in parts.items()}

    return Planted(network, [("", None)], recorded=recorded)


def bias(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
    """Change a bias by a fiftieth of the range."""
    p = population(network, rng, Integrators, Pointwise, Output)
    i, before = int(rng.integers(p.size)), p.bias
    after = np.zeros(p.drive_size, np.int32) if before is None else before.copy()
    after[i] += max(p.stored.limit // 50, 1) if after[i] < 0 else -max(p.stored.limit // 50, 1)
    bad = with_population(network, p, replace(p, bias=after))
    return Planted(bad, [(str(p.place), i), (f"{p.entrance}/bias", i)])


def of_formats(change: Callable[[Population], Population], *kinds: type[Population]) -> Plant:
    """Return a fault of a whole population."""

    def plant(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
        p = population(network, rng, *kinds)
        return Planted(with_population(network, p, change(p)), [(str(p.place), None)])

    return plant


def narrow_accumulator(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
    """Let sums saturate at ten bits."""
    edge = some_edge(network, rng)
    narrow = replace(edge.connection, accumulator_bits=10)
    return Planted(with_connections(network, {edge.place: narrow}), [(edge.place, None)])


def feeds_back(network: IntegerNetwork, edge: Edge) -> bool:
    """Return whether an edge is part of a loop of several populations."""
    return any(edge in part.inside for part in components(network))


def late(network: IntegerNetwork, rng: np.random.Generator) -> Planted:
    """Let an edge read the frame before."""
    plain = [edge for edge in network.edges if edge.plain and not feeds_back(network, edge)]
    edge = plain[int(rng.integers(len(plain)))]
    moved = replace(edge, offsets=(-1,), after=-1)
    edges = tuple(moved if e is edge else e for e in network.edges)
    return Planted(replace(network, edges=edges), [(edge.place, None)])


KINDS: dict[str, Plant] = {
    "row: wrong sign": of_rows(negated),
    "row: missing": of_rows(emptied),
    "row: half": of_rows(shifted(1)),
    "row: an eighth": of_rows(shifted(3)),
    "row: double": of_rows(shifted(-1)),
    "row: another gain": of_rows(scaled),
    "row: permuted weights": of_rows(permuted),
    "rows exchanged": of_rows(exchanged, two=True),
    "row of another row": of_rows(copied, two=True),
    "weight: off by 32": of_rows(weight),
    "weight: wrong sign": of_rows(flipped),
    "weight: off by one unit": of_rows(one_unit),
    "column: missing": of_columns(without_column),
    "column: wrong sign": of_columns(negative_column),
    "columns exchanged": of_columns(exchanged_columns, two=True),
    "slice: last missing": of_edges(last_slice),
    "slice: first missing": of_edges(first_slice),
    "edge: wrong sign": of_edges(edge_sign),
    "edge: half": of_edges(edge_gain),
    "accumulator of 10 bits": narrow_accumulator,
    "messages late": late,
    "neuron: dead": of_neurons(dead),
    "neuron: stuck": of_neurons(stuck),
    "neuron: one bit once": of_neurons(bit),
    "neuron: constant added": of_neurons(offset),
    "neurons exchanged": of_neurons(swapped, two=True),
    "neuron: wrong sign": of_neurons(negative),
    "neuron: half": of_neurons(halved),
    "neuron: four bits lost": of_neurons(cut),
    "neuron: constant added in one sample": of_neurons(one_sample),
    "samples exchanged": exchanged_samples,
    "target stopped": stopped,
    "states not reset": not_reset,
    "bias": bias,
    "message shift": of_formats(
        lambda p: replace(p, message_shift=p.message_shift + 1), Integrators
    ),
    "message width": of_formats(
        lambda p: replace(p, message=replace(p.message, bits=p.message.bits - 4)), Integrators
    ),
    "state width": of_formats(
        lambda p: replace(p, state=replace(p.state, bits=p.state.bits - 6)), Integrators
    ),
}
IN_FILES = [name for name in KINDS if name.startswith(("row", "weight", "column", "slice", "edge"))]
IN_FILES += ["messages late", "bias", "message shift", "message width", "state width"]
