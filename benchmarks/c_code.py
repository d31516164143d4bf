"""Measure a network as C: bytes and instructions on a Cortex-M4, and the time of one step here.

``sizes`` compiles every example network for a Cortex-M4, runs it on QEMU (whose clock counts
instructions), compares what it computes with the specification, and prints flash, RAM and
instructions a step, beside the size of the ONNX file. Only these need gcc-arm-none-eabi and
qemu-system-arm.

``latency`` compares one step of one sample here: the C code, ONNX Runtime's session with a model of
one step (integer and float), and PyTorch's plain loop, in turn and several times; the least median
of each counts.

    OMP_NUM_THREADS=1 python benchmarks/c_code.py sizes --save c/cortex-m4
    OMP_NUM_THREADS=1 python benchmarks/c_code.py latency --save c/latency
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import results
import torch

import lmu_deploy as ld
from converters.c.generator import Source, generate
from converters.onnx import to_onnx_integer, to_onnx_integer_step, to_onnx_step
from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.nn.convert import to_sequence_model
from lmu_deploy.tasks.base import get_task
from targets.c import CortexM4Target
from targets.c.target import messages_of
from targets.c.toolchain import CortexM4, Host
from targets.integer import IntegerTarget

MODELS = Path(__file__).parents[1] / "examples/models"
CALIBRATION = 128
SIZES = [
    ("network", "{}"),
    ("weights", ">{:,}"),
    ("flash", ">{:,}"),
    ("of it code", ">{:,}"),
    ("flash, `--sparse`", ">{:,}"),
    ("RAM", ">{:,}"),
    ("stack", ">{:,}"),
    ("instructions a step", ">{:,}"),
    ("steps checked", ">{:,}"),
    ("onnx-int file", ">{:,}"),
]
C = "C, gcc -O3 -march=native"
LATENCY = [
    ("network", "{}"),
    ("one step as", "{}"),
    ("microseconds", ">{:.1f}"),
    ("times the C code", ">{:.1f}"),
]


def networks(names: list[str]) -> Iterator[tuple[str, Network, IntegerNetwork, np.ndarray]]:
    """Yield name, float network, integer network and test inputs of every example."""
    for path in sorted(MODELS.glob("*.safetensors")):
        if names and path.stem not in names:
            continue
        network = ld.load(path)
        assert isinstance(network, Network)
        data = get_task(str(network.task)).load()
        integer = quantize(network, data.train.inputs[:CALIBRATION])
        if not integer.on_host:
            yield path.stem, network, integer, data.test.batch(slice(8))[0]


def sizes(names: list[str], steps: int) -> list[list[results.Cell]]:
    """Measure on the emulated Cortex-M4; raise ValueError where an integer differs."""
    rows: list[list[results.Cell]] = []
    for name, _, integer, inputs in networks(names):
        x = inputs[:1, :steps]
        found = CortexM4Target().run(integer, x, record=True)
        expected = IntegerTarget("numpy").run(integer, x, record=True)
        assert found.states is not None and expected.states is not None
        for place, values in found.states.parts.items():
            if not np.array_equal(values, expected.states.parts[place]):
                raise ValueError(f"{name}: {place} differs from the specification")
        chip, source = CortexM4(), generate(integer, "network")
        options = ("-O2", "-funroll-loops")
        with tempfile.TemporaryDirectory() as folder:
            counts = chip.time(source, Path(folder), messages_of(integer, x), *options)
            size = chip.sizes(source, Path(folder), *options)
            sparse = chip.sizes(generate(integer, "network", sparse=True), Path(folder), *options)
        rows.append(
            [
                name,
                sum(int(np.count_nonzero(e.connection.slices)) for e in integer.edges),
                size.flash,
                size.code,
                sparse.flash,
                size.ram,
                size.stack,
                int(np.median(counts)),
                x.shape[1],
                len(to_onnx_integer(integer).SerializeToString()),
            ]
        )
    return rows


def latency(names: list[str], repeats: int) -> list[list[results.Cell]]:
    """Time one step of one sample in every form, in turn."""
    torch.set_num_threads(1)
    rows: list[list[results.Cell]] = []
    for name, network, integer, inputs in networks(names):
        x = inputs[:1, :200]
        with tempfile.TemporaryDirectory() as folder:
            generated = generate(integer, "network")
            messages = messages_of(integer, x)
            forms: dict[str, Callable[[], float]] = {
                C: partial(_c, generated, Path(folder), messages),
                "ONNX Runtime, integers": _session(to_onnx_integer_step(integer), x),
                "ONNX Runtime, float32": _session(to_onnx_step(network), x),
            }
            layers = _layers(network)
            if layers:
                forms["PyTorch, float32, plain loop"] = _torch(layers, x)
            found = dict.fromkeys(forms, np.inf)
            for _ in range(repeats):
                for form, measure in forms.items():
                    found[form] = min(found[form], measure())
        for form, value in found.items():
            rows.append([name, form, value, value / found[C]])
    return rows


def _c(source: Source, folder: Path, messages: np.ndarray) -> float:
    """Return the median time of a step of the C code, microseconds."""
    return float(np.median(Host().time(source, folder, messages, "-O3", "-march=native"))) / 1e3


def _session(model: onnx.ModelProto, x: np.ndarray) -> Callable[[], float]:
    """Return what times one step of a model in ONNX Runtime: the median, microseconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    kinds = {"tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(int64)": np.int64}
    states = {
        i.name: np.zeros([1, *(d for d in i.shape[1:])], kinds[i.type])
        for i in session.get_inputs()
        if i.name != "input"
    }
    kind = next(kinds[i.type] for i in session.get_inputs() if i.name == "input")
    names = [o.name for o in session.get_outputs()]

    def measure() -> float:
        taken: list[float] = []
        feed = dict(states)
        for step in range(x.shape[1]):
            feed["input"] = x[:, step].astype(kind)
            start = time.perf_counter()
            found = session.run(None, feed)
            taken.append(time.perf_counter() - start)
            feed.update(
                {n.removesuffix(".next"): v for n, v in zip(names, found, strict=True) if "." in n}
            )
        return float(np.median(taken)) * 1e6

    return measure


def _layers(network: Network) -> LMUNetwork | None:
    """Return a network as the chain of layers of which PyTorch has a plain loop, if it is one."""
    try:
        return as_layers(network, "latency")
    except InputError:
        return None


def _torch(network: LMUNetwork, x: np.ndarray) -> Callable[[], float]:
    """Return what times a step of the plain loop in PyTorch, microseconds."""
    model = to_sequence_model(network, torch.float32)
    for layer in model.layers:
        layer.form = "step"
    inputs = torch.from_numpy(x.astype(np.float32))

    def measure() -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            model(inputs)
            return (time.perf_counter() - start) / x.shape[1] * 1e6

    return measure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("sizes", "latency"))
    parser.add_argument(
        "--networks", nargs="+", default=[], help="of examples/models; all if absent"
    )
    parser.add_argument("--steps", type=int, default=100, help="of a sample, for sizes")
    parser.add_argument("--repeats", type=int, default=5, help="for latency")
    results.add_options(parser)
    arguments = parser.parse_args()
    if arguments.what == "sizes":
        results.publish(SIZES, sizes(arguments.networks, arguments.steps), arguments)
    else:
        results.publish(LATENCY, latency(arguments.networks, arguments.repeats), arguments)


if __name__ == "__main__":
    main()
