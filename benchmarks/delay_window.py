"""A delay line of 0.5 s on spiking neurons: its window decoded, beside the float memory's.

A memory of order 6 on 100 neurons a state of a chip with 20 % mismatch, dynamically calibrated,
holds the last half second of white noise to 1 Hz; from its states the input of 0, a quarter and
half a second ago is read. Chips have mismatch, tuning curves and signals of their own; intervals of
95 % are over chips. The plot shows the first.

    python benchmarks/delay_window.py --plot docs/results/delay_window.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import intervals
import numpy as np
import results
from spiking_error import SETTLED_MS, TAU_MS, THETA_MS, bare_memory, white_noise

from converters.spiking import spike
from lmu_deploy.core.legendre import window_decoders
from lmu_deploy.core.reference import run_reference
from targets.brian2 import Brian2Target

ORDER, NEURONS, MISMATCH = 6, 100, 0.2
PLACES = (0.0, 0.5, 1.0)
COLUMNS = [
    ("neuron", "{}"),
    ("error 0 s ago", ">{}"),
    ("0.25 s ago", ">{}"),
    ("0.5 s ago", ">{}"),
    ("spikes of a neuron and second", ">{:.0f}"),
    ("chips", ">{:d}"),
]
SHOWN_MS, EVERY_MS = 3000, 5


def decode(kind: str, inputs: np.ndarray, known: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Run one chip on a signal, shape (1, steps, 1); give its window (steps, places) and its rate.

    The rate is in spikes of a neuron and a second.
    """
    spiking = spike(
        bare_memory(ORDER),
        known,
        neurons_per_state=NEURONS,
        presentation_ms=1.0,
        tau_ms=TAU_MS,
        neuron=kind,
        mismatch=MISMATCH,
        seed=seed,
    )
    run = Brian2Target().run(spiking, inputs, seed=seed)
    rate = sum(int(events.sum()) for events in run.events.values()) / (ORDER * NEURONS)
    return run.outputs[0] @ read_out(), rate / (inputs.shape[1] * 1e-3)


def read_out() -> np.ndarray:
    """Return the weights from the states to the window at PLACES, shape (order, places)."""
    return window_decoders(ORDER, np.array(PLACES)).T


def draw(signal: np.ndarray, ideal: np.ndarray, found: dict[str, np.ndarray], path: Path) -> None:
    """Plot the window over time, one panel for each neuron model."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "delay_window"
    figure, panels = plt.subplots(
        len(found), 1, figsize=(7.5, 5.0), sharex=True, layout="constrained"
    )
    seconds = np.arange(len(signal))[::EVERY_MS] * 1e-3
    signal, ideal = signal[::EVERY_MS], ideal[::EVERY_MS]
    for panel, (kind, window) in zip(panels, found.items(), strict=True):
        window = window[::EVERY_MS]
        for n, place in enumerate(PLACES):
            ago = f"{place * THETA_MS * 1e-3:g} s ago"
            panel.plot(seconds, window[:, n], color=f"C{n}", linewidth=0.9, label=f"{ago}, spiking")
            panel.plot(seconds, ideal[:, n], "--", color="black", linewidth=0.7)
        panel.plot(seconds, signal, color="gray", linewidth=2.5, alpha=0.4, label="input")
        panel.set(ylabel=f"{kind} neurons")
    panels[-1].set_xlabel("seconds (dashed: the float memory)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncol=4)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both neuron models, print their errors, and draw the window."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--neurons", default="lif,dpi", help="models, with commas between")
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--seed", type=int, default=200, help="of the first chip")
    parser.add_argument("--plot", type=Path, help="an SVG file")
    results.add_options(parser)
    args = parser.parse_args(arguments)
    kinds = args.neurons.split(",")
    found, shown, first = {kind: [] for kind in kinds}, {}, None
    for chip in range(args.chips):
        rng = np.random.default_rng(args.seed + chip)
        signals = white_noise(33, SETTLED_MS + SHOWN_MS, rng)
        inputs, known = signals[:1], signals[1:]
        true = run_reference(bare_memory(ORDER), inputs).outputs[0] @ read_out()
        size = np.sqrt(np.mean(true[SETTLED_MS:] ** 2, axis=0))
        first = first or (inputs[0, :, 0], true)
        for kind in kinds:
            window, rate = decode(kind, inputs, known, args.seed + chip)
            shown.setdefault(kind, window)
            errors = np.sqrt(np.mean((window - true)[SETTLED_MS:] ** 2, axis=0)) / size
            found[kind].append([*map(float, errors), rate])
    rows = []
    for kind, values in found.items():
        *errors, rates = np.array(values).T
        cells = [
            f"{each.mean():.4f} ({intervals.shown(intervals.of_mean(each[:, None]), 4)})"
            for each in errors
        ]
        rows.append([kind, *cells, float(rates.mean()), args.chips])
    results.publish(COLUMNS, rows, args, seed=args.seed)
    if args.plot:
        draw(*first, shown, args.plot)


if __name__ == "__main__":
    main()
