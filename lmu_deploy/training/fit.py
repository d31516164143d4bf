"""One training on Lightning, quiet and repeatable: the same seed gives the same weights."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from lmu_deploy.checks import check_choice
from lmu_deploy.errors import InputError
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import Task, TaskData
from lmu_deploy.training.callbacks import History, KeepBest, SaveLast, check_resumable
from lmu_deploy.training.config import TrainConfig
from lmu_deploy.training.display import ShowProgress
from lmu_deploy.training.module import TrainingModule


@dataclass(frozen=True)
class Fitted:
    """A trained model, holding the weights of its best validation.

    Attributes
    ----------
    model : SequenceModel
    best_epoch : int
    validation_loss, validation_metric : float
        Of that epoch.
    history : list of dict
        Losses and metric of each epoch.
    device : str
        Where it was trained: cpu, cuda or mps. The model lies there.
    """

    model: SequenceModel
    best_epoch: int
    validation_loss: float
    validation_metric: float
    history: list[dict[str, float]]
    device: str


def fit(
    task: Task,
    data: TaskData,
    config: TrainConfig,
    seed: int,
    *,
    show: bool = True,
    checkpoint: Path | None = None,
    device: str = "auto",
    prepare: Callable[[SequenceModel], None] | None = None,
) -> Fitted:
    """Train a network.

    Parameters
    ----------
    task : Task
    data : TaskData
    config : TrainConfig
    seed : int
        Of the first weights and of the order of the training data.
    show : bool
        Show progress on standard error.
    checkpoint : path, optional
        Written after every epoch; where it exists already, training goes on from it and ends as
        it would have without the interruption.
    device : {"auto", "cpu", "cuda", "mps"}
    prepare : callable, optional
        Changes the fresh network in place before the first step, for studies of what is changed.

    Raises
    ------
    InputError
        When `checkpoint` is of another training, or there is no such device here.
    RunError
        When the loss is no longer a number.
    """
    _check_device(device)
    epochs_matter = config.schedule != "constant"
    about = config.model_dump_json(exclude=None if epochs_matter else {"epochs"})
    about = f"{task.name} {seed} {about}"
    resume = checkpoint is not None and checkpoint.exists()
    if checkpoint is not None and resume:
        check_resumable(checkpoint, about)
    with _repeatable(seed), _quiet(), tempfile.TemporaryDirectory() as scratch:
        model = SequenceModel(config.network_for(task))
        if prepare is not None:
            prepare(model)
        module = TrainingModule(model, task, data, config, seed)
        watched_falls = config.choose_by == "loss" or task.metric == "nrmse"
        best = KeepBest(config.choose_by, watched_falls, config.patience)
        history = History()
        callbacks: list[pl.Callback] = [best, history]
        if show:
            callbacks.append(ShowProgress(task.name, config.epochs))
        if checkpoint is not None:
            callbacks.append(SaveLast(checkpoint, about))
        trainer = pl.Trainer(
            max_epochs=config.epochs,
            accelerator=device,
            devices=1,
            deterministic=True,
            gradient_clip_val=config.clip_norm,
            reload_dataloaders_every_n_epochs=1,
            callbacks=callbacks,
            enable_checkpointing=checkpoint is not None,
            default_root_dir=scratch,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, ckpt_path=checkpoint if resume else None, weights_only=True)
        model.load_state_dict(best.best["weights"])
    used = trainer.strategy.root_device.type
    kept = best.best
    model = model.to(used).eval()
    return Fitted(model, kept["epoch"], kept["loss"], kept["metric"], history.rows, used)


def _check_device(device: str) -> None:
    check_choice("device", device, ("auto", "cpu", "cuda", "mps"))
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda' and torch finds none here; choose cpu or auto.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise InputError("device is 'mps' and torch finds none here; choose cpu or auto.")


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seed every generator and ask torch for repeatable sums; put all back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    # cuBLAS repeats its sums only with a fixed workspace, read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with isolate_rng():
        pl.seed_everything(seed, verbose=False)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            os.environ.pop("PL_GLOBAL_SEED", None)
            os.environ.pop("PL_SEED_WORKERS", None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold Lightning's notes and warnings back: what a user has to know comes as an error."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
