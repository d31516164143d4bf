"""Float, rounded after training, and trained on with rounded weights: one table for a network.

For each case the network is quantized twice, after training (ptq) and with training (qat), and run
on the integer simulator over the whole test part. Trained networks are kept in a folder and not
trained again. Settings of the training come from a file, or from options.

    python benchmarks/qat.py examples/models/psmnist-parallel.safetensors --keep trained \
        --epochs 10 --cases one-slice four-bits
    python benchmarks/qat.py examples/models/spoken-digits.safetensors --keep trained \
        --epochs 3 --learning-rate 0.001 --seeds 0 1 2 --cases four-bits three-bits two-bits
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import results

from converters.quantize import calibrate
from converters.quantize import quantize as round_weights
from lmu_deploy.api.quantize import quantize
from lmu_deploy.core.files import load
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.integer.network import INTEGER_CLASSES, IntegerNetwork
from lmu_deploy.core.loading import load_float
from lmu_deploy.tasks.base import Split, get_task
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES
from targets.integer import IntegerTarget

CASES: dict[str, dict[str, Any]] = {
    "one-slice": {"slices": 1},
    "four-bits": {"slices": 1, "kernel_bits": 4, "scales": "free"},
    "three-bits": {"slices": 1, "kernel_bits": 3, "scales": "free"},
    "two-bits": {"slices": 1, "kernel_bits": 2, "scales": "free"},
    "schur": {"slices": 1, "realization": "schur"},
    "hessenberg": {"slices": 1, "realization": "hessenberg"},
}
COLUMNS = [
    ("case", "{}"),
    ("method", "{}"),
    ("accuracy", "{:.2f}"),
    ("below float", "{:.2f}"),
    ("flips", "{:,d}"),
    ("saturations", "{:,d}"),
    ("seconds", "{:.0f}"),
]


def main() -> None:
    """Measure one network and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["one-slice"])
    parser.add_argument("--keep", type=Path, required=True, help="folder of trained networks")
    parser.add_argument("--config", type=Path, help="TOML file of settings of the training")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--samples", type=int, help="of each part, for the training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=int, help="test samples; by default all")
    results.add_options(parser)
    asked = parser.parse_args()
    network = load_float(asked.network, "quantize")
    data = get_task(network.task).load()
    test = Split(*data.test.batch(slice(asked.limit)))
    truth = run(network, test.inputs).argmax(axis=1)
    top = 100.0 * float(np.mean(truth == test.targets))
    print(f"Float {top:.2f} % on {len(test):,} test samples.\n", flush=True)
    rows = []
    signals = calibrate(network, data.train.batch(slice(CALIBRATION_SAMPLES))[0])
    asked.keep.mkdir(parents=True, exist_ok=True)
    for case in asked.cases:
        options = CASES[case]
        start = time.perf_counter()
        made = round_weights(network, signals, **options)
        rows.append(row(case, "ptq", made, test, truth, top, time.perf_counter() - start))
        print(rows[-1], file=sys.stderr, flush=True)
        for seed in asked.seeds:
            kept = asked.keep / f"{asked.network.stem}-{case}-{seed}.safetensors"
            start, seconds = time.perf_counter(), None
            if not kept.exists():
                chosen = {"config": config(asked), "epochs": asked.epochs, "seed": seed}
                quantize(network, method="qat", out=kept, **chosen, **options)
                seconds = time.perf_counter() - start
            else:
                print(f"{kept} is there and not trained again", file=sys.stderr)
            made = load(kept, INTEGER_CLASSES)
            rows.append(row(case, f"qat, seed {seed}", made, test, truth, top, seconds))
            print(rows[-1], file=sys.stderr, flush=True)
    results.publish(COLUMNS, rows, asked)


def config(asked: argparse.Namespace) -> Path | None:
    """Return the file of settings, made from the options if there is none."""
    values = {"learning_rate": asked.learning_rate, "samples": asked.samples}
    lines = [f"{name} = {value}\n" for name, value in values.items() if value is not None]
    if asked.config is not None or not lines:
        found: Path | None = asked.config
        return found
    path: Path = asked.keep / "qat.toml"
    path.write_text("".join(['choose_by = "metric"\n', *lines]))
    return path


def row(
    case: str,
    method: str,
    network: IntegerNetwork,
    test: Split,
    truth: np.ndarray,
    top: float,
    seconds: float | None,
) -> list[results.Cell]:
    """Run the bit-exact simulator; return a row of the table."""
    found = IntegerTarget().run(network, test.inputs)
    predictions = found.outputs.argmax(axis=1)
    accuracy = 100.0 * float(np.mean(predictions == test.targets))
    flips = int(np.sum(predictions != truth))
    saturations = sum(found.saturations.values())
    return [case, method, accuracy, top - accuracy, flips, saturations, seconds]


if __name__ == "__main__":
    main()
