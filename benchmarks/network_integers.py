"""Networks in integers on their whole test sets, beside float64.

The networks that the authors of the LMU and of keras-lmu published (in $LMU_DEPLOY_DATA/published),
the hybrid and the stack of examples/models, quantized after training: with the defaults, with one
slice, and hybrids with wide hidden messages. Flips are predictions that differ from those of
float64; a difference is in points of accuracy, or relative to the NRMSE of float64.

    python benchmarks/network_integers.py --save digital/networks
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

MODELS = Path(__file__).parents[1] / "examples/models"
PUBLISHED = {
    "psMNIST-standard": "psmnist-nru",
    "psMNIST-weights": "psmnist",
    "hybrid-mackey-glass": "mackey-glass",
    "lstm-mackey-glass": "mackey-glass",
}
EXAMPLES = ("psmnist-stack", "mackey-glass-hybrid")
DEFAULTS: dict[str, dict[str, int]] = {"defaults": {}}
CLASSIFIED = DEFAULTS | {"one slice": {"slices": 1}}
REGRESSED = DEFAULTS | {"hidden messages of 16 bits": {"hidden_bits": 16}}
CALIBRATION = {"classification": 512, "regression": 64}
BATCH = 500
COLUMNS = [
    ("network", "{}"),
    ("task", "{}"),
    ("integers", "{}"),
    ("samples", ">{:,d}"),
    ("metric", "{}"),
    ("float", ">{:.2f} %"),
    ("integer", ">{:.2f} %"),
    ("difference", ">{}"),
    ("flips", ">{:d}"),
    ("saturations", ">{:,d}"),
]


def load(name: str) -> tuple[Network, str]:
    """Return a network and the name of its task."""
    if name in PUBLISHED:
        folder = Path(os.environ.get("LMU_DEPLOY_DATA", ".")) / "published"
        return ld.import_network(folder / f"{name}.hdf5"), PUBLISHED[name]
    network = ld.load(MODELS / f"{name}.safetensors")
    assert isinstance(network, Network)
    return network, str(network.task)


def measure(name: str, limit: int | None) -> list[list[results.Cell]]:
    """Return the rows of a network."""
    network, task_name = load(name)
    task = get_task(task_name)
    data = task.load()
    signals = calibrate(network, data.train.inputs[: CALIBRATION[task.kind]])
    inputs, targets = data.test.batch(slice(limit))
    parts = [slice(first, first + BATCH) for first in range(0, len(inputs), BATCH)]
    truth = np.concatenate([run(network, inputs[part]) for part in parts])
    before = 100.0 * task.score(truth, targets)
    rows: list[list[results.Cell]] = []
    classifies = task.kind == "classification"
    for form, options in (CLASSIFIED if classifies else REGRESSED).items():
        integer = quantize(network, signals, **options)
        assert not integer.on_host
        runs = [IntegerTarget().run(integer, inputs[part]) for part in parts]
        outputs = np.concatenate([each.outputs for each in runs])
        after = 100.0 * task.score(outputs, targets)
        if classifies:
            difference = f"{after - before:+.2f} points"
            flips = int((outputs.argmax(axis=-1) != truth.argmax(axis=-1)).sum())
        else:
            difference, flips = f"{100.0 * (after / before - 1.0):+.2f} %", None
        clipped = sum(sum(each.saturations.values()) for each in runs)
        row: list[results.Cell] = [name, task_name, form, len(inputs), task.metric, before]
        rows.append([*row, after, difference, flips, clipped])
        print(*rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=[*PUBLISHED, *EXAMPLES])
    parser.add_argument("--limit", type=int, help="test samples; by default all")
    results.add_options(parser)
    arguments = parser.parse_args()
    rows = [row for name in arguments.networks for row in measure(name, arguments.limit)]
    results.publish(COLUMNS, rows, arguments)


if __name__ == "__main__":
    main()
