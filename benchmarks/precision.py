"""Training in bfloat16 beside float32: processor time of a step, and accuracy over seeds.

    python benchmarks/precision.py speed --save performance/precision
    python benchmarks/precision.py accuracy --save performance/precision-accuracy
    python benchmarks/precision.py psmnist --save performance/precision-psmnist

Both precisions take turns in one process with one thread; the ratio is the median of the ratios
within a turn. Inputs of the steps are random. Accuracy is of the test part of `digits`, after 30
epochs of a stack of 32 features, or of permuted MNIST, in 56 steps of 14 pixels unless `--steps`
says otherwise, after three epochs of the original LMU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import results
import torch
from torch.nn.functional import cross_entropy

from lmu_deploy.nn import LMU  # noqa: F401  (asks for huge pages before torch's first use)
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.dataset import Dataset
from lmu_deploy.training import train
from lmu_deploy.training.config import preset
from lmu_deploy.training.module import make_model

SMALL: dict[str, Any] = {"width": 32, "epochs": 30}
TASK = "psmnist"
Rows = list[list[results.Cell]]
SPEED = [
    ("work", "{}"),
    ("float32, s", ">{:.4g}"),
    ("bf16-mixed, s", ">{:.4g}"),
    ("float32 / bf16-mixed", ">{:.2f}"),
]


def product(mixed: bool) -> Callable[[], None]:
    """Return the product of a batch of 100 sequences of 784 steps with an impulse response."""
    kind = torch.bfloat16 if mixed else torch.float32
    inputs, response = torch.rand(100, 784).to(kind), torch.rand(784, 256).to(kind)
    return lambda: [inputs @ response for _ in range(5)] and None


def step(model: str, mixed: bool) -> Callable[[], None]:
    """Return a training step of a built-in network without its optimizer."""
    torch.manual_seed(0)
    task = get_task(TASK)
    config = preset(task, model)
    network = make_model(config, task).train()
    inputs = torch.rand(config.batch_size, 784, 1)
    classes = torch.randint(10, (config.batch_size,))

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = cross_entropy(network(inputs).float(), classes)
        network.zero_grad()
        loss.backward()

    return work


def speed(options: argparse.Namespace) -> Rows:
    """Time both precisions in turns."""
    torch.set_num_threads(1)
    rows: Rows = []
    works: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "five products (100, 784) by (784, 256)": (product(False), product(True))
    }
    for model in ("lmu", "parallel", "stack"):
        batch = preset(get_task(TASK), model).batch_size
        works[f"training step, {TASK}, {model}, batch {batch}"] = (
            step(model, False),
            step(model, True),
        )
    for name, pair in works.items():
        times: list[list[float]] = [[], []]
        for _ in range(options.rounds + 1):
            for spent, work in zip(times, pair, strict=True):
                start = time.process_time()
                work()
                spent.append(time.process_time() - start)
        plain, mixed = (spent[1:] for spent in times)  # the first turn warms up
        ratio = statistics.median(a / b for a, b in zip(plain, mixed, strict=True))
        rows.append([name, statistics.median(plain), statistics.median(mixed), ratio])
    return rows


ACCURACY = [
    ("seed", "{}"),
    ("stack, float32, %", ">{:.2f}"),
    ("stack, bf16-mixed, %", ">{:.2f}"),
]


def accuracy(options: argparse.Namespace) -> Rows:
    """Train a stack on digits in both precisions."""
    rows: Rows = []
    for seed in range(options.seeds):
        found = [
            train("digits", "stack", seed=seed, precision=precision, progress=False, **SMALL)
            for precision in ("32", "bf16-mixed")
        ]
        rows.append([str(seed), *(100 * each.figures["test_accuracy"] for each in found)])
    means = [statistics.mean(float(row[k] or 0) for row in rows) for k in (1, 2)]
    return [*rows, ["mean", *means]]


LAYER: dict[str, Any] = {
    "kind": "lmu",
    "units": 212,
    "order": 256,
    "hidden_to_memory": True,
    "memory_to_memory": True,
    "hidden_bias": False,
    "init": "memory",
}
PSMNIST = [("seed", "{}"), ("float32, %", ">{:.2f}"), ("bf16-mixed, %", ">{:.2f}")]


def psmnist(options: argparse.Namespace) -> Rows:
    """Train the original LMU, with feedback into the memory, on permuted MNIST."""
    torch.set_num_threads(1)
    parts = get_task(TASK).load()
    arrays = []
    for part in (parts.train, parts.test, parts.validation):
        x, y = part.batch(slice(None))
        arrays += [np.asarray(x).reshape(len(x), options.steps, -1), np.asarray(y)]
    own = Dataset(*arrays[:4], x_val=arrays[4], y_val=arrays[5], name="psmnist-short")
    config = {
        "layers": [{**LAYER, "theta": options.steps}],
        "batch_size": 100,
        "learning_rate": 0.0015,
        "schedule": "cosine",
        "clip_norm": 1.0,
    }
    rows: Rows = []
    for seed in range(options.seeds):
        found = [
            train(own, "lmu", config=config, seed=seed, precision=precision, epochs=options.epochs)
            for precision in ("32", "bf16-mixed")
        ]
        rows.append([str(seed), *(100 * each.figures["test_accuracy"] for each in found)])
    means = [statistics.mean(float(row[k] or 0) for row in rows) for k in (1, 2)]
    return [*rows, ["mean", *means]]


def main() -> None:
    """Measure one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("speed", "accuracy", "psmnist"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=56, help="of a digit, for psmnist")
    parser.add_argument("--epochs", type=int, default=3, help="for psmnist")
    parser.add_argument("--seeds", type=int, default=3, help="for psmnist and accuracy")
    results.add_options(parser)
    options = parser.parse_args()
    studies = {
        "speed": (SPEED, speed),
        "accuracy": (ACCURACY, accuracy),
        "psmnist": (PSMNIST, psmnist),
    }
    columns, study = studies[options.study]
    results.publish(columns, study(options), options, 0)


if __name__ == "__main__":
    main()
