"""Every realization and width of the digital target, beside the float network, on one test set.

For each: accuracy, predictions that differ from the float reference's ("flips"), the relative rms
error of the memory (recorded on the first 32 samples), synapses and saturations. Writes a Markdown
table; what does not fit the chip's widths is listed with the reason.

    python benchmarks/digital.py examples/models/digits.safetensors --out docs/results/digital.md
    python benchmarks/digital.py examples/models/psmnist-lmu.safetensors --limit 500 --append \
        --out docs/results/digital.md
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.quantize import calibrate, quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.layers import REALIZATIONS
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import Split, get_task
from targets.integer import IntegerTarget

WIDTHS = (4, 6, 8, 10, 12, 16)
RECORDED = 32
CALIBRATION = 512
HEAD = """| realization | slices | bits | accuracy | flips | memory error | synapses | saturations |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Reference:
    """What the float network answers, and its memory on the first samples."""

    predictions: np.ndarray
    m: np.ndarray
    accuracy: float


def main() -> None:
    """Measure one network and write its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="test samples; by default all")
    parser.add_argument("--append", action="store_true", help="keep what the file holds")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--realizations", nargs="+", default=list(REALIZATIONS))
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    network = load(arguments.network, FLOAT_CLASSES)
    data = get_task(network.task).load()
    test = Split(*data.test.batch(slice(arguments.limit)))
    reference = run_float(network, test)
    signals = calibrate(network, data.train.inputs[:CALIBRATION])
    before = arguments.out.read_text() if arguments.append and arguments.out.exists() else HEADING
    rows: list[str] = []
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
            rows.append(f"| {realization} | {slices} | {bits} | {measured} |")
            print(f"{rows[-1]} {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        # after every row, so that an interrupted run keeps the finished rows
        text = section(arguments.network.stem, network, test, reference, rows, refused)
        arguments.out.write_text(before + text)


def configurations(asked: argparse.Namespace) -> list[tuple[str, int, int]]:
    """All that is asked for; a series' and a delay line's matrices are exact in any width."""
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


def measure(integer, test: Split, reference: Reference) -> str:
    """Run the simulator; give a row's figures."""
    run = IntegerTarget().run(integer, test.inputs)
    states = IntegerTarget().run(integer, test.inputs[:RECORDED], record=True).states
    assert states is not None
    predictions = run.outputs.argmax(axis=1)
    error = np.sqrt(np.sum((states.real_m() - reference.m) ** 2) / np.sum(reference.m**2))
    synapses = sum(int(np.count_nonzero(edge.connection.slices)) for edge in edges(integer))
    accuracy = 100.0 * np.mean(predictions == test.targets)
    flips = int(np.sum(predictions != reference.predictions))
    saturations = sum(run.saturations.values())
    return f"{accuracy:.2f} | {flips} | {error:.2%} | {synapses:,} | {saturations:,}"


HEADING = """# Digital target: realizations and widths

Accuracy in %, after training, no retraining. Flips are predictions that differ from the float
reference's. The memory error is rms, relative to the float memory, over the first 32 samples and
all steps. Bits are those of memory messages; input messages have as many and at least 9, hidden
messages 8. Synapses are weights that are not zero, of all slices of the whole network. Saturations
are of all samples and steps. Made by `benchmarks/digital.py`.
"""


def section(
    name: str,
    network: LMUNetwork,
    test: Split,
    reference: Reference,
    rows: list[str],
    refused: dict[str, list[int]],
) -> str:
    """Write one network's part."""
    memory = ", ".join(
        f"{layer.memory.channels} x order {layer.memory.order}, theta {layer.memory.theta:g}"
        for layer in network.layers
    )
    title = f"\n## {name}: {memory}\n\nFloat {100.0 * reference.accuracy:.2f} % on "
    text = f"{title}{len(test.targets):,} test samples.\n\n" + "\n".join([HEAD, *rows]) + "\n"
    if refused:
        lines = (f"- {', '.join(map(str, b))} bits: {reason}" for reason, b in refused.items())
        text += "\nNot possible:\n\n" + "\n".join(lines) + "\n"
    return text


if __name__ == "__main__":
    main()
