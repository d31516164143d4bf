"""How many of a batch of virtual chips would do: a task's metric on each, calibrated and not.

    python benchmarks/yield_study.py examples/models/digits.safetensors --neurons-per-state 50
    python benchmarks/yield_study.py examples/models/mackey-glass-hybrid.safetensors \
        --limit 4 --steps 300 --neurons-per-state 50 --calibration-samples 32 \
        --calibration-steps 75

Every chip has its own mismatch; all share tuning curves and data. "Before" are the decoders of an
ideal chip on this one, "after" the dynamic calibration of this chip.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from lmu_deploy.commands.chip_yield import METHODS, ChipYield, chip_yield

SHARES = (0.0, 0.05, 0.5, 0.95, 1.0)


def table(found: ChipYield) -> str:
    """Lay the distribution out as a Markdown table: the metric that a share of chips reaches."""
    lines = [
        "| calibration | worst chip | 95 % reach | median | 5 % reach | best chip | spikes |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for method in METHODS:
        cells = [f"{found.reached_by(method, 1.0 - share):.4f}" for share in SHARES]
        spikes = f"{found.spikes_per_sample[method]:,.0f}"
        lines.append(f"| {method} | {' | '.join(cells)} | {spikes} |")
    return "\n".join(lines)


def verdict(found: ChipYield) -> str:
    """Say how far the worst twentieth of calibrated chips is from the ideal device."""
    reached = found.reached_by("dynamic", 0.95)
    if found.metric == "accuracy":
        distance = f"{100.0 * (found.ideal - reached):.2f} points below"
    else:
        distance = f"{100.0 * (reached / found.ideal - 1.0):.1f} % above"
    chips = len(found.values["dynamic"])
    return (
        f"{found.task}, {chips} chips of {found.profile}, {found.samples} samples of "
        f"{found.steps} steps, {found.metric}: float {found.reference:.4f}, ideal device "
        f"{found.ideal:.4f}; 95 % of the calibrated chips reach {reached:.4f}, {distance} the "
        "ideal device."
    )


def bars(values: Sequence[float], bins: int = 12) -> str:
    """Draw a histogram in text, a line for each bin."""
    counts, edges = np.histogram(values, bins)
    rows = zip(edges[:-1], edges[1:], counts, strict=True)
    return "\n".join(f"    {low:.4f} to {high:.4f} {'#' * count}" for low, high, count in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge the chips and print table, verdict and histograms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", help="a .safetensors file of a float network")
    parser.add_argument("--profile", default="generic-analog")
    parser.add_argument("--chips", type=int, default=100)
    parser.add_argument("--first-chip", type=int, default=0, help="seed of the first")
    parser.add_argument("--limit", type=int, help="test samples")
    parser.add_argument("--steps", type=int, help="of each sample, where every step is answered")
    parser.add_argument("--neuron", default="lif")
    parser.add_argument("--neurons-per-state", type=int, default=100)
    parser.add_argument("--mismatch", type=float, default=0.2)
    parser.add_argument("--weight-bits", type=int, default=6)
    parser.add_argument("--membrane-noise", type=float, default=0.0)
    parser.add_argument("--calibration-samples", type=int, default=200)
    parser.add_argument("--calibration-steps", type=int, help="of each of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="write every chip's figure as JSON here")
    found = chip_yield(**vars(parser.parse_args(arguments)))
    print(verdict(found), table(found), sep="\n\n")
    for method in METHODS:
        print(f"\n{method}:\n{bars(found.values[method])}")


if __name__ == "__main__":
    main()
