"""Accuracy, spikes and energy against mismatch, noise, weight bits and neurons, one at a time.

The digits network on virtual LIF chips of profile generic-analog, from a base of 20 % mismatch, no
noise, 6-bit weights and 50 neurons a state; several chips for each value, with an ideal chip's
decoders ("none") and with each chip's own calibration ("dynamic"). Every test image is judged.

    python benchmarks/analog_studies.py --points points.json --plot docs/results/analog_studies.svg

Points that stand in the file of --points are not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import results

from converters.options import SpikeOptions
from converters.spiking import spike_chips
from lmu_deploy.core.files import write_text
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity.measures.energy import costs_of
from lmu_deploy.tasks.selection import limited, task_for
from targets.brian2 import Brian2Target

MODEL = Path(__file__).parents[1] / "examples" / "models" / "digits.safetensors"
METHODS = ("none", "dynamic")
BASE: dict[str, float] = {
    "mismatch": 0.2,
    "membrane_noise": 0.0,
    "weight_bits": 6,
    "neurons_per_state": 50,
}
VALUES: dict[str, tuple[float, ...]] = {
    "mismatch": (0.0, 0.1, 0.2, 0.3, 0.5),
    "membrane_noise": (0.0, 0.05, 0.1, 0.2),
    "weight_bits": (0, 8, 6, 5, 4, 3, 2),
    "neurons_per_state": (10, 20, 50, 100),
}
TITLES = {
    "mismatch": "mismatch",
    "membrane_noise": "noise, in thresholds",
    "weight_bits": "weight bits (0: real)",
    "neurons_per_state": "neurons a state",
}
COLUMNS = [
    ("", "{}"),
    ("value", ">{:g}"),
    ("accuracy, not calibrated", ">{}"),
    ("calibrated", ">{}"),
    ("error of states, not calibrated", ">{:.3f}"),
    ("calibrated", ">{:.3f}"),
    ("spikes an image", ">{:,.0f}"),
    ("energy an image, µJ", ">{}"),
]
_CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class Point:
    """Results of the chips of one setting.

    Attributes
    ----------
    settings : dict
        All four, and the method of calibration.
    accuracy, error : list of float
        Of each chip; `error` is that of the states, relative to the float memory's.
    spikes : float
        Of an image, mean of the chips.
    energy : (float, float)
        Joules of an image: from the least to the most of what published figures give.
    """

    settings: dict[str, Any]
    accuracy: list[float]
    error: list[float]
    spikes: float
    energy: tuple[float, float]


def wanted() -> Iterator[dict[str, Any]]:
    """List all settings, each once: the base is a value of every factor."""
    seen: list[dict[str, Any]] = []
    for factor, values in VALUES.items():
        for value in values:
            for method in METHODS:
                settings = {**BASE, factor: value, "calibration": method}
                if settings not in seen:
                    seen.append(settings)
                    yield settings


class Study:
    """The network and the data that all points share."""

    def __init__(self, network: LMUNetwork, chips: int, limit: int | None, seed: int) -> None:
        task = task_for(network, None)
        data = task.load()
        self.network, self.task, self.chips, self.seed = network, task, range(chips), seed
        self.test = limited(data.test, limit)
        self.known = limited(data.train, _CALIBRATION_SAMPLES).inputs
        self.true = run_reference(network, self.test.inputs, record=True)

    @property
    def reference(self) -> float:
        """Accuracy of the float network."""
        return self.task.score(self.true.outputs, self.test.targets)

    def measure(self, settings: dict[str, Any]) -> Point:
        """Calibrate and run all chips of one setting."""
        whole = {n: int(settings[n]) for n in ("weight_bits", "neurons_per_state")}
        options = SpikeOptions(**{**settings, **whole, "seed": self.seed})
        made = spike_chips(self.network, self.known, "generic-analog", self.chips, options)
        inputs, answers = self.test.inputs, self.test.targets
        runs = Brian2Target().run_chips(made, inputs, record=True, seed=self.seed)
        true, errors, energies = self.true.m, [], []
        assert true is not None
        for run, chip in zip(runs, made, strict=True):
            costs = costs_of(run, chip)
            assert run.states is not None and costs is not None and costs.energy is not None
            errors.append(float(np.linalg.norm(run.states.m - true) / np.linalg.norm(true)))
            energies.append(costs.energy)
        spikes = [sum(int(e.sum()) for e in run.events.values()) / len(inputs) for run in runs]
        low, high = np.mean(energies, axis=0)
        accuracies = [self.task.score(run.outputs, answers) for run in runs]
        return Point(
            settings, accuracies, errors, float(np.mean(spikes)), (float(low), float(high))
        )


def row(points: Sequence[Point], factor: str, value: float, method: str) -> Point:
    """Find the point of one value of a factor."""
    settings = {**BASE, factor: value, "calibration": method}
    return next(point for point in points if point.settings == settings)


def table(points: Sequence[Point]) -> list[list[results.Cell]]:
    """Return a row for each point: mean of the chips, and the worst."""
    found: list[list[results.Cell]] = []
    for factor, values in VALUES.items():
        for value in values:
            rows = [row(points, factor, value, method) for method in METHODS]
            accuracies = [
                f"{100 * np.mean(p.accuracy):.1f} % ({100 * min(p.accuracy):.1f})" for p in rows
            ]
            errors = [float(np.mean(p.error)) for p in rows]
            energy = " to ".join(f"{float(f'{1e6 * joules:.2g}'):g}" for joules in rows[-1].energy)
            found.append([TITLES[factor], value, *accuracies, *errors, rows[-1].spikes, energy])
    return found


def draw(points: Sequence[Point], reference: float, path: Path) -> None:
    """Plot accuracy against each factor, every chip a dot, and spikes of an image below."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "analog_studies"
    figure, panels = plt.subplots(
        2, len(VALUES), figsize=(10.0, 4.8), sharey="row", sharex="col", layout="constrained"
    )
    for (factor, values), above, below in zip(VALUES.items(), *panels, strict=True):
        places = range(len(values))
        for color, method in enumerate(METHODS):
            found = [row(points, factor, value, method) for value in values]
            means = [100 * float(np.mean(p.accuracy)) for p in found]
            above.plot(places, means, "-", color=f"C{color}", label=method)
            for place, point in zip(places, found, strict=True):
                dots = 100 * np.array(point.accuracy)
                above.plot([place] * len(dots), dots, ".", color=f"C{color}")
            below.plot(places, [p.spikes for p in found], "o-", color=f"C{color}", markersize=4)
        above.axhline(100 * reference, color="gray", linestyle=":", label="float")
        below.set(xlabel=TITLES[factor], xticks=places, xticklabels=[f"{v:g}" for v in values])
        below.set(yscale="log")
    panels[0, 0].set_ylabel("accuracy, %")
    panels[1, 0].set_ylabel("spikes an image")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncol=3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def read_points(path: Path | None) -> list[Point]:
    """Read what an earlier run measured."""
    if path is None or not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return [Point(**one) for one in found]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every point, print the table, and draw it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chips", type=int, default=3, help="for each point")
    parser.add_argument("--limit", type=int, help="test images; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=Path, help="a JSON file that keeps what was measured")
    parser.add_argument("--plot", type=Path, help="an SVG file")
    results.add_options(parser)
    args = parser.parse_args(arguments)
    study = Study(load_float(MODEL, "analog_studies"), args.chips, args.limit, args.seed)
    points, settings = read_points(args.points), list(wanted())
    open_ones = [one for one in settings if one not in [point.settings for point in points]]
    with progress_bar("analog studies", "points") as progress:
        for number, one in enumerate(open_ones):
            points.append(study.measure(one))
            if args.points is not None:
                write_text(args.points, json.dumps([asdict(p) for p in points], indent=1) + "\n")
            progress(number + 1, len(open_ones))
    print(f"Float: {100 * study.reference:.2f} %.\n")
    results.publish(COLUMNS, table(points), args, seed=args.seed)
    if args.plot:
        draw(points, study.reference, args.plot)


if __name__ == "__main__":
    main()
