"""Time networks as graphs in float64 and the plain loop over steps, in one run.

The example networks for psMNIST are run on the same images by `lmu_deploy.core.graph.executor.run`,
whose memory goes by blocks or by its impulse response, and by `lmu_deploy.core.reference`, which
advances every sample step by step. The outputs must agree to 1e-9. Prints seconds, their ratio, and
how much the peak of memory grows between half and all of the images. Needs MNIST
(LMU_DEPLOY_DATA).

    python benchmarks/reference_speed.py --images 1000
    python benchmarks/reference_speed.py --images 10000 --loop-images 1000
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import results

from lmu_deploy.core.files import load
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task

MODELS = Path(__file__).parents[1] / "examples/models"
NAMES = ("psmnist-lmu", "psmnist-parallel")
COLUMNS = [
    ("network", "{}"),
    ("images", ">{:,}"),
    ("graph, s", ">{:.1f}"),
    ("loop, s", ">{:.1f}"),
    ("times as fast as the loop", ">{:.1f}"),
    ("accuracy", ">{:.2f} %"),
    ("more memory for twice the images, MiB", ">{:.0f}"),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument(
        "--loop-images",
        type=int,
        help="images for the plain loop, whose seconds are scaled to --images (default: all)",
    )
    results.add_options(parser)
    arguments = parser.parse_args()
    rows = [measure(name, arguments.images, arguments.loop_images) for name in NAMES]
    results.publish(COLUMNS, rows, arguments)


def measure(name: str, images: int, loop_images: int | None) -> list[results.Cell]:
    """Run one network in both ways; return a row of the table."""
    layers = load(MODELS / f"{name}.safetensors", FLOAT_CLASSES)
    assert isinstance(layers, LMUNetwork)
    assert layers.task is not None
    inputs, labels = get_task(layers.task).load().test.batch(slice(images))
    network = Network.from_layers(layers)
    run(network, inputs[: images // 2])
    before = peak()
    start = time.perf_counter()
    outputs = run(network, inputs)
    fast = time.perf_counter() - start
    grown = peak() - before
    few = inputs[:loop_images]
    start = time.perf_counter()
    loop = run_reference(layers, few).outputs
    slow = (time.perf_counter() - start) * len(inputs) / len(few)
    np.testing.assert_allclose(outputs[: len(few)], loop, atol=1e-9)
    accuracy = 100.0 * float((outputs.argmax(axis=1) == labels).mean())
    return [name, len(inputs), fast, slow, slow / fast, accuracy, grown]


def peak() -> float:
    """Return the most memory that this process has used, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
