"""Error of a spiking memory against neurons and order, for each neuron model.

Voelker, Kajic and Eliasmith (2019) state that m Poisson neurons represent a memory of order d with
an error of O(d / sqrt(m)): on a log-log plot, a slope of -1/2, and one constant for all orders if m
counts the neurons of each state (it does not if m counts all of them). Here an ideal chip (no
mismatch, no noise) represents a memory of 0.5 s behind synapses of 0.1 s at steps of 1 ms, driven
by white noise to 1 Hz of rms 0.3, and the decoded states are compared with the float memory's.

Every seed has tuning curves and signals of its own; errors are means over seeds, and a slope is
that of these means, with the lowest and the highest of a single seed.

    python benchmarks/spiking_error.py                            # a table for orders 3 and 6
    python benchmarks/spiking_error.py --orders 3,6,12,24 --neurons 10,30,100,300,1000,2500,3000 \
        --samples 8 --points points.json --plot spiking_error.svg

Points that stand in the file of --points are not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import results

from converters.spiking import spike
from lmu_deploy.core.files import write_text
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from targets.brian2 import Brian2Target

THETA_MS, TAU_MS, BAND_HZ, RMS = 500.0, 100.0, 1.0, 0.3
SETTLED_MS = 500
VARIANTS = (
    ("poisson", "static"),
    ("if", "static"),
    ("lif", "static"),
    ("dpi", "static"),
    ("lif", "dynamic"),
    ("dpi", "dynamic"),
)
LARGEST_DYNAMIC_MAP = 2_400
LARGEST_MEASURED = 12_000
"""Neurons whose rate curves are measured at most; those of Poisson neurons are known."""
MOST_MEASURED = 1_000
"""Of them, for a state."""
ROOM = 65_536
"""Neurons of the chip."""
STABLE = 0.5


@dataclass(frozen=True)
class Point:
    """One measurement: neurons of each state, and the relative error of the states."""

    kind: str
    calibration: str
    order: int
    neurons: int
    error: float
    seed: int = 0


def white_noise(samples: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Draw signals of 1 ms steps, limited to BAND_HZ, of rms RMS; shape (samples, steps, 1)."""
    frequencies = np.fft.rfftfreq(steps, 1e-3)
    spectrum = rng.standard_normal((2, samples, len(frequencies)))
    spectrum[..., (frequencies > BAND_HZ) | (frequencies == 0.0)] = 0.0
    signal = np.fft.irfft(spectrum[0] + 1j * spectrum[1], steps, axis=1)
    return np.asarray(RMS * signal / np.sqrt(np.mean(signal**2)))[:, :, None]


def bare_memory(order: int) -> LMUNetwork:
    """Return a network that is a memory and nothing else; it answers with its states."""
    memory = Memory.legendre(order, THETA_MS)
    layer = LMULayer(np.ones((1, 1)), None, None, None, memory, None)
    return LMUNetwork((layer,), Readout(np.eye(order), None), return_sequences=True)


def state_error(order: int, args: argparse.Namespace, **options: Any) -> float:
    """Simulate one memory and compare it with the reference, after the first window.

    `options` are those of :func:`converters.spiking.spike`.
    """
    network = bare_memory(order)
    inputs = white_noise(5 * args.samples, args.milliseconds, np.random.default_rng(args.seed))
    new, known = inputs[: args.samples], inputs[args.samples :]
    spiking = spike(network, known, presentation_ms=1.0, tau_ms=TAU_MS, seed=args.seed, **options)
    decoded = Brian2Target().run(spiking, new, seed=args.seed).outputs[:, SETTLED_MS:]
    true = run_reference(network, new).outputs[:, SETTLED_MS:]
    return float(np.linalg.norm(decoded - true) / np.linalg.norm(true))


def measure(
    kind: str, calibration: str, order: int, neurons: int, seed: int, args: argparse.Namespace
) -> Point:
    """Measure one memory on an ideal chip."""
    error = state_error(
        order,
        argparse.Namespace(**{**vars(args), "seed": seed}),
        neurons_per_state=neurons,
        neuron=kind,
        mismatch=0.0,
        calibration=calibration,
    )
    return Point(kind, calibration, order, neurons, error, seed)


def means(points: Sequence[Point]) -> list[Point]:
    """Return a point for each memory, with the mean error of the seeds that measured it."""
    found: dict[Point, list[float]] = {}
    for point in points:
        found.setdefault(replace(point, error=0.0, seed=0), []).append(point.error)
    return [replace(point, error=float(np.mean(errors))) for point, errors in found.items()]


def slope(points: Sequence[Point]) -> float:
    """Return the slope of log error over log neurons, where the memory is stable."""
    stable = [point for point in points if point.error < STABLE]
    if len(stable) < 2:
        return float("nan")
    neurons, errors = (np.log([getattr(p, n) for p in stable]) for n in ("neurons", "error"))
    return float(np.polyfit(neurons, errors, 1)[0])


def table(points: Sequence[Point]) -> tuple[results.Columns, list[list[results.Cell]]]:
    """Return columns and rows, one row for a model and an order."""
    neurons = sorted({point.neurons for point in points})
    columns = [("neuron", "{}"), ("decoders", "{}"), ("order", ">{:d}")]
    columns += [(f"p = {p}", ">{:.4f}") for p in neurons]
    columns += [("slope", ">{:.2f}"), ("slopes of single seeds", "{}"), ("seeds", ">{:d}")]
    rows: list[list[results.Cell]] = []
    for kind, calibration in VARIANTS:
        for order in sorted({point.order for point in points}):
            row = [
                p for p in points if (p.kind, p.calibration, p.order) == (kind, calibration, order)
            ]
            if not row:
                continue
            seeds = sorted({p.seed for p in row})
            fitted = slope(means(row))
            each = [slope([p for p in row if p.seed == seed]) for seed in seeds]
            range_ = f"{min(each):.2f} to {max(each):.2f}" if np.isfinite(each).all() else ""
            by_neurons = {p.neurons: p.error for p in means(row)}
            cells = [*map(by_neurons.get, neurons), None if np.isnan(fitted) else fitted]
            rows.append([kind, calibration, order, *cells, range_, len(seeds)])
    return columns, rows


def constants(points: Sequence[Point]) -> str:
    """Return how well error = c d / sqrt(p) holds for Poisson neurons, p of them for each state."""
    stable = [p for p in points if p.kind == "poisson" and p.error < STABLE]
    if not stable:
        return "No stable Poisson memory."
    found = [p.error * np.sqrt(p.neurons) / p.order for p in stable]
    whole = [p.error * np.sqrt(p.neurons * p.order) / p.order for p in stable]
    return (
        f"Poisson, error = c d / sqrt(p) with p neurons for each of d states: c = "
        f"{np.mean(found):.3f} on average, {min(found):.3f} to {max(found):.3f} over all orders "
        f"and numbers of neurons. (With all m = d p neurons instead of p, c would range from "
        f"{min(whole):.2f} to {max(whole):.2f}.)"
    )


def draw(points: Sequence[Point], path: Path) -> None:
    """Plot error against neurons, a panel for each order, beside the law for Poisson neurons."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "spiking_error"
    orders = sorted({p.order for p in points})
    figure, panels = plt.subplots(
        1, len(orders), figsize=(2.6 * len(orders), 3.4), sharey=True, layout="constrained"
    )
    for panel, order in zip(np.atleast_1d(panels), orders, strict=True):
        for kind, calibration in VARIANTS:
            row = [p for p in points if (p.kind, p.calibration) == (kind, calibration)]
            row = sorted((p for p in row if p.order == order), key=lambda p: p.neurons)
            dash = "o-" if calibration == "static" else "s--"
            x, y = [p.neurons for p in row], [p.error for p in row]
            panel.plot(x, y, dash, markersize=4, label=f"{kind}, {calibration}")
        ends = np.array(sorted({p.neurons for p in points}))[[0, -1]]
        law = 0.5 * order / np.sqrt(ends)
        panel.plot(ends, law, ":", color="gray", label="0.5 d / sqrt(p)")
        panel.set(xscale="log", yscale="log", title=f"order {order}", xlabel="neurons a state")
    np.atleast_1d(panels)[0].set_ylabel("error of the states")
    handles, labels = np.atleast_1d(panels)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def wanted(
    orders: Sequence[int], neurons: Sequence[int], seeds: int = 1
) -> list[tuple[str, str, int, int, int]]:
    """List what to measure, the quick ones first; too large ones are left out."""
    found = [
        (kind, calibration, order, count, seed)
        for seed in range(seeds)
        for kind, calibration in VARIANTS
        for order in orders
        for count in neurons
        if order * count <= ROOM
        if calibration != "dynamic" or order * count <= LARGEST_DYNAMIC_MAP
        if kind == "poisson" or (order * count <= LARGEST_MEASURED and count <= MOST_MEASURED)
    ]
    return sorted(found, key=lambda one: (one[4], one[2] * one[3]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every combination, print the table, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--orders", default="3,6", help="with commas between")
    parser.add_argument("--neurons", default="10,30,100,300,1000", help="of each state")
    parser.add_argument("--models", help="only these, with commas between")
    parser.add_argument("--samples", type=int, default=20, help="signals judged")
    parser.add_argument("--milliseconds", type=int, default=3000, help="length of a signal")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--points", type=Path, help="a JSON file that keeps what was measured")
    results.add_options(parser)
    parser.add_argument("--plot", type=Path, help="an SVG file")
    args = parser.parse_args(arguments)
    points = []
    if args.points is not None and args.points.exists():
        points = [Point(**found) for found in json.loads(args.points.read_text(encoding="utf-8"))]
    known = {(p.kind, p.calibration, p.order, p.neurons, p.seed) for p in points}
    counts = [[int(n) for n in text.split(",")] for text in (args.orders, args.neurons)]
    chosen = args.models.split(",") if args.models else [kind for kind, _ in VARIANTS]
    open_ones = [
        one for one in wanted(*counts, args.seeds) if one not in known and one[0] in chosen
    ]
    with progress_bar("spiking error", "memories") as progress:
        for number, one in enumerate(open_ones):
            points.append(measure(*one, args))
            if args.points is not None:
                write_text(args.points, json.dumps([asdict(p) for p in points], indent=1) + "\n")
            progress(number + 1, len(open_ones))
    results.publish(*table(points), args, seed=0)
    print(constants(means(points)))
    if args.plot:
        draw(means(points), args.plot)


if __name__ == "__main__":
    main()
