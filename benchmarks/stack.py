"""Train the stack for psMNIST with several seeds, and tabulate what the networks reach.

    python benchmarks/stack.py FOLDER --seeds 0 1 --save paper/stack

A network that is in the folder already is not trained again, and an interrupted training goes on
from its checkpoint. The test accuracy is that of the float64 reference on all 10,000 images, once
for each network; the epoch was chosen by the validation part.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import results

from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.loading import load_float
from lmu_deploy.tasks.base import get_task
from lmu_deploy.training import train

TASK = "psmnist-nru"
COLUMNS = [
    ("seed", ">{:d}"),
    ("parameters", ">{:,d}"),
    ("epochs", ">{:d}"),
    ("best epoch", ">{:d}"),
    ("validation, %", ">{:.2f}"),
    ("test, %", ">{:.2f}"),
]


def trained(folder: Path, seed: int) -> Network:
    """Return the network of a seed from the folder, trained if it is not there."""
    path = folder / f"psmnist-stack-{seed}.safetensors"
    if not path.is_file():
        checkpoint = folder / f"psmnist-stack-{seed}.ckpt"
        train(TASK, "stack", seed=seed, out=path, checkpoint=checkpoint)
    return load_float(path, "the benchmark")


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    results.add_options(parser)
    options = parser.parse_args()
    task = get_task(TASK)
    test = task.load().test
    inputs, _ = test.batch(slice(None))
    rows: list[list[results.Cell]] = []
    for seed in options.seeds:
        network = trained(options.folder, seed)
        figures = json.loads(network.provenance["figures"])
        reached = task.score(run(network, inputs), test.targets)
        rows.append(
            [
                seed,
                network.n_parameters,
                int(figures["epochs"]),
                int(figures["best_epoch"]),
                100 * figures["validation_accuracy"],
                100 * reached,
            ]
        )
    results.publish(COLUMNS, rows, options)


if __name__ == "__main__":
    main()
