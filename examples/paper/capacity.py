"""Voelker et al. (2019), section 3.1: how much of a long window a memory holds.

White noise of up to 10 cycles a window goes in; asked for are the inputs of 0, T/4, T/2, 3T/4 and
T steps ago. The Legendre memory (order 100) is not trained at all; the LSTM (105 units) is. Every
sequence starts out of silence, with a kink that no band-limited memory follows: "settled" is the
error once that has left the window.

    python examples/paper/capacity.py --out capacity                        # memory alone, minutes
    python examples/paper/capacity.py --out capacity --lstm 25 50 100 200 400 800 1600 --epochs 100

writes capacity/capacity.json and capacity/capacity.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.metrics import nrmse
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.memory import POSITIONS, untrained_network

WINDOWS = (100, 1000, 10_000, 100_000)


def measure_memory(window: int, order: int) -> dict[str, Any]:
    """Return the error of an untrained Legendre memory, overall and at each of the five delays."""
    task = get_task(f"capacity-{window}")
    test = task.load().test
    start = time.perf_counter()
    with progress_bar(f"memory, T = {window}", "sequences") as progress:
        outputs = run_reference(
            untrained_network(window, order), test.inputs, batch_size=16, progress=progress
        ).outputs
    each = [nrmse(outputs[..., [k]], test.targets[..., [k]]) for k in range(len(POSITIONS))]
    return {
        "model": f"Legendre memory, order {order}",
        "window": window,
        "nrmse": nrmse(outputs, test.targets),
        "nrmse_settled": nrmse(outputs, test.targets, washout=window),
        "nrmse_at": dict(zip((POSITIONS * window).astype(int).tolist(), each, strict=True)),
        "sequences": len(test),
        "seconds": round(time.perf_counter() - start, 1),
    }


def measure_lstm(window: int, epochs: int, seed: int) -> dict[str, Any]:
    """Train the built-in LSTM on a window, and give its error on the test part."""
    from lmu_deploy.training import train

    figures = train(f"capacity-{window}", "lstm", seed=seed, epochs=epochs).figures
    return {
        "model": "LSTM, 105 units",
        "window": window,
        "nrmse": figures["test_nrmse"],
        "epochs": epochs,
        "seed": seed,
        "parameters": int(figures["parameters"]),
        "seconds": figures["seconds"],
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot error against window, one line for each model."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "capacity"
    figure, axes = plt.subplots(figsize=(5.5, 3.5), layout="constrained")
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        axes.plot([r["window"] for r in mine], [r["nrmse"] for r in mine], "o-", label=model)
    axes.axhline(1.0, color="gray", linewidth=0.8, linestyle=":", label="answering zero")
    axes.set(xscale="log", yscale="log", xlabel="window T (steps)", ylabel="normalized error")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table, write the figures and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, nargs="*", default=list(WINDOWS), metavar="T")
    parser.add_argument("--order", type=int, default=100)
    parser.add_argument("--lstm", type=int, nargs="*", default=[], metavar="T")
    parser.add_argument("--epochs", type=int, default=100, help="of each LSTM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    rows = [measure_memory(window, options.order) for window in options.windows]
    rows += [measure_lstm(window, options.epochs, options.seed) for window in options.lstm]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "capacity.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    draw(rows, options.out / "capacity.svg")
    for row in rows:
        settled = f"  settled {row['nrmse_settled']:.5f}" if "nrmse_settled" in row else ""
        print(f"{row['model']:28} T {row['window']:7,}  error {row['nrmse']:.5f}{settled}")
        for delay, error in row.get("nrmse_at", {}).items():
            print(f"{'':28} {delay:7,} steps ago  {error:.5f}")
    print(options.out, file=sys.stderr)


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
