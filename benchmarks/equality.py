"""Three executions of one integer network: m, h and y of every step are compared with ``==``.

The simulator in each of its engines, ONNX Runtime on the integer graph and Lava run the same
inputs: 20 images of permuted MNIST in each realization of the trained networks, and networks of
random weights where there is none trained (a series at the order where it is the right choice, two
layers with feedback, a regression). Last, 20 small networks that hypothesis draws, as the tests of
the integer target do, some of which only the engine numpy can represent exactly. Prints a Markdown
table; the exit code is 1 if anything differs. Needs MNIST (LMU_DEPLOY_DATA).

    python benchmarks/equality.py
    python benchmarks/equality.py --only "psmnist-lmu, schur" --images 2
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import results

from converters.quantize import Calibration, calibrate, quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import FLOAT_CLASSES, Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.tasks.base import Split, get_task
from targets.base import Run
from targets.integer import IntegerTarget
from targets.lava import LavaTarget
from targets.onnxruntime import OnnxRuntimeTarget

MODELS = Path(__file__).parents[1] / "examples/models"
CALIBRATION = 128
SERIES_IMAGES = 2
"""Of the trained network as a series, whose steps are of 28 applications, a chip step each."""
COLUMNS = [
    ("network", "{}"),
    ("realization", "{}"),
    ("samples x steps", "{}"),
    ("integers compared", "{:,d}"),
    ("integer", "{}"),
    ("onnxruntime", "{}"),
    ("lava", "{}"),
    ("chip steps", "{:,d}"),
]


@dataclass(frozen=True)
class Case:
    """A network with inputs.

    Attributes
    ----------
    name : str
        Network and realization, with a comma between.
    network : IntegerNetwork
    inputs : ndarray, shape (samples, steps, n_in)
    """

    name: str
    network: IntegerNetwork
    inputs: np.ndarray


def main() -> None:
    """Run the cases that were asked for; print a row for each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--only", nargs="+", default=[], help="names of cases; by default all")
    results.add_options(parser)
    arguments = parser.parse_args()
    measured, equal = [], True
    for name, make in makers(arguments.images).items():
        if not arguments.only or name in arguments.only:
            for row, same in rows(name, make):
                print(row, file=sys.stderr, flush=True)
                measured.append(row)
                equal = equal and same
    results.publish(COLUMNS, measured, arguments)
    sys.exit(0 if equal else 1)


def makers(images: int) -> dict[str, Callable[[], list[Case]]]:
    """Return what makes each case, by its name."""
    forms = {
        "1 slice": {"slices": 1},
        "2 slices": {"slices": 2},
        "3 slices": {"slices": 3},
        "schur": {"realization": "schur"},
        "hessenberg": {"realization": "hessenberg"},
    }
    found: dict[str, Callable[[], list[Case]]] = {}
    for form, options in forms.items():
        found[f"psmnist-lmu, {form}"] = _trained("psmnist-lmu", form, images, options)
    found["psmnist-lmu, sign-taylor"] = _trained(
        "psmnist-lmu", "sign-taylor", min(images, SERIES_IMAGES), {"realization": "sign-taylor"}
    )
    found["psmnist-parallel, fir"] = _trained(
        "psmnist-parallel", "fir", images, {"realization": "fir"}
    )
    for order in (32, 64):
        name = f"order {order} of random weights, sign-taylor"
        found[name] = _drawn_on_psmnist(name, one_layer(order), images, "sign-taylor")
    name = "two layers of random weights, schur"
    found[name] = _drawn_on_psmnist(name, two_layers(), images, "schur")
    found["regression of random weights, 2 slices"] = lambda: [_regression()]
    found["20 networks that hypothesis draws"] = _small_networks
    return found


def rows(name: str, make: Callable[[], list[Case]]) -> Iterator[tuple[list[results.Cell], bool]]:
    """Run one entry of :func:`makers` everywhere; a row of the table, and whether all is equal."""
    start = time.perf_counter()
    cases = make()
    simulators = [IntegerTarget("numpy").run(c.network, c.inputs, record=True) for c in cases]
    engines, in_simulator = other_engines(cases, simulators)
    onnx = [OnnxRuntimeTarget().run(c.network, c.inputs, record=True) for c in cases]
    lava = LavaTarget().run_each([(c.network, c.inputs) for c in cases], record=True)
    in_onnx = all(map(same, onnx, simulators))
    in_lava = all(map(same, lava, simulators))
    compared = sum(state.size for run in simulators for state in states(run))
    network, _, form = name.partition(", ")
    shapes = " and ".join(sorted({f"{len(c.inputs)} x {c.inputs.shape[1]}" for c in cases}))
    chip_steps = sum(run.chip_steps * len(c.inputs) for run, c in zip(lava, cases, strict=True))
    print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    own, *others = ("equal" if equal else "DIFFERS" for equal in (in_simulator, in_onnx, in_lava))
    row = [network, form or "all", shapes, compared, f"{engines}: {own}", *others, chip_steps]
    yield row, in_simulator and in_onnx and in_lava


def other_engines(cases: list[Case], simulators: list[Run]) -> tuple[str, bool]:
    """Run the cases in the other engines; return their names, and whether all results are equal."""
    names, equal = ["numpy"], True
    for engine in ("torch", "numba"):
        representable = 0
        for case, simulator in zip(cases, simulators, strict=True):
            try:
                run = IntegerTarget(engine).run(case.network, case.inputs, record=True)
            except InputError:
                continue  # not exact in int32
            representable += 1
            equal = equal and run.settings["engine"] == engine and same(simulator, run)
        if representable:
            names.append(
                engine
                if representable == len(cases)
                else f"{engine} ({representable} of {len(cases)})"
            )
    return ", ".join(names), equal


def states(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All recorded integers of a run."""
    assert run.states is not None
    return run.states.m, run.states.h, run.states.y


def same(ours: Run, theirs: Run) -> bool:
    """Whether two runs are equal in every state, event, synaptic operation and saturation."""
    return (
        all(map(np.array_equal, states(ours), states(theirs)))
        and ours.synops == theirs.synops
        and dict(ours.saturations) == dict(theirs.saturations)
        and all(np.array_equal(ours.events[name], sent) for name, sent in theirs.events.items())
    )


_calibrated: dict[str, tuple[LMUNetwork, Calibration, Split]] = {}


def _trained(
    model: str, form: str, images: int, options: dict[str, object]
) -> Callable[[], list[Case]]:
    def make() -> list[Case]:
        if model not in _calibrated:
            network = load(MODELS / f"{model}.safetensors", FLOAT_CLASSES)
            data = get_task(network.task).load()
            signals = calibrate(network, data.train.inputs[:CALIBRATION])
            _calibrated[model] = network, signals, data.test
        network, signals, test = _calibrated[model]
        inputs = test.batch(slice(images))[0]
        return [Case(f"{model}, {form}", quantize(network, signals, **options), inputs)]

    return make


def _drawn_on_psmnist(
    name: str, network: LMUNetwork, images: int, realization: str
) -> Callable[[], list[Case]]:
    def make() -> list[Case]:
        data = get_task("psmnist").load()
        integer = quantize(network, data.train.inputs[:CALIBRATION], realization=realization)
        return [Case(name, integer, data.test.batch(slice(images))[0])]

    return make


def one_layer(order: int) -> LMUNetwork:
    """Draw a network for psMNIST without feedback into its memory."""
    rng = np.random.default_rng(order)
    layer = lmu_layer(rng, 1, order, 784.0, 64, feedback=False)
    return LMUNetwork((layer,), Readout(array(rng, 64, 10), None), task="psmnist")


def two_layers() -> LMUNetwork:
    """Draw a network of two layers, the first of which feeds back into its memory."""
    rng = np.random.default_rng(2)
    layers = (
        lmu_layer(rng, 1, 48, 784.0, 40, feedback=True),
        lmu_layer(rng, 40, 16, 100.0, 24, feedback=False),
    )
    return LMUNetwork(layers, Readout(array(rng, 24, 10), array(rng, 10)), task="psmnist")


def _regression() -> Case:
    """Draw a network that answers at every step, on the Mackey-Glass series."""
    rng = np.random.default_rng(3)
    data = get_task("mackey-glass").load()
    width, n_out = data.train.inputs.shape[2], data.train.targets.shape[-1]
    layer = lmu_layer(rng, width, 40, 50.0, 32, feedback=True)
    network = LMUNetwork((layer,), Readout(array(rng, 32, n_out), None), return_sequences=True)
    integer = quantize(network, data.train.inputs[:CALIBRATION])
    return Case("regression", integer, data.test.batch(slice(2))[0][:, :2000])


def _small_networks() -> list[Case]:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from targets.conformance.strategies import integer_networks, loud_and_quiet

    cases: list[Case] = []
    every = settings(
        max_examples=200,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    @every
    @given(integer_networks(), st.integers(0, 1000))
    def draw(network: IntegerNetwork, seed: int) -> None:
        if not IntegerTarget().unsupported(network) and not LavaTarget().unsupported(network):
            cases.append(Case("drawn", network, loud_and_quiet(network, seed)))

    draw()
    return cases[-1:-80:-4]


def lmu_layer(
    rng: np.random.Generator, n_in: int, order: int, theta: float, units: int, feedback: bool
) -> LMULayer:
    """Draw a layer whose sums are about one; with `feedback` it has e_h and e_m."""
    kernels = 4.0 * array(rng, order, units), array(rng, n_in, units), array(rng, units, units) / 2
    return LMULayer(
        input_encoders=np.ones((1, 1)) if n_in == 1 else array(rng, n_in, 1),
        hidden_encoders=0.05 * array(rng, units, 1) if feedback else None,
        memory_encoders=0.02 * array(rng, order, 1) if feedback else None,
        memory_bias=None,
        memory=Memory.legendre(order, theta),
        hidden=Hidden(*kernels, array(rng, units), "tanh"),
    )


def array(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Entries whose sums over the first axis are about one."""
    return rng.normal(size=shape) / np.sqrt(shape[0])


if __name__ == "__main__":
    main()
