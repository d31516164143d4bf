"""Measure the accuracy of the digits network on single chips of several kinds.

The network of the examples, each row of pixels presented for 50 ms, on chips of each kind that no
other study has used, with all images of the test part. Synapses are limited where the profile
limits them.

    python benchmarks/one_chip.py --save analog/digits-one-chip
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import results

from converters.spiking import spike
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.loading import load_float
from lmu_deploy.tasks.digits import TASK
from targets.brian2 import Brian2Target

FIRST_CHIP = 7000
GENERIC = {"neurons_per_state": 100, "mismatch": 0.2, "weight_bits": 6}
COLUMNS = [
    ("chip", "{}"),
    ("calibration", "{}"),
    ("chips", ">{:d}"),
    ("accuracy, mean", ">{:.2f} %"),
    ("worst and best chip", "{}"),
    ("same answer as float", ">{:.1f} %"),
    ("synapses a neuron", ">{:,d}"),
    ("spikes an image", ">{:,d}"),
]


@dataclass(frozen=True)
class Kind:
    """A kind of chip: its profile, and options of `spike`."""

    title: str
    profile: str = "generic-analog"
    options: dict[str, Any] = field(default_factory=dict)
    calibrations: tuple[str, ...] = ("dynamic",)


KINDS = [
    Kind(
        "LIF, 100 a state, 20 % mismatch, 6 bits",
        options=GENERIC,
        calibrations=("dynamic", "none"),
    ),
    Kind("DPI, 100 a state, 20 % mismatch, 6 bits", options={**GENERIC, "neuron": "dpi"}),
    Kind("the same, DPI synapses too", options={**GENERIC, "neuron": "dpi", "synapse": "dpi"}),
    Kind(
        "`dynapse2`, 64 a state: the whole chip",
        "dynapse2",
        {"neurons_per_state": 64},
        ("dynamic", "none"),
    ),
    Kind(
        "`brainscales2`, 32 a state: the whole chip",
        "brainscales2",
        {"neurons_per_state": 32},
        ("dynamic", "none"),
    ),
    Kind("`braindrop`, 100 a state", "braindrop", {"neurons_per_state": 100}),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate and run the chips of every kind, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chips", type=int, default=3, help="of every kind")
    parser.add_argument("--images", type=int, default=None, help="of the test part; default all")
    results.add_options(parser)
    args = parser.parse_args(arguments)
    network = load_float(results.ROOT / "examples/models/digits.safetensors", "benchmark")
    data = TASK.load()
    inputs, labels = data.test.inputs[: args.images], data.test.targets[: args.images]
    wanted = run(network, inputs).argmax(axis=-1)
    right = float(np.mean(wanted == labels))
    rows: list[list[results.Cell]] = [
        ["float", "", 0, 100 * right, "", 100.0, None, None],
    ]
    for kind in KINDS:
        for calibration in kind.calibrations:
            accuracies, same, spikes, fan_in = [], [], [], 0
            for chip_seed in range(FIRST_CHIP, FIRST_CHIP + args.chips):
                chip = spike(
                    network,
                    data.train.inputs,
                    kind.profile,
                    calibration=calibration,
                    chip_seed=chip_seed,
                    **kind.options,
                )
                ran = Brian2Target().run(chip, inputs)
                answers = ran.outputs.argmax(axis=-1)
                accuracies.append(100 * float(np.mean(answers == labels)))
                same.append(100 * float(np.mean(answers == wanted)))
                spikes.append(sum(int(e.sum()) for e in ran.events.values()) / len(inputs))
                fan_in = max(fan_in, *(int(m.fan_in.max()) for m in chip.memories if m is not None))
            span = f"{min(accuracies):.2f} to {max(accuracies):.2f} %"
            found = [float(np.mean(accuracies)), span, float(np.mean(same))]
            rows.append(
                [kind.title, calibration, args.chips, *found, fan_in, round(np.mean(spikes))]
            )
            print(rows[-1], flush=True)
    results.publish(COLUMNS, rows, args)


if __name__ == "__main__":
    main()
