"""Time the simulator, Lava, and float32 inference in PyTorch, in one run.

The same psMNIST network everywhere: trained, quantized with two slices. Simulator and PyTorch go
through the same images in turn, several times, and the least time of each counts; Lava goes through
one image whole and through a quarter of it, and the difference is what its steps take without a
start. PyTorch runs twice: in the fastest form that the layer has, which goes through many steps of
the linear memory at once, as no rounded memory can, and in a plain loop over steps, as the
simulator does. Wall-clock ratios are what a user sees; those of processor time say what they would
be on a machine that does nothing else. Prints a Markdown table. Needs MNIST (LMU_DEPLOY_DATA).

    OMP_NUM_THREADS=1 python benchmarks/digital_speed.py
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import results
import torch

from converters.quantize import quantize
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.nn.convert import to_sequence_model
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget
from targets.integer.engine import ENGINES
from targets.lava import LavaTarget

MODEL = Path(__file__).parents[1] / "examples/models/psmnist-lmu.safetensors"
CALIBRATION = 128
COLUMNS = [
    ("", "{}"),
    ("threads", ">{:d}"),
    ("sample-steps a second", ">{:,.0f}"),
    ("a processor-second", ">{:,.0f}"),
    ("time of the simulator over this one's", ">{:.3g}"),
    ("in processor time", ">{:.3g}"),
]


@dataclass(frozen=True)
class Times:
    """Seconds on the clock, and of all processors, children's included."""

    wall: float
    processor: float

    def __sub__(self, other: Times) -> Times:
        """Return the time between."""
        return Times(self.wall - other.wall, self.processor - other.processor)


def now() -> Times:
    """Read the clocks."""
    ours, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    used = ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime
    return Times(time.perf_counter(), used)


def timed(work: Callable[[], object]) -> Times:
    """Run once."""
    start = now()
    work()
    return now() - start


def best(rounds: list[Times]) -> Times:
    """Return the least of each clock."""
    return Times(min(t.wall for t in rounds), min(t.processor for t in rounds))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", choices=ENGINES[1:], default="numba", help="of the simulator")
    parser.add_argument("--skip-lava", action="store_true")
    results.add_options(parser)
    arguments = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    if threads:
        torch.set_num_threads(threads)
    network = load(MODEL, FLOAT_CLASSES)
    data = get_task(network.task).load()
    images = data.test.batch(slice(arguments.images))[0]
    integer = quantize(network, data.train.inputs[:CALIBRATION])
    steps = images.shape[1]
    target = IntegerTarget(arguments.engine)
    simulator, fastest, loop = simulator_and_float(
        network, target, integer, images, arguments.repeats
    )
    sample_steps = len(images) * steps
    measured = [
        (f"integer, engine {arguments.engine}", sample_steps, simulator),
        ("float32 in PyTorch, fastest form", sample_steps, fastest),
        ("float32 in PyTorch, plain loop", sample_steps, loop),
    ]
    if not arguments.skip_lava:
        whole, part = lava_times(integer, images)
        measured.append(("Lava, its start included", steps, whole))
        measured.append(("Lava, without its start", steps - steps // 4, part))
    rows = [row(*each, sample_steps, simulator) for each in measured]
    results.publish(COLUMNS, rows, arguments)


def simulator_and_float(
    network: LMUNetwork,
    target: IntegerTarget,
    integer: IntegerNetwork,
    images: np.ndarray,
    repeats: int,
) -> tuple[Times, ...]:
    """Run the simulator and both float forms in turn; least times. The first round warms up."""
    x = torch.from_numpy(images.astype(np.float32))
    models = [to_sequence_model(network, torch.float32) for _ in range(2)]
    for layer in models[1].layers:
        layer.form = "step"

    def infer(model: torch.nn.Module) -> None:
        with torch.inference_mode():
            for part in x.split(256):
                model(part)

    work: list[Callable[[], object]] = [
        lambda: target.run(integer, images),
        lambda: infer(models[0]),
        lambda: infer(models[1]),
    ]
    rounds = [[timed(one) for one in work] for _ in range(repeats + 1)]
    return tuple(best(list(times)) for times in zip(*rounds[1:], strict=True))


def lava_times(integer: IntegerNetwork, images: np.ndarray) -> tuple[Times, Times]:
    """Time an image, and what the last three quarters of its steps take."""
    target, steps = LavaTarget(), images.shape[1]
    short = timed(lambda: target.run(integer, images[:1, : steps // 4]))
    whole = timed(lambda: target.run(integer, images[:1]))
    return whole, whole - short


def row(name: str, count: int, times: Times, ours: int, simulator: Times) -> list[results.Cell]:
    """Return a row of the table; `ours` sample-steps took the simulator as long as it says."""
    threads = int(torch.get_num_threads())
    wall, processor = count / times.wall, count / times.processor
    ratios = wall * simulator.wall / ours, processor * simulator.processor / ours
    return [name, threads, wall, processor, *ratios]


if __name__ == "__main__":
    main()
