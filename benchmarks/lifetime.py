"""Accuracy of calibrated analog chips over a year and over temperature, by schedule.

The digits network on virtual chips of generic-analog, which drift as the profile's section drift
says, or several times as much. One row is one schedule, age and temperature: quantiles over chips.
With --search, a second table has the intervals between full calibrations that were tried until 95 %
of the chips lose at most two points.

    python benchmarks/lifetime.py --chips 20 --limit 100

With --tuning-seeds, the neurons are tuned and calibrated with so many seeds, each for chips of its
own, and one row has the mean loss with an interval of 95 % over seeds and chips.

    python benchmarks/lifetime.py --tuning-seeds 3 --chips 10 --schedules never,30d

With --examine, one chip and its calibration of half a year before the last age are taken apart:
which map, drift and faults leave what accuracy.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import intervals
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
_FIRST_TUNED = 1100
TUNED = [
    ("drift", "{}"),
    ("recalibration", "{}"),
    ("age, days", ">{:d}"),
    ("temperature, °C", ">{:g}"),
    ("lost, mean, points", ">{:.2f}"),
    ("95 % interval", "{}"),
    ("worst chip", ">{:.2f}"),
    ("tuning seeds", ">{:d}"),
    ("chips", ">{:d}"),
]
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
    ("half lose at most, points", ">{:.2f}"),
    ("95 % lose at most", ">{:.2f}"),
    ("worst chip", ">{:.2f}"),
]


EXAMINED = [
    ("calibrated on day", ">{:d}"),
    ("drift of day", ">{:d}"),
    ("faults of day", ">{:d}"),
    ("stuck or dead neurons", ">{:d}"),
    ("sum of their weights, relative to those of all neurons", "{}"),
    ("accuracy", ">{:.2f} %"),
]
AGO = 180
"""Days between the calibration that is examined and the last age."""


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
    lost = found.lost_by(point["values"])
    reached = [100.0 * found.reached_by(point["values"], share) for share in (0.5, 0.95, 1.0)]
    where = [f"{times:g} x", found.schedule, point["age"], point["temperature"]]
    return [*where, *reached, lost, float(np.mean(found.recalibrations))]


def examined(study: LifetimeStudy, seed: int) -> list[list[results.Cell]]:
    """Return rows of :data:`EXAMINED` for one chip at the reference temperature."""
    (made,), warmth, last = (
        study.new_chips([seed]),
        study.drift.reference_temperature,
        study.days[-1],
    )
    lives, before = study.lives(made), last - AGO
    maps = {0: made}
    for day in (before, last):
        maps[day] = study.calibrated_again(study.aged(made, lives, day, warmth))
    between = [before, *range(before + AGO // 4, last, AGO // 4), last]
    cases = [(0, 0, 0), (0, last, last), *((before, day, day) for day in between)]
    cases += [(before, last, before), (before, before, last), (last, last, last)]
    rows: list[list[results.Cell]] = []
    for of_map, of_drift, of_faults in cases:
        aged = study.aged(maps[of_map], lives, of_drift, warmth)
        other = study.aged(maps[of_map], lives, of_faults, warmth)
        faults = [each.populations.faults for each in other.memories if each is not None]
        memories = tuple(
            memory and replace(memory, populations=replace(memory.populations, faults=each))
            for memory, each in zip(aged.memories, faults, strict=True)
        )
        (run,) = study.run_chips([replace(aged, memories=memories)], study.split.inputs)
        score = study.task.score(run.outputs, study.split.targets)
        (memory,), (fault,) = memories, faults
        columns = np.abs(memory.weights).sum(axis=1).reshape(memory.populations.encoders.shape)
        broken = columns[fault != 0.0] if fault is not None else columns[:0]
        share = f"{broken.sum() / columns.mean():.2f}" if len(broken) else ""
        rows.append([of_map, of_drift, of_faults, len(broken), share, 100.0 * score])
    return rows


def tuned_rows(times: float, lives: list[Lifetime]) -> list[list[results.Cell]]:
    """Return a row for each age and temperature, from the lives of the chips of each seed."""
    new = np.array([life.new for life in lives])
    rows: list[list[results.Cell]] = []
    for points in zip(*(life.points for life in lives), strict=True):
        lost = 100.0 * (new - np.array([point["values"] for point in points]))
        rows.append(
            [
                f"{times:g} x",
                lives[0].schedule,
                int(points[0]["age"]),
                points[0]["temperature"],
                float(lost.mean()),
                intervals.shown(intervals.of_mean(lost), 2),
                float(lost.max()),
                len(lives),
                lost.size,
            ]
        )
    return rows


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
    parser.add_argument("--tuning-seeds", type=int, default=0, help="each with so many chips")
    parser.add_argument("--search", metavar="PAGE/NAME", help="save the second table there")
    parser.add_argument("--examine", type=int, metavar="CHIP", help="take this chip apart")
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
        if args.tuning_seeds:
            for schedule in args.schedules.split(","):
                when = Schedule.parse(*schedule.split(" "))
                lives = []
                for seed in range(args.tuning_seeds):
                    tuned = (*given[:4], replace(options, seed=seed), *given[5:])
                    first = _FIRST_TUNED + seed * args.chips
                    spread = Spread(partial(LifetimeStudy, *tuned, **life, schedule=when))
                    lives.append(follow(spread, range(first, first + args.chips), False))
                rows += tuned_rows(times, lives)
                results.publish(TUNED, rows, args, seed=0)
            continue
        if args.examine is not None:
            study = LifetimeStudy(*given, **life, schedule=Schedule.parse("never"))
            results.publish(EXAMINED, examined(study, args.examine), args, seed=0)
            return
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
                    days, (half, worst) = (
                        int(every),
                        (found.lost_at(int(every), q) for q in (0.5, 1.0)),
                    )
                    searched.append(
                        [f"{times:g} x", f"{days}" if days else "none", half, lost, worst]
                    )
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
