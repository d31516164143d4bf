"""What training with the noise of a chip buys, on chips of few neurons and few weight bits.

The digits network is trained twice from every seed, with the same settings and epochs: as usual,
and with `--chip` for each kind of chip. Both are then put on the same new chips, each with its own
calibration, and judged on all test images. Rows of an image are presented for 5 ms and synapses
have 10 ms, so that a state is the average of few spikes and a chip loses visibly; with 50 and
100 ms there is little to win (docs/results/analog.md, one imperfection at a time).

    python benchmarks/noise_training.py --seeds 3 --points points.json --save analog/noise-training
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import intervals
import numpy as np
import results

import lmu_deploy as ld
from converters.options import SpikeOptions
from converters.spiking import spike_chips
from lmu_deploy.core.files import write_text
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.dataset import find_task
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited
from targets.brian2 import Brian2Target

TASK = "digits"
KINDS = ((20, 4), (20, 6), (10, 6), (20, 2), (50, 6))
"""Neurons a state, and weight bits."""
CHIP = {"mismatch": 0.2, "presentation_ms": 5.0, "tau_ms": 10.0, "units": "host"}
FIRST_CHIP = 4000
"""Chips that no other study has used, and no training."""
COLUMNS = [
    ("neurons a state", ">{:d}"),
    ("weight bits", ">{:d}"),
    ("float", ">{:.2f} %"),
    ("float, trained with noise", ">{:.2f} %"),
    ("chips", ">{:.2f} %"),
    ("chips, trained with noise", ">{:.2f} %"),
    ("worst chip", ">{:.2f} %"),
    ("worst chip, trained with noise", ">{:.2f} %"),
    ("won back", ">{:.0f} %"),
    ("95 % interval", "{}"),
    ("seeds", ">{:d}"),
]


def judge(network: Network, kind: tuple[int, int], chips: int, seed: int) -> list[float]:
    """Return the accuracies of new chips on the test images."""
    task = find_task(TASK)
    data = task.load()
    options = SpikeOptions(neurons_per_state=kind[0], weight_bits=kind[1], **CHIP)
    seeds = range(FIRST_CHIP + seed * chips, FIRST_CHIP + (seed + 1) * chips)
    known = limited(data.train, CALIBRATION_SAMPLES).filled
    made = spike_chips(network, known, "generic-analog", seeds, options)
    runs = Brian2Target().run_chips(made, data.test.inputs, seed=seed)
    return [task.score(run.outputs, data.test.targets) for run in runs]


def of_float(network: Network) -> float:
    """Return the accuracy of the float network on the test images."""
    task = find_task(TASK)
    test = task.load().test
    return task.score(run_reference(network, test.inputs).outputs, test.targets)


def measure(seed: int, chips: int) -> dict:
    """Train with one seed in every way, and judge each network on chips."""
    plain = ld.train(TASK, seed=seed).network
    found = {"float": of_float(plain)}
    for kind in KINDS:
        chip = {"profile": "generic-analog", "neurons_per_state": kind[0], "weight_bits": kind[1]}
        aware = ld.train(TASK, seed=seed, chip={**chip, **CHIP}).network
        found[f"{kind[0]},{kind[1]}"] = {
            "float": of_float(aware),
            "plain": judge(plain, kind, chips, seed),
            "aware": judge(aware, kind, chips, seed),
        }
    return found


def won_back(reached: np.ndarray, plain: np.ndarray, aware: np.ndarray) -> float:
    """Return the share of the loss of chips that is won back, from means over seeds and chips."""
    return float((aware.mean() - plain.mean()) / (reached.mean() - plain.mean()))


def interval(reached: np.ndarray, plain: np.ndarray, aware: np.ndarray) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of that share, over seeds and the chips of each."""

    def statistic(index: intervals.Drawn, _: np.random.Generator) -> float:
        return won_back(reached[index[0]], plain[index], aware[index])

    return intervals.interval(*plain.shape, statistic)


def rows_of(points: dict[str, dict]) -> list[list]:
    """Return the rows of the table, from the points of all seeds."""
    reached = np.array([of["float"] for of in points.values()])
    rows = []
    for neurons, bits in sorted(KINDS):
        kinds = [of[f"{neurons},{bits}"] for of in points.values()]
        plain, aware = (np.array([of[name] for of in kinds]) for name in ("plain", "aware"))
        low, high = interval(reached, plain, aware)
        with_noise = float(np.mean([of["float"] for of in kinds]))
        accuracies = [reached.mean(), with_noise, plain.mean(), aware.mean()]
        accuracies += [plain.min(), aware.min()]
        share = 100.0 * won_back(reached, plain, aware)
        cells = [100.0 * float(one) for one in accuracies]
        bounds = f"{100 * low:.0f} to {100 * high:.0f}"
        rows.append([neurons, bits, *cells, share, bounds, len(points)])
    return rows


def main() -> None:
    """Measure every seed, print a table, and save it after each of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--chips", type=int, default=5, help="new chips for each seed")
    parser.add_argument("--points", type=Path, help="file of what an interrupted run has done")
    results.add_options(parser)
    args = parser.parse_args()
    points = {}
    if args.points is not None and args.points.exists():
        points = json.loads(args.points.read_text(encoding="utf-8"))
    for seed in range(args.seeds):
        if str(seed) not in points:
            points[str(seed)] = measure(seed, args.chips)
            if args.points is not None:
                write_text(args.points, json.dumps(points, indent=1) + "\n")
        results.publish(COLUMNS, rows_of(points), args, seed=0)


if __name__ == "__main__":
    main()
