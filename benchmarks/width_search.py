"""Accuracy against synaptic memory, widths chosen connection by connection for each budget.

Beside them, every connection at one width. Widths are chosen on validation data, judged on the
test.

    python benchmarks/width_search.py examples/models/digits.safetensors --save widths/digits
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import results

from converters.quantize import calibrate, quantize
from converters.quantize.settings import settings_for
from converters.quantize.widths import Widths, memory_of, search_widths
from lmu_deploy.core.graph.executor import run as run_float
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load_float
from lmu_deploy.tasks.base import Split, get_task
from targets.base import Run
from targets.integer import IntegerTarget

CALIBRATION, FEW = 512, 64
UNIFORM = ((2, 8), (1, 8), (1, 6), (1, 5), (1, 4), (1, 3))
BUDGETS = (10.0, 6.0, 4.0, 3.5, 3.0, 2.5, 2.0)
COLUMNS = [
    ("widths", "{}"),
    ("memory, KiB", "{:.2f}"),
    ("accuracy %", "{:.2f}"),
    ("slices x bits of each connection", "{}"),
]


def main() -> None:
    """Measure one network and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    results.add_options(parser)
    parser.add_argument("--limit", type=int, help="test samples; by default all")
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    arguments = parser.parse_args()
    network = load_float(arguments.network, "quantize")
    data = get_task(network.task).load()
    test = Split(*data.test.batch(slice(arguments.limit)))
    signals = calibrate(network, data.train.inputs[:CALIBRATION])
    top = score(run_float(network, test.inputs), test)
    rows: list[list[results.Cell]] = [["float", None, top, None]]
    for slices, bits in UNIFORM:
        made = quantize(network, signals, slices=slices, kernel_slices=slices, kernel_bits=bits)
        memory = sum(memory_of(edge.connection) for edge in edges(made))
        accuracy = score(run(made, test.inputs).outputs, test)
        rows.append([f"uniform {slices} x {bits}", memory / 1024, accuracy, None])
        print(rows[-1], file=sys.stderr)
    for kib in arguments.budgets:
        few = data.validation.inputs[:FEW]
        settings = settings_for(network, "loihi2")
        found = search_widths(network, signals, settings, int(kib * 1024), few, run)
        accuracy = score(run(found.network, test.inputs).outputs, test)
        rows.append([f"budget {kib:g}", found.total / 1024, accuracy, listed(found)])
        print(rows[-1], file=sys.stderr)
    print(f"{len(test):,} test samples.\n")
    results.publish(COLUMNS, rows, arguments)


def run(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    """Run the simulator."""
    return IntegerTarget().run(network, inputs)


def score(outputs: np.ndarray, split: Split) -> float:
    """Return the accuracy in percent."""
    return 100.0 * float(np.mean(outputs.argmax(axis=1) == split.targets))


def listed(found: Widths) -> str:
    """Name each connection's width."""
    return ", ".join(f"{place} {n} x {bits}" for place, (n, bits) in found.widths.items())


if __name__ == "__main__":
    main()
