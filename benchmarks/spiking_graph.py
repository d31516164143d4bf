"""Put networks of two blocks wholly on spiking neurons, and compare with their memories alone.

    python benchmarks/spiking_graph.py FOLDER --save analog/spiking-graph
    python benchmarks/spiking_graph.py FOLDER --profile dynapse2 \
        --save analog/spiking-graph-dynapse2
    python benchmarks/spiking_graph.py FOLDER --profile loihi1 --chips 1 \
        --variants "chip dynamic,host dynamic" --save analog/spiking-graph-loihi1

The network (memory, relu units, memory, relu units, readout) is trained with noise on all signals
from every seed, unless it is in the folder; the epoch is that with the best accuracy on the
validation part. The seed is that of tuning curves and calibration too. Every network goes onto its
own chips, on none of which anything was chosen: sizes and calibration were chosen on chip 0, with
the validation part of seed 0, and for dynapse2 by what its neurons allow. Accuracies are those of
all test images. The folder keeps what each chip answered, so that an interrupted run goes on there.

Beside it, the first images run without noise on the first chip of each seed on Brian2 as well,
which has to give the same spikes. Loihi's neurons have no mismatch, so that one chip of each seed
tells all; there the first image runs on Lava as well.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import intervals
import numpy as np
import results
import torch

from converters.loihi import loihi_spike
from converters.spiking import spike
from lmu_deploy.core.files import write_text
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import Memory
from lmu_deploy.core.spiking.graph import LoihiGraph, OnLoihi, SpikingGraph
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.nn.graph.module import GraphModule
from lmu_deploy.tasks.base import TaskData, get_task
from targets.base import Run, get_target

ORDER, THETA = 6, 8.0
EPOCHS, BATCH, RATE, NOISE, INPUT_NOISE = 80, 64, 3e-3, 0.2, 0.1


@dataclass(frozen=True)
class Case:
    """A chip, and the network for it: channels and units of a block, and options of `spike`."""

    channels: int
    units: int
    options: dict[str, Any]


CASES = {
    "generic-analog": Case(
        6,
        40,
        {
            **{"mismatch": 0.2, "membrane_noise": 0.02, "weight_bits": 6},
            **{"neurons_per_state": 50, "neurons_per_unit": 30},
        },
    ),
    # The profile's figures: 64 synapses a neuron, 5 bits, DPI neurons; 976 of 1,024 neurons.
    "dynapse2": Case(3, 20, {"neurons_per_state": 16, "neurons_per_unit": 10}),
    "loihi1": Case(6, 40, {"neurons_per_state": 50, "neurons_per_unit": 30}),
}
SAMPLES = 300
VARIANTS = (("chip", "dynamic"), ("host", "dynamic"), ("chip", "none"))
CHIPS_OF_SEED = 100
"""Chips of seed s are 100 (s + 1) and those that follow."""
ON_BRIAN2 = 8
"""Images that run on Brian2 too."""
COLUMNS = [
    ("on neurons", "{}"),
    ("calibration", "{}"),
    ("seeds", ">{:d}"),
    ("chips", ">{:d}"),
    ("accuracy", ">{:.2f} %"),
    ("worst and best chip", ">{}"),
    ("points below float", ">{:.2f}"),
    ("95 % interval", ">{}"),
    ("same answer as float", ">{:.1f} %"),
    ("neurons", ">{:,d}"),
    ("synapses a neuron", ">{:,d}"),
    ("spikes an image", ">{:,d}"),
]


def blocks(seed: int, case: Case) -> Network:
    """Return the network before training."""
    rng = np.random.default_rng(seed)

    def weights(n_in: int, n_out: int) -> np.ndarray:
        return (rng.uniform(-1.0, 1.0, (n_in, n_out)) / np.sqrt(n_in)).astype(np.float32)

    a_bar, b_bar = (each.astype(np.float32) for each in discretize(ORDER, THETA, "zoh"))
    memory = Memory(ORDER, case.channels, THETA, "zoh", a_bar, b_bar)
    nodes, before, size = [], INPUT, 8
    for number in (1, 2):
        names = [f"{kind}_{number}" for kind in ("memory", "dense", "units")]
        encoders = np.float32(2.0) * weights(size, case.channels)
        dense = Dense(weights(memory.size, case.units), np.zeros(case.units, np.float32))
        nodes.append(Node(names[0], LinearMemory(memory, encoders), (before,)))
        nodes.append(Node(names[1], dense, (names[0],)))
        nodes.append(Node(names[2], Activation("relu"), (names[1],)))
        before, size = names[2], case.units
    nodes.append(Node("last", Reduce("last"), (before,)))
    nodes.append(Node("readout", Dense(weights(size, 10), np.zeros(10, np.float32)), ("last",)))
    return Network(tuple(nodes), (8,), "readout", "digits")


def trained(path: Path, data: TaskData, seed: int, case: Case) -> Network:
    """Return the network of the folder, trained with noise on every signal if it is not there."""
    if path.is_file():
        return load_float(path, "the benchmark")
    torch.manual_seed(seed)
    module = GraphModule(blocks(seed, case))

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


def judged(
    network: Network, seed: int, chip: int, variant: tuple[str, str], data: TaskData, profile: str
) -> dict:
    """Return the answers of one chip to all test images, and its spikes."""
    units, calibration = variant
    options = {"units": units, "calibration_samples": SAMPLES, **CASES[profile].options}
    made: SpikingNetwork | SpikingGraph | OnLoihi
    if profile == "loihi1":
        made = loihi_spike(network, data.train.inputs, profile, seed=seed, **options)
    else:
        options |= {"calibration": calibration, "chip_seed": chip}
        made = spike(network, data.train.inputs, profile, seed=seed, **options)
    target = "brian2" if isinstance(made, SpikingNetwork) else "spiking"
    done = get_target(target).run(made, data.test.inputs, seed=seed)
    found = {
        "answers": done.outputs.argmax(axis=1).tolist(),
        "spikes": spikes_of(made, done),
        "neurons": made.neurons,
        "fan_in": fan_in_of(made),
    }
    if isinstance(made, LoihiGraph) and variant == VARIANTS[0]:
        found["of_lava"] = different(made, data.test.inputs[:1], seed, "lava-lif")
    elif variant == VARIANTS[0] and chip == CHIPS_OF_SEED * (seed + 1):
        quiet = replace(made, device=replace(made.device, membrane_noise=0.0))
        found["of_brian2"] = different(quiet, data.test.inputs[:ON_BRIAN2], seed, "brian2")
    return found


def spikes_of(made: SpikingNetwork | SpikingGraph | OnLoihi, done: Run) -> int:
    """Return the spikes of a run, without the messages of relays and host on Loihi."""
    names = [each.name for each in made.ensembles] if isinstance(made, LoihiGraph) else done.events
    return sum(int(done.events[name].sum()) for name in names)


def fan_in_of(made: SpikingNetwork | SpikingGraph | OnLoihi) -> int:
    """Return the largest number of synapses onto a neuron, or on Loihi onto its relay."""
    if isinstance(made, SpikingNetwork | SpikingGraph):
        return max(int(group.fan_in.max()) for group in made.groups() if group.neurons)
    assert isinstance(made, LoihiGraph)  # the network is no chain of layers
    return max(int(each.fan_in.max()) for each in made.ensembles)


def different(graph: SpikingGraph | LoihiGraph, inputs: np.ndarray, seed: int, other: str) -> dict:
    """Run some images on both simulators; return spikes, and where the two have other counts."""
    runs = [get_target(name).run(graph, inputs, seed=seed) for name in ("spiking", other)]
    ours, theirs = (run.events for run in runs)
    rasters = [run.rasters for run in runs]
    return {
        "spikes": sum(int(counts.sum()) for counts in ours.values()),
        "counts": sum(int(np.count_nonzero(ours[name] != theirs[name])) for name in ours),
        "of_first_image": sum(
            int(np.count_nonzero(rasters[0][name] != rasters[1][name])) for name in rasters[0]
        ),
    }


def interval(of_float: np.ndarray, of_chips: np.ndarray) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of the points that chips lose.

    It is over seeds, the chips of each seed, and images.

    Parameters
    ----------
    of_float : ndarray, shape (seeds, images), bool
        Whether the float network is right.
    of_chips : ndarray, shape (seeds, chips, images), bool
    """
    low, high = intervals.of_mean(of_float[:, None].astype(np.int8) - of_chips)
    return 100.0 * low, 100.0 * high


def rows_of(points: dict[str, dict], seeds: list[int], chips: int, targets: np.ndarray) -> list:
    """Return the rows of the table, of each variant on the chips that every seed has run it on."""
    floats = np.array([points[f"{seed}"]["answers"] for seed in seeds])
    reached = 100.0 * float(np.mean(floats == targets))
    rows = [["nothing (float)", "", len(seeds), 0, reached, "", 0.0, "", 100.0, 0, 0, 0]]
    for units, calibration in VARIANTS:
        keys = [[f"{s}/{chip_of(s, c)}/{units}/{calibration}" for c in range(chips)] for s in seeds]
        ran = min(_leading(key in points for key in of_seed) for of_seed in keys)
        keys = [of_seed[:ran] for of_seed in keys]
        if not ran:
            continue
        found = [[points[key] for key in of_seed] for of_seed in keys]
        answers = np.array([[one["answers"] for one in of_seed] for of_seed in found])
        right = answers == targets
        accuracies = 100.0 * right.mean(axis=2)
        low, high = interval(floats == targets, right)
        rows.append(
            [
                "everything but encoders" if units == "chip" else "memories",
                calibration,
                len(seeds),
                len(seeds) * ran,
                float(accuracies.mean()),
                f"{accuracies.min():.2f} to {accuracies.max():.2f} %",
                reached - float(accuracies.mean()),
                f"{low:.2f} to {high:.2f}",
                100.0 * float(np.mean(answers == floats[:, None])),
                found[0][0]["neurons"],
                max(one["fan_in"] for of_seed in found for one in of_seed),
                round(np.mean([[o["spikes"] for o in of] for of in found]) / len(targets)),
            ]
        )
    return rows


def _leading(flags: Iterable[bool]) -> int:
    """Return how many of the first values are true."""
    return sum(1 for _ in takewhile(bool, flags))


def chip_of(seed: int, number: int) -> int:
    """Return the seed of a chip of a network."""
    return CHIPS_OF_SEED * (seed + 1) + number


def main() -> None:
    """Measure the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", choices=CASES, default="generic-analog")
    parser.add_argument("--variants", default="chip dynamic,host dynamic,chip none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--chips", type=int, default=5, help="chips of each seed")
    results.add_options(parser)
    options = parser.parse_args()
    data, kept = get_task("digits").load(), options.folder / f"{options.profile}.json"
    variants = [tuple(variant.split(" ")) for variant in options.variants.split(",")]
    points = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for seed in options.seeds:
        path = options.folder / f"{options.profile}-{seed}.safetensors"
        network = trained(path, data, seed, CASES[options.profile])
        answers = run(network, data.test.inputs).argmax(axis=1)
        points[f"{seed}"] = {"answers": answers.tolist()}
        for units, calibration in variants:
            for chip in (chip_of(seed, number) for number in range(options.chips)):
                key = f"{seed}/{chip}/{units}/{calibration}"
                if key not in points:
                    points[key] = judged(
                        network, seed, chip, (units, calibration), data, options.profile
                    )
                    write_text(kept, json.dumps(points) + "\n")
                    right = np.mean(np.array(points[key]["answers"]) == data.test.targets)
                    same = points[key].get("of_brian2", points[key].get("of_lava", ""))
                    print(f"{key}: {100 * right:.2f} %, {same}", flush=True)
    rows = rows_of(points, options.seeds, options.chips, data.test.targets)
    results.publish(COLUMNS, rows, options)


if __name__ == "__main__":
    main()
