"""Time networks as graphs in float64 and the plain loop over steps, in one run.

The example networks for psMNIST are run on the same images by `lmu_deploy.core.graph.executor.run`,
whose memory is computed in blocks or by its impulse response, and by `lmu_deploy.core.reference`,
which advances every sample step by step. The outputs must agree to 1e-9. Prints seconds, their
ratio, and how much the peak of memory grows between half and all of the images. Needs MNIST
(LMU_DEPLOY_DATA).

    python benchmarks/reference_speed.py --images 1000
    python benchmarks/reference_speed.py --images 10000 --loop-images 1000

With `--parts` the work of the original LMU's reference that no form avoids is timed instead, each
part by itself: the products of a step with feedback, the product with the memory once for a block,
and the hyperbolic tangent.
"""

from __future__ import annotations

import argparse
import resource
import time
import timeit
from pathlib import Path

import numpy as np
import results

from lmu_deploy.core.files import load
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task

MODELS = Path(__file__).parents[1] / "examples/models"
NAMES = ("psmnist-lmu", "psmnist-parallel")
STEPS = 784
COLUMNS = [
    ("network", "{}"),
    ("images", ">{:,}"),
    ("graph, s", ">{:.1f}"),
    ("loop, s", ">{:.1f}"),
    ("times as fast as the loop", ">{:.1f}"),
    ("accuracy", ">{:.2f} %"),
    ("more memory for twice the images, MiB", ">{:.0f}"),
]

PART_COLUMNS = [
    ("part", "{}"),
    ("ns a hidden unit and step", ">{:.2f}"),
    ("GFLOP/s", ">{:.0f}"),
    ("s", ">{:.1f}"),
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
    parser.add_argument("--parts", action="store_true", help="time the parts of the original LMU")
    results.add_options(parser)
    arguments = parser.parse_args()
    if arguments.parts:
        results.publish(PART_COLUMNS, parts(arguments.images), arguments)
        return
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


def parts(images: int, samples: int = 400) -> list[list[results.Cell]]:
    """Time the parts of the original LMU, by themselves; return rows of a table for `images`."""
    layers = load(MODELS / f"{NAMES[0]}.safetensors", FLOAT_CLASSES)
    assert isinstance(layers, LMUNetwork)
    (lmu, *_) = [node.operator for node in Network.from_layers(layers).nodes]
    units, order, length = lmu.n_out, lmu.memory.size, 16
    rng = np.random.default_rng(0)
    h, z = rng.normal(size=(units, samples)), rng.normal(size=(units, samples))
    m, block = rng.normal(size=(order, samples)), np.empty((length * units, samples))
    step, memory = rng.normal(size=(units, units)), rng.normal(size=(length * units, order))
    tanh = Activation("tanh")
    works = [
        ("product with the hidden units, each step", 1, 2 * units, lambda: np.matmul(step, h, z)),
        ("product with the memory, each block", length, 2 * order, lambda: memory.dot(m, block)),
        ("hyperbolic tangent, as it is computed", 1, None, lambda: tanh.fill(h, z)),
        ("hyperbolic tangent of NumPy", 1, None, lambda: np.tanh(h, out=z)),
    ]
    rows: list[list[results.Cell]] = []
    for name, steps, operations, work in works:
        least = min(timeit.repeat(work, number=1, repeat=1000 // steps))
        each = least / (steps * z.size) * 1e9
        rate = None if operations is None else operations / each
        rows.append([name, each, rate, each * 1e-9 * units * STEPS * images])
    return rows


def peak() -> float:
    """Return the most memory that this process has used, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
