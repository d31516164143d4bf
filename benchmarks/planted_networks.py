"""Networks for planted_faults.py: those that faults are planted in, and healthy random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from equality import gru_hybrid

from converters.quantize import quantize
from converters.spiking import spike
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.options import INTEGRATORS, SERIES
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.tasks.base import get_task

NETWORKS = {
    "digits": ("digits", {}),
    "digits, two slices": ("digits", {"slices": 2, "kernel_slices": 2, "hidden_bits": 12}),
    "digits, schur": ("digits", {"realization": "schur"}),
    "digits, delay line": ("digits", {"realization": "fir"}),
    "mackey-glass, LSTM": ("mackey-glass-hybrid", {}),
}
CHIPS = {
    "generic, noise 0.05": {"membrane_noise": 0.05},
    "generic, 20 % mismatch, 6 bits": {"mismatch": 0.2, "weight_bits": 6, "membrane_noise": 0.02},
    "generic, no noise": {},
}
GRAPHS = {
    "tanh, noise 0.05": ("tanh", {"membrane_noise": 0.05, "mismatch": 0.2}),
    "relu, 6 bits": ("relu", {"membrane_noise": 0.02, "mismatch": 0.2, "weight_bits": 6}),
}
CALIBRATION, SAMPLES, STEPS = 64, 12, 24
CHIP_SAMPLES = 8


def made() -> dict[str, tuple[IntegerNetwork, np.ndarray]]:
    """Return the integer networks, and inputs of each."""
    found = {}
    for name, (file, options) in NETWORKS.items():
        source = load(f"examples/models/{file}.safetensors")
        data = get_task(source.task).load()
        network = quantize(source, data.train.inputs[:CALIBRATION, :100], **options)
        found[name] = network, data.test.inputs[:SAMPLES, :STEPS].astype(np.float64)
    ((network, inputs),) = gru_hybrid()
    found["random weights, GRU"] = network, inputs[:, :STEPS]
    return found


def chips() -> dict[str, tuple[SpikingNetwork, np.ndarray]]:
    """Return calibrated chips of the digits network, and inputs."""
    source = load("examples/models/digits.safetensors")
    data = get_task("digits").load()
    host, inputs = as_layers(source, "spike"), data.test.inputs[:CHIP_SAMPLES]
    some = data.train.inputs[:CALIBRATION]
    return {
        name: (spike(host, some, neurons_per_state=40, chip_seed=n, **options), inputs)
        for n, (name, options) in enumerate(CHIPS.items())
    }


def graphs() -> dict[str, tuple[SpikingGraph, np.ndarray]]:
    """Return calibrated graphs of two blocks with random weights, and inputs."""
    found = {}
    for n, (name, (activation, options)) in enumerate(GRAPHS.items()):
        rng = np.random.default_rng(7)
        found[name] = made_graph(rng, activation, neurons=24, chip_seed=n, **options)
    return found


def made_graph(
    rng: np.random.Generator, activation: str, neurons: int, **options: Any
) -> tuple[SpikingGraph, np.ndarray]:
    """Return a calibrated graph of two blocks with random weights, and inputs."""
    inputs = np.cumsum(rng.normal(size=(CALIBRATION, STEPS, 3)), axis=1).clip(-2, 2) / 2
    nodes = (
        Node("m1", LinearMemory(Memory.legendre(4, 8.0, 2), uniform(rng, 3, 2)), (INPUT,)),
        Node("d1", Dense(uniform(rng, 8, 6), uniform(rng, 6)), ("m1",)),
        Node("u1", Activation(activation), ("d1",)),
        Node("m2", LinearMemory(Memory.legendre(4, 8.0, 2), uniform(rng, 6, 2)), ("u1",)),
        Node("d2", Dense(uniform(rng, 8, 5), uniform(rng, 5)), ("m2",)),
        Node("u2", Activation(activation), ("d2",)),
        Node("out", Dense(uniform(rng, 5, 3), uniform(rng, 3)), ("u2",)),
    )
    graph = spike(
        Network(nodes, (3,), "out"),
        inputs[:-CHIP_SAMPLES],
        units="chip",
        neurons_per_state=neurons,
        neurons_per_unit=neurons,
        presentation_ms=20.0,
        tau_ms=30.0,
        **options,
    )
    assert isinstance(graph, SpikingGraph)  # units="chip" and two blocks
    return graph, inputs[-CHIP_SAMPLES:]


def uniform(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return random weights of units with arguments of about 1."""
    return 2.0 * rng.uniform(-1.0, 1.0, shape) / shape[0] ** 0.5


def layers(rng: np.random.Generator, n_in: int, order: int, channels: int) -> LMUNetwork:
    """Return a float network with random weights."""
    units = int(rng.integers(1, 17))
    hidden = Hidden(
        rng.normal(size=(channels * order, units)) / (channels * order) ** 0.5,
        rng.normal(size=(n_in, units)) / n_in**0.5,
        rng.normal(size=(units, units)) * 0.3 / units**0.5 if rng.random() < 0.5 else None,
        rng.normal(size=units) * 0.1,
        str(rng.choice(["tanh", "relu"])),
    )
    encoders = rng.normal(size=(n_in, channels)) / n_in**0.5
    memory = Memory.legendre(order, float(rng.uniform(order, 4 * order)), channels)
    readout = Readout(rng.normal(size=(units, 3)) / units**0.5, rng.normal(size=3) * 0.1)
    return LMUNetwork((LMULayer(encoders, None, None, None, memory, hidden),), readout)


def drawn(seed: int) -> tuple[IntegerNetwork, np.ndarray]:
    """Return a healthy network with random weights, quantized with random options."""
    rng = np.random.default_rng(seed)
    n_in = int(rng.integers(1, 5))
    network = layers(rng, n_in, int(rng.integers(1, 13)), int(rng.integers(1, 4)))
    inputs = rng.uniform(-1, 1, (24, 20, n_in))
    options = {
        "slices": int(rng.integers(1, 3)),
        "kernel_slices": int(rng.integers(1, 3)),
        "message_bits": int(rng.choice([8, 10, 12])),
        "hidden_bits": int(rng.choice([8, 12])),
        "realization": str(rng.choice([*INTEGRATORS, SERIES])),
    }
    return quantize(network, inputs, **options), inputs[:8]


def drawn_chip(seed: int) -> tuple[SpikingNetwork, np.ndarray]:
    """Return a healthy chip with random weights, noise, mismatch and calibration."""
    rng = np.random.default_rng(seed)
    n_in = int(rng.integers(1, 4))
    network = layers(rng, n_in, int(rng.integers(2, 5)), int(rng.integers(1, 3)))
    inputs = np.cumsum(rng.normal(size=(32, 8, n_in)), axis=1).clip(-2, 2) / 2
    chip = spike(
        network,
        inputs[:24],
        neurons_per_state=int(rng.integers(15, 40)),
        presentation_ms=20.0,
        tau_ms=20.0,
        mismatch=float(rng.choice([0.0, 0.1, 0.3])),
        membrane_noise=float(rng.choice([0.0, 0.02, 0.1])),
        chip_seed=seed % 1000,
        calibration=str(rng.choice(["dynamic", "static"])),
    )
    return chip, inputs[24:]


def drawn_graph(seed: int) -> tuple[SpikingGraph, np.ndarray]:
    """Return a healthy graph of neurons with random weights, noise, mismatch and calibration."""
    rng = np.random.default_rng(seed)
    return made_graph(
        rng,
        str(rng.choice(["relu", "tanh", "sigmoid"])),
        neurons=int(rng.integers(12, 30)),
        mismatch=float(rng.choice([0.0, 0.1, 0.3])),
        membrane_noise=float(rng.choice([0.0, 0.02, 0.1])),
        neuron=str(rng.choice(["lif", "dpi"])),
        calibration=str(rng.choice(["dynamic", "static"])),
        chip_seed=seed % 1000,
    )
