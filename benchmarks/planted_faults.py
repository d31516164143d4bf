"""Faults planted in targets, in files of integer networks and in analog chips: named or missed.

At run time a target computes something else than the network that it was given: a wrong row, a dead
neuron, a late message. Its recording is replayed as `lmu-deploy validate` does it. In a file the
same weights are wrong, the target is right, and the file is compared with its float network. An
analog chip has a dead population, a wrong row of W, exchanged inputs; its recording is replayed
statistically. A fault is located if one of the first three statements has its place and its index.
Faults that change no recorded integer, or no weight of a file, are counted apart.

    python benchmarks/planted_faults.py [--save truth]

writes the tables ``truth/runs``, ``files``, ``chips``, ``graphs``, ``healthy`` and ``remedies``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import results
from planted_chips import (
    CHIP_KINDS,
    FIRST,
    GRAPH_KINDS,
    PlantedChip,
    PlantedGraph,
    named,
    record,
    record_graph,
)
from planted_integers import IN_FILES, KINDS, Planted
from planted_networks import (
    chips,
    drawn,
    drawn_chip,
    drawn_graph,
    graphs,
    layers,
    made,
)

from converters.options import QuantizeOptions
from converters.quantize import quantize_with
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.graph import biases
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.fidelity.attribution import attribute
from lmu_deploy.fidelity.attribution.remedies import remedies
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.fidelity.measures.damage import damage
from lmu_deploy.fidelity.replay.chip_replay import replay_chip, replay_graph
from lmu_deploy.fidelity.replay.integers import Fault, Replay, recorded_parts
from lmu_deploy.fidelity.specification import examined
from lmu_deploy.tasks.base import Task
from targets.base import get_target
from targets.integer import IntegerTarget

Finds = Callable[[str, str, int, np.random.Generator], tuple[list[Any], bool, bool, list[Fault]]]
"""Plants a fault of a kind in a network: its places, whether anything changed, whether a report may
be green, the statements."""


Counts = dict[str, Counter[str]]
"""Numbers by kind and by what was found."""


class Kept:
    """Counts of a benchmark in a file, from which the next call goes on.

    Every fault and network has a number and draws with a seed of its own, so that a benchmark in
    pieces finds what one in a single piece does.

    Parameters
    ----------
    path : Path or None
        None keeps nothing.
    name : str
    seed : int
    """

    def __init__(self, path: Path | None, name: str, seed: int) -> None:
        self._path, self._name = path, f"{name}, seed {seed}"
        found = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        own = found.get(self._name, {"done": 0, "counts": {}})
        self.done, self.counts = own["done"], {k: Counter(c) for k, c in own["counts"].items()}

    def remaining(self, total: int) -> Iterator[int]:
        """Yield the numbers that are left, and keep the counts from time to time."""
        started = time.perf_counter()
        for n in range(self.done, total):
            yield n
            self.done = n + 1
            if self.done % 50 == 0 or self.done == total:
                seconds = time.perf_counter() - started
                print(f"{self._name}: {self.done}, {seconds:.0f} s", file=sys.stderr, flush=True)
                self._write()

    def _write(self) -> None:
        if self._path is not None:
            found = json.loads(self._path.read_text()) if self._path.is_file() else {}
            found[self._name] = {"done": self.done, "counts": self.counts}
            self._path.write_text(json.dumps(found))

    def __getitem__(self, kind: str) -> Counter[str]:
        """Return the counts of a kind."""
        return self.counts.setdefault(kind, Counter())


def statements(
    network: IntegerNetwork, inputs: np.ndarray, planted: Planted
) -> tuple[bool, bool, list[Fault]]:
    """Run a target with a fault; return whether it differs, may be green, and the statements.

    It may be green if neither the specification nor damage of the file prevents it: then the
    samples and the margin decide alone.
    """
    healthy = IntegerTarget().run(network, inputs, record=True)
    assert healthy.states is not None
    truth = recorded_parts(network, healthy.states)
    if planted.recorded is not None:
        on_chip = {p.place: truth[p.place] for p in network.on_chip[1:]}
        parts = {**truth, **planted.recorded(inputs, on_chip)}
        named = {str(place): values for place, values in parts.items()}
        run = replace(healthy, states=replace(healthy.states, parts=named))
    elif planted.touch is None:
        run = IntegerTarget().run(planted.network, inputs, record=True)
    else:
        faulty = Replay(planted.network, inputs, touch=planted.touch)
        parts = {str(place): faulty[place] for place in truth}
        run = replace(healthy, states=replace(healthy.states, parts=parts))
    assert run.states is not None
    recorded = recorded_parts(network, run.states)
    differs = any((values != truth[place]).any() for place, values in recorded.items())
    found = examined(run, network, inputs)
    assert found is not None
    specification, faults = found
    return differs, specification.equal, faults


def changed(network: IntegerNetwork, other: IntegerNetwork) -> bool:
    """Return whether two networks differ in a weight, a gain, a bias, a format or a delay."""
    edges = zip(network.edges, other.edges, strict=True)
    for a, b in edges:
        if a.offsets != b.offsets or (a.connection.dequantized != b.connection.dequantized).any():
            return True
    for a, b in zip(network.populations, other.populations, strict=True):
        names = ("message", "state", "message_shift")
        if any(getattr(a, name, None) != getattr(b, name, None) for name in names):
            return True
    mine, theirs = biases(network), biases(other)
    return mine.keys() != theirs.keys() or any((mine[p] != theirs[p]).any() for p in mine)


def planted(
    kept: Kept, faults: int, kinds: list[str], networks: list[str], seed: int, find: Finds
) -> Counts:
    """Plant faults of all kinds in all networks in turn, and count what is found."""
    for n in kept.remaining(faults):
        kind, name = kinds[n % len(kinds)], networks[n // len(kinds) % len(networks)]
        places, differs, green, found = find(kind, name, n, np.random.default_rng([seed, n]))
        count = kept[kind]
        count["planted"] += 1
        count["silent"] += not differs
        if differs:
            count["green"] += green
            count["located"] += named(places, found)
            if not named(places, found):
                shown = "; ".join(fault.words for fault in found[:FIRST])
                print(f"{n}: {kind} in {name} at {places[:2]}: {shown}", flush=True)
    return kept.counts


def in_targets(kept: Kept, faults: int, seed: int) -> Counts:
    """Plant faults in runs."""
    networks = made()

    def find(kind: str, name: str, number: int, rng: np.random.Generator) -> Any:
        network, inputs = networks[name]
        fault = KINDS[kind](network, rng)
        return fault.places, *statements(network, inputs, fault)

    return planted(kept, faults, list(KINDS), list(networks), seed, find)


def in_files(kept: Kept, faults: int, seed: int) -> Counts:
    """Plant faults in files."""
    networks = made()

    def find(kind: str, name: str, number: int, rng: np.random.Generator) -> Any:
        network, _ = networks[name]
        fault = KINDS[kind](network, rng)
        found = damage(fault.network)
        return fault.places, changed(network, fault.network), not found, found

    return planted(kept, faults, IN_FILES, list(networks), seed + 1, find)


def in_chips(kept: Kept, faults: int, seed: int) -> Counts:
    """Plant faults in analog chips; with the spikes of a sample, or in turn from states alone."""
    networks = chips()

    def find(kind: str, name: str, number: int, rng: np.random.Generator) -> Any:
        network, inputs = networks[name]
        fault = CHIP_KINDS[kind](network, rng)
        m, spikes = record(fault, inputs, seed + number)
        healthy, _ = record(PlantedChip(network, []), inputs, seed + number)
        with_spikes = kind.startswith("neuron") or number // len(CHIP_KINDS) % 2 == 0
        given = (spikes.rasters, number, spikes.counts) if with_spikes else (None, number)
        found = replay_chip(network, inputs, m, *given)
        assert found is not None
        green = found.largest <= 1.0 and not found.blind
        return fault.places, bool((m != healthy).any()), green, found.faults

    return planted(kept, faults, list(CHIP_KINDS), list(networks), seed + 2, find)


def in_graphs(kept: Kept, faults: int, seed: int) -> Counts:
    """Plant faults in graphs of neurons, as in chips."""
    networks = graphs()

    def find(kind: str, name: str, number: int, rng: np.random.Generator) -> Any:
        graph, inputs = networks[name]
        fault = GRAPH_KINDS[kind](graph, rng)
        parts, spikes = record_graph(fault, inputs, seed + number)
        healthy, _ = record_graph(PlantedGraph(graph, []), inputs, seed + number)
        rounds = number // (len(GRAPH_KINDS) * len(networks))  # each network both with and without
        with_spikes = kind.startswith("neuron") or rounds % 2 == 0
        given = (spikes.rasters, number, spikes.counts) if with_spikes else (None, number)
        found = replay_graph(graph, inputs, parts, *given)
        assert found is not None
        green = found.largest <= 1.0 and not found.blind
        changed = any((values != healthy[place]).any() for place, values in parts.items())
        return fault.places, changed, green, found.faults

    return planted(kept, faults, list(GRAPH_KINDS), list(networks), seed + 3, find)


def healthy(kept: Kept, networks: int, seed: int) -> Counter[str]:
    """Count statements about networks without a fault.

    Three integer networks, an analog chip and a graph of neurons in turn. A graph is replayed with
    spikes and without.
    """
    found = kept["healthy"]
    for n in kept.remaining(networks):
        number = seed * 100_000 + n
        try:
            if n % 5 == 4:
                graph, inputs = drawn_graph(number)
                found["graphs of neurons"] += 1
                parts, spikes = record_graph(PlantedGraph(graph, []), inputs, number)
                both = [
                    replay_graph(graph, inputs, parts, *given)
                    for given in ((spikes.rasters, number + 1, spikes.counts), (None, number + 1))
                ]
                found["graphs called different"] += any(each.largest > 1.0 for each in both if each)
                found["graphs undecided, with spikes"] += bool(both[0].blind)
                continue
            if n % 5 == 3:
                chip, inputs = drawn_chip(number)
                found["analog chips"] += 1
                m, spikes = record(PlantedChip(chip, []), inputs, number)
                about = replay_chip(chip, inputs, m, spikes.rasters, number + 1, spikes.counts)
                assert about is not None
                found["chips called different"] += about.largest > 1.0
                found["chips undecided, with spikes"] += bool(about.blind)
                continue
            network, inputs = drawn(number)
        except InputError:
            found["refused by quantize or spike"] += 1
            continue
        found["integer networks"] += 1
        _, green, sentences = statements(network, inputs, Planted(network, []))
        found["networks called different"] += not green or bool(sentences)
        found["networks called damaged"] += bool(damage(network))
    return found


LOW = (
    {}, {"slices": 1}, {"message_bits": 6}, {"message_bits": 8}, {"hidden_bits": 4},
    {"hidden_bits": 6}, {"input_bits": 4}, {"kernel_bits": 4},
    {"slices": 1, "hidden_bits": 12}, {"message_bits": 8, "kernel_bits": 5},
)  # fmt: skip
"""Options of quantize with which a network loses accuracy."""


def suggested_fixes(kept: Kept, networks: int, seed: int) -> Counter[str]:
    """Count suggested fixes of randomly drawn networks, and how many help on 256 new samples."""
    found = kept["fixes"]
    for n in kept.remaining(networks):
        rng = np.random.default_rng([seed, n])
        source = Network.from_layers(layers(rng, 2, int(rng.integers(4, 9)), 2))
        x, new = rng.uniform(-1, 1, (96, 20, 2)), rng.uniform(-1, 1, (256, 20, 2))
        options = QuantizeOptions(**LOW[n % len(LOW)])
        network = quantize_with(source, x[:24], options=options)
        truth = get_target("reference").run(source, x[:24]).outputs
        task = Task("random", "regression", 2, 3, 20, load=lambda: None)
        sources = attribute(network, x[:24], truth, task)
        found["networks"] += 1
        wanted = get_target("reference").run(source, new).outputs
        before = deviation(IntegerTarget().run(network, new).outputs, wanted) or 0.0
        for cause, remedy in remedies(sources, network, x, x[:24], options).items():
            changed = options.replace(**{remedy.option: remedy.value})
            other = quantize_with(source, x[:24], options=changed)
            after = deviation(IntegerTarget().run(other, new).outputs, wanted) or 0.0
            found["suggested fixes"] += 1
            found[f"against {cause}"] += 1
            found["help on new samples"] += after < before
            found["remove a tenth of the squared error of new samples"] += (
                after**2 < 0.9 * before**2
            )
            if after >= before:
                print(f"{n}: {remedy.words}: {before:.3g} to {after:.3g}", flush=True)
    return found


def table(counts: Counts, seed: int, silent: str) -> results.Table:
    """Return the table of all kinds, and their sum."""
    rows = []
    total = sum(counts.values(), Counter())
    for kind, count in (*counts.items(), ("all", total)):
        seen = count["planted"] - count["silent"]
        numbers = [count[what] for what in ("planted", "silent", "green", "located")]
        rows.append([kind, *numbers, 100.0 * count["located"] / seen if seen else None])
    columns = [
        ("fault", "{}"), ("planted", ">{:d}"), (silent, ">{:d}"), ("could be green", ">{:d}"),
        ("named with its index", ">{:d}"), ("share", ">{:.1f} %"),
    ]  # fmt: skip
    return results.Table.measured(columns, rows, seed)


def counted(found: Counter[str], what: str, seed: int) -> results.Table:
    """Return a table of numbers."""
    columns = [(what, "{}"), ("number", ">{:d}")]
    return results.Table.measured(columns, [list(item) for item in found.items()], seed)


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = {"runs": 580, "files": 240, "chips": 208, "graphs": 200, "healthy": 250}
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--remedies", type=int, default=100, help="networks whose fixes are tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="folder of the tables in docs/results/data")
    parser.add_argument(
        "--keep", type=Path, help="file of counts, from which the next call goes on"
    )
    given = parser.parse_args()
    seed = given.seed

    def kept(name: str) -> Kept:
        return Kept(given.keep, name, seed)

    for name, plant, silent in (
        ("files", in_files, "changed no weight"),
        ("chips", in_chips, "changed no state"),
        ("graphs", in_graphs, "changed no state"),
        ("runs", in_targets, "changed no integer"),
    ):
        if faults := getattr(given, name):
            publish(given, name, table(plant(kept(name), faults, seed), seed, silent))
    if given.remedies:
        found = suggested_fixes(kept("remedies"), given.remedies, seed)
        publish(given, "remedies", counted(found, "fixes", seed))
    if given.healthy:
        found = healthy(kept("healthy"), given.healthy, seed)
        publish(given, "healthy", counted(found, "healthy", seed))


def publish(given: argparse.Namespace, name: str, found: results.Table) -> None:
    """Print a table, and save it if it was asked for."""
    print(found.markdown(), flush=True)
    if given.save:
        found.save(f"{given.save}/{name}")


if __name__ == "__main__":
    main()
