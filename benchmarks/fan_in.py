"""Measure the accuracy of calibrated chips with a limited number of synapses per neuron.

The digits network of the examples on one chip whose neurons have at most that many synapses from
other neurons: the sparsest map that fits, each row of W chosen by orthogonal least squares. Zero is
no limit: a chip of the profile that does not exist.

    python benchmarks/fan_in.py --profile dynapse2 --neurons-per-state 64 --fan-in 0,64
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import results

from converters.spiking import spike
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity.measures.statistics import wilson
from lmu_deploy.tasks.digits import TASK
from targets.brian2 import Brian2Target

COLUMNS = [
    ("profile", "{}"),
    ("neurons a state", ">{:d}"),
    ("synapses a neuron", ">{:d}"),
    ("synapses of the chip", ">{:,d}"),
    ("calibration", "{}"),
    ("accuracy", ">{:.2f} %"),
    ("95 % interval", "{}"),
    ("same answer as float", ">{:.1f} %"),
    ("error of the states", ">{:.3f}"),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate and run a chip for each limit and calibration, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="dynapse2")
    parser.add_argument("--neurons-per-state", type=int, default=64)
    parser.add_argument("--fan-in", default="0,64", help="limits, with commas between")
    parser.add_argument("--calibrations", default="dynamic", help="with commas between")
    parser.add_argument("--images", type=int, default=None, help="of the test part; default all")
    parser.add_argument("--seed", type=int, default=0)
    results.add_options(parser)
    args = parser.parse_args(arguments)
    path = results.ROOT / "examples/models/digits.safetensors"
    network, data = as_layers(load_float(path, "benchmark"), "benchmark"), TASK.load()
    inputs, labels = data.test.inputs[: args.images], data.test.targets[: args.images]
    float_run = run_reference(network, inputs, record=True)
    wanted = float_run.outputs.argmax(axis=-1)
    rows: list[list[results.Cell]] = []
    for most in map(int, args.fan_in.split(",")):
        for calibration in args.calibrations.split(","):
            chip = spike(
                network,
                data.train.inputs,
                args.profile,
                neurons_per_state=args.neurons_per_state,
                fan_in=most,
                calibration=calibration,
                seed=args.seed,
            )
            run = Brian2Target().run(chip, inputs, record=True, seed=args.seed)
            answers = run.outputs.argmax(axis=-1)
            right = int((answers == labels).sum())
            low, high = wilson(right, len(labels))
            assert run.states is not None and float_run.m is not None
            off = np.linalg.norm(run.states.m - float_run.m) / np.linalg.norm(float_run.m)
            memory = next(one for one in chip.memories if one is not None)
            rows.append(
                [
                    args.profile,
                    args.neurons_per_state,
                    int(memory.fan_in.max()),
                    int(memory.synapses.sum()),
                    calibration,
                    100.0 * right / len(labels),
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    100.0 * float(np.mean(answers == wanted)),
                    float(off),
                ]
            )
            print(rows[-1], flush=True)
    results.publish(COLUMNS, rows, args, seed=args.seed)


if __name__ == "__main__":
    main()
