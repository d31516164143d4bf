"""Measure memories as a series of signs: the speed of their compiled step, and possible plans.

``speed`` times engines numba and torch, alternating, in one run. Both have products of int8; the
series itself runs in NumPy on torch, compiled on numba. The network is the trained one for psMNIST
as `sign-taylor`. First whole runs of the simulator, then the series' step alone on a tile of 256
samples; each result must be equal with ``==``. Prints the least processor times and their ratios.
Needs Numba.

``plans`` computes error and largest term of a trained memory for each number of terms and substeps.
`quantize` takes the plan of fewest applications that errs by at most 2^-6 and has no term more than
twice as large as the states. Where it refuses a memory, this shows what each plan misses. Ranges
are those of 64 calibration samples. Both need MNIST (LMU_DEPLOY_DATA).

    OMP_NUM_THREADS=1 python benchmarks/series.py speed
    python benchmarks/series.py plans examples/models/psmnist-parallel.safetensors 4x16 8x8 4x20
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import results

from converters.quantize import calibrate, quantize
from converters.quantize.sign_taylor import _simulate, series_error
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import FLOAT_CLASSES, default_names
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget
from targets.integer.numba_engine import CompiledSeries
from targets.integer.numpy_engine import series_step

MODEL = Path(__file__).parents[1] / "examples/models/psmnist-lmu.safetensors"
CALIBRATION = 128
PLAN_CALIBRATION, WINDOWS = 64, 4
TILE = 256
COLUMNS = [
    ("", "{}"),
    ("NumPy's series, engine torch", "{}"),
    ("compiled, engine numba", "{}"),
    ("times as fast", "{:.1f}"),
]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    speed = commands.add_parser("speed", help="time the compiled step")
    speed.add_argument("--images", type=int, default=TILE)
    speed.add_argument("--repeats", type=int, default=3)
    results.add_options(speed)
    speed.set_defaults(measure=measure_speed)
    plans = commands.add_parser("plans", help="print a row for each plan")
    plans.add_argument("network", type=Path)
    plans.add_argument("plans", nargs="+", help="terms x substeps, such as 4x16")
    plans.set_defaults(measure=print_plans)
    arguments = parser.parse_args()
    arguments.measure(arguments)


def measure_speed(arguments: argparse.Namespace) -> None:
    """Measure and print."""
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
    (slow, one), (fast, two) = alternate(runs, arguments.repeats)
    same = np.array_equal(one.outputs, two.outputs) and one.synops == two.synops
    assert same and one.saturations == two.saturations
    rows = [["whole run", f"{slow:.2f} s", f"{fast:.2f} s", slow / fast]]

    m, message, drive = place(memory)
    start = m, message, np.zeros_like(m)
    forms = [series_step(memory), CompiledSeries(memory)]
    steps = [lambda form=form: form(start, drive) for form in forms]
    (slow, one), (fast, two) = alternate(steps, 10 * arguments.repeats)
    assert all(np.array_equal(a, b) for a, b in zip(one[0], two[0], strict=True))
    name = f"the series' step of {TILE} samples"
    rows.append([name, f"{1e3 * slow:.2f} ms", f"{1e3 * fast:.2f} ms", slow / fast])
    results.publish(COLUMNS, rows, arguments, seed=0)


def print_plans(arguments: argparse.Namespace) -> None:
    """Try each plan; print a row."""
    network = load(arguments.network, FLOAT_CLASSES)
    layer = network.layers[0]
    memory = layer.memory
    signals = calibrate(network, get_task(network.task).load().train.inputs[:PLAN_CALIBRATION])
    states = signals[Place(default_names(len(network.layers))[0], "memory")]
    steps = math.ceil(WINDOWS * memory.theta)
    truth = impulse_response(memory.a_bar.astype(float), memory.b_bar.astype(float), steps)
    print(
        "| terms | substeps | applications | error | largest term, in states |\n" + "|---" * 5 + "|"
    )
    for plan in arguments.plans:
        terms, substeps = map(int, plan.split("x"))
        error = series_error(memory, terms, substeps, truth)
        largest = max(_simulate(layer, states, terms, substeps).terms) / states.largest
        row = (terms, substeps, terms * substeps, f"{error:.1e}", f"{largest:.3g}")
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def place(memory: Series) -> tuple[np.ndarray, ...]:
    """Draw states within a quarter of their limits, with their messages, and drives."""
    rng, shape = np.random.default_rng(0), (TILE, memory.size)
    state = memory.state.limit // 4
    m = rng.integers(-state, state, shape).astype(np.int32)
    drive = rng.integers(-state // 16, state // 16, shape).astype(np.int32)
    message = (m >> memory.message_shift).clip(-memory.message.limit, memory.message.limit)
    return m, message, drive


def alternate(work: list[Callable], repeats: int) -> list[tuple[float, object]]:
    """Run all alternately; return the least processor time of each, and its result.

    The first round is not counted.
    """
    rounds = [[timed(one) for one in work] for _ in range(repeats + 1)][1:]
    return [min(times, key=lambda found: found[0]) for times in zip(*rounds, strict=True)]


def timed(work: Callable) -> tuple[float, object]:
    """Run once."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
