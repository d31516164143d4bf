"""How fast the twin is, beside Lava and beside float32 inference in PyTorch, in one run.

The same psMNIST network everywhere: trained, quantised with two slices. Twin and PyTorch go through
the same images in turn, several times, and the least time of each counts; Lava goes through one
image whole and through a quarter of it, and the difference is what its steps take without a start.
Wall-clock ratios are what a user sees; those of processor time say what they would be on a machine
that does nothing else. Prints a Markdown table. Needs MNIST (LMU_DEPLOY_DATA).

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
import torch

from converters.quantise import quantise
from converters.trainer import to_torch
from lmu_deploy.files import load
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget
from targets.lava import LavaTarget

MODEL = Path(__file__).parents[1] / "examples/models/psmnist-lmu.safetensors"
CALIBRATION = 128


@dataclass(frozen=True)
class Times:
    """Seconds on the clock, and of all processors, children's included."""

    wall: float
    processor: float

    def __sub__(self, other: Times) -> Times:
        """Give the time between."""
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
    parser.add_argument("--skip-lava", action="store_true")
    arguments = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    if threads:
        torch.set_num_threads(threads)
    network = load(MODEL, FLOAT_CLASSES)
    data = get_task(network.task).load()
    images = data.test.batch(slice(arguments.images))[0]
    integer = quantise(network, data.train.inputs[:CALIBRATION])
    steps = images.shape[1]
    twin, floating = twin_and_float(network, integer, images, arguments.repeats)
    sample_steps = len(images) * steps
    print("| | sample-steps a second | a processor-second |\n|---|---|---|")
    show("twin", sample_steps, twin)
    show("float32 in PyTorch", sample_steps, floating)
    if not arguments.skip_lava:
        lava = lava_steps(integer, images)
        show("Lava, without its start", steps - steps // 4, lava)
        print(f"\nTwin over Lava: {ratio(sample_steps, twin, steps - steps // 4, lava)}.")
    print(f"\nTwin's time over float32's: {ratio(1, floating, 1, twin)}.")
    print(f"\n{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}.")


def twin_and_float(
    network: LMUNetwork, integer: IntegerNetwork, images: np.ndarray, repeats: int
) -> tuple[Times, Times]:
    """Run both in turn; least times. The first round warms up."""
    model, x = to_torch(network, torch.float32).eval(), torch.from_numpy(images.astype(np.float32))
    target = IntegerTarget("torch")

    def infer() -> None:
        with torch.inference_mode():
            for part in x.split(256):
                model(part)

    rounds = [
        (timed(lambda: target.run(integer, images)), timed(infer)) for _ in range(repeats + 1)
    ]
    twins, floats = zip(*rounds[1:], strict=True)
    return best(list(twins)), best(list(floats))


def lava_steps(integer: IntegerNetwork, images: np.ndarray) -> Times:
    """Time that three quarters of an image's steps take."""
    target, steps = LavaTarget(), images.shape[1]
    short = timed(lambda: target.run(integer, images[:1, : steps // 4]))
    return timed(lambda: target.run(integer, images[:1])) - short


def show(name: str, count: int, times: Times) -> None:
    """Print a row."""
    print(f"| {name} | {count / times.wall:,.0f} | {count / times.processor:,.0f} |", flush=True)


def ratio(count: int, times: Times, other_count: int, other: Times) -> str:
    """How many times faster the first is, on both clocks."""
    more = count / other_count
    wall, processor = more * other.wall / times.wall, more * other.processor / times.processor
    return f"{wall:,.2f} on the clock, {processor:,.2f} in processor time"


if __name__ == "__main__":
    main()
