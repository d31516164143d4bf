"""Voelker et al. (2019): whether the memory has to be the derived one.

The diagonal of every discrete memory matrix (Abar) is moved by -0.01, -0.001, 0, 0.001 and 0.01,
and the network is trained again each time from the same first weights on the same batches.

    python examples/paper/perturbation.py                     # parallel LMU, all data: minutes
    python examples/paper/perturbation.py --model lmu --epochs 30     # the paper's network: days
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from lmu_deploy.nn import LMU, SequenceModel
from lmu_deploy.tasks.base import Task, get_task
from lmu_deploy.training import TrainConfig
from lmu_deploy.training.config import preset
from lmu_deploy.training.fit import fit
from lmu_deploy.training.module import make_model, predict

EPSILONS = (-0.01, -0.001, 0.0, 0.001, 0.01)


def perturb(model: SequenceModel, epsilon: float) -> None:
    """Add `epsilon` to the diagonal of Abar in every layer of a network that has one."""
    with torch.no_grad():
        for layer in model.layers:
            if isinstance(layer, LMU):
                layer.memory.a_bar.diagonal().add_(epsilon)


def retrain(task: Task, config: TrainConfig, epsilon: float, seed: int) -> dict[str, float]:
    """Train with a perturbed memory; give its metric on validation and test."""
    data = task.load()
    if config.samples is not None:
        data = data.shortened(samples=config.samples)
    with isolate_rng():
        torch.manual_seed(seed)  # the same initial weights as without a perturbation
        model = make_model(config, task)
    assert isinstance(model, SequenceModel)
    perturb(model, epsilon)
    fitted = fit(task, data, config, seed, model=model)
    outputs = predict(fitted.model, data.test, config.batch_size)
    return {
        "epsilon": epsilon,
        f"validation_{task.metric}": fitted.validation_metric,
        f"test_{task.metric}": task.score(outputs, data.test.targets),
        "best_epoch": fitted.best_epoch,
    }


def main(arguments: list[str] | None = None) -> None:
    """Retrain for every epsilon; print a row for each, and write them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="psmnist-nru")
    parser.add_argument("--model", default="parallel", choices=["parallel", "lmu"])
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--samples", type=int, help="only so many of each part of the data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a .json file")
    options = parser.parse_args(arguments)
    task = get_task(options.task)
    changes = {"epochs": options.epochs, "samples": options.samples, "adversary": 0.0}
    config = preset(task, options.model).changed({**changes, "dropout": 0.0}, "options")
    rows = []
    for epsilon in options.epsilons:
        rows.append(retrain(task, config, epsilon, options.seed))
        print("  ".join(f"{name} {value:g}" for name, value in rows[-1].items()), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
