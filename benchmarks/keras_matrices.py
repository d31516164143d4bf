"""Compare the memory matrices of keras-lmu with those of the import option matrices=keras.

    PEERS/bin/python benchmarks/keras_matrices.py keras FOLDER    (with keras-lmu and TensorFlow)
    python benchmarks/keras_matrices.py ours FOLDER               (with lmu_deploy)

The first draws random orders and windows and saves the matrices of keras-lmu; the second computes
the same and compares them bit for bit. Exit code 1 when a matrix differs. PEERS is the
environment of `peers-requirements.txt`; set ONEDNN_MAX_CPU_ISA=AVX2 there to imitate an older
processor.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

LARGE = ((64, 300.0), (100, 128.0), (150, 2000.0), (200, 784.0), (256, 784.0), (333, 1000.0))


def cases(count: int) -> list[tuple[int, float, bool]]:
    """Draw order, theta and whether theta was trained."""
    rng = np.random.default_rng(0)
    small = [(int(rng.integers(1, 65)), float(10 ** rng.uniform(0.3, 3.5))) for _ in range(count)]
    return [(*case, bool(rng.random() < 0.3)) for case in (*small, *LARGE)]


def run_keras(folder: Path, count: int) -> None:
    """Save the matrices that keras-lmu computes for each case."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    from keras_lmu import LMUCell

    arrays: dict[str, Any] = {}
    for number, (order, theta, trained) in enumerate(cases(count)):
        cell = LMUCell(1, order, theta, None, trainable_theta=trained)
        cell.build((None, 1))
        a, b = cell.A, cell.B
        if trained:  # as the cell's call does
            rate = cell.theta_inv
            a, b = cell._cont2discrete_zoh(cell._base_A * rate, cell._base_B * rate)
        arrays[f"{number}/A"], arrays[f"{number}/B"] = np.asarray(a), np.asarray(b)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "matrices.npz", **arrays)


def run_ours(folder: Path, count: int, cache: int | None) -> int:
    """Compute the matrices of each case and count those that are equal."""
    from converters.keras_lmu.matrices import first_cache_kib, keras_matrices
    from lmu_deploy.core.legendre import discretize

    cache = cache or first_cache_kib()
    equal = 0
    with np.load(folder / "matrices.npz") as keras:
        for number, (order, theta, trained) in enumerate(cases(count)):
            a, b = keras[f"{number}/A"].T, keras[f"{number}/B"][0]
            made_a, made_b = keras_matrices(order, theta, "zoh", trained, cache)
            same = np.array_equal(made_a, a) and np.array_equal(made_b, b)
            equal += same
            exact = discretize(order, theta)[0]
            gaps = (np.linalg.norm(made - a) / np.linalg.norm(a) for made in (exact, made_a))
            if not same or order > 64:
                print(
                    f"order {order}, theta {theta:g}: exact within {next(gaps):.1e}, "
                    + (f"as Keras within {next(gaps):.1e}" if not same else "as Keras equal")
                )
    print(f"{equal} of {number + 1} equal to the bit, first data cache of {cache} KiB")
    return 0 if equal == number + 1 else 1


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["keras", "ours"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--cache", type=int, help="KiB of the processor that Keras ran on")
    chosen = parser.parse_args()
    if chosen.side == "ours":
        return run_ours(chosen.folder, chosen.count, chosen.cache)
    run_keras(chosen.folder, chosen.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
