"""The files that `fuzz_importers.py` damages: samples of each kind, mutations, and reading.

A mutation is determined by its number, so that a finding can be reproduced.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_damage import DAMAGES, damage_inside
from safetensors.numpy import save as to_bytes

from converters.importers import import_file
from converters.loihi import loihi_spike
from converters.nir import read_nir, to_nir, write_nir
from converters.onnx import save_onnx, to_onnx
from converters.pytorch.state_dict import read_pytorch_lmu
from converters.quantize import quantize
from converters.sandbox import child, process
from converters.spiking import spike
from converters.spiking.recipe import keep_calibration, load_calibration
from lmu_deploy.core.errors import InputError, LmuDeployError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.linear import Conv1d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.recurrent import LSTM
from lmu_deploy.core.graph.time import Delay, Reduce
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.tasks.dataset import task_from_file
from targets.integer import IntegerTarget
from targets.recorded import Recording

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "keras_lmu"
ARCHITECTURE = FIXTURES / "keras3-feedback.json"
LONGEST_SENTENCE = 3000


@dataclass(frozen=True)
class Sample:
    """An undamaged file of one kind, and its reader."""

    name: str
    suffix: str
    data: bytes
    reader: Callable[[Path], Any]


def collect(folder: Path) -> list[Sample]:
    """Return an undamaged file of every kind; check that each can be read."""
    samples = [
        Sample("keras .keras (Keras 3)", ".keras", _fixture("keras3-stack.keras"), import_file),
        Sample(
            "keras .keras (graph)", ".keras", _fixture("keras3-conv-and-gru.keras"), import_file
        ),
        Sample("keras .keras (Keras 2)", ".keras", _fixture("keras2-feedback.keras"), import_file),
        Sample("keras .h5 (whole model)", ".h5", _fixture("keras3-feedback.h5"), import_file),
        Sample("keras .weights.h5", ".h5", _fixture("keras3-feedback.weights.h5"), _with_weights),
        Sample("keras .h5 (weights, Keras 2)", ".h5", _fixture("keras2-feedback-weights.h5"), _old),
        Sample("keras architecture .json", ".json", ARCHITECTURE.read_bytes(), _architecture),
        Sample("paper lmu .h5", ".h5", _paper(folder), import_file),
        Sample("pytorch .pt", ".pt", _pytorch(folder), import_file),
        Sample("state dictionary .safetensors", ".safetensors", _state(), read_pytorch_lmu),
        *_our_files(folder),
    ]
    for sample in samples:
        outcome = read(sample, sample.data, folder / f"whole{sample.suffix}")
        if not outcome.startswith("read"):
            raise SystemExit(f"{sample.name} cannot be read undamaged: {outcome}")
    return samples


def mutate(samples: list[Sample], number: int) -> tuple[Sample, bytes, str]:
    """Damage a sample, as determined by the number."""
    rng = random.Random(number)
    sample = samples[number % len(samples)]
    how = rng.choice(list(DAMAGES))
    entry = ""
    if sample.data[:2] == b"PK" and rng.random() < 0.6:
        data, entry = damage_inside(sample.data, how, rng)
    else:
        data = DAMAGES[how](bytearray(sample.data), rng)
    return sample, bytes(data), f"{how}{entry}"


def read(sample: Sample, data: bytes, path: Path) -> str:
    """Return "read", "refused: sentence", or what went wrong."""
    path.write_bytes(data)
    try:
        sample.reader(path)
    except LmuDeployError as error:
        sentence = str(error)
        if not isinstance(error, InputError) or not sentence or "\n" in sentence.strip():
            return f"no clear error: {error!r}"[:500]
        if len(sentence) > LONGEST_SENTENCE:
            return f"an error of {len(sentence)} characters: {sentence[:200]}"
        return f"refused: {sentence[:200]}"
    except BaseException as error:  # every other exception is a finding
        return f"{type(error).__name__}: {error}"[:500]
    return "read"


def use_forks() -> None:
    """Make importers read in a fork of this process instead of a new interpreter."""
    import h5py  # noqa: F401 (loaded once, here)
    import torch

    torch.set_num_threads(1)
    process.launch = _launch_fork


def _launch_fork(reader: str, path: Path, result: Path) -> tuple[int, bytes]:
    messages = result.with_suffix(".messages")
    pid = os.fork()
    if pid == 0:
        try:
            out = os.open(messages, os.O_WRONLY | os.O_CREAT)
            os.dup2(out, 2)
            code = child.main([reader, str(path), str(result)])
            sys.stderr.flush()
            os._exit(code)
        finally:
            os._exit(3)
    deadline = time.monotonic() + process.SECONDS
    pause = 0.0005
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            text = messages.read_bytes() if messages.exists() else b""
            return os.waitstatus_to_exitcode(status), text
        time.sleep(pause)
        pause = min(0.02, 1.5 * pause)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise subprocess.TimeoutExpired(reader, process.SECONDS)  # becomes one clear error


def _fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def _with_weights(path: Path) -> LMUNetwork:
    return import_file(path, "keras-lmu", architecture=ARCHITECTURE)


def _old(path: Path) -> LMUNetwork:
    return import_file(path, "keras-lmu", architecture=FIXTURES / "keras2-feedback.json")


def _architecture(path: Path) -> LMUNetwork:
    weights = FIXTURES / "keras3-feedback.weights.h5"
    return import_file(weights, "keras-lmu", architecture=path)


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.5, shape).astype(np.float32)


def _paper(folder: Path) -> bytes:
    import h5py

    memory = Memory.legendre(4, 12.0)
    layer = {
        "input_encoders": _weights(2, 1),
        "hidden_encoders": _weights(3, 1),
        "memory_encoders": _weights(4, 1),
        "input_kernel": _weights(2, 3),
        "hidden_kernel": _weights(3, 3),
        "memory_kernel": _weights(4, 3),
        "AT": (memory.a_bar - np.eye(4)).T.astype(np.float32),
        "BT": memory.b_bar[None].astype(np.float32),
    }
    path = folder / "paper.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["lmu", "dense"]
        for role, array in layer.items():
            file[f"lmu/lmu/{role}:0"] = array
        file["dense/dense/kernel:0"], file["dense/dense/bias:0"] = _weights(3, 2), _weights(2)
    return path.read_bytes()


def _pytorch(folder: Path) -> bytes:
    import torch

    memory = Memory.legendre(4, 12.0)
    shapes = {"e_x": (1, 2), "e_h": (1, 3), "e_m": (1, 4)}
    shapes |= {"W_x": (3, 2), "W_h": (3, 3), "W_m": (3, 4)}
    state = {f"lmu.cell.{name}": torch.tensor(_weights(*s)) for name, s in shapes.items()}
    state["lmu.cell.A"] = torch.tensor(memory.a_bar, dtype=torch.float32)
    state["lmu.cell.B"] = torch.tensor(memory.b_bar[:, None], dtype=torch.float32)
    state["classifier.weight"] = torch.tensor(_weights(2, 3))
    state["classifier.bias"] = torch.tensor(_weights(2))
    torch.save(state, folder / "network.pt")
    return (folder / "network.pt").read_bytes()


def _state() -> bytes:
    """Return the weights of an LSTM, an LMU and a linear map, as torch names them."""
    memory = Memory.legendre(4, 12.0, channels=2)
    return to_bytes(
        {
            "0.weight_ih_l0": _weights(12, 2),
            "0.weight_hh_l0": _weights(12, 3),
            "0.bias_ih_l0": _weights(12),
            "0.bias_hh_l0": _weights(12),
            "1.memory.a_bar": memory.a_bar.astype(np.float32),
            "1.memory.b_bar": memory.b_bar.astype(np.float32),
            "1.input_encoders": _weights(3, 2),
            "1.memory_kernel": _weights(8, 5),
            "1.bias": _weights(5),
            "2.weight": _weights(2, 5),
        }
    )


def _graph() -> Network:
    """Return a network of a convolution, a residual branch around a memory, an LSTM and a mean."""
    memory = LinearMemory(
        Memory.legendre(4, 12.0, 2), _weights(3, 2), _weights(2), Activation("relu")
    )
    operators: list[tuple[str, Operator, tuple[str, ...]]] = [
        ("conv", Conv1d(_weights(2, 2, 3), _weights(3), left=1), (INPUT,)),
        ("memory", memory, ("conv",)),
        ("units", Dense(_weights(8, 3), _weights(3)), ("memory",)),
        ("tanh", Activation("tanh"), ("units",)),
        ("sum", Add(), ("conv", "tanh")),
        ("lstm", LSTM(_weights(3, 12), _weights(3, 12), _weights(12)), ("sum",)),
        ("mean", Reduce("mean"), ("lstm",)),
        ("readout", Dense(_weights(3, 2), _weights(2)), ("mean",)),
    ]
    return Network(tuple(Node(*parts) for parts in operators), (2,), "readout", task="digits")


def _our_files(folder: Path) -> list[Sample]:
    hidden = Hidden(_weights(4, 3), _weights(2, 3), _weights(3, 3), _weights(3), "tanh")
    layer = LMULayer(_weights(2, 1), None, None, None, Memory.legendre(4, 12.0), hidden)
    network = LMUNetwork((layer,), Readout(_weights(3, 2), _weights(2)), task="digits")
    inputs = np.random.default_rng(1).random((8, 6, 2))
    save(network, folder / "float.safetensors")
    save(quantize(network, inputs, "loihi2"), folder / "integer.safetensors")
    save_onnx(to_onnx(network), folder / "network.onnx")
    write_nir(to_nir(network), folder / "network.nir")
    options = {"neurons_per_state": 8, "presentation_ms": 20.0}
    spiking = spike(network, inputs, calibration="static", dt_ms=2.0, **options)
    save(spiking, folder / "spiking.safetensors")
    save(keep_calibration(spiking), folder / "calibration.safetensors")
    write_nir(to_nir(spiking), folder / "spiking.nir")
    plain = replace(layer, hidden=replace(hidden, recurrent_kernel=None))
    ahead = replace(network, layers=(plain,))
    units = spike(ahead, inputs, units="chip", calibration="static", **options)
    save(units, folder / "units.safetensors")
    save(loihi_spike(network, inputs, **options), folder / "loihi.safetensors")
    graph = _graph()
    save(graph, folder / "graph.safetensors")
    integer = quantize(graph, inputs, "loihi2")
    save(integer, folder / "populations.safetensors")
    kept = ("conv", "delay", "readout")  # NIR has nodes for these
    operators = [graph["conv"].operator, Delay(2), graph["readout"].operator]
    inputs_of = (INPUT, *kept)
    chain = tuple(
        Node(name, operator, (before,))
        for name, operator, before in zip(kept, operators, inputs_of, strict=False)
    )
    write_nir(to_nir(replace(graph, nodes=chain)), folder / "graph.nir")
    run = IntegerTarget().run(integer, inputs[:2], record=True)
    assert run.states is not None
    recorded = {name: getattr(run.states, name) for name in "mhy"}
    np.savez(folder / "recording.npz", **recorded)
    x, y = inputs.astype(np.float32), np.arange(8) % 2
    np.savez(folder / "task.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    def sample(name: str, file: str, reader: Callable[[Path], Any]) -> Sample:
        path = folder / file
        return Sample(name, path.suffix, path.read_bytes(), reader)

    return [
        sample("Network .safetensors (graph)", "graph.safetensors", load),
        sample("IntegerNetwork .safetensors (graph)", "populations.safetensors", load),
        sample("nir .nir (graph)", "graph.nir", import_file),
        sample("recording .npz", "recording.npz", Recording.load),
        sample("LMUNetwork .safetensors", "float.safetensors", load),
        sample("IntegerNetwork .safetensors", "integer.safetensors", load),
        sample("SpikingNetwork with units .safetensors", "units.safetensors", load),
        sample("SpikingNetwork .safetensors", "spiking.safetensors", load),
        sample("LoihiNetwork .safetensors", "loihi.safetensors", load),
        sample("calibration .safetensors", "calibration.safetensors", load_calibration),
        sample("onnx .onnx", "network.onnx", import_file),
        sample("nir .nir", "network.nir", import_file),
        sample("nir .nir (spiking)", "spiking.nir", read_nir),
        sample("task .npz", "task.npz", lambda path: task_from_file(path).load()),
    ]
