"""Sigma-delta messages: how many fall silent at a given loss of accuracy.

Thresholds are tuned on validation data by :mod:`converters.quantize.sparsity`, and judged on the
test. The second table, saved as ``PAGE/NAME-connections``, has the silent share of the messages of
each connection and its threshold in parentheses.

    python benchmarks/sparsity.py examples/models/digits.safetensors --save sparsity/digits
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import results

from converters.quantize import quantize
from converters.quantize.sparsity import (
    Ladder,
    expected_loss,
    highest_rung,
    make_ladder,
    silent_shares,
)
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.graph import edges, sources
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import FLOAT_CLASSES
from lmu_deploy.tasks.base import Split, get_task
from targets.base import Run
from targets.integer import IntegerTarget

CALIBRATION = 512
POINTS = (0.05, 0.2, 0.5)


@dataclass(frozen=True)
class Row:
    """Figures of one set of thresholds; percents."""

    name: str
    network: IntegerNetwork
    lost: float
    test: float
    silent: dict[str, float]
    events: float
    synops: float


class Bench:
    """A network, its data, and the losses of rungs, so that none is run twice."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        source = load(arguments.network, FLOAT_CLASSES)
        data = get_task(source.task).load()
        self.tuning = Split(*data.validation.batch(slice(arguments.tuning)))
        self.test = Split(*data.test.batch(slice(arguments.limit)))
        self.network = quantize(source, data.train.inputs[:CALIBRATION])
        say(f"quantized; {len(self.tuning)} samples to tune on, {len(self.test)} of the test")
        few = self.tuning.inputs[: arguments.few]
        self.ladder: Ladder = make_ladder(self.network, few, run, lambda *n: say(f"tried {n}"))
        for number, rung in enumerate(self.ladder.rungs):
            say(f"rung {number}: {rung}")
        self._before = run(self.ladder.at(0), self.tuning.inputs).outputs
        self._lost: dict[int, float] = {0: 0.0}

    def lost(self, rung: int) -> float:
        """Estimate the accuracy that a rung loses, in points."""
        if rung not in self._lost:
            outputs = run(self.ladder.at(rung), self.tuning.inputs).outputs
            self._lost[rung] = 100.0 * expected_loss(outputs, self._before, self.tuning.targets)
            say(f"rung {rung}: {self._lost[rung]:.2f} points lost")
        return self._lost[rung]

    def row(self, name: str, network: IntegerNetwork, lost: float) -> Row:
        """Judge a network on the test data."""
        made = run(network, self.test.inputs)
        sample_steps = self.test.inputs.shape[0] * self.test.inputs.shape[1]
        events = sum(int(counts.sum()) for counts in made.events.values()) / sample_steps
        shares = silent_shares(network, made.carried, sample_steps)
        accuracy = 100.0 * float(np.mean(made.outputs.argmax(axis=1) == self.test.targets))
        say(f"{name}: {accuracy:.2f} % on test, {shares}")
        return Row(name, network, lost, accuracy, shares, events, made.synops / sample_steps)


def main() -> None:
    """Tune one network to each loss and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    results.add_options(parser)
    parser.add_argument("--tuning", type=int, default=2000, help="samples to tune on, at most")
    parser.add_argument("--limit", type=int, help="test samples; by default all")
    parser.add_argument("--few", type=int, default=64, help="samples to try thresholds on")
    parser.add_argument("--rungs", type=int, nargs="+", default=[], help="more of the ladder")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    count = len(bench.ladder.rungs)
    chosen = {points: highest_rung(count, bench.lost, points + 1e-9) for points in POINTS}
    rows = [
        bench.row("none", bench.ladder.network, 0.0),
        bench.row("exact", bench.ladder.at(0), 0.0),
    ]
    for points, rung in chosen.items():
        rows.append(bench.row(f"{points:g}", bench.ladder.at(rung), bench.lost(rung)))
    for rung in arguments.rungs:
        rows.append(bench.row(f"rung {rung}", bench.ladder.at(rung), bench.lost(rung)))
    publish(arguments, bench, rows)


def run(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    """Run the simulator."""
    return IntegerTarget().run(network, inputs)


def say(text: str) -> None:
    """Tell how far it has come."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


COLUMNS = [
    ("allowed, points", "{}"),
    ("estimate, points", "{:.2f}"),
    ("test %", "{:.2f}"),
    ("silent, of all", "{:.1f}%"),
    ("events a step", "{:,.1f}"),
    ("synaptic operations a step", "{}"),
]


def publish(arguments: argparse.Namespace, bench: Bench, rows: list[Row]) -> None:
    """Print both tables, and save them if that was asked for."""
    print(f"{len(bench.tuning):,} validation samples, {len(bench.test):,} of the test.\n")
    measured: list[list[results.Cell]] = []
    for row in rows:
        synops = f"{row.synops:,.0f} ({row.synops / rows[0].synops:.0%})"
        silent = 100.0 * row.silent["total"]
        measured.append([row.name, row.lost, row.test, silent, row.events, synops])
    results.publish(COLUMNS, measured, arguments)
    columns = [("connection", "{}"), ("largest message", "{:,d}"), *((r.name, "{}") for r in rows)]
    limits = {place: source.message.limit for place, source in sources(bench.network).items()}
    measured = []
    for edge in edges(bench.network):
        if edge.place in rows[0].silent:
            cells = [f"{row.silent[edge.place]:.1%} ({threshold(row, edge.place)})" for row in rows]
            measured.append([f"`{edge.place}`", limits[edge.source], *cells])
    if arguments.save:
        arguments.save += "-connections"
    results.publish(columns, measured, arguments)


def threshold(row: Row, place: str) -> int:
    """Return the threshold of a connection."""
    return next(w.connection.threshold for w in edges(row.network) if w.place == place)


if __name__ == "__main__":
    main()
