"""Judge networks on many virtual chips, and write how many reach what.

    python benchmarks/chip_yields.py digits --record digits.json --save analog/yield-digits
    python benchmarks/chip_yields.py mackey-glass --record mackey-glass.json \
        --save analog/yield-mackey-glass
    python benchmarks/chip_yields.py mackey-glass-1000 --record mackey-glass-1000.json \
        --save analog/yield-mackey-glass-1000
    python benchmarks/chip_yields.py digits --seeds 5 --chips 5 --record FOLDER/digits.json \
        --save analog/yield-digits-seeds

    python benchmarks/chip_yields.py digits --tuning-seeds 5 --chips 10 \
        --record FOLDER/digits.json --save analog/yield-digits-tuning

The record is that of `lmu-deploy yield`: chips that it holds are not run again. Chips 5000 and
higher have been used by no other study. With --seeds, the digits network is trained again from each
of these seeds, instead of taking the network of the examples, which is the best of five.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import intervals
import numpy as np
import results

import lmu_deploy as ld
from lmu_deploy.studies.chip_yield import ChipYield

MODELS = results.ROOT / "examples/models"
CHIP = {"neurons_per_state": 50, "mismatch": 0.2, "weight_bits": 6}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("digits.safetensors", CHIP),
    "mackey-glass": (
        "mackey-glass-hybrid.safetensors",
        {
            **CHIP,
            **{"limit": 4, "steps": 400, "calibration_samples": 8, "calibration_steps": 300},
        },
    ),
    "mackey-glass-1000": (
        "mackey-glass-hybrid.safetensors",
        {
            **CHIP,
            **{"limit": 4, "steps": 1000, "calibration_samples": 32, "calibration_steps": 1000},
        },
    ),
}
FIRST_CHIP = 5000
SHARES = {"worst chip": 1.0, "95 % reach": 0.95, "median": 0.5, "best chip": 0.0}
OF_CHIPS = [("calibration", "{}"), *((title, ">{:.4f}") for title in SHARES), ("chips", ">{:d}")]
OF_SEEDS = [
    ("training seed", "{}"),
    ("float", ">{:.2f} %"),
    ("chips, mean", ">{:.2f} %"),
    ("worst chip", ">{:.2f} %"),
    ("not calibrated, mean", ">{:.2f} %"),
    ("chips", ">{:d}"),
    ("95 % interval of the chips' mean", "{}"),
]
OF_TUNINGS = ("ideal device", "chips, mean", "worst chip", "not calibrated, mean")


def of_chips(found: ChipYield) -> list[list[results.Cell]]:
    """Return a row for each calibration, of values that chips have."""
    rows: list[list[results.Cell]] = []
    for method in found.values:
        reached = [found.reached_by(method, share) for share in SHARES.values()]
        rows.append([method, *reached, len(found.chips)])
    rows.append(["dynamic, ideal device", *[found.ideal] * len(SHARES), 1])
    rows.append(["float", *[found.reference] * len(SHARES), 0])
    return rows


def of_seeds(found: list[ChipYield]) -> list[list[results.Cell]]:
    """Return a row for each training seed, and one of all with an interval over seeds and chips."""
    dynamic, plain = (
        100.0 * np.array([each.values[method] for each in found]) for method in ("dynamic", "none")
    )
    floats = 100.0 * np.array([each.reference for each in found])
    rows: list[list[results.Cell]] = [
        [f"{seed}", *map(float, (floats[seed], own.mean(), own.min(), bare.mean())), len(own), ""]
        for seed, (own, bare) in enumerate(zip(dynamic, plain, strict=True))
    ]
    interval = intervals.shown(intervals.of_mean(dynamic), 2)
    whole = map(float, (floats.mean(), dynamic.mean(), dynamic.min(), plain.mean()))
    rows.append(["all", *whole, dynamic.size, f"{interval} %"])
    return rows


def of_tunings(
    found: list[ChipYield], unit: float, digits: int
) -> tuple[results.Columns, list[list[results.Cell]]]:
    """Return columns, and a row for each seed of tuning and one of all with an interval.

    Parameters
    ----------
    found : list of ChipYield
    unit : float
        Factor of the values, 100 for percent.
    digits : int
        Of the values that are shown.
    """
    dynamic, plain = (
        unit * np.array([each.values[method] for each in found]) for method in ("dynamic", "none")
    )
    ideal = unit * np.array([each.ideal for each in found])
    worst = [unit * each.reached_by("dynamic", SHARES["worst chip"]) for each in found]
    form = f">{{:.{digits}f}}" + (" %" if unit == 100.0 else "")
    columns = [("tuning seed", "{}"), *((title, form) for title in OF_TUNINGS)]
    columns += [("chips", ">{:d}"), ("95 % interval of the chips' mean", "{}")]
    rows: list[list[results.Cell]] = [
        [f"{seed}", *map(float, (ideal[seed], own.mean(), worst[seed], bare.mean())), len(own), ""]
        for seed, (own, bare) in enumerate(zip(dynamic, plain, strict=True))
    ]
    last = min(worst) if dynamic.mean() > min(worst) else max(worst)
    interval = intervals.shown(intervals.of_mean(dynamic), digits)
    whole = map(float, (ideal.mean(), dynamic.mean(), last, plain.mean()))
    rows.append(["all", *whole, dynamic.size, interval])
    return columns, rows


def main() -> None:
    """Run the chips that are missing in the record, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--chips", type=int, default=100, help="of each network")
    parser.add_argument("--seeds", type=int, default=0, help="train from so many seeds")
    parser.add_argument("--tuning-seeds", type=int, default=0, help="tune the neurons so often")
    parser.add_argument("--record", type=Path, required=True)
    results.add_options(parser)
    args = parser.parse_args()
    file, options = TASKS[args.task]
    if args.tuning_seeds:
        found = []
        for seed in range(args.tuning_seeds):
            own = {"first_chip": FIRST_CHIP + 2000 + seed * args.chips, "seed": seed}
            out = args.record.with_name(f"{args.record.stem}-{seed}.json")
            found.append(ld.chip_yield(MODELS / file, chips=args.chips, out=out, **own, **options))
        shown = (100.0, 2) if args.task == "digits" else (1.0, 4)
        results.publish(*of_tunings(found, *shown), args, seed=0)
        return
    if not args.seeds:
        found = ld.chip_yield(
            MODELS / file, chips=args.chips, first_chip=FIRST_CHIP, out=args.record, **options
        )
        results.publish(OF_CHIPS, of_chips(found), args, seed=0)
        return
    records = []
    for seed in range(args.seeds):
        place = args.record.with_name(f"{args.record.stem}-{seed}")
        network = place.with_suffix(".safetensors")
        if not network.exists():
            ld.train(args.task, seed=seed).network.save(network)
        first = FIRST_CHIP + 1000 + seed * args.chips
        out = place.with_suffix(".json")
        records.append(
            ld.chip_yield(network, chips=args.chips, first_chip=first, out=out, **options)
        )
    results.publish(OF_SEEDS, of_seeds(records), args, seed=0)


if __name__ == "__main__":
    main()
