"""Time the compiled step of a series: engines numba and torch, alternating, in one run.

Both have products of int8; the series itself runs in NumPy on torch, compiled on numba. The network
is the trained one for psMNIST as `sign-taylor`. First whole runs of the simulator, then the series'
step alone on a tile of 256 samples; each result must be equal with ``==``. Prints the least
processor times and their ratios. Needs MNIST (LMU_DEPLOY_DATA) and Numba.

    OMP_NUM_THREADS=1 python benchmarks/series_speed.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import results

from converters.quantize import quantize
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.network import FLOAT_CLASSES
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget
from targets.integer.numba_engine import CompiledSeries
from targets.integer.numpy_engine import series_step

MODEL = Path(__file__).parents[1] / "examples/models/psmnist-lmu.safetensors"
CALIBRATION = 128
TILE = 256
COLUMNS = [
    ("", "{}"),
    ("NumPy's series, engine torch", "{}"),
    ("compiled, engine numba", "{}"),
    ("times as fast", "{:.1f}"),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=TILE)
    parser.add_argument("--repeats", type=int, default=3)
    results.add_options(parser)
    arguments = parser.parse_args()
    network = load(MODEL, FLOAT_CLASSES)
    data = get_task(network.task).load()
    images = data.test.batch(slice(arguments.images))[0]
    integer = quantize(network, data.train.inputs[:CALIBRATION], realization="sign-taylor")
    (memory,) = integer.memories
    assert isinstance(memory, Series)
    print(f"{memory.terms} terms in {memory.substeps} substeps, order {memory.order}")

    runs = [
        lambda engine=engine: IntegerTarget(engine).run(integer, images)
        for engine in ("torch", "numba")
    ]
    (slow, one), (fast, two) = in_turns(runs, arguments.repeats)
    same = np.array_equal(one.outputs, two.outputs) and one.synops == two.synops
    assert same and one.saturations == two.saturations
    rows = [["whole run", f"{slow:.2f} s", f"{fast:.2f} s", slow / fast]]

    m, message, drive = place(memory)
    start = m, message, np.zeros_like(m)
    forms = [series_step(memory), CompiledSeries(memory)]
    steps = [lambda form=form: form(start, drive) for form in forms]
    (slow, one), (fast, two) = in_turns(steps, 10 * arguments.repeats)
    assert all(np.array_equal(a, b) for a, b in zip(one[0], two[0], strict=True))
    name = f"the series' step of {TILE} samples"
    rows.append([name, f"{1e3 * slow:.2f} ms", f"{1e3 * fast:.2f} ms", slow / fast])
    results.publish(COLUMNS, rows, arguments, seed=0)


def place(memory: Series) -> tuple[np.ndarray, ...]:
    """Draw states within a quarter of their limits, with their messages, and drives."""
    rng, shape = np.random.default_rng(0), (TILE, memory.size)
    state = memory.state.limit // 4
    m = rng.integers(-state, state, shape).astype(np.int32)
    drive = rng.integers(-state // 16, state // 16, shape).astype(np.int32)
    message = (m >> memory.message_shift).clip(-memory.message.limit, memory.message.limit)
    return m, message, drive


def in_turns(work: list[Callable], repeats: int) -> list[tuple[float, object]]:
    """Run all in turns; the least processor time of each, and what it gave. The first warms up."""
    rounds = [[timed(one) for one in work] for _ in range(repeats + 1)][1:]
    return [min(times, key=lambda found: found[0]) for times in zip(*rounds, strict=True)]


def timed(work: Callable) -> tuple[float, object]:
    """Run once."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
