"""Every executor of integer networks beside every other: all integers are compared with ``==``.

The simulator in each of its engines, ONNX Runtime on the integer graph, the compiled C code and
Lava run the same inputs, and every state of every population at every step is compared, events,
synaptic operations and saturations as well (the C code saturates without counting). The networks:
permuted MNIST in every realization; those that the authors of the LMU and of keras-lmu published
(in $LMU_DEPLOY_DATA/published); the other examples; networks in the code of other authors
(LMUFormer among them) with the recorded weights of the tests; memories of random weights where none
is trained; an LMU with a GRU as its hidden cell; every operator alone; graphs that hypothesis
draws. Prints a Markdown table; the exit code is 1 if anything differs.

    python benchmarks/equality.py --save digital/equality
    python benchmarks/equality.py --only "psmnist-lmu, schur" --images 2
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import operators
import results

import lmu_deploy as ld
from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import GRU, SimpleRNN
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import Memory
from lmu_deploy.tasks.base import get_task
from targets.base import Run, Target
from targets.c import CTarget
from targets.integer import IntegerTarget
from targets.lava import LavaTarget
from targets.onnxruntime import OnnxRuntimeTarget

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from equal_runs import differences

MODELS = Path(__file__).parents[1] / "examples/models"
CALIBRATION = 128
ENGINES = ("torch", "numba")
STEPS_OF_A_SERIES = 500
COLUMNS = [
    ("network", "{}"),
    ("form", "{}"),
    ("samples x steps", "{}"),
    ("integers compared", ">{:,d}"),
    ("integer", "{}"),
    ("onnxruntime", "{}"),
    ("c", "{}"),
    ("lava", "{}"),
]
Networks = Callable[[], Iterator[tuple[IntegerNetwork, np.ndarray]]]


@dataclass(frozen=True)
class Case:
    """Networks with inputs, that make one row.

    Attributes
    ----------
    name, form : str
    networks : callable
        Yields integer networks and inputs, shape (samples, steps, n_in).
    on_lava : int or None
        Most networks that Lava runs, because it is slow; all by default.
    """

    name: str
    form: str
    networks: Networks
    on_lava: int | None = None


def cases(images: int) -> Iterator[Case]:
    """Yield all cases, with that many samples of each trained network."""
    forms: dict[str, dict[str, object]] = {
        "1 slice": {"slices": 1},
        "2 slices": {"slices": 2},
        "3 slices": {"slices": 3},
        "schur": {"realization": "schur"},
        "hessenberg": {"realization": "hessenberg"},
        "sign-taylor": {"realization": "sign-taylor"},
    }
    for form, options in forms.items():
        yield Case("psmnist-lmu", form, partial(example, "psmnist-lmu", images, options))
    options = {"realization": "fir"}
    yield Case("psmnist-parallel", "fir", partial(example, "psmnist-parallel", images, options))
    for name in ("psMNIST-standard", "psMNIST-weights", "hybrid-mackey-glass", "lstm-mackey-glass"):
        yield Case(name, "published", partial(published, name, images))
    for name in ("psmnist-stack", "spoken-digits", "mackey-glass-hybrid", "mackey-glass-lmu"):
        yield Case(name, "example", partial(example, name, images, {}))
    yield Case("networks of other authors", "LMUFormer and six others", others)
    for order in (32, 64):
        yield Case(f"order {order} of random weights", "sign-taylor", partial(a_series, order, 4))
    yield Case("LMU with GRU units, random weights", "defaults", gru_hybrid)
    yield Case("every operator alone, random weights", "defaults", alone)
    yield Case("200 graphs that hypothesis draws", "all", partial(drawn, 200), 20)


def row_of(case: Case) -> tuple[list[results.Cell], bool]:
    """Run a case everywhere; return its row, and whether all results are equal."""
    start = time.perf_counter()
    made = list(case.networks())
    expected = [IntegerTarget("numpy").run(network, x, record=True) for network, x in made]
    engines, equal = ["numpy"], True
    for engine in ENGINES:
        target = IntegerTarget(engine)
        said, same = compared(target, made, expected)
        engines.append(f"{engine} {said}" if said != "equal" else engine)
        equal = equal and same
    cells: list[results.Cell] = [", ".join(engines) + (": equal" if equal else "")]
    for target in (OnnxRuntimeTarget(), CTarget()):
        said, same = compared(target, made, expected)
        cells.append(said)
        equal = equal and same
    some = made[: case.on_lava]
    said, same = compared(LavaTarget(), some, expected[: len(some)])
    cells.append(said if len(some) == len(made) else f"{len(some)} of {len(made)}: {said}")
    integers = sum(sum(part.size for part in states(each)) for each in expected)
    shapes = dict.fromkeys(f"{len(x)} x {x.shape[1]}" for _, x in made)
    shape = next(iter(shapes)) if len(shapes) == 1 else "several"
    print(f"{case.name}, {case.form}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return [case.name, case.form, shape, integers, *cells], equal and same


def compared(
    target: Target, made: list[tuple[IntegerNetwork, np.ndarray]], expected: list[Run]
) -> tuple[str, bool]:
    """Run networks on a target; return what to say, and whether all it can run are equal."""
    able, found = 0, []
    if isinstance(target, LavaTarget):
        runs = target.run_each(made, record=True)
    for number, ((network, x), truth) in enumerate(zip(made, expected, strict=True)):
        try:
            theirs = (
                runs[number]
                if isinstance(target, LavaTarget)
                else target.run(network, x, record=True)
            )
        except InputError:  # an engine whose integers are too narrow for this network
            continue
        able += 1
        found += differences(truth, theirs)
    if isinstance(target, CTarget):
        found = [name for name in found if name != "saturations"]
    if found:
        return f"DIFFERS: {', '.join(found[:3])}", False
    return "equal" if able == len(made) else f"({able} of {len(made)}) equal", True


def states(run_: Run) -> list[np.ndarray]:
    """Return all recorded integers of a run."""
    assert run_.states is not None
    return list(run_.states.parts.values())


def example(
    name: str, samples: int, options: dict[str, object]
) -> Iterator[tuple[IntegerNetwork, np.ndarray]]:
    """Yield a network of examples/models, quantized with `options`, and test samples."""
    yield from on_task(ld.load(MODELS / f"{name}.safetensors"), None, samples, options)


def published(name: str, samples: int) -> Iterator[tuple[IntegerNetwork, np.ndarray]]:
    """Yield a network that the authors of the LMU or of keras-lmu published."""
    task = {"psMNIST-standard": "psmnist-nru", "psMNIST-weights": "psmnist"}.get(
        name, "mackey-glass"
    )
    path = Path(os.environ.get("LMU_DEPLOY_DATA", ".")) / "published" / f"{name}.hdf5"
    yield from on_task(ld.import_network(path), task, samples, {})


def on_task(
    network: Network, name: str | None, samples: int, options: dict[str, object]
) -> Iterator[tuple[IntegerNetwork, np.ndarray]]:
    """Yield a quantized network and test samples of its task; series are cut."""
    task = get_task(name or network.task)
    data = task.load()
    integer = quantize(network, data.train.inputs[:CALIBRATION], **options)
    if task.kind != "classification":
        samples = min(samples, 2)
    inputs = data.test.batch(slice(samples))[0]
    yield integer, inputs if task.kind == "classification" else inputs[:, :STEPS_OF_A_SERIES]


def others() -> Iterator[tuple[IntegerNetwork, np.ndarray]]:
    """Yield networks in the code of other authors, with the weights and inputs of the tests."""
    from torch_lmus import NETWORKS, RECORDED, loaded

    for name, make in NETWORKS.items():
        network = ld.from_torch(loaded(name, make()))
        x = RECORDED[f"{name}/x"]
        if network.provenance["input layout"] == "batch features steps":
            x = x.swapaxes(1, 2)
        yield quantize(network, x), x


def a_series(order: int, images: int) -> Iterator[tuple[IntegerNetwork, np.ndarray]]:
    """Yield an LMU of random weights, its memory as a series of signs, and images."""
    rng = np.random.default_rng(order)
    memory = Memory.legendre(order, 784.0)
    units = SimpleRNN(4.0 * weights(rng, order, 64), None, weights(rng, 64), Activation("tanh"))
    parts = [LMU(memory, np.ones((1, 1)), units), Dense(weights(rng, 64, 10)), Reduce("last")]
    data = get_task("psmnist").load()
    network = operators.chain(parts, width=1)
    integer = quantize(network, data.train.inputs[:CALIBRATION], realization="sign-taylor")
    yield integer, data.test.batch(slice(images))[0]


def gru_hybrid() -> Iterator[tuple[IntegerNetwork, np.ndarray]]:
    """Yield an LMU whose hidden cell is a GRU, and inputs."""
    rng = np.random.default_rng(5)
    n = operators.UNITS
    cell = GRU(weights(rng, 2 * 8, 3 * n), weights(rng, n, 3 * n), weights(rng, 3 * n))
    parts = [LMU(Memory.legendre(8, 20.0, 2), weights(rng, n, 2), cell), Dense(weights(rng, n, 4))]
    network = operators.chain(parts)
    yield (
        quantize(network, operators.inputs(network, 256, rng)),
        operators.inputs(network, 4, rng),
    )


def alone() -> Iterator[tuple[IntegerNetwork, np.ndarray]]:
    """Yield every operator alone, as in the table of operators."""
    rng = np.random.default_rng(0)
    networks = {name: operators.chain(make()) for name, make in operators.operators(rng).items()}
    for network in (networks | operators.branches(rng)).values():
        some, x = operators.inputs(network, 256, rng), operators.inputs(network, 4, rng)
        run(network, x)
        yield quantize(network, some), x


def drawn(number: int) -> Iterator[tuple[IntegerNetwork, np.ndarray]]:
    """Yield networks that hypothesis draws: every population, any graph between them."""
    from hypothesis import HealthCheck, Phase, given, settings
    from integer_graphs import graph_runs

    found: list[tuple[IntegerNetwork, np.ndarray]] = []

    @settings(
        max_examples=2 * number,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(graph_runs())
    def draw(made: tuple[IntegerNetwork, np.ndarray]) -> None:
        if all(not t.unsupported(made[0]) for t in (IntegerTarget(), LavaTarget(), CTarget())):
            found.append(made)

    draw()
    # The first that hypothesis draws are the simplest.
    yield from found[-number:][::-1]


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return weights whose sums over the first axis are about one."""
    return rng.normal(size=shape) / np.sqrt(shape[0])


def main() -> None:
    """Run the cases that were asked for; print a row for each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20, help="samples of every trained network")
    parser.add_argument("--only", nargs="+", default=[], help="names of cases; by default all")
    results.add_options(parser)
    arguments = parser.parse_args()
    measured, equal = [], True
    for case in cases(arguments.images):
        if not arguments.only or {case.name, f"{case.name}, {case.form}"} & {*arguments.only}:
            row, same = row_of(case)
            print(row, file=sys.stderr, flush=True)
            measured.append(row)
            equal = equal and same
    results.publish(COLUMNS, measured, arguments)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
