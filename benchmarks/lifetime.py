"""Accuracy of calibrated analog chips over a year and over temperature, by schedule.

The digits network on virtual chips of generic-analog, which drift as the profile's section drift
says, or several times as much. One row is one schedule, age and temperature: quantiles over chips.
With --search, a second table has the intervals between full calibrations that were tried until 95 %
of the chips lose at most two points.

    python benchmarks/lifetime.py --chips 20 --limit 100
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import results

from converters.options import SpikeOptions
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load_float
from lmu_deploy.hardware.profile import AnalogProfile, DriftFigures, Figure, load_profile
from lmu_deploy.studies.life_record import Lifetime, Schedule, parse_age
from lmu_deploy.studies.lifetime import LifetimeStudy, drift_of, follow
from lmu_deploy.studies.plot import write_curves
from lmu_deploy.studies.workers import Spread
from lmu_deploy.tasks.selection import task_for

DIGITS = Path(__file__).resolve().parents[1] / "examples/models/digits.safetensors"
KEEP = 2.0
_FIRST_CHIP = 1000
"""Chips that no other study has used."""
COLUMNS = [
    ("drift", "{}"),
    ("recalibration", "{}"),
    ("age, days", ">{:d}"),
    ("temperature, °C", ">{:g}"),
    ("median", ">{:.2f} %"),
    ("95 % reach", ">{:.2f} %"),
    ("worst chip", ">{:.2f} %"),
    ("95 % lose at most, points", ">{:.2f}"),
    ("calibrations a chip", ">{:.1f}"),
]
SEARCHED = [
    ("drift", "{}"),
    ("days between calibrations", "{}"),
    ("95 % lose at most, points", ">{:.2f}"),
]


def drifting(times: float) -> AnalogProfile:
    """Return generic-analog with this many times the drift and the faults of its profile."""
    chip = load_profile("generic-analog", "analog")
    assert isinstance(chip, AnalogProfile) and chip.drift is not None
    more = {
        name: Figure(value=value * times, source=f"{times:g} times the profile's")
        for name, value in chip.drift.values().items()
        if name.endswith(("_drift", "_rate"))
    }
    drift = DriftFigures(**{**dict(chip.drift), **more})
    return chip.model_copy(update={"drift": drift})


def row_of(times: float, found: Lifetime, point: dict) -> list:
    """Return the row of one age and temperature."""
    lost = float(np.quantile(found.losses(point["values"]), 0.95))
    reached = [100.0 * found.reached_by(point["values"], share) for share in (0.5, 0.95, 1.0)]
    where = [f"{times:g} x", found.schedule, point["age"], point["temperature"]]
    return [*where, *reached, lost, float(np.mean(found.recalibrations))]


def main() -> None:
    """Run every schedule, print a table, and save it after each one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--limit", type=int, default=100, help="test images")
    parser.add_argument("--ages", default="30d,365d")
    parser.add_argument("--temperatures", default="0,25,60")
    parser.add_argument("--drifts", default="1,4", help="multiples of the profile's drift")
    parser.add_argument("--neurons-per-state", type=int, default=20)
    parser.add_argument("--calibration-samples", type=int, default=60)
    parser.add_argument("--schedules", default="never,30d,30d readout")
    parser.add_argument(
        "--plot", type=Path, help="SVG of the chips that are never calibrated again"
    )
    parser.add_argument("--search", metavar="PAGE/NAME", help="save the second table there")
    parser.add_argument("--records", type=Path, help="folder of what an interrupted run has done")
    results.add_options(parser)
    args = parser.parse_args()
    options = SpikeOptions(
        neurons_per_state=args.neurons_per_state,
        mismatch=0.2,
        weight_bits=6,
        calibration_samples=args.calibration_samples,
        units="host",
    )
    layers = as_layers(load_float(DIGITS, "yield"), "yield")
    ages = sorted(parse_age(age) for age in args.ages.split(","))
    temperatures = [float(one) for one in args.temperatures.split(",")]
    seeds = range(_FIRST_CHIP, _FIRST_CHIP + args.chips)
    rows, searched = [], []
    for times in map(float, args.drifts.split(",")):
        chip = drifting(times)
        given = (layers, task_for(layers, None), chip, args.limit, options, drift_of(chip), KEEP)
        life = {"days": ages, "warmths": temperatures}
        for number, schedule in enumerate(args.schedules.split(",")):
            when = Schedule.parse(*schedule.split(" "))
            spread = Spread(partial(LifetimeStudy, *given, **life, schedule=when))
            out = args.records and args.records / f"{times:g}-{number}.json"
            found = follow(spread, seeds, bool(args.search) and number == 0, out)
            if number == 0:
                warmth = found.drift["reference_temperature"]
                first = row_of(times, found, {"age": 0, "temperature": warmth, "values": found.new})
                rows.append([first[0], "new", *first[2:]])
                for every, lost in (found.kept_by or {"tried": ()})["tried"]:
                    searched.append([f"{times:g} x", f"{every:g}" if every else "none", lost])
            rows += [row_of(times, found, point) for point in found.points]
            results.publish(COLUMNS, rows, args, seed=0)
            if args.plot is not None and number == 0:
                title = f"{times:g} times the drift of the profile, never calibrated again"
                write_curves(found.curves(), ("accuracy", "age, days"), title, args.plot)
    if args.search:
        args.save = args.search
        results.publish(SEARCHED, searched, args, seed=0)


if __name__ == "__main__":
    main()
