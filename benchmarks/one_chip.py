"""Measure the accuracy of digits networks on single chips of several kinds.

`memories` is the network of the examples: each row of pixels is presented for 50 ms, and the
memories are on neurons. `units` is one with feed-forward hidden units, which are on neurons with
the readout; it is trained for each seed. `fan-in` limits the synapses of a neuron of the first
network. Each seed of tuning and calibration has chips of its own that no other study has used, with
all images of the test part. Synapses are limited where the profile limits them. Intervals of 95 %
are over seeds, chips and images.

    python benchmarks/one_chip.py memories --save analog/digits-one-chip
    python benchmarks/one_chip.py units --save analog/digits-units
    python benchmarks/one_chip.py fan-in --save analog/fan-in
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import intervals
import numpy as np
import results

import lmu_deploy as ld
from converters.spiking import spike
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.tasks.base import TaskData
from lmu_deploy.tasks.digits import TASK
from lmu_deploy.tasks.selection import limited
from targets.brian2 import Brian2Target

FIRST_CHIP = 7000
GENERIC = {"neurons_per_state": 100, "mismatch": 0.2, "weight_bits": 6}
UNITS = {**GENERIC, "neurons_per_state": 50, "units": "chip"}
WHOLE = {"neurons_per_state": 64}
"""All neurons of a DYNAP-SE2 for the network of the examples."""
COLUMNS = [
    ("chip", "{}"),
    ("calibration", "{}"),
    ("chips", ">{:d}"),
    ("accuracy, mean", ">{:.2f} %"),
    ("95 % interval", "{}"),
    ("worst and best chip", "{}"),
    ("same answer as float", ">{:.1f} %"),
    ("error of the states", ">{:.3f}"),
    ("neurons", ">{:,d}"),
    ("synapses a neuron", ">{:,d}"),
    ("spikes an image", ">{:,d}"),
    ("SynOps an image, million", ">{:.1f}"),
]


@dataclass(frozen=True)
class Kind:
    """A kind of chip: its profile, and options of `spike`."""

    title: str
    profile: str = "generic-analog"
    options: dict[str, Any] = field(default_factory=dict)
    calibrations: tuple[str, ...] = ("dynamic",)


STUDIES = {
    "memories": [
        Kind(
            "LIF, 100 a state, 20 % mismatch, 6 bits",
            options=GENERIC,
            calibrations=("dynamic", "none"),
        ),
        Kind("DPI, 100 a state, 20 % mismatch, 6 bits", options={**GENERIC, "neuron": "dpi"}),
        Kind("the same, DPI synapses too", options={**GENERIC, "neuron": "dpi", "synapse": "dpi"}),
        Kind("`dynapse2`, 64 a state: the whole chip", "dynapse2", WHOLE, ("dynamic", "none")),
        Kind(
            "`brainscales2`, 32 a state: the whole chip",
            "brainscales2",
            {"neurons_per_state": 32},
            ("dynamic", "none"),
        ),
        Kind("`braindrop`, 100 a state", "braindrop", {"neurons_per_state": 100}),
    ],
    "units": [
        Kind("units on the host", options={**UNITS, "units": "host"}),
        Kind(
            "20 neurons a unit",
            options={**UNITS, "neurons_per_unit": 20},
            calibrations=("dynamic", "static", "none"),
        ),
        Kind("50 neurons a unit", options={**UNITS, "neurons_per_unit": 50}),
        Kind("20 DPI neurons a unit", options={**UNITS, "neurons_per_unit": 20, "neuron": "dpi"}),
    ],
    "fan-in": [
        Kind("`dynapse2`, at most 64 synapses a neuron", "dynapse2", WHOLE),
        Kind("the same, without a limit", "dynapse2", {**WHOLE, "fan_in": 0}),
    ],
}


def network_of(study: str, seed: int) -> Network:
    """Return the network of a study and a seed."""
    if study == "units":
        return ld.train("digits", model="parallel", seed=seed).network
    return load_float(results.ROOT / "examples/models/digits.safetensors", "benchmark")


@dataclass(frozen=True)
class Seed:
    """Seeds of tuning curves and calibration, and of the chip."""

    tuning: int
    chip: int


@dataclass(frozen=True)
class Truth:
    """Labels, shape (images,), and the answers of the float network of each seed."""

    labels: np.ndarray
    answers: np.ndarray


@dataclass(frozen=True)
class Judged:
    """What one chip does with all images.

    Attributes
    ----------
    answers : ndarray, shape (images,)
    error : float
        Of the states, relative to the float memory's.
    neurons, fan_in : int
        On the chip, and the most synapses of one of them.
    spikes, synops : float
        Of an image.
    """

    answers: np.ndarray
    error: float
    neurons: int
    fan_in: int
    spikes: float
    synops: float


def judge(kind: Kind, calibration: str, network: LMUNetwork, data: TaskData, seed: Seed) -> Judged:
    """Calibrate one chip and run it."""
    chip = spike(
        network,
        data.train.inputs,
        kind.profile,
        calibration=calibration,
        seed=seed.tuning,
        chip_seed=seed.chip,
        **kind.options,
    )
    assert isinstance(chip, SpikingNetwork)
    ran = Brian2Target().run(chip, data.test.inputs, record=True, seed=seed.tuning)
    true = run_reference(network, data.test.inputs, record=True).m
    assert ran.states is not None and true is not None
    images = len(data.test.inputs)
    return Judged(
        ran.outputs.argmax(axis=-1),
        float(np.linalg.norm(ran.states.m - true) / np.linalg.norm(true)),
        chip.neurons,
        max(int(group.fan_in.max()) for group in chip.groups() if group.neurons),
        sum(int(events.sum()) for events in ran.events.values()) / images,
        ran.synops / images,
    )


def row_of(kind: Kind, calibration: str, found: list[list[Judged]], truth: Truth) -> list:
    """Return the row of a kind of chip, from what the chips of each seed did."""
    answers = np.array([[each.answers for each in of_seed] for of_seed in found])
    hits, every = answers == truth.labels, [each for of_seed in found for each in of_seed]
    accuracies = 100.0 * hits.mean(axis=2)
    return [
        kind.title,
        calibration,
        len(every),
        float(accuracies.mean()),
        intervals.shown(intervals.of_mean(hits), 2, 100.0),
        f"{accuracies.min():.2f} to {accuracies.max():.2f} %",
        100.0 * float(np.mean(answers == truth.answers[:, None])),
        float(np.mean([each.error for each in every])),
        every[0].neurons,
        max(each.fan_in for each in every),
        round(np.mean([each.spikes for each in every])),
        1e-6 * float(np.mean([each.synops for each in every])),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate and run the chips of every kind, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=3, help="of tuning and calibration")
    parser.add_argument("--chips", type=int, default=2, help="of each seed")
    parser.add_argument("--images", type=int, default=None, help="of the test part; default all")
    results.add_options(parser)
    args = parser.parse_args(arguments)
    data = TASK.load()
    data = replace(data, test=limited(data.test, args.images))
    inputs, labels = data.test.inputs, data.test.targets
    networks = [network_of(args.study, seed) for seed in range(args.seeds)]
    truth = Truth(labels, np.array([run(each, inputs).argmax(axis=-1) for each in networks]))
    of_float = (truth.answers == labels)[:, None]
    reached = intervals.shown(intervals.of_mean(of_float), 2, 100.0)
    rows: list[list[results.Cell]] = [
        ["float", "", 0, 100.0 * float(of_float.mean()), reached, "", 100.0, *[None] * 5]
    ]
    for kind in STUDIES[args.study]:
        for calibration in kind.calibrations:
            found = [
                [
                    judge(
                        kind, calibration, as_layers(network, "benchmark"), data, Seed(seed, chip)
                    )
                    for chip in range(first, first + args.chips)
                ]
                for seed, network in enumerate(networks)
                for first in (FIRST_CHIP + seed * args.chips,)
            ]
            rows.append(row_of(kind, calibration, found, truth))
            print(rows[-1], flush=True)
    results.publish(COLUMNS, rows, args, seed=0)


if __name__ == "__main__":
    main()
