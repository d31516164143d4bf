"""Every realization and width of the digital target, beside the float network, on one test set.

For each: accuracy, predictions that differ from the float reference's ("flips"), the relative rms
error of the memory (recorded on the first 32 samples), synapses and saturations. Writes a Markdown
table; what does not fit the chip's widths is listed with the reason.

    python benchmarks/digital.py examples/models/digits.safetensors --save digital/digits
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import results

from converters.quantize import calibrate, quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.core.options import REALIZATIONS
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import Split, get_task
from targets.integer import IntegerTarget

WIDTHS = (4, 6, 8, 10, 12, 16)
RECORDED = 32
CALIBRATION = 512
COLUMNS = [
    ("realization", "{}"),
    ("slices", "{:d}"),
    ("bits", "{:d}"),
    ("accuracy", "{:.2f}"),
    ("flips", "{:d}"),
    ("memory error", "{:.2f}%"),
    ("synapses", "{:,d}"),
    ("saturations", "{:,d}"),
]


@dataclass(frozen=True)
class Reference:
    """Outputs of the float network, and its memory on the first samples."""

    predictions: np.ndarray
    m: np.ndarray
    accuracy: float


def main() -> None:
    """Measure one network and write its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    results.add_options(parser)
    parser.add_argument("--limit", type=int, help="test samples; by default all")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--realizations", nargs="+", default=list(REALIZATIONS))
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    network = load(arguments.network, FLOAT_CLASSES)
    data = get_task(network.task).load()
    test = Split(*data.test.batch(slice(arguments.limit)))
    reference = run_float(network, test)
    signals = calibrate(network, data.train.inputs[:CALIBRATION])
    rows: list[list[results.Cell]] = []
    refused: dict[str, list[int]] = {}
    for realization, slices, bits in configurations(arguments):
        start = time.perf_counter()
        options = {"realization": realization, "slices": slices, "message_bits": bits}
        try:
            integer = quantize(network, signals, input_bits=max(bits, 9), **options)
            measured = measure(integer, test, reference)
        except InputError as error:
            which = f"{realization}, {slices} slice{'s' if slices > 1 else ''}"
            refused.setdefault(f"{which}: {error}", []).append(bits)
            print(f"{which}, {bits} bits: {error}", file=sys.stderr, flush=True)
        else:
            rows.append([realization, slices, bits, *measured])
            print(f"{rows[-1]} {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    print(f"Float {100.0 * reference.accuracy:.2f} % on {len(test.targets):,} test samples.\n")
    results.publish(COLUMNS, rows, arguments)
    for reason, widths in refused.items():
        print(f"- {', '.join(map(str, widths))} bits: {reason}")


def configurations(asked: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Return what is asked for; matrices of a series and a delay line are exact in any width."""
    found = []
    for realization in asked.realizations:
        exact = realization in ("fir", "sign-taylor")
        for number in asked.slices:
            if not exact or number == max(asked.slices):
                found += [(realization, number, bits) for bits in asked.widths]
    return found


def run_float(network: LMUNetwork, test: Split) -> Reference:
    """Run the float reference."""
    predictions = run_reference(network, test.inputs).outputs.argmax(axis=1)
    recorded = run_reference(network, test.inputs[:RECORDED], record=True).m
    assert recorded is not None
    return Reference(predictions, recorded, float(np.mean(predictions == test.targets)))


def measure(integer, test: Split, reference: Reference) -> list[results.Cell]:
    """Run the bit-exact simulator; return the figures of a row."""
    run = IntegerTarget().run(integer, test.inputs)
    states = IntegerTarget().run(integer, test.inputs[:RECORDED], record=True).states
    assert states is not None
    predictions = run.outputs.argmax(axis=1)
    error = np.sqrt(np.sum((states.real_m() - reference.m) ** 2) / np.sum(reference.m**2))
    synapses = sum(int(np.count_nonzero(edge.connection.slices)) for edge in edges(integer))
    accuracy = 100.0 * float(np.mean(predictions == test.targets))
    flips = int(np.sum(predictions != reference.predictions))
    saturations = sum(run.saturations.values())
    return [accuracy, flips, 100.0 * float(error), synapses, saturations]


if __name__ == "__main__":
    main()
