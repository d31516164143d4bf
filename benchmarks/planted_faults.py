"""Faults planted in targets and in files of integer networks: found, named, or missed.

At run time a target computes something else than the network that it was given: a wrong row, a dead
neuron, a late message. Its recording is replayed as `lmu-deploy validate` does it. In a file the
same weights are wrong, the target is right, and the file is compared with its float network. A
fault is located if one of the first three statements has its place and its index. Faults after
which no recorded integer differs are counted apart.

    python benchmarks/planted_faults.py [--faults 1000] [--healthy 200] [--save truth]

writes three tables, ``truth/runs``, ``truth/files`` and ``truth/healthy``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import results

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import components, with_connections
from lmu_deploy.core.integer.memories import Integrators
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Output, Pointwise, Population
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.fidelity.faults import explain
from lmu_deploy.fidelity.measures.damage import damage
from lmu_deploy.fidelity.replay import Fault, Replay, Touch, misrecorded, recorded_parts
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget

NETWORKS = {
    "digits": ("digits", {}),
    "digits, two slices": ("digits", {"slices": 2, "kernel_slices": 2, "hidden_bits": 12}),
    "digits, schur": ("digits", {"realization": "schur"}),
    "digits, delay line": ("digits", {"realization": "fir"}),
    "mackey-glass": ("mackey-glass-lmu", {}),
    "digits, hessenberg": ("digits", {"realization": "hessenberg"}),
}
CALIBRATION, SAMPLES, STEPS = 64, 12, 24
FIRST = 3


@dataclass
class Planted:
    """A fault: what the target computes instead, and what a statement must name.

    `places` lists (place, index) of which one must be named; without an index the place suffices.
    """

    network: IntegerNetwork
    places: list[tuple[str, int | None]]
    touch: Touch | None = None


@dataclass
class Count:
    """What was found about one kind of fault."""

    planted: int = 0
    silent: int = 0
    ticks: int = 0
    located: int = 0
    missed: list[str] = field(default_factory=list)


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


def shifted(by: int) -> Callable[..., dict[str, np.ndarray]]:
    """Return a change of the shift of a row."""

    def change(arrays: dict[str, np.ndarray], row: int, _: object) -> dict[str, np.ndarray]:
        shift = arrays["shift"]
        shift[:, row] = np.clip(shift[:, row] + by, 0, 31)
        return {"shift": shift}

    return change


def scaled(arrays: dict[str, np.ndarray], row: int, _: object) -> dict[str, np.ndarray]:
    """Halve the multiplier of a row and a little more."""
    arrays["multiplier"][:, row] = np.maximum(arrays["multiplier"][:, row] * 2 // 5, 1)
    return {"multiplier": arrays["multiplier"]}


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
IN_FILES += ["bias"]


def named(planted: Planted, statements: list[Fault]) -> bool:
    """Return whether one of the first statements has the place and index of a fault."""
    return any(
        place == fault.place and (index is None or index in fault.index)
        for fault in statements[:FIRST]
        for place, index in planted.places
    )


def statements(
    network: IntegerNetwork, inputs: np.ndarray, planted: Planted
) -> tuple[bool, list[Fault]]:
    """Return whether a recording differs from the specification, and the statements about it."""
    truth = recorded_parts(network, IntegerTarget().run(network, inputs, record=True).states)
    if planted.touch is None:
        run = IntegerTarget().run(planted.network, inputs, record=True)
        recorded = recorded_parts(network, run.states)
    else:
        faulty = Replay(planted.network, inputs, touch=planted.touch)
        recorded = {place: faulty[place] for place in truth}
    differs = any((values != truth[place]).any() for place, values in recorded.items())
    replay = Replay(network, inputs, recorded)
    if replay.first is None:
        return differs, []
    return differs, misrecorded(replay, truth) or explain(replay)


def made() -> dict[str, tuple[IntegerNetwork, np.ndarray]]:
    """Return the networks, and inputs of each."""
    found = {}
    for name, (file, options) in NETWORKS.items():
        source = load(f"examples/models/{file}.safetensors")
        data = get_task(source.task).load()
        network = quantize(source, data.train.inputs[:CALIBRATION, :100], **options)
        found[name] = network, data.test.inputs[:SAMPLES, :STEPS].astype(np.float64)
    return found


def drawn(seed: int) -> tuple[IntegerNetwork, np.ndarray]:
    """Return a healthy network with random weights, quantized with random options."""
    rng = np.random.default_rng(seed)
    n_in, order, units = (int(rng.integers(1, n)) for n in (5, 13, 17))
    channels = int(rng.integers(1, 4))
    hidden = Hidden(
        rng.normal(size=(channels * order, units)) / (channels * order) ** 0.5,
        rng.normal(size=(n_in, units)) / n_in**0.5,
        rng.normal(size=(units, units)) * 0.3 / units**0.5 if rng.random() < 0.5 else None,
        rng.normal(size=units) * 0.1,
        str(rng.choice(["tanh", "relu"])),
    )
    encoders = rng.normal(size=(n_in, channels)) / n_in**0.5
    memory = Memory.legendre(order, float(rng.uniform(order, 4 * order)), channels)
    readout = Readout(rng.normal(size=(units, 3)) / units**0.5, rng.normal(size=3) * 0.1)
    network = LMUNetwork((LMULayer(encoders, None, None, None, memory, hidden),), readout)
    inputs = rng.uniform(-1, 1, (24, 20, n_in))
    options = {
        "slices": int(rng.integers(1, 3)),
        "kernel_slices": int(rng.integers(1, 3)),
        "message_bits": int(rng.choice([8, 10, 12])),
        "hidden_bits": int(rng.choice([8, 12])),
    }
    return quantize(network, inputs, **options), inputs[:8]


def in_targets(faults: int, seed: int) -> dict[str, Count]:
    """Plant faults in runs."""
    networks, rng = made(), np.random.default_rng(seed)
    counts = {name: Count() for name in KINDS}
    started = time.perf_counter()
    for n in range(faults):
        kind = list(KINDS)[n % len(KINDS)]
        name = list(networks)[(n // len(KINDS)) % len(networks)]
        network, inputs = networks[name]
        planted = KINDS[kind](network, rng)
        differs, found = statements(network, inputs, planted)
        count = counts[kind]
        count.planted += 1
        count.silent += not differs
        count.ticks += differs and not found
        count.located += differs and named(planted, found)
        if differs and not named(planted, found):
            shown = "; ".join(fault.words for fault in found[:FIRST])
            print(f"{kind} in {name} at {planted.places[:2]}: {shown}", flush=True)
        if n % 100 == 99:
            print(f"{n + 1} faults, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return counts


def in_files(faults: int, seed: int) -> dict[str, Count]:
    """Plant faults in files."""
    networks, rng = made(), np.random.default_rng(seed + 1)
    counts = {name: Count() for name in IN_FILES}
    for n in range(faults):
        kind = IN_FILES[n % len(IN_FILES)]
        network, _ = networks[list(networks)[(n // len(IN_FILES)) % len(networks)]]
        planted = KINDS[kind](network, rng)
        found, count = damage(planted.network), counts[kind]
        count.planted += 1
        count.ticks += not found
        count.located += named(planted, found)
        if not named(planted, found):
            shown = "; ".join(fault.words for fault in found[:FIRST])
            print(f"file, {kind} at {planted.places[:2]}: {shown}", flush=True)
    return counts


def healthy(networks: int, seed: int) -> Counter[str]:
    """Count statements about networks without a fault."""
    found: Counter[str] = Counter()
    for n in range(networks):
        try:
            network, inputs = drawn(seed * 100_000 + n)
        except InputError:
            found["refused by quantize"] += 1
            continue
        found["networks"] += 1
        differs, about = statements(network, inputs, Planted(network, []))
        found["differ from the specification"] += differs or bool(about)
        if about_file := damage(network):
            found["called damaged"] += 1
            print(f"healthy network {n}: {about_file[0].words}", flush=True)
    return found


def table(counts: dict[str, Count], seed: int, unseen: str) -> results.Table:
    """Return the table of all kinds, and their sum."""
    rows = []
    for kind, count in counts.items():
        seen = count.planted - count.silent
        share = 100.0 * count.located / seen if seen else None
        rows.append([kind, count.planted, count.silent, count.ticks, count.located, share])
    total = [sum(row[k] for row in rows) for k in range(1, 5)]
    rows.append(["all", *total, 100.0 * total[3] / (total[0] - total[1])])
    columns = [
        ("fault", "{}"), ("planted", ">{:d}"), ("changed no integer", ">{:d}"),
        (unseen, ">{:d}"), ("named with its index", ">{:d}"), ("share", ">{:.1f} %"),
    ]  # fmt: skip
    return results.Table.measured(columns, rows, seed)


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--healthy", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="folder of the tables in docs/results/data")
    given = parser.parse_args()
    found = healthy(given.healthy, given.seed)
    columns = [("healthy networks", "{}"), ("number", ">{:d}")]
    keys = ("networks", "differ from the specification", "called damaged", "refused by quantize")
    rows = [[key, found[key]] for key in keys]
    publish(given, "healthy", results.Table.measured(columns, rows, given.seed))
    counts = in_files(given.faults // 3, given.seed)
    publish(given, "files", table(counts, given.seed, "nothing said"))
    counts = in_targets(given.faults, given.seed)
    publish(given, "runs", table(counts, given.seed, "differs, unexplained"))


def publish(given: argparse.Namespace, name: str, found: results.Table) -> None:
    """Print a table, and save it if it was asked for."""
    print(found.markdown(), flush=True)
    if given.save:
        found.save(f"{given.save}/{name}")


if __name__ == "__main__":
    main()
