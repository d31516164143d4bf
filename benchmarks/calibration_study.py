"""Measure a spiking memory with mismatch, noise and few weight bits, before and after calibration.

A memory of order 6 and 0.5 s on 100 neurons a state (the signals and times of spiking_error.py), on
several virtual chips: error of the states after each calibration, and its ratio to an ideal chip's.
Intervals of 95 % are over chips, each with mismatch, tuning curves and signals of its own. Chips
100 and higher have been used by no other study; the calibration was chosen on chips 0 to 4.

    python benchmarks/calibration_study.py --save analog/calibration
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import intervals
import numpy as np
import results
from spiking_error import state_error

from lmu_deploy.core.progress import progress_bar

MISMATCH, NOISE, BITS = 0.2, 0.05, 6
IDEAL: dict[str, Any] = {"mismatch": 0.0, "membrane_noise": 0.0, "weight_bits": 0}
WORN = {**IDEAL, "mismatch": MISMATCH}
NOISY = {**WORN, "membrane_noise": NOISE, "weight_bits": BITS}
CASES: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("ideal chip", IDEAL, "dynamic"),
    (f"{MISMATCH:.0%} mismatch", WORN, "none"),
    (f"{MISMATCH:.0%} mismatch", WORN, "static"),
    (f"{MISMATCH:.0%} mismatch", WORN, "dynamic"),
    (f"{MISMATCH:.0%} mismatch, noise {NOISE}, {BITS} bits", NOISY, "none"),
    (f"{MISMATCH:.0%} mismatch, noise {NOISE}, {BITS} bits", NOISY, "dynamic"),
)
COLUMNS = [
    ("neuron", "{}"),
    ("chip", "{}"),
    ("calibration", "{}"),
    ("error", ">{:.4f}"),
    ("95 % interval", "{}"),
    ("best and worst chip", "{}"),
    ("of the ideal chip's", ">{:.2f}"),
    ("95 % interval", "{}"),
    ("chips", ">{:d}"),
]


def of_chips(errors: np.ndarray, ideal: np.ndarray) -> list[results.Cell]:
    """Return mean, range and ratio to the ideal chips, with intervals over chips."""
    each, reference = errors[:, None], ideal[:, None]
    return [
        float(errors.mean()),
        intervals.shown(intervals.of_mean(each), 4),
        f"{errors.min():.4f} to {errors.max():.4f}",
        float(errors.mean() / ideal.mean()),
        intervals.shown(intervals.of_ratio(each, reference), 2),
        len(errors),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--neurons", default="lif,dpi", help="models, with commas between")
    parser.add_argument("--order", type=int, default=6)
    parser.add_argument("--neurons-per-state", type=int, default=100)
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--samples", type=int, default=8, help="signals judged")
    parser.add_argument("--milliseconds", type=int, default=3000, help="length of a signal")
    parser.add_argument("--seed", type=int, default=100, help="of the first chip")
    results.add_options(parser)
    args = parser.parse_args(arguments)
    kinds = args.neurons.split(",")
    rows = []
    done, total = 0, len(kinds) * len(CASES) * args.chips
    with progress_bar("calibration study", "chips") as progress:
        for kind in kinds:
            ideal = np.empty(0)
            for name, device, calibration in CASES:
                errors = np.empty(args.chips)
                for chip in range(args.chips):
                    options = {**device, "neuron": kind, "calibration": calibration}
                    options["neurons_per_state"] = args.neurons_per_state
                    # A chip comes with tuning curves and signals of its own, in every case.
                    own = argparse.Namespace(**{**vars(args), "seed": args.seed + chip})
                    errors[chip] = state_error(args.order, own, **options)
                    done += 1
                    progress(done, total)
                ideal = errors if device is IDEAL else ideal
                rows.append([kind, name, calibration, *of_chips(errors, ideal)])
                print(rows[-1], flush=True)
    results.publish(COLUMNS, rows, args, seed=args.seed)


if __name__ == "__main__":
    main()
