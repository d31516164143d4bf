"""Train on data sets of aeon and statsmodels with the default settings, as a new user would.

    pip download --no-deps aeon statsmodels && unzip -q '*.whl' -d FOLDER
    python benchmarks/own_data.py FOLDER --save own-data/defaults
    python benchmarks/own_data.py FOLDER --only GunPoint --append --save own-data/defaults
    python benchmarks/own_data.py FOLDER --kinds --save own-data/kinds

The files are read as the packages hold them: `.ts` files in order of class, of different lengths,
and `.csv` files of one series. Series are given twice: cut into windows of 24 values before the one
that is asked for, and whole, with an answer at every step. The first 80 % of a series train.

`--kinds` compares kinds of network by twofold cross-validation of the training parts alone.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import results

import lmu_deploy as ld
from lmu_deploy.tasks.base import Split, stratified_parts
from lmu_deploy.tasks.preflight import baseline, not_better

CLASSES = ("JapaneseVowels", "BasicMotions", "GunPoint", "ItalyPowerDemand")
SERIES = {"sunspots": "SUNACTIVITY", "co2": "co2"}
WINDOW, SHARE = 24, 0.8
COLUMNS: results.Columns = [
    ("data", "{}"),
    ("training samples", ">{:,d}"),
    ("metric", "{}"),
    ("without a network", "{}"),
    ("", ">{:.4f}"),
    ("float", ">{:.4f}"),
    ("integers", ">{:.4f}"),
    ("warned of the level of the baseline", "{}"),
]


def read_ts(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Return sequences (steps, channels) and labels of a `.ts` file."""
    sequences, labels, in_data = [], [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        if in_data and line.strip():
            *channels, label = line.strip().split(":")
            values = [[float(v) for v in channel.split(",") if v != "?"] for channel in channels]
            sequences.append(np.array(values, np.float32).T)
            labels.append(label)
        in_data = in_data or line.strip().lower() == "@data"
    return sequences, labels


def read_series(path: Path, column: str) -> np.ndarray:
    """Return a column of a `.csv` file, without missing values."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([float(row[column]) for row in rows if row[column]], np.float32)


def datasets(folder: Path) -> Iterator[ld.Dataset]:
    """Yield every data set, the small ones first."""
    for name in reversed(CLASSES):
        parts = [folder / f"aeon/datasets/data/{name}/{name}_{p}.ts" for p in ("TRAIN", "TEST")]
        yield ld.Dataset(*read_ts(parts[0]), *read_ts(parts[1]), name=name)
    for name, column in SERIES.items():
        series = read_series(folder / f"statsmodels/datasets/{name}/{name}.csv", column)
        windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW + 1)
        cut = int(SHARE * len(windows))
        x, y = windows[:, :-1], windows[:, -1:]
        yield ld.Dataset(x[:cut], y[:cut], x[cut:], y[cut:], name=f"{name}, windows")
        cut = int(SHARE * len(series))
        first, last = series[:cut, None], series[cut:, None]
        arrays = [first[:-1]], [first[1:]], [last[:-1]], [last[1:]]
        yield ld.Dataset(*arrays, name=f"{name}, one series")


def measured(data: ld.Dataset, epochs: int | None, seed: int) -> list[results.Cell]:
    """Train with defaults and quantize; return a row."""
    network = ld.train(data, epochs=epochs, seed=seed).network
    integers = ld.quantize(network, data)
    trivial, metric = baseline(data.task), data.task.metric
    found = [
        ld.run(each, data, target=target).metric
        for each, target in ((network, "reference"), (integers, "integer"))
    ]
    values = [0.0 if each is None else each.value for each in found]
    answers = int(np.prod(data.test.y.shape[:2])) if data.task.every_step else len(data.test)
    warned = not_better(data.task, values[0], answers) is not None
    words = "yes" if warned else "no"
    return [data.name, len(data.train), metric, trivial.words, trivial.value, *values, words]


KINDS = ("lmu", "parallel", "stack")
COMPARED: results.Columns = [
    ("data", "{}"),
    ("training samples", ">{:,d}"),
    *((kind, ">{:.4f}") for kind in KINDS),
]


def compared(data: ld.Dataset, epochs: int | None, seed: int) -> list[results.Cell]:
    """Train each kind of network on one half of the training samples, and judge it on the other."""
    samples = [data.train, data.validation]
    x = [part.x[i, : _length(part, i)] for part in samples for i in range(len(part))]
    y = np.concatenate([part.y for part in samples])
    first, second = stratified_parts(y, (0.5,), seed)
    row: list[results.Cell] = [data.name, len(y)]
    for kind in KINDS:
        right = 0.0
        for parts in ((first, second), (second, first)):
            (x_in, y_in), (x_out, y_out) = (([x[i] for i in part], y[part]) for part in parts)
            half = ld.Dataset(x_in, y_in, x_out, y_out, name=f"{data.name}, {kind}")
            found = ld.train(half, kind, epochs=epochs, seed=seed).figures
            right += found["test_accuracy"] * len(y_out)
        row.append(right / len(y))
    return row


def _length(part: Split, sample: int) -> int:
    """Return the steps of a sample."""
    return part.x.shape[1] if part.lengths is None else int(part.lengths[sample])


def main() -> None:
    """Measure all data sets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, help="at most so many, instead of the default")
    parser.add_argument("--only", nargs="+", help="names of data sets; by default all")
    parser.add_argument("--kinds", action="store_true", help="compare kinds of network")
    parser.add_argument("--seed", type=int, default=0)
    results.add_options(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = []
    for data in datasets(options.folder):
        if options.only and data.name not in options.only:
            continue
        if options.kinds and data.task.kind == "regression":
            continue
        measure, columns = (compared, COMPARED) if options.kinds else (measured, COLUMNS)
        rows.append(measure(data, options.epochs, options.seed))
        results.publish(columns, rows, options, options.seed)


if __name__ == "__main__":
    main()
