"""Faults planted in virtual analog chips, for planted_faults.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.populations import with_mismatch
from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.spiking.ensembles import ONE
from lmu_deploy.core.spiking.graph import Ensemble, SpikingGraph
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork
from lmu_deploy.fidelity.attribution.chips import run_hybrid
from lmu_deploy.fidelity.replay.integers import Fault
from targets.base import get_target
from targets.spiking.graph import recorded_as


@dataclass
class PlantedChip:
    """A chip with a fault, and what a statement must name.

    `places` lists (place, index) of which one must be named; `recorded` changes its states.
    """

    network: SpikingNetwork
    places: list[tuple[str, int | None]]
    recorded: Callable[[np.ndarray], np.ndarray] | None = None


PlantChip = Callable[[SpikingNetwork, np.random.Generator], PlantedChip]
PLACE = "layer0/memory"
FIRST = 3


def memory_of(network: SpikingNetwork) -> SpikingMemory:
    """Return the memory of the first layer."""
    memory = network.memories[0]
    assert memory is not None
    return memory


def with_memory(network: SpikingNetwork, **changed: object) -> SpikingNetwork:
    """Return a network whose first memory has other arrays."""
    memory = replace(memory_of(network), **changed)
    return replace(network, memories=(memory, *network.memories[1:]))


def named(places: list[tuple[str, int | None]], statements: list[Fault]) -> bool:
    """Return whether one of the first statements has the place and index of a fault."""
    return any(
        place == fault.place and (index is None or index in fault.index)
        for fault in statements[:FIRST]
        for place, index in places
    )


def drawn(rng: np.random.Generator, size: int, count: int = 1) -> list[int]:
    """Draw different numbers below `size`."""
    return [int(i) for i in rng.choice(size, count, replace=False)]


def of_population(change: Callable[[dict[str, np.ndarray], list[int]], None], two: bool = False):
    """Return a fault of the neurons of one population, or of two."""

    def plant(network: SpikingNetwork, rng: np.random.Generator) -> PlantedChip:
        populations = memory_of(network).populations
        states = drawn(rng, populations.states, 1 + two)
        bad = with_memory(network, populations=with_fault(populations, change, states))
        return PlantedChip(bad, [(PLACE, j) for j in states])

    return plant


def with_fault(
    populations: Populations,
    change: Callable[[dict[str, np.ndarray], list[int]], None],
    states: list[int],
) -> Populations:
    """Return populations some of which have a fault."""
    names = ("encoders", "gains", "biases", "gain_factors", "bias_factors")
    arrays = {name: getattr(populations, name).copy() for name in names}
    for name, default in (("tau_factors", 1.0), ("noise_factors", 1.0), ("faults", 0.0)):
        given = getattr(populations, name)
        shape = populations.encoders.shape
        arrays[name] = np.full(shape, default) if given is None else given.copy()
    change(arrays, states)
    return replace(populations, **arrays)


def setting(name: str, value: float) -> Callable[[dict[str, np.ndarray], list[int]], None]:
    """Return a change that sets an array of a population."""

    def change(arrays: dict[str, np.ndarray], states: list[int]) -> None:
        arrays[name][states] = value

    return change


def scaling(name: str, factor: float) -> Callable[[dict[str, np.ndarray], list[int]], None]:
    """Return a change that multiplies an array of a population."""

    def change(arrays: dict[str, np.ndarray], states: list[int]) -> None:
        arrays[name][states] *= factor

    return change


def exchange(arrays: dict[str, np.ndarray], states: list[int]) -> None:
    """Exchange the neurons of two populations."""
    for array in arrays.values():
        array[states] = array[states[::-1]]


def of_neuron(fault: float) -> PlantChip:
    """Return a fault of one neuron that fires at state zero: dead (-1) or stuck (1)."""

    def plant(network: SpikingNetwork, rng: np.random.Generator) -> PlantedChip:
        populations, _, n = with_neuron(memory_of(network).populations, fault, rng)
        return PlantedChip(with_memory(network, populations=populations), [(PLACE, n)])

    return plant


def with_neuron(
    populations: Populations, fault: float, rng: np.random.Generator, drive: float = 0.0
) -> tuple[Populations, int, int]:
    """Return populations with a fault of a neuron that fires at a drive, and its numbers."""
    faults = np.zeros(populations.encoders.shape)
    firing = np.argwhere(populations.offsets + drive * populations.slopes > 1.0)
    j, n = (int(i) for i in firing[int(rng.integers(len(firing)))])
    faults[j, n] = fault
    return replace(populations, faults=faults), j, n


def of_weights(change: Callable[[np.ndarray, list[int], int], None], axis: str, two: bool = False):
    """Return a fault of rows or columns of W of one channel, (weights, indices, neurons)."""

    def plant(network: SpikingNetwork, rng: np.random.Generator) -> PlantedChip:
        memory = memory_of(network)
        weights, order = memory.weights.copy(), memory.order
        (channel,) = drawn(rng, memory.channels)
        which = drawn(rng, order, 1 + two)
        change(weights[channel], which, memory.populations.neurons)
        states = [channel * order + k for k in which]
        place = PLACE if axis == "column" else f"{PLACE}/row"
        return PlantedChip(with_memory(network, weights=weights), [(place, i) for i in states])

    return plant


def row_times(factor: float) -> Callable[[np.ndarray, list[int], int], None]:
    """Return a change that multiplies a row."""

    def change(weights: np.ndarray, rows: list[int], neurons: int) -> None:
        weights[rows] *= factor

    return change


def column_times(factor: float) -> Callable[[np.ndarray, list[int], int], None]:
    """Return a change that multiplies the weights of all neurons of a population."""

    def change(weights: np.ndarray, columns: list[int], neurons: int) -> None:
        for k in columns:
            weights[:, k * neurons : (k + 1) * neurons] *= factor

    return change


def exchange_rows(weights: np.ndarray, rows: list[int], neurons: int) -> None:
    """Exchange two rows."""
    weights[rows] = weights[rows[::-1]]


def exchange_columns(weights: np.ndarray, columns: list[int], neurons: int) -> None:
    """Exchange the weights of two populations."""
    j, k = (slice(i * neurons, (i + 1) * neurons) for i in columns)
    weights[:, j], weights[:, k] = weights[:, k].copy(), weights[:, j].copy()


def one_block(weights: np.ndarray, rows: list[int], neurons: int) -> None:
    """Negate the weights from one population to one state, its own."""
    (i,) = rows
    weights[i, i * neurons : (i + 1) * neurons] *= -1.0


def of_input(factor: float) -> PlantChip:
    """Return a fault of the input of one state, in every channel."""

    def plant(network: SpikingNetwork, rng: np.random.Generator) -> PlantedChip:
        memory = memory_of(network)
        entering = memory.input.copy()
        large = np.flatnonzero(np.abs(entering) > 1e-3 * np.abs(entering).max())
        k = int(rng.choice(large))
        entering[k] *= factor
        states = [c * memory.order + k for c in range(memory.channels)]
        return PlantedChip(
            with_memory(network, input=entering), [(f"{PLACE}/input", i) for i in states]
        )

    return plant


def of_channels(two: bool, factor: float = 0.0) -> PlantChip:
    """Return a fault of the input of a channel, or of two that are exchanged."""

    def plant(network: SpikingNetwork, rng: np.random.Generator) -> PlantedChip:
        layer = network.host.layers[0]
        assert isinstance(layer, LMULayer)
        encoders, channels = layer.input_encoders.copy(), memory_of(network).channels
        which = drawn(rng, channels, min(1 + two, channels))
        if len(which) == 2:
            encoders[:, which] = encoders[:, which[::-1]]
        else:
            encoders[:, which] *= factor
        layers = (replace(layer, input_encoders=encoders), *network.host.layers[1:])
        bad = replace(network, host=replace(network.host, layers=layers))
        order = memory_of(network).order
        named = [(f"{PLACE}/channel", c) for c in which]
        if channels == 1:
            named += [(f"{PLACE}/input", i) for i in range(order)]
        return PlantedChip(bad, named)

    return plant


def of_record(change: Callable[[np.ndarray, list[int]], None], count: int) -> PlantChip:
    """Return a fault of the states that the host reads."""

    def plant(network: SpikingNetwork, rng: np.random.Generator) -> PlantedChip:
        states = drawn(rng, memory_of(network).states, count)

        def recorded(m: np.ndarray) -> np.ndarray:
            m = m.copy()
            change(m, states)
            return m

        named = [(PLACE, i) for i in states] + [(f"{PLACE}/row", i) for i in states]
        return PlantedChip(network, named, recorded)

    return plant


def read_exchanged(m: np.ndarray, states: list[int]) -> None:
    """Exchange two states."""
    m[..., states] = m[..., states[::-1]]


def read_stuck(m: np.ndarray, states: list[int]) -> None:
    """Hold a state at its first value."""
    m[..., states] = m[:, :1, states]


CHIP_KINDS: dict[str, PlantChip] = {
    "population: dead": of_population(setting("faults", -1.0)),
    "population: stuck": of_population(setting("faults", 1.0)),
    "population: ten times the noise": of_population(scaling("noise_factors", 10.0)),
    "population: gains double": of_population(scaling("gain_factors", 2.0)),
    "population: currents 30 % lower": of_population(scaling("bias_factors", 0.7)),
    "population: membranes twice as slow": of_population(scaling("tau_factors", 2.0)),
    "population: wrong sign of encoders": of_population(scaling("encoders", -1.0)),
    "populations exchanged": of_population(exchange, two=True),
    "neuron: dead": of_neuron(-1.0),
    "neuron: stuck": of_neuron(1.0),
    "row of W: wrong sign": of_weights(row_times(-1.0), "row"),
    "row of W: missing": of_weights(row_times(0.0), "row"),
    "row of W: half": of_weights(row_times(0.5), "row"),
    "rows of W exchanged": of_weights(exchange_rows, "row", two=True),
    "column of W: wrong sign": of_weights(column_times(-1.0), "column"),
    "column of W: missing": of_weights(column_times(0.0), "column"),
    "column of W: double": of_weights(column_times(2.0), "column"),
    "columns of W exchanged": of_weights(exchange_columns, "column", two=True),
    "own weights of a state: wrong sign": of_weights(one_block, "row"),
    "input of a state: missing": of_input(0.0),
    "input of a state: wrong sign": of_input(-1.0),
    "input of a channel: missing": of_channels(False),
    "input of a channel: wrong sign": of_channels(False, -1.0),
    "inputs of two channels exchanged": of_channels(True),
    "states read exchanged": of_record(read_exchanged, 2),
    "state read stuck": of_record(read_stuck, 1),
}


@dataclass
class PlantedGraph:
    """A graph of neurons with a fault; attributes as of :class:`PlantedChip`.

    `recorded` changes the recorded states and drives.
    """

    network: SpikingGraph
    places: list[tuple[str, int | None]]
    recorded: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None


PlantGraph = Callable[[SpikingGraph, np.random.Generator], PlantedGraph]


def with_part(graph: SpikingGraph, part: Ensemble) -> SpikingGraph:
    """Return a graph with another ensemble or probe of the same name."""
    field = "probes" if part.populations is None else "ensembles"
    parts = [part if each.name == part.name else each for each in getattr(graph, field)]
    return replace(graph, **{field: tuple(parts)})


def ensemble_of(graph: SpikingGraph, kind: str, rng: np.random.Generator) -> Ensemble:
    """Draw an ensemble of a kind, "memory" or "units"."""
    found = [each for each in graph.ensembles if graph.kind(each) == kind]
    return found[int(rng.integers(len(found)))]


def place_of(part: Ensemble) -> str:
    """Return the place that statements name."""
    return f"{part.name}/read" if part.populations is None else part.name


def of_group(
    kind: str, change: Callable[[dict[str, np.ndarray], list[int]], None], two: bool = False
) -> PlantGraph:
    """Return a fault of the neurons of one population of an ensemble, or of two."""

    def plant(graph: SpikingGraph, rng: np.random.Generator) -> PlantedGraph:
        each = ensemble_of(graph, kind, rng)
        states = drawn(rng, each.size, 1 + two)
        populations = with_fault(each.populations, change, states)
        bad = with_part(graph, replace(each, populations=populations))
        return PlantedGraph(bad, [(each.name, j) for j in states])

    return plant


def of_one_neuron(kind: str, fault: float) -> PlantGraph:
    """Return a fault of one neuron that fires without a drive, or of units at half of it."""

    def plant(graph: SpikingGraph, rng: np.random.Generator) -> PlantedGraph:
        each = ensemble_of(graph, kind, rng)
        drive = 0.0 if kind == "memory" else 0.5
        populations, _, n = with_neuron(each.populations, fault, rng, drive)
        return PlantedGraph(
            with_part(graph, replace(each, populations=populations)), [(each.name, n)]
        )

    return plant


def of_synapses(
    change: Callable[[np.ndarray, list[int], int], None], axis: str, two: bool = False
) -> PlantGraph:
    """Return a fault of rows or columns of a connection, (weights, indices, neurons)."""

    def plant(graph: SpikingGraph, rng: np.random.Generator) -> PlantedGraph:
        parts = [each for each in graph.parts if each.connections]
        part = parts[int(rng.integers(len(parts)))]
        number = int(rng.integers(len(part.connections)))
        connection = part.connections[number]
        neurons = graph[connection.source].populations.neurons
        weights = connection.weights.copy()
        blocks, rows, columns = weights.shape
        (block,) = drawn(rng, blocks)
        size = rows if axis == "row" else columns // neurons
        which = drawn(rng, size, 1 + two)
        change(weights[block], which, neurons)
        bad = list(part.connections)
        bad[number] = replace(connection, weights=weights)
        place = f"{place_of(part)}/row" if axis == "row" else connection.source
        named = [(place, block * size + i) for i in which]
        named += [(place_of(part), i) for place, i in named if axis == "row"]
        return PlantedGraph(with_part(graph, replace(part, connections=tuple(bad))), named)

    return plant


def of_entry(factor: float) -> PlantGraph:
    """Return a fault of one weight of what the host sends."""

    def plant(graph: SpikingGraph, rng: np.random.Generator) -> PlantedGraph:
        sent = [
            (part, n)
            for part in graph.parts
            for n, current in enumerate(part.currents)
            if current.source != ONE
        ]
        part, n = sent[int(rng.integers(len(sent)))]
        weights = part.currents[n].weights.copy()
        large = np.argwhere(np.abs(weights) > 0.1 * np.abs(weights).max())
        i, f = (int(each) for each in large[int(rng.integers(len(large)))])
        weights[i, f] *= factor
        bad = list(part.currents)
        bad[n] = replace(bad[n], weights=weights)
        place = place_of(part)
        return PlantedGraph(
            with_part(graph, replace(part, currents=tuple(bad))),
            [(f"{place}/input", i), (f"{place}/channel", f), (f"{place}/row", i)],
        )

    return plant


def of_drives(change: Callable[[np.ndarray, list[int]], None], count: int) -> PlantGraph:
    """Return a fault of the recorded drives of an ensemble."""

    def plant(graph: SpikingGraph, rng: np.random.Generator) -> PlantedGraph:
        each = graph.ensembles[int(rng.integers(len(graph.ensembles)))]
        states, name = drawn(rng, each.size, count), recorded_as(graph, each)

        def recorded(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            drives = parts[name].copy()
            change(drives, states)
            return {**parts, name: drives}

        named = [(each.name, i) for i in states] + [(f"{each.name}/row", i) for i in states]
        return PlantedGraph(graph, named, recorded)

    return plant


def other_chip(graph: SpikingGraph, rng: np.random.Generator) -> PlantedGraph:
    """Return the network on a chip with other neurons than it was calibrated for."""
    of, bad = graph.device, graph
    for each in graph.ensembles:
        drawn_again = with_mismatch(each.populations, of.mismatch, rng, of.tau_mismatch)
        bad = with_part(bad, replace(each, populations=drawn_again))
    return PlantedGraph(bad, [("", None)])


GRAPH_KINDS: dict[str, PlantGraph] = {
    **{
        f"{name}: {what}": of_group(kind, change, two)
        for name, kind in (("population of a memory", "memory"), ("population of units", "units"))
        for what, change, two in (
            ("dead", setting("faults", -1.0), False),
            ("stuck", setting("faults", 1.0), False),
            ("ten times the noise", scaling("noise_factors", 10.0), False),
            ("currents 30 % lower", scaling("bias_factors", 0.7), False),
            ("exchanged with another", exchange, True),
        )
    },
    "neuron of a memory: dead": of_one_neuron("memory", -1.0),
    "neuron of a memory: stuck": of_one_neuron("memory", 1.0),
    "neuron of units: dead": of_one_neuron("units", -1.0),
    "neuron of units: stuck": of_one_neuron("units", 1.0),
    "row of a connection: wrong sign": of_synapses(row_times(-1.0), "row"),
    "row of a connection: missing": of_synapses(row_times(0.0), "row"),
    "rows of a connection exchanged": of_synapses(exchange_rows, "row", two=True),
    "column of a connection: wrong sign": of_synapses(column_times(-1.0), "column"),
    "column of a connection: missing": of_synapses(column_times(0.0), "column"),
    "columns of a connection exchanged": of_synapses(exchange_columns, "column", two=True),
    "weight of the input: missing": of_entry(0.0),
    "weight of the input: wrong sign": of_entry(-1.0),
    "drives read exchanged": of_drives(read_exchanged, 2),
    "drive read stuck": of_drives(read_stuck, 1),
    "another chip": other_chip,
}


@dataclass
class Spikes:
    """Recorded spikes: those of sample 0, and how often every neuron spiked in all samples."""

    rasters: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]


def record_graph(
    planted: PlantedGraph, inputs: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], Spikes]:
    """Run a graph with its fault; return states and drives, and the spikes."""
    run = get_target("spiking").run(planted.network, inputs, record=True, seed=seed)
    assert run.states is not None
    parts = dict(run.states.parts)
    parts = parts if planted.recorded is None else planted.recorded(parts)
    return parts, Spikes(dict(run.rasters), dict(run.counts))


def record(planted: PlantedChip, inputs: np.ndarray, seed: int) -> tuple[np.ndarray, Spikes]:
    """Run a chip with its fault; return the states, and the spikes."""
    spikes: dict[str, list[np.ndarray]] = {}
    counts: dict[str, np.ndarray] = {}
    hold = planted.network.steps_per_presentation

    def observe(number: int, _: np.ndarray, fired: np.ndarray) -> None:
        place = str(planted.network.place(number, "memory"))
        sample = spikes.setdefault(place, [])
        rows = fired.reshape(len(fired), -1)
        counted = np.zeros((len(rows), inputs.shape[1], rows.shape[1]), np.uint16)
        counts.setdefault(place, counted)[:, len(sample) // hold] += rows
        sample.append(rows[0].copy())

    network = planted.network
    layers = [n for n, memory in enumerate(network.memories) if memory is not None]
    run = run_hybrid(network, inputs, layers, seed, observe)
    m = np.concatenate(run.m, axis=2)
    if planted.recorded is not None:
        m = planted.recorded(m)
    return m, Spikes({name: np.array(found, np.uint8) for name, found in spikes.items()}, counts)
