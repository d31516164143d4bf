"""How fast the simulator is, beside Lava and beside float32 inference in PyTorch, in one run.

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
COLUMNS = [("", "{}"), ("sample-steps a second", "{:,.0f}"), ("a processor-second", "{:,.0f}")]


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
    """Least of each clock."""
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
    rows = [
        row(f"integer, engine {arguments.engine}", sample_steps, simulator),
        row("float32 in PyTorch, fastest form", sample_steps, fastest),
        row("float32 in PyTorch, plain loop", sample_steps, loop),
    ]
    if not arguments.skip_lava:
        whole, part = lava_times(integer, images)
        rows.append(row("Lava, its start included", steps, whole))
        rows.append(row("Lava, without its start", steps - steps // 4, part))
        for what, count, times in (
            ("start included", steps, whole),
            ("without its start", steps - steps // 4, part),
        ):
            faster = ratio(sample_steps, simulator, count, times)
            print(f"\nSimulator over Lava, {what}: {faster}.")
    print(f"\nSimulator's time over float32's fastest form: {ratio(1, fastest, 1, simulator)}.")
    print(f"\nSimulator's time over float32's plain loop: {ratio(1, loop, 1, simulator)}.")
    print(f"\n{torch.get_num_threads()} threads.\n")
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


def row(name: str, count: int, times: Times) -> list[results.Cell]:
    """Return a row of the table."""
    return [name, count / times.wall, count / times.processor]


def ratio(count: int, times: Times, other_count: int, other: Times) -> str:
    """How many times faster the first is, on both clocks."""
    more = count / other_count
    wall, processor = more * other.wall / times.wall, more * other.processor / times.processor
    return f"{wall:,.2f} on the clock, {processor:,.2f} in processor time"


if __name__ == "__main__":
    main()
