"""Put a network of two blocks wholly on spiking neurons, and compare with its memories alone.

    python benchmarks/spiking_graph.py FOLDER --save analog/spiking-graph

The network (memory, relu units, memory, relu units, readout) is trained with noise on all signals
unless it is in the folder; the epoch is that with the best accuracy on the validation part. Chips
1, 2, ... are other ones than chip 0, on which sizes and the calibration were chosen, with the
validation part. Accuracies are those of all test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import results
import torch

from converters.spiking import spike
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import Memory
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.nn.graph.module import GraphModule
from lmu_deploy.tasks.base import TaskData, get_task
from targets.base import get_target

CHANNELS, ORDER, THETA, UNITS = 6, 6, 8.0, 40
EPOCHS, BATCH, RATE, NOISE, INPUT_NOISE = 80, 64, 3e-3, 0.2, 0.1
CHIP = {"mismatch": 0.2, "membrane_noise": 0.02, "weight_bits": 6, "calibration_samples": 300}
NEURONS = {"neurons_per_state": 50, "neurons_per_unit": 30}
COLUMNS = [
    ("on neurons", "{}"),
    ("calibration", "{}"),
    ("chips", ">{:d}"),
    ("accuracy, %", ">{:.2f}"),
    ("lowest and highest, %", ">{}"),
    ("same answer as float, %", ">{:.1f}"),
    ("neurons", ">{:,d}"),
    ("spikes an image", ">{:,d}"),
]


def blocks(seed: int) -> Network:
    """Return the network before training."""
    rng = np.random.default_rng(seed)

    def weights(n_in: int, n_out: int) -> np.ndarray:
        return (rng.uniform(-1.0, 1.0, (n_in, n_out)) / np.sqrt(n_in)).astype(np.float32)

    a_bar, b_bar = (each.astype(np.float32) for each in discretize(ORDER, THETA, "zoh"))
    memory = Memory(ORDER, CHANNELS, THETA, "zoh", a_bar, b_bar)
    nodes, before, size = [], INPUT, 8
    for number in (1, 2):
        names = [f"{kind}_{number}" for kind in ("memory", "dense", "units")]
        encoders = np.float32(2.0) * weights(size, CHANNELS)
        dense = Dense(weights(memory.size, UNITS), np.zeros(UNITS, np.float32))
        nodes.append(Node(names[0], LinearMemory(memory, encoders), (before,)))
        nodes.append(Node(names[1], dense, (names[0],)))
        nodes.append(Node(names[2], Activation("relu"), (names[1],)))
        before, size = names[2], UNITS
    nodes.append(Node("last", Reduce("last"), (before,)))
    nodes.append(Node("readout", Dense(weights(size, 10), np.zeros(10, np.float32)), ("last",)))
    return Network(tuple(nodes), (8,), "readout", "digits")


def trained(path: Path, data: TaskData, seed: int = 0) -> Network:
    """Return the network of the folder, trained with noise on every signal if it is not there."""
    if path.is_file():
        return load_float(path, "the benchmark")
    torch.manual_seed(seed)
    module = GraphModule(blocks(seed))

    def disturb(part: torch.nn.Module, _: object, signal: torch.Tensor) -> torch.Tensor:
        if not part.training:
            return signal
        size = signal.detach().square().mean().sqrt()
        return signal + NOISE * size * torch.randn_like(signal)

    for name in ("memory_1", "units_1", "memory_2", "units_2"):
        module[name].register_forward_hook(disturb)
    x, y = torch.tensor(data.train.inputs, dtype=torch.float32), torch.tensor(data.train.targets)
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=1e-3)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    best, found = -1.0, module.to_network()
    for _ in range(EPOCHS):
        module.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            given = x[rows] + INPUT_NOISE * torch.randn_like(x[rows])
            loss = torch.nn.functional.cross_entropy(module(given), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network = module.to_network()
        if (reached := score(network, data)) >= best:
            best, found = reached, network
    found.save(path)
    return found


def score(network: Network, data: TaskData) -> float:
    """Return the accuracy on the validation part."""
    answers = run(network, data.validation.inputs).argmax(axis=1)
    return float(np.mean(answers == data.validation.targets))


def main() -> None:
    """Measure the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chips", type=int, nargs="+", default=[1, 2])
    results.add_options(parser)
    options = parser.parse_args()
    data = get_task("digits").load()
    network = trained(options.folder / "digits-two-blocks.safetensors", data)
    float_answers = run(network, data.test.inputs).argmax(axis=1)
    reached = 100 * np.mean(float_answers == data.test.targets)
    rows: list[list[results.Cell]] = [["nothing (float)", "", 0, reached, "", 100.0, 0, 0]]
    for units, calibration in (("chip", "dynamic"), ("host", "dynamic"), ("chip", "none")):
        found = []
        for chip in options.chips:
            made = spike(
                network,
                data.train.inputs,
                "generic-analog",
                units=units,
                calibration=calibration,
                chip_seed=chip,
                **CHIP,
                **NEURONS,
            )
            target = "spiking" if isinstance(made, SpikingGraph) else "brian2"
            done = get_target(target).run(made, data.test.inputs)
            answers = done.outputs.argmax(axis=1)
            spikes = sum(int(counts.sum()) for counts in done.events.values())
            right = 100 * np.mean(answers == data.test.targets)
            found.append((right, 100 * np.mean(answers == float_answers), spikes, made.neurons))
            print(units, calibration, chip, found[-1], flush=True)
        right, same, spikes, neurons = (np.array(each) for each in zip(*found, strict=True))
        what = "everything but encoders" if units == "chip" else "memories"
        limits = f"{right.min():.2f} to {right.max():.2f}"
        per_image = round(spikes.mean() / len(data.test.inputs))
        figures = [float(right.mean()), limits, float(same.mean()), int(neurons[0]), per_image]
        rows.append([what, calibration, len(options.chips), *figures])
    results.publish(COLUMNS, rows, options)


if __name__ == "__main__":
    main()
