"""Sigma-delta messages: how many fall silent at a given loss of accuracy.

Thresholds are tuned on validation data by :mod:`converters.quantize.sparsity`, and judged on the
test. Writes a Markdown table with the silent share of the messages of each connection.

    python benchmarks/sparsity.py examples/models/digits.safetensors --out docs/results/sparsity.md
    python benchmarks/sparsity.py examples/models/psmnist-lmu.safetensors --limit 2000 --append \
        --out docs/results/sparsity.md
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.quantize import quantize
from converters.quantize.sparsity import (
    Ladder,
    expected_loss,
    highest_rung,
    make_ladder,
    silent_shares,
)
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.graph import edges, populations
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import FLOAT_CLASSES
from lmu_deploy.tasks.base import Split, get_task
from targets.base import Run
from targets.integer import IntegerTarget

CALIBRATION = 512
POINTS = (0.05, 0.2, 0.5)


@dataclass(frozen=True)
class Row:
    """What is reported of one set of thresholds; percents."""

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
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tuning", type=int, default=2000, help="samples to tune on, at most")
    parser.add_argument("--limit", type=int, help="test samples; by default all")
    parser.add_argument("--few", type=int, default=64, help="samples to try thresholds on")
    parser.add_argument("--rungs", type=int, nargs="+", default=[], help="more of the ladder")
    parser.add_argument("--append", action="store_true", help="keep what the file holds")
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
    before = arguments.out.read_text() if arguments.append and arguments.out.exists() else HEADING
    arguments.out.write_text(before + section(arguments, bench, rows))


def run(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    """Run the simulator."""
    return IntegerTarget().run(network, inputs)


def say(text: str) -> None:
    """Tell how far it has come."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


HEADING = """# Sparsity: silent messages against loss

Sigma-delta messages ([what they compute](../reference/integer-semantics.md#sigma-delta-messages))
with thresholds tuned to an allowed loss of accuracy. The loss is estimated on validation data: the
changes of the outputs' margins, each applied to every sample, and the share of correct answers that
become wrong. Accuracy is that of test data, which the tuning does not use. A message is silent
when its connection sends nothing for it at a step: "none" has no thresholds, so that only
messages of zero are silent; "exact" sends every change wherever that saves events, which changes no
answer. A threshold, in parentheses, is in units of the message. Events are counted where they are
sent: a neuron whose connections have several thresholds sends an event for each. "Rungs" are
further settings in the order of the tuning, regardless of their loss. Made by
`benchmarks/sparsity.py`.
"""


def section(arguments: argparse.Namespace, bench: Bench, rows: list[Row]) -> str:
    """Write one network's part."""
    command = f"python benchmarks/sparsity.py {arguments.network} --tuning {arguments.tuning}"
    command += f" --few {arguments.few}"
    command += "" if arguments.limit is None else f" --limit {arguments.limit}"
    if arguments.rungs:
        command += f" --rungs {' '.join(map(str, arguments.rungs))}"
    columns = ("allowed, points", "estimate, points", "test %", "silent, of all", "events a step")
    lines = [
        f"\n## {arguments.network.stem}\n\n    {command} --out FILE\n",
        f"{len(bench.tuning):,} validation samples, {len(bench.test):,} of the test; 2 shared "
        "x86-64 cores, no GPU, 2026-11-22.\n",
        f"| {' | '.join(columns)} | synaptic operations a step |\n|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            row.name,
            f"{row.lost:.2f}",
            f"{row.test:.2f}",
            f"{row.silent['total']:.1%}",
            f"{row.events:,.1f}",
            f"{row.synops:,.0f} ({row.synops / rows[0].synops:.0%})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    names = " | ".join(row.name for row in rows)
    lines.append("\nSilent share of each connection, and its threshold:\n")
    lines.append(f"| connection | largest message | {names} |\n|---|---|{'---|' * len(rows)}")
    limits = {name: p.message.limit for name, p in populations(bench.network).items()}
    for edge in edges(bench.network):
        if edge.place in rows[0].silent:
            cells = [f"{row.silent[edge.place]:.1%} ({threshold(row, edge.place)})" for row in rows]
            lines.append(f"| `{edge.place}` | {limits[edge.source]:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def threshold(row: Row, place: str) -> int:
    """Return the threshold of a connection."""
    return next(w.connection.threshold for w in edges(row.network) if w.place == place)


if __name__ == "__main__":
    main()
