"""Japanese Vowels, sequences of different lengths: accuracy in float, integers and C by seed.

    pip install aeon
    python benchmarks/japanese_vowels.py --save japanese-vowels/accuracy

The network and its settings are those of examples/japanese_vowels.py.
"""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import numpy as np
import results

import lmu_deploy as ld

EXAMPLE = Path(__file__).parents[1] / "examples" / "japanese_vowels.py"
COLUMNS = [
    ("seed", ">{}"),
    ("parameters", ">{:,d}"),
    ("float, %", ">{:.2f}"),
    ("integers, %", ">{:.2f}"),
    ("outputs of C that differ from the integers", ">{:,d}"),
    ("outputs compared", ">{:,d}"),
]


def main() -> None:
    """Train with every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    results.add_options(parser)
    options = parser.parse_args()
    example = runpy.run_path(str(EXAMPLE))
    data = example["vowels"]()
    rows: list[list[results.Cell]] = []
    for seed in options.seeds:
        network = example["fit"](data, seed)
        integers = ld.quantize(network, data)
        found, compiled = (ld.run(integers, data, target=name) for name in ("integer", "c"))
        assert found.metric is not None and found.against_reference is not None
        differ = int((found.outputs != compiled.outputs).sum())
        figures = 100 * found.against_reference.value, 100 * found.metric.value
        rows.append([str(seed), network.n_parameters, *figures, differ, found.outputs.size])
    means = [float(np.mean([float(row[i] or 0) for row in rows])) for i in (2, 3)]
    results.publish(COLUMNS, [*rows, ["mean", None, *means, None, None]], options)


if __name__ == "__main__":
    main()
