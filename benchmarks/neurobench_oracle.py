"""NeuroBench as an oracle: its own code counts on networks that both can run.

    python benchmarks/neurobench_oracle.py ours FILE              (with lmu_deploy)
    PEERS/bin/python benchmarks/neurobench_oracle.py theirs FILE  (with NeuroBench and torch)

The first draws three small networks (float, integer, spiking), runs them, and writes weights,
inputs and outputs as JSON; the second makes torch modules of them (neurobench_modules.py) whose
layers NeuroBench hooks into, runs its metrics, and adds them. It fails where a module does not
answer as the network did. PEERS is the environment of `peers-neurobench-requirements.txt`; FILE is
`tests/fixtures/neurobench.json`, which a test holds our figures to.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

STEPS, SAMPLES = 9, 6
HOLD, DT_MS, TAU_MS, MEMBRANE_MS = 5, 1.0, 20.0, 10.0
STATE_BITS, MESSAGE_BITS, HIDDEN_BITS, INPUT_BITS = 24, 12, 8, 8
MESSAGE_SHIFT = 4


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """Draw weights; integers, but of the float and the spiking network. Some of each are zero."""

    def weights(*shape: int, largest: int = 90, zeros: float = 0.3) -> np.ndarray:
        drawn = rng.integers(-largest, largest + 1, shape)
        return np.where(rng.random(shape) < zeros, 0, drawn)

    states, units, outputs, inputs = 6, 5, 3, 2
    integer = {
        "recurrent": weights(2, states, states),
        "input": weights(1, states, inputs),
        "hidden": weights(1, states, units, largest=30),
        "hidden_memory": weights(2, units, states),
        "hidden_input": weights(1, units, inputs),
        "readout": weights(1, outputs, units),
        "readout_bias": rng.integers(-50, 51, outputs),
        "inputs": rng.integers(-100, 101, (SAMPLES, STEPS, inputs))
        * (rng.random((SAMPLES, STEPS, inputs)) < 0.7),
    }
    float_ = {
        "input_encoders": weights(inputs, 2) / 64,
        "hidden_encoders": weights(units, 2) / 64,
        "a_bar": weights(3, 3) / 128,
        "b_bar": weights(3, zeros=0.0) / 64,
        "memory_kernel": weights(states, units) / 64,
        "input_kernel": weights(inputs, units) / 64,
        "hidden_bias": weights(units) / 64,
        "readout": weights(units, outputs) / 64,
        "readout_bias": weights(outputs) / 64,
    }
    spiking_states, neurons = 4, 5
    shape = (spiking_states, neurons)
    spiking = {
        "encoders": rng.choice([-1.0, 1.0], shape),
        "gains": rng.uniform(0.5, 1.5, shape),
        "biases": rng.uniform(0.2, 1.2, shape),
        "weights": weights(2, 2, 2 * neurons) / 20_000,
        "recurrent": np.array([[-0.2, 0.5], [-0.5, 0.9]]),
        "input": np.array([1.0, -0.5]),
        "scales": np.array([[1.0, 0.5], [2.0, 1.0]]),
        "input_encoders": weights(inputs, 2, zeros=0.0) / 64,
        "inputs": rng.normal(size=(SAMPLES, STEPS, inputs)),
        "membranes": np.random.default_rng([0, 0]).random((SAMPLES, *shape)),
    }
    return {
        name: {key: np.asarray(value).tolist() for key, value in found.items()}
        for name, found in (("float", float_), ("integer", integer), ("spiking", spiking))
    }


def _arrays(record: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in record.items() if isinstance(value, list)}


def float_network(record: dict[str, Any]) -> Any:
    """Return the float network of a record, as an LMUNetwork in single precision."""
    from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout

    w = {name: value.astype(np.float32) for name, value in _arrays(record).items()}
    hidden = Hidden(w["memory_kernel"], w["input_kernel"], None, w["hidden_bias"], "tanh")
    memory = Memory(3, 2, 4.0, "zoh", w["a_bar"], w["b_bar"])
    layer = LMULayer(w["input_encoders"], w["hidden_encoders"], None, None, memory, hidden)
    return LMUNetwork((layer,), Readout(w["readout"], w["readout_bias"]), True)


def integer_network(record: dict[str, Any]) -> Any:
    """Return the integer network of a record: gains of 1, and of 1/64 for the memory."""
    from lmu_deploy.core.integer.functions import PiecewiseLinear
    from lmu_deploy.core.integer.layered import (
        IntegerHidden,
        IntegerLayer,
        IntegerMemory,
        IntegerReadout,
        LayeredNetwork,
    )
    from lmu_deploy.core.integer.parts import Connection, Format

    w = _arrays(record)

    def join(name: str) -> Any:
        slices = w[name].astype(np.int8)
        ones = np.ones(slices.shape[:2], np.int32)
        return Connection(slices, ones, ones * shift_of(name))

    line = PiecewiseLinear(np.array([1]), np.array([0]), 6, "odd")
    drive, message = Format(STATE_BITS, 1.0), Format(MESSAGE_BITS, 16.0)
    hidden = IntegerHidden(
        drive, Format(HIDDEN_BITS, 64.0),
        join("hidden_memory"), join("hidden_input"), None, None, line,
    )  # fmt: skip
    memory = IntegerMemory(
        drive, message, MESSAGE_SHIFT, join("recurrent"), join("input"), join("hidden"), None
    )
    readout = IntegerReadout(join("readout"), w["readout_bias"].astype(np.int32), drive)
    layers = (IntegerLayer(memory, hidden),)
    return LayeredNetwork(Format(INPUT_BITS, 1.0), layers, readout, True, "generic").graph()


def shift_of(name: str) -> int:
    """Say by which power of two a connection's sums are divided."""
    return 6 if name in ("recurrent", "hidden") else 0


def spiking_network(record: dict[str, Any]) -> Any:
    """Return the spiking network of a record: integrate-and-fire neurons without noise."""
    from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
    from lmu_deploy.core.spiking.chip import Calibration, Device, NeuronModel, Populations
    from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork

    w = _arrays(record)
    ones = np.ones(w["gains"].shape)
    populations = Populations(w["encoders"], w["gains"], w["biases"], ones, ones)
    memory = SpikingMemory(populations, w["recurrent"], w["input"], w["scales"], w["weights"])
    layer = LMULayer(w["input_encoders"], None, None, None, Memory.legendre(2, 4.0, 2), None)
    host = LMUNetwork((layer,), Readout(np.eye(4), None), True)
    return SpikingNetwork(
        (memory,), host, NeuronModel("if", MEMBRANE_MS, 0.0),
        Device("generic-analog", 0, 0.0, 0.0, 0), Calibration("none", 0, 0, 0.0, 0.0),
        DT_MS, TAU_MS, HOLD * DT_MS,
    )  # fmt: skip


def write_ours(path: Path) -> int:
    """Draw, run, and write."""
    from targets.brian2 import Brian2Target
    from targets.integer import IntegerTarget

    records = draw(np.random.default_rng(20))
    run = IntegerTarget("numpy").run(
        integer_network(records["integer"]), np.array(records["integer"]["inputs"], float)
    )
    records["integer"]["outputs"] = run.outputs.astype(int).tolist()
    spiking = records["spiking"]
    run = Brian2Target().run(spiking_network(spiking), np.array(spiking["inputs"]))
    spiking["outputs"] = run.outputs.tolist()
    _write(path, records)
    return 0


def write_theirs(path: Path) -> int:
    """Run NeuroBench's metrics on torch modules of the same networks, and add what they say."""
    import torch
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel
    from neurobench.version import __version__
    from neurobench_modules import MODULES, Sent

    records = json.loads(path.read_text(encoding="utf-8"))
    for name, module in MODULES.items():
        record = records[name]
        model = TorchModel(module(_arrays(record)))
        figures = {
            "ConnectionSparsity": ConnectionSparsity()(model),
            "Footprint": Footprint()(model),
            "ParameterCount": ParameterCount()(model),
        }
        if "inputs" in record:
            model.add_activation_module(Sent)
            model.register_hooks()
            inputs = torch.tensor(record["inputs"], dtype=torch.float64)
            with torch.no_grad():
                outputs = model(inputs).numpy()
                counted = SynapticOperations()
                figures["SynapticOperations"] = counted(model, outputs, (inputs, None))
                figures["ActivationSparsity"] = ActivationSparsity()(model, outputs, None)
            away = float(np.abs(outputs - np.array(record["outputs"])).max())
            if away > (0.0 if name == "integer" else 1e-12):
                print(f"the {name} module answers {away:g} off", file=sys.stderr)
                return 1
        record["neurobench"] = figures
        print(name, json.dumps(figures))
    records["versions"] = {"neurobench": __version__, "torch": torch.__version__}
    _write(path, records)
    return 0


def _write(path: Path, records: dict[str, Any]) -> None:
    lines = []
    for name, record in records.items():
        inner = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in record.items())
        lines.append(f"{json.dumps(name)}: {{\n  {inner}\n }}")
    path.write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["ours", "theirs"])
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args()
    return write_ours(chosen.file) if chosen.side == "ours" else write_theirs(chosen.file)


if __name__ == "__main__":
    sys.exit(main())
