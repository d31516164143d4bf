"""Accuracy, spikes and energy against mismatch, noise, weight bits and neurons, one at a time.

The digits network on virtual LIF chips of profile generic-analog, from a base of 20 % mismatch, no
noise, 6-bit weights and 50 neurons a state; for each value several seeds of tuning and calibration
and several chips of each, with an ideal chip's decoders ("none") and with each chip's own
calibration ("dynamic"). Every test image is judged. Chips 8000 and higher have been used by no
other study. Intervals of 95 % are over seeds, chips and, for accuracies, images.

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

import intervals
import numpy as np
import results

from converters.options import SpikeOptions
from converters.spiking import spike_chips
from lmu_deploy.core.files import write_text
from lmu_deploy.core.graph.transforms import as_layers
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
    "tau_mismatch": 0.0,
    "threshold_noise": 0.0,
}
FIRST_CHIP = 8000
VALUES: dict[str, tuple[float, ...]] = {
    "mismatch": (0.0, 0.1, 0.2, 0.3, 0.5),
    "membrane_noise": (0.0, 0.05, 0.1, 0.2),
    "weight_bits": (0, 8, 6, 5, 4, 3, 2),
    "neurons_per_state": (10, 20, 50, 100),
    "tau_mismatch": (0.0, 0.3),
    "threshold_noise": (0.0, 0.1),
}
TITLES = {
    "mismatch": "mismatch",
    "membrane_noise": "noise, in thresholds",
    "weight_bits": "weight bits (0: real)",
    "neurons_per_state": "neurons a state",
    "tau_mismatch": "spread of time constants",
    "threshold_noise": "noise of thresholds",
}
COLUMNS = [
    ("", "{}"),
    ("value", ">{:g}"),
    ("accuracy, not calibrated, %", "{}"),
    ("worst chip", ">{:.2f}"),
    ("calibrated, %", "{}"),
    ("worst chip", ">{:.2f}"),
    ("error of states, not calibrated", ">{:.3f}"),
    ("calibrated", "{}"),
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
        All factors, and the method of calibration.
    right : list of lists, [seed][chip], of the images that are right
        As text of a 1 or a 0 for each image.
    error : list of lists, [seed][chip], of float
        That of the states, relative to the float memory's.
    spikes : float
        Of an image, mean of the chips.
    energy : (float, float)
        Joules of an image: from the least to the most of what published figures give.
    """

    settings: dict[str, Any]
    right: list[list[str]]
    error: list[list[float]]
    spikes: float
    energy: tuple[float, float]

    @property
    def hits(self) -> np.ndarray:
        """Whether an answer is right, shape (seeds, chips, images)."""
        return np.array([[[each == "1" for each in chip] for chip in seed] for seed in self.right])

    @property
    def accuracies(self) -> np.ndarray:
        """Percent of the images that are right, shape (seeds, chips)."""
        return np.asarray(100.0 * self.hits.mean(axis=2))


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

    def __init__(self, network: LMUNetwork, chips: int, seeds: int, limit: int | None) -> None:
        task = task_for(network, None)
        data = task.load()
        self.network, self.task, self.chips, self.seeds = network, task, chips, range(seeds)
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
        inputs, true = self.test.inputs, self.true.m
        assert true is not None
        right, errors, energies, spikes = list[list[str]](), list[list[float]](), [], []
        for seed in self.seeds:
            options = SpikeOptions(**{**settings, **whole, "seed": seed})
            first = FIRST_CHIP + seed * self.chips
            own = range(first, first + self.chips)
            made = spike_chips(self.network, self.known, "generic-analog", own, options)
            right.append([])
            errors.append([])
            for run, chip in zip(
                Brian2Target().run_chips(made, inputs, record=True, seed=seed), made, strict=True
            ):
                costs = costs_of(run, chip)
                assert run.states is not None and costs is not None and costs.energy is not None
                hits = run.outputs.argmax(axis=-1) == self.test.targets
                right[-1].append("".join("01"[int(hit)] for hit in hits))
                wrong = float(np.linalg.norm(run.states.m - true) / np.linalg.norm(true))
                errors[-1].append(wrong)
                energies.append(costs.energy)
                spikes.append(sum(int(e.sum()) for e in run.events.values()) / len(inputs))
        low, high = np.mean(energies, axis=0)
        return Point(settings, right, errors, float(np.mean(spikes)), (float(low), float(high)))


def row(points: Sequence[Point], factor: str, value: float, method: str) -> Point:
    """Find the point of one value of a factor."""
    settings = {**BASE, factor: value, "calibration": method}
    return next(point for point in points if point.settings == settings)


def table(points: Sequence[Point]) -> list[list[results.Cell]]:
    """Return a row for each value: means over seeds and chips, with intervals."""
    found: list[list[results.Cell]] = []
    for factor, values in VALUES.items():
        for value in values:
            cells: list[results.Cell] = [TITLES[factor], value]
            errors = [np.array(row(points, factor, value, m).error) for m in METHODS]
            for method in METHODS:
                point = row(points, factor, value, method)
                interval = intervals.shown(intervals.of_mean(point.hits), 2, 100.0)
                reached = point.accuracies
                cells += [f"{reached.mean():.2f} ({interval})", float(reached.min())]
            energy = [f"{float(f'{1e6 * joules:.2g}'):g}" for joules in point.energy]
            energies = " to ".join(dict.fromkeys(energy))
            bare, own = errors
            interval = intervals.shown(intervals.of_mean(own), 3)
            cells += [float(bare.mean()), f"{own.mean():.3f} ({interval})"]
            found.append([*cells, point.spikes, energies])
    return found


def draw(points: Sequence[Point], reference: float, path: Path) -> None:
    """Plot accuracy against each factor, every chip a dot, and spikes of an image below."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "analog_studies"
    figure, panels = plt.subplots(
        2,
        len(VALUES),
        figsize=(2.5 * len(VALUES), 4.8),
        sharey="row",
        sharex="col",
        layout="constrained",
    )
    for (factor, values), above, below in zip(VALUES.items(), *panels, strict=True):
        places = range(len(values))
        for color, method in enumerate(METHODS):
            found = [row(points, factor, value, method) for value in values]
            means = [float(p.accuracies.mean()) for p in found]
            above.plot(places, means, "-", color=f"C{color}", label=method)
            for place, point in zip(places, found, strict=True):
                dots = point.accuracies.ravel()
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
    parser.add_argument("--seeds", type=int, default=3, help="of tuning and calibration")
    parser.add_argument("--chips", type=int, default=2, help="of each seed")
    parser.add_argument("--limit", type=int, help="test images; by default all")
    parser.add_argument("--points", type=Path, help="a JSON file that keeps what was measured")
    parser.add_argument("--plot", type=Path, help="an SVG file")
    results.add_options(parser)
    args = parser.parse_args(arguments)
    network = as_layers(load_float(MODEL, "analog_studies"), "analog_studies")
    study = Study(network, args.chips, args.seeds, args.limit)
    points, settings = read_points(args.points), list(wanted())
    open_ones = [one for one in settings if one not in [point.settings for point in points]]
    with progress_bar("analog studies", "points") as progress:
        for number, one in enumerate(open_ones):
            points.append(study.measure(one))
            if args.points is not None:
                write_text(args.points, json.dumps([asdict(p) for p in points], indent=1) + "\n")
            progress(number + 1, len(open_ones))
    print(f"Float: {100 * study.reference:.2f} %.\n")
    results.publish(COLUMNS, table(points), args, seed=0)
    if args.plot:
        draw(points, study.reference, args.plot)


if __name__ == "__main__":
    main()
