"""Accuracy of psMNIST networks in integers on all test images, beside float64.

The networks that the authors of the LMU and of keras-lmu published (in $LMU_DEPLOY_DATA/published)
and the stack of examples/models, quantized after training with the defaults and with one slice.
Flips are predictions that differ from those of float64.

    python benchmarks/psmnist_integers.py --save digital/psmnist-integers
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import results

import lmu_deploy as ld
from converters.quantize import calibrate, quantize
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget

STACK = Path(__file__).parents[1] / "examples/models/psmnist-stack.safetensors"
PUBLISHED = {"psMNIST-standard": "psmnist-nru", "psMNIST-weights": "psmnist"}
FORMS: dict[str, dict[str, int]] = {"defaults (two slices)": {}, "one slice": {"slices": 1}}
CALIBRATION = 512
BATCH = 500
COLUMNS = [
    ("network", "{}"),
    ("task", "{}"),
    ("integers", "{}"),
    ("images", ">{:,d}"),
    ("float", ">{:.2f} %"),
    ("integer", ">{:.2f} %"),
    ("difference", ">{:+.2f} points"),
    ("flips", ">{:d}"),
    ("saturations", ">{:,d}"),
]


def networks(names: list[str]) -> list[tuple[str, Network, str]]:
    """Return name, network and task of the networks that are there."""
    found = []
    folder = Path(os.environ.get("LMU_DEPLOY_DATA", ".")) / "published"
    for name, task in PUBLISHED.items():
        found.append((name, ld.import_network(folder / f"{name}.hdf5"), task))
    stack = ld.load(STACK)
    assert isinstance(stack, Network)
    found.append((STACK.stem, stack, str(stack.task)))
    return [item for item in found if not names or item[0] in names]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=[])
    parser.add_argument("--limit", type=int, help="test images; by default all")
    results.add_options(parser)
    arguments = parser.parse_args()
    rows: list[list[results.Cell]] = []
    for name, network, task in networks(arguments.networks):
        data = get_task(task).load()
        signals = calibrate(network, data.train.inputs[:CALIBRATION])
        inputs, targets = data.test.batch(slice(arguments.limit))
        parts = [slice(first, first + BATCH) for first in range(0, len(inputs), BATCH)]
        truth = np.concatenate([run(network, inputs[part]).argmax(axis=-1) for part in parts])
        accuracy = 100.0 * float((truth == targets).mean())
        print(f"{name}: float {accuracy:.2f} %", flush=True)
        for form, options in FORMS.items():
            integer = quantize(network, signals, **options)
            runs = [IntegerTarget().run(integer, inputs[part]) for part in parts]
            found = np.concatenate([each.outputs.argmax(axis=-1) for each in runs])
            value = 100.0 * float((found == targets).mean())
            flips = int((found != truth).sum())
            clipped = sum(sum(each.saturations.values()) for each in runs)
            row: list[results.Cell] = [name, task, form, len(inputs), accuracy, value]
            rows.append([*row, value - accuracy, flips, clipped])
            print(*rows[-1], flush=True)
    results.publish(COLUMNS, rows, arguments)


if __name__ == "__main__":
    main()
